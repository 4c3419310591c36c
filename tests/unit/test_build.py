"""A stage at work: what it leaves behind when it ends, fails, or is killed at any moment."""

from pathlib import Path

import pytest

from nemoflow import build as builds
from nemoflow import files, manifest
from nemoflow.errors import UserError
from nemoflow.machine import SMALLEST
from nemoflow.need import need
from small_stage import IDENTITY, spec


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    """Work in a folder of its own, as in a repository's root."""
    monkeypatch.chdir(tmp_path)


def make(content="1", output="results/x.json", fail=False, **identity):
    """A product of one file."""
    with builds.Build("sft", spec(**identity), [], [output]) as build:
        folder = build.fresh_payload()
        (folder / "file").write_text(content)
        build.replace_payload(folder)
        if fail:
            raise UserError("no more")
        build.finish(rows=1)


def test_a_finished_stage_leaves_manifest_copy_and_provenance():
    make()
    content = need(["results/x.json"])[0]
    assert content["rows"] == 1 and content["identity"] == IDENTITY
    assert manifest.last("results/x.json").read_bytes() == Path("results/x.json").read_bytes()
    told = files.read_json("provenance/builds/results/x.json.json")
    assert told["identity"] == IDENTITY and told["built"]["seconds"] >= 0
    assert {p.name for p in Path("results").iterdir()} == {
        "x", "x.json", ".x.stat", ".x.lock", ".x.json.last",
    }  # fmt: skip


def test_a_stage_that_fails_before_its_bytes_change_keeps_the_former_build():
    make("1")
    with pytest.raises(UserError), builds.Build("sft", spec(), [], ["results/x.json"]) as build:
        (build.fresh_payload() / "file").write_text("2")
        raise UserError("no more")
    assert Path("results/x/file").read_text() == "1"
    assert manifest.last("results/x.json").exists()
    make("3")  # what was left half-made is no obstacle
    assert [p.name for p in Path("results").iterdir() if p.name.startswith(".x.n")] == []


def test_a_stage_that_fails_after_its_bytes_changed_has_no_copy_to_put_back():
    make("1")
    with pytest.raises(UserError):
        make("2", fail=True)
    assert not manifest.last("results/x.json").exists()


def test_a_stage_that_fails_says_nothing_in_provenance():
    with pytest.raises(UserError):
        make(fail=True)
    assert not Path("provenance").exists()


def test_halves_of_small_files_that_a_killed_job_left_are_removed():
    make()
    written = ("results/x.json", "results/.x.json.last", "results/.x.stat")
    for path in map(Path, (*written, "provenance/builds/results/x.json.json")):
        path.with_name(f".{path.name}.4711.tmp").touch()
    make()
    assert [str(path) for path in Path().rglob("*.tmp")] == []


def test_parts_are_joined_without_reading_their_bytes_again(monkeypatch):
    parts = [f"results/web.parts/{i:04d}.json" for i in range(3)]
    for part in parts:
        make(part, output=part)
    read = []
    real = manifest.md5_of
    monkeypatch.setattr(manifest, "md5_of", lambda path: (read.append(path), real(path))[1])
    with builds.Build("sft", spec(), parts[:2], ["results/web.json"]) as build:
        build.need(*parts[:2])
        build.join_payloads(parts[:2])
        build.finish()
    assert read == []
    listed = [file["path"] for file in manifest.read("results/web.json")["files"]]
    assert listed == ["0000/file", "0001/file"]  # no lock, stamp or third part
    assert need(["results/web.json"])
    assert not Path("results/web/0002").exists()


def test_a_dry_run_prints_the_line_and_does_nothing_else(capsys):
    spec()
    product = "results/x/sft/checkpoint.json"
    before = sorted(Path().rglob("*"))
    told = {"spec": "spec.json", "checkpoint": product, "curve": "c.csv", "machine": SMALLEST}

    @builds.heavy
    def sft(**told):
        raise AssertionError("it works")

    sft(**told, dry_run=True)
    assert capsys.readouterr().out.endswith(
        "nemoflow.engines.local results/x/sft/progress/job.json\n"
    )
    assert sorted(Path().rglob("*")) == before
    with pytest.raises(AssertionError, match="it works"):
        sft(**told)
