"""Sealing, pushing and pulling that were cut off: the same command goes on, and nothing is half."""

import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import boto3
import pytest
from moto.server import ThreadedMotoServer

from nemoflow import manifest, sealing, storage
from nemoflow.errors import UserError
from nemoflow.manifest import payload, read
from nemoflow.need import need
from tamper import FIRST, LAST, SFT, refused, remote, remove, told
from workflow.checkout import TARGET

SEAL_AND_DIE = """
import os, runpy, shutil, signal, sys
from pathlib import Path
import nemoflow.stages, nemoflow.storage
nemoflow.storage.Storage()  # imports what it needs
CHANGES = ("open", "os.rename", "os.link", "os.remove", "os.chmod", "os.mkdir")
sys.argv = ["seal.py", "--checkpoint", CHECKPOINT, "--output", "mark"]
def seal(last):
    count = 0
    def kill(event, arguments):
        nonlocal count
        if event in CHANGES:
            count += 1
            if count == last:
                os.kill(os.getpid(), signal.SIGKILL)
    sys.addaudithook(kill)
    try:
        runpy.run_path("workflow/scripts/seal.py", run_name="__main__")
    finally:
        Path("count").write_text(str(count))
def forked(last):
    if child := os.fork():
        return os.waitpid(child, 0)[1]
    seal(last)
def afresh():
    shutil.rmtree(".dvc/cache")
    for path in [*Path("results").rglob("*.dvc"), *Path("results").rglob(".*.lock")]:
        path.unlink()
afresh()
assert forked(0) == 0
total = int(Path("count").read_text())
for moment in range(10):
    afresh()
    assert forked(total * (2 * moment + 1) // 20) == signal.SIGKILL
    if Path(".dvc/cache").exists():
        shutil.copytree(".dvc/cache", f"killed/{moment}/cache")
    for pointer in Path("results").rglob("*.dvc"):
        (Path(f"killed/{moment}") / pointer).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(pointer, f"killed/{moment}/{pointer}")
    assert forked(0) == 0
"""


def test_a_kill_while_sealing_leaves_no_pointer_without_its_bytes(checkout):
    """The process dies at ten of the moments at which it changes a file; then it is run again."""
    done = checkout.run(sys.executable, "-c", SEAL_AND_DIE.replace("CHECKPOINT", repr(FIRST)))
    assert done.returncode == 0, done.stdout
    sealed = []
    for moment in range(10):
        folder = Path(f"killed/{moment}")
        pointers = [path.relative_to(folder) for path in folder.rglob("*.dvc")]
        for pointer in pointers:
            for md5 in storage.objects(read(pointer.with_suffix(".json"))):
                path = folder / "cache/files/md5" / md5[:2] / md5[2:]
                assert manifest.md5_of(path) == md5.removesuffix(".dir"), pointer
        sealed.append(len(pointers))
    assert sealed[0] == 0 < sealed[6] < sealed[-1] < len(sealing.heavy([FIRST])) + 1
    assert "all right" in told(FIRST)


def test_a_remote_that_fails_in_between_is_gone_on_with(checkout, capsys):
    """An object's place on the remote is taken while pushing, and while pulling."""
    sealed = sealing.heavy([TARGET])
    shutil.rmtree("../remote")
    remote(SFT).mkdir(parents=True)
    with pytest.raises(UserError, match=r"1 objects did not arrive .*the same command sends the"):
        sealing.push(sealed)
    arrived = [path for path in Path("../remote").rglob("*") if path.is_file()]
    assert arrived
    remote(SFT).rmdir()
    ages = {path: path.stat().st_mtime_ns for path in arrived}
    assert sealing.push(sealed) > 0
    assert {path: path.stat().st_mtime_ns for path in arrived} == ages  # sent once
    assert sealing.push(sealed) == 0
    shutil.rmtree(".dvc/cache")
    remove(SFT, LAST)
    kept = remote(SFT).rename("../kept")
    remote(SFT).mkdir()
    assert "nothing was built from it" in refused(SFT, LAST)
    remote(SFT).rmdir()
    kept.rename(remote(SFT))
    need([SFT, LAST])


@pytest.mark.long
def test_a_server_that_stops_in_between_is_gone_on_with(checkout, monkeypatch):
    for key in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(key, "x")
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    server = serve(0)
    host, port = server.get_host_and_port()
    url = f"http://{host}:{port}"
    boto3.client("s3", endpoint_url=url, region_name="us-east-1").create_bucket(Bucket="results")
    checkout.dvc("remote", "add", "--default", "--force", "storage", "s3://results")
    checkout.dvc("remote", "modify", "storage", "endpointurl", url)
    sealed = sealing.heavy([TARGET])

    def stopping(sizes):
        for number, md5 in enumerate(sizes):
            if number == 5:
                server.stop()
            yield [md5]

    with monkeypatch.context() as patched:
        patched.setattr(storage, "batches", stopping)
        with pytest.raises(UserError, match="1 objects did not arrive"):
            sealing.push(sealed)
    with pytest.raises(UserError, match="cannot be asked"):
        sealing.push(sealed)
    server = serve(port)
    assert 0 < sealing.push(sealed) < sum(content["size"] for content in sealed.values())
    shutil.rmtree(".dvc/cache")
    remove(SFT)
    server.stop()
    assert f"{payload(SFT)}: " in refused(SFT)
    server = serve(port)
    need([SFT])
    server.stop()


def serve(port: int) -> ThreadedMotoServer:
    """An S3 server on loopback; what it holds outlives it."""
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=port, verbose=False)
    server.start()
    return server


@pytest.fixture
def small_disk(tmp_path) -> Iterator[Callable[[str, int], None]]:
    """Mounts a file system of so many kB somewhere, or gives the one there another size."""
    mounted: list[str] = []

    def mount(folder: str, size: int) -> None:
        Path(folder).mkdir(parents=True, exist_ok=True)
        options = ["-o", f"{'remount,' if folder in mounted else ''}size={size}k"]
        done = subprocess.run(["mount", "-t", "tmpfs", *options, "none", folder])
        if done.returncode:
            pytest.skip("no file system may be mounted here: not root")
        mounted.append(folder)

    yield mount
    for folder in set(mounted):
        subprocess.run(["umount", "--lazy", folder], check=True)


def test_a_full_disk_of_the_cache_is_told_and_gone_on_with(checkout, small_disk):
    shutil.rmtree(".dvc/cache")
    for pointer in Path("results").rglob("*.dvc"):
        pointer.unlink()
    small_disk(".dvc/cache", 800)
    seal = [sys.executable, "workflow/scripts/seal.py", "--checkpoint", LAST, "--output", "mark"]
    done = checkout.run(*seal)
    assert done.returncode == 1 and "Traceback" not in done.stdout, done.stdout
    assert "error: no space left on the device" in done.stdout and not Path("mark").exists()
    store = storage.Storage()
    pointers = list(Path("results").rglob("*.dvc"))
    for pointer in pointers:
        objects = storage.objects(read(pointer.with_suffix(".json")))
        assert all(store.cached(md5).exists() for md5 in objects) and not store.damaged(objects)
    small_disk(".dvc/cache", 8000)
    checkout.run(*seal, check=True)
    assert len(list(Path("results").rglob("*.dvc"))) > len(pointers)
    assert "all right" in told(LAST)


def test_a_full_disk_of_the_workspace_is_told_and_gone_on_with(checkout, small_disk):
    remove(SFT)
    folder = Path(SFT).parent
    shutil.copytree(folder, "kept")
    small_disk(str(folder), 300)
    shutil.copytree("kept", folder, dirs_exist_ok=True, ignore=shutil.ignore_patterns("progress"))
    assert f"kB to pull, but the disk of {folder} has room for" in refused(SFT)
    small_disk(str(folder), 3000)
    need([SFT])


def test_what_does_not_fit_is_not_begun(checkout, small_disk):
    shutil.rmtree(".dvc/cache")
    small_disk(".dvc/cache", 400)
    remove(SFT)
    assert "kB to pull, but the disk of" in refused(SFT)
    assert not payload(SFT).exists()
