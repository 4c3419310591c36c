"""Several controllers in one checkout, and several people with one cache."""

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from nemoflow import locks, manifest, need, sealing, storage
from workflow.checkout import Checkout

PLAN, OTHER = "results/data/plans/micro-facts.json", "results/data/plans/micro-equations.json"
PRODUCTS = [f"results/data/prompts/p{number}.json" for number in range(4)]
SHARED = """
[core]
    remote = far
['remote "far"']
    url = {0}/far
[cache]
    dir = {0}/cache
    shared = group
"""
AT_WORK = """
import sys
from nemoflow import manifest, sealing
contents = {path: manifest.read(path) for path in sys.argv[1:]}
print("ready", flush=True)
sys.stdin.read()
sealing.seal(contents)
sealing.push(contents)
"""


def wait_for(text: str, checkout: Checkout, controller: subprocess.Popen) -> None:
    """Wait until a controller has said something."""
    while text not in (checkout.folder / "output.txt").read_text():
        assert controller.poll() is None, (checkout.folder / "output.txt").read_text()
        time.sleep(0.1)


def test_two_controllers_work_side_by_side_but_not_on_the_same(fresh):
    with locks.product(fresh.folder / PLAN):
        first = fresh.start(*fresh.snakemake("--", PLAN))
        wait_for("waiting for process", fresh, first)
        assert "Building" in fresh.build(OTHER).stdout
        second = fresh.build(PLAN, check=False)
        assert first.poll() is None
    assert first.wait() == 0
    told = second.stdout.strip().splitlines()[-1]
    assert second.returncode == 1 and told.startswith("error: another Snakemake works in this ch")
    assert f"process {first.pid} on " in told and told.count("process ") == 1 and PLAN in told
    assert "Wait until it has ended" in told and "Do not --unlock" in told
    assert not {"Traceback", "LockException"} & set(second.stdout.replace(":", " ").split())


@pytest.fixture
def people(tmp_path, monkeypatch) -> list[Path]:
    """Two clones of one repository whose caches and remotes are one folder each."""
    for name in ("DVC_SITE_CACHE_DIR", "DVC_GLOBAL_CONFIG_DIR", "DVC_SYSTEM_CONFIG_DIR"):
        monkeypatch.setenv(name, str(tmp_path / name))
    for person in ("one", "two"):
        (tmp_path / person / ".dvc").mkdir(parents=True)
        (tmp_path / person / ".dvc" / "config").write_text(SHARED.format(tmp_path))
        subprocess.run(["git", "init", "--quiet"], cwd=tmp_path / person, check=True)
    return [tmp_path / "one", tmp_path / "two"]


def make_all(folder: Path, monkeypatch) -> dict:
    """The same products, built by whomever."""
    monkeypatch.chdir(folder)
    for path in PRODUCTS:
        for number in range(20):
            file = manifest.payload(path) / f"{number}.jsonl"
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(f"{path} {number % 19}\n" * 4000)
        manifest.write(path, {"stage": "resolve", "path": path})
    return {path: manifest.read(path) for path in PRODUCTS}


def test_what_one_has_sealed_another_has_without_a_remote(people, monkeypatch):
    one, two = people
    former = os.umask(0o077)
    try:
        contents = make_all(one, monkeypatch)
        sealing.seal(contents)
    finally:
        os.umask(former)
    cache = [one.parent / "cache", *(one.parent / "cache").rglob("*")]
    assert {path.stat().st_mode & 0o7777 for path in cache if path.is_file()} == {0o444}
    assert {path.stat().st_mode & 0o7777 for path in cache if path.is_dir()} == {0o2775}
    monkeypatch.chdir(two)
    for path in PRODUCTS:
        for file in (Path(path), Path(path).with_suffix(".dvc")):
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes((one / file).read_bytes())
    assert not (one.parent / "far").exists()
    need.need(PRODUCTS)
    assert not need.wrong_products(contents)


def test_those_who_publish_the_same_at_once_all_end_well(people, monkeypatch):
    contents = [make_all(folder, monkeypatch) for folder in people][0]
    places = [people[0], *people]  # two of them in one checkout
    workers = [
        subprocess.Popen(
            [sys.executable, "-c", AT_WORK, *PRODUCTS],
            cwd=folder,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for folder in places
    ]
    assert [worker.stdout.readline() for worker in workers] == ["ready\n"] * 3
    for worker in workers:
        worker.stdin.close()
    assert [(w.wait(), w.stderr.read()) for w in workers if w.wait()] == []
    store = storage.Storage()
    objects = {md5: size for c in contents.values() for md5, size in storage.objects(c).items()}
    assert all(store.cached(md5).exists() for md5 in objects) and not store.damaged(objects)
    assert store.on_remote(objects) == set(objects)
    assert not list((people[0].parent / "cache").rglob("*.tmp"))
    assert all(need.is_sealed(path, content) for path, content in contents.items())


def test_every_call_of_dvc_waits_for_whoever_is_at_work(monkeypatch):
    asked = []
    done = subprocess.CompletedProcess([], 0, "", "")
    monkeypatch.setattr(storage.subprocess, "run", lambda argv, **_: asked.append(argv) or done)
    assert storage.dvc("pull", "x.dvc") is None
    assert asked[0][2:] == ["dvc", "--wait-for-lock", "pull", "x.dvc"]
