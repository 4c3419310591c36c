"""Snakemake's records go to git and come back, in whatever clone, after whatever failure."""

import json
import os
import re
import subprocess
from pathlib import Path

import pytest
from snakemake import persistence
from snakemake.persistence.file import FilePersistence

from nemoflow import files, manifest, provenance

OUTPUT = "results/micro/sft/checkpoint.json"
PART = "results/data/tokens/t/web.parts/0000.json"
VOLATILE = {"starttime": 1.0, "job_hash": 3, "code": "c", "shellcmd": "s"}


@pytest.fixture
def snakemake(tmp_path, monkeypatch):
    """The records of a checkout, which is the working directory."""
    monkeypatch.chdir(tmp_path)
    return provenance.Snakemake()


def build(snakemake, output=OUTPUT, content="{}", **record):
    """What a finished job leaves: the output, its copy, and Snakemake's record."""
    files.write_whole(output, content)
    manifest.keep([output])
    ended = {"endtime": os.stat(output).st_mtime}  # as Snakemake records it
    told = {"record_format_version": 6, "params": ["spec-1"], "rule": "sft", **VOLATILE, **ended}
    told |= record
    files.write_json(snakemake.record(output), told)
    return told


def begin_again(snakemake, output=OUTPUT):
    """What Snakemake does before it re-runs a job: mark it, remove its output."""
    files.write_whole(snakemake.marker(output), "")
    Path(output).unlink()


def kept(output=OUTPUT):
    return json.loads((provenance.RECORDS / f"{output}.json").read_text())


def test_records_lie_where_snakemake_itself_looks():
    assert persistence.RECORD_FORMAT_VERSION == provenance.RECORD_FORMAT
    theirs = FilePersistence._record_path
    fake = type("P", (), {"_fetch_max_len": lambda self, subject: 255})()
    for output in (OUTPUT, PART, "results/a-b_c/eval/rl.rlvr1/mmlu.json"):
        path = theirs(fake, ".snakemake/metadata", output)
        assert str(provenance.Snakemake().record(output)) == path


def test_an_exported_record_has_nothing_that_differs_between_equal_builds(snakemake):
    build(snakemake)
    provenance.export_records(snakemake)
    assert kept() == {
        "output": OUTPUT,
        "sha256": files.sha256_of(OUTPUT),
        "record": {"record_format_version": 6, "params": ["spec-1"], "rule": "sft"},
    }


def test_a_file_that_git_brought_keeps_the_record_that_came_with_it(snakemake):
    build(snakemake)
    files.write_whole(OUTPUT, '{"of": "another machine"}')  # git pull: the file and its record
    pulled = {
        "output": OUTPUT,
        "sha256": files.sha256_of(OUTPUT),
        "record": {"record_format_version": 6, "params": ["spec-2"], "rule": "sft"},
    }
    files.write_json(provenance.RECORDS / f"{OUTPUT}.json", pulled)
    provenance.export_records(snakemake)
    provenance.restore_records(snakemake)
    assert kept() == pulled
    assert files.read_json(snakemake.record(OUTPUT)) == pulled["record"]


def test_branches_that_share_a_file_keep_their_own_records(snakemake):
    build(snakemake)
    provenance.export_records(snakemake)
    other = kept() | {"record": {"record_format_version": 6, "params": ["spec-2"], "rule": "sft"}}
    for _ in range(2):
        for branch in (other, kept()):
            files.write_json(provenance.RECORDS / f"{OUTPUT}.json", branch)  # git checkout
            provenance.export_records(snakemake)
            provenance.restore_records(snakemake)
            assert kept() == branch
            assert files.read_json(snakemake.record(OUTPUT))["params"] == branch["record"]["params"]


@pytest.mark.parametrize("output", [PART, "results/micro/report.html", "elsewhere/x.json"])
def test_temporary_foreign_and_drawn_outputs_have_no_record_in_git(snakemake, output):
    build(snakemake, output)
    provenance.export_records(snakemake)
    assert not list(provenance.RECORDS.rglob("*.json"))


def test_outputs_that_are_missing_or_incomplete_are_not_exported(snakemake):
    build(snakemake)
    build(snakemake, "results/micro/eval.json")
    Path(OUTPUT).unlink()
    files.write_whole(snakemake.marker("results/micro/eval.json"), "")
    provenance.export_records(snakemake)
    assert not list(provenance.RECORDS.rglob("*.json"))


def test_an_unchanged_record_is_not_written_again(snakemake):
    build(snakemake)
    provenance.export_records(snakemake)
    path = provenance.RECORDS / f"{OUTPUT}.json"
    os.utime(path, (1, 1))
    build(snakemake, starttime=9.0)
    provenance.export_records(snakemake)
    assert path.stat().st_mtime == 1
    build(snakemake, params=["spec-2"])
    provenance.export_records(snakemake)
    assert kept()["record"]["params"] == ["spec-2"]


def test_a_clone_gets_the_records_and_old_outputs(snakemake):
    told = build(snakemake)
    provenance.export_records(snakemake)
    snakemake.record(OUTPUT).unlink()  # a clone has provenance/ and results/ alone
    provenance.restore_records(snakemake)
    assert files.read_json(snakemake.record(OUTPUT)) == provenance.slim(told)
    assert Path(OUTPUT).stat().st_mtime == provenance.LONG_AGO


def test_a_record_that_is_there_already_leaves_the_age_of_its_output(snakemake):
    build(snakemake)
    provenance.export_records(snakemake)
    before = Path(OUTPUT).stat().st_mtime
    provenance.restore_records(snakemake)
    assert Path(OUTPUT).stat().st_mtime == before != provenance.LONG_AGO
    assert "starttime" in files.read_json(snakemake.record(OUTPUT))


def test_a_newer_local_result_keeps_its_own_record(snakemake):
    build(snakemake)
    provenance.export_records(snakemake)
    told = build(snakemake, content='{"new": 1}', params=["spec-2"])
    provenance.restore_records(snakemake)
    assert files.read_json(snakemake.record(OUTPUT)) == told


def test_records_of_another_format_are_left_alone(snakemake):
    build(snakemake, record_format_version=5)
    provenance.export_records(snakemake)
    snakemake.record(OUTPUT).unlink()
    provenance.restore_records(snakemake)
    assert not snakemake.record(OUTPUT).exists()


def test_a_failed_change_is_seen_again(snakemake):
    """Snakemake gives a failed job the record of what it tried (snakemake#3808)."""
    build(snakemake)
    provenance.export_records(snakemake)
    begin_again(snakemake)
    snakemake.marker(OUTPUT).unlink()  # it ended, badly
    files.write_json(snakemake.record(OUTPUT), {"record_format_version": 6, "params": ["spec-2"]})
    provenance.export_records(snakemake)
    assert provenance.put_back(snakemake) == [OUTPUT]
    assert Path(OUTPUT).read_text() == "{}" and Path(OUTPUT).stat().st_mtime == provenance.LONG_AGO
    assert files.read_json(snakemake.record(OUTPUT))["params"] == ["spec-1"]


def test_a_killed_change_is_seen_again(snakemake):
    build(snakemake)
    provenance.export_records(snakemake)
    begin_again(snakemake)
    provenance.export_records(snakemake)
    assert provenance.put_back(snakemake) == [OUTPUT]
    assert not snakemake.marker(OUTPUT).exists()
    assert kept()["record"]["params"] == ["spec-1"]


def test_without_its_copy_a_missing_output_gets_its_last_good_record(snakemake):
    build(snakemake)
    provenance.export_records(snakemake)
    begin_again(snakemake)
    snakemake.marker(OUTPUT).unlink()
    manifest.last(OUTPUT).unlink()  # its bytes were replaced already
    files.write_json(snakemake.record(OUTPUT), {"record_format_version": 6, "params": ["spec-2"]})
    assert provenance.put_back(snakemake) == []
    provenance.restore_records(snakemake)
    assert files.read_json(snakemake.record(OUTPUT))["params"] == ["spec-1"]


def test_a_job_that_runs_now_is_left_alone(snakemake):
    build(snakemake)
    provenance.export_records(snakemake)
    begin_again(snakemake)
    snakemake.record(OUTPUT).unlink()
    provenance.restore_records(snakemake)
    assert not snakemake.record(OUTPUT).exists() and not Path(OUTPUT).exists()


def test_a_copy_of_another_build_is_not_put_back(snakemake):
    build(snakemake)
    provenance.export_records(snakemake)
    Path(OUTPUT).unlink()
    manifest.last(OUTPUT).write_text('{"other": 1}')
    assert provenance.put_back(snakemake) == [] and not Path(OUTPUT).exists()


def test_records_of_temporary_parts_that_are_gone_are_dropped(snakemake):
    there, running = PART.replace("0000", "0001"), PART.replace("0000", "0002")
    for part in (PART, there, running):
        build(snakemake, part)
    Path(PART).unlink()
    begin_again(snakemake, running)
    provenance.restore_records(snakemake)
    left = [output for output, _ in snakemake.outputs()]
    assert PART not in left and {there, running} <= set(left)


def test_files_of_others_among_the_records_are_ignored(snakemake):
    build(snakemake)
    for name in (".DS_Store", "README.md", "abc", "_w=="):
        files.write_whole(snakemake.metadata / name, "foreign")
    files.write_whole(snakemake.metadata / "@folder" / "rest", "a long name")
    assert [output for output, _ in snakemake.outputs()] == [OUTPUT]
    provenance.export_records(snakemake)
    provenance.restore_records(snakemake)
    assert (snakemake.metadata / "abc").exists()


def test_a_record_torn_by_a_kill_does_not_stop_anything(snakemake):
    build(snakemake)
    provenance.export_records(snakemake)
    for torn in ("", '{"params": ["sp'):
        snakemake.record(OUTPUT).write_text(torn)
        provenance.export_records(snakemake)
        assert kept()["record"]["params"] == ["spec-1"]
        provenance.restore_records(snakemake)
        assert files.read_json(snakemake.record(OUTPUT))["params"] == ["spec-1"]


def test_a_clone_makes_the_copies_that_it_lacks(snakemake):
    build(snakemake)
    build(snakemake, "results/micro/eval.json")
    provenance.export_records(snakemake)
    for output in (OUTPUT, "results/micro/eval.json"):
        manifest.last(output).unlink()
    Path("results/micro/eval.json").write_text("changed since")
    provenance.keep_copies()
    assert manifest.last(OUTPUT).read_text() == "{}"
    assert not manifest.last("results/micro/eval.json").exists()


def test_nothing_at_all_is_fine(snakemake):
    provenance.export_records(snakemake)
    assert provenance.put_back(snakemake) == []
    provenance.keep_copies()
    provenance.restore_records(snakemake)
    assert list(snakemake.outputs()) == []


def test_a_build_says_who_made_it_when_and_from_what(snakemake):
    files.write_whole(OUTPUT, "{}")
    files.write_whole("input.json", "1")
    identity = {"stage": "sft"}
    provenance.record_build([OUTPUT], identity, ["input.json"], started=0.0, attempts=2)
    told = json.loads((provenance.BUILDS / f"{OUTPUT}.json").read_text())
    assert told["sha256"] == files.sha256_of(OUTPUT) and told["identity"] == identity
    assert told["inputs"] == {"input.json": files.sha256_of("input.json")}
    assert told["built"]["started"] == "1970-01-01T00:00:00Z" and told["built"]["attempts"] == 2
    assert told["built"]["commit"] == "unknown"  # no git here
    assert {"python", "snakemake", "numpy"} <= told["built"]["versions"].keys()


def test_a_commit_says_whether_tracked_files_differ_from_it(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    def git(*arguments):
        somebody = ["-c", "user.name=t", "-c", "user.email=t@localhost"]
        subprocess.run(["git", *somebody, *arguments], check=True, capture_output=True)

    git("init")
    Path("x").write_text("1")
    git("add", "x")
    git("commit", "-m", "one")
    git("tag", "v1")
    assert re.fullmatch(r"[0-9a-f]{40}", provenance.commit())
    Path("new").write_text("untracked")
    assert not provenance.commit().endswith("+")
    for path in ("results/a.json", "provenance/b.json", "dvc.yaml"):
        files.write_json(path, {})
    git("add", "results", "provenance", "dvc.yaml")
    assert not provenance.commit().endswith("+")  # jobs write these themselves
    Path("x").write_text("2")
    assert re.fullmatch(r"[0-9a-f]{40}\+", provenance.commit())
