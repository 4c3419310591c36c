"""Two machines and an S3 server: what one has built and published, the other need not build."""

import logging
import os
from collections import Counter

import boto3
import pytest
from moto.server import ThreadedMotoServer

from small_browser import look_over
from workflow.checkout import TARGET, Checkout

SFT = "schedule: {warmup_iterations: 2, end_iteration: 12}"
AFTER_SFT = Counter(sft=1, rl=2, export=3, eval_task=4, eval=1, report=1)
REPORT = "results/micro/report.html"
SECRET = "s3cr3t-of-the-remote"


@pytest.fixture(scope="module")
def url():
    """A bucket on a loopback S3 server, its keys in the environment."""
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    address = "http://{}:{}".format(*server.get_host_and_port())
    os.environ.update(AWS_ACCESS_KEY_ID="somebody", AWS_SECRET_ACCESS_KEY=SECRET)
    boto3.client("s3", endpoint_url=address, region_name="us-east-1").create_bucket(
        Bucket="nemoflow"
    )
    yield address
    server.stop()


@pytest.fixture(scope="module")
def machines(built, url, tmp_path_factory) -> tuple[Checkout, Checkout]:
    """A checkout that built and published the run, and a clone of what it committed."""
    folder = tmp_path_factory.mktemp("machines")
    first = built.copy(folder / "first")
    first.git("init", "--quiet", "--bare", "--initial-branch=main", str(folder / "origin"))
    first.dvc("remote", "add", "--default", "storage", "s3://nemoflow/dvc")
    first.dvc("remote", "modify", "storage", "endpointurl", url)
    first.commit_all()
    told = first.build("results/micro/publish").stdout
    assert "21 products published" in told and "git add .dvc dvc.yaml provenance results/" in told
    assert first.planned("results/micro/publish") == Counter()
    first.commit_all()
    first.git("remote", "add", "origin", str(folder / "origin"))
    first.git("push", "--quiet", "--set-upstream", "origin", "main")
    first.git("clone", "--quiet", str(folder / "origin"), str(folder / "second"))
    return first, Checkout(folder / "second")


def heavy(checkout: Checkout) -> set[str]:
    """The products whose bytes are here."""
    return {
        path.with_suffix("").relative_to(checkout.folder / "results").as_posix()
        for path in (checkout.folder / "results").rglob("*.dvc")
        if path.with_suffix("").exists()
    }


def test_every_pointer_is_seen_by_dvc(machines):
    _, second = machines
    seen = second.dvc("list", ".", "results", "-R", "--dvc-only").split()
    folders = {path.with_suffix("") for path in (second.folder / "results").rglob("*.dvc")}
    names = {path.relative_to(second.folder / "results").as_posix() for path in folders}
    assert len(names) == 21
    assert {name for name in names if any(file.startswith(f"{name}/") for file in seen)} == names


def test_what_one_publishes_the_other_need_not_build(machines):
    first, second = machines
    assert second.planned() == Counter() and heavy(second) == set()
    second.edit("config/micro.yaml", SFT, SFT.replace("{", "{peak: 5e-4, "))
    assert second.planned(TARGET, REPORT) == AFTER_SFT
    told = second.nemoflow("pull", "--dry-run", REPORT)
    assert "micro/pretrain/phase2/checkpoint" in told and "tokens" not in told
    done = second.build(TARGET, REPORT)
    fetched = heavy(second) - {"micro/sft/checkpoint"}
    assert fetched >= {"micro/pretrain/phase2/checkpoint", "data/packed/micro"}, done.stdout
    assert not [name for name in fetched if "tokens/" in name or "phase1" in name]
    assert "micro/eval/pretrain/micro_arithmetic" in fetched  # samples that the report shows
    second.build("results/micro/publish")
    second.commit_all()
    second.git("push", "--quiet")
    first.git("pull", "--quiet")
    assert first.planned() == Counter()
    first.dvc("pull")
    assert first.planned() == Counter()
    assert first.git("status", "--short") == ""
    assert "all right" in first.nemoflow("verify", TARGET)
    compared = first.nemoflow("compare", "HEAD~1", "HEAD")
    assert "sft.schedule.peak" in compared and "0.0005" in compared


def test_the_page_of_a_clone_is_sound(machines, chromium):
    _, second = machines
    look_over(chromium, second.folder / REPORT)


def test_no_secret_is_written_down(machines):
    for checkout in machines:
        for path in checkout.folder.rglob("*"):
            if path.is_file():
                assert SECRET.encode() not in path.read_bytes(), path


def test_a_secret_in_the_file_that_git_keeps_is_refused(copy):
    copy.git("init", "--quiet")
    copy.dvc("remote", "add", "--default", "storage", "s3://nemoflow/dvc")
    copy.dvc("remote", "modify", "storage", "secret_access_key", SECRET)
    done = copy.run(*copy.snakemake("-n", "--", "results/micro/publish"))
    assert done.returncode == 1 and SECRET not in done.stdout
    assert ".dvc/config: secret_access_key of remote storage is a secret" in done.stdout


def test_branches_with_two_configs_have_nothing_to_do(machines, tmp_path):
    _, second = machines
    branches = second.copy(tmp_path / "branches")
    branches.git("branch", "--force", "before", "HEAD~1")
    for _ in range(2):
        for branch in ("before", "main"):
            branches.git("checkout", "--quiet", branch)
            assert branches.planned() == Counter()
            assert branches.git("status", "--short") == ""
