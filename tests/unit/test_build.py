"""A stage at work: what it leaves behind when it ends, fails, or is killed at any moment."""

import json
import os
import shutil
from pathlib import Path

import pytest

from nemoflow import build as builds
from nemoflow import checkpoint, files, manifest, provenance
from nemoflow.errors import UserError
from nemoflow.need import need

IDENTITY = {"stage": "sft", "version": 1, "engine": "local", "seed": 3}
SFT = ("results/x/sft/checkpoint.json", "results/x/sft/curve.csv")


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    """Work in a folder of its own, as in a repository's root."""
    monkeypatch.chdir(tmp_path)


def spec(**identity):
    told = {
        "stage": "sft",
        "run": "x",
        "identity": {**IDENTITY, **identity},
        "options": {"keep": 2},
    }
    files.write_json("spec.json", told)
    return "spec.json"


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


class Engine:
    """Stands in for the training process: leaves a final checkpoint, as an engine does."""

    def __init__(self, monkeypatch):
        self.jobs, self.dies = [], None
        monkeypatch.setattr(builds.launch, "run", self.run)

    def run(self, argv, log, keep_open):
        job = files.read_json(argv[-1])
        self.jobs.append(job)
        progress = Path(job["progress"])
        if self.dies:
            raise UserError(self.dies)
        if job["task"] == "sft":
            step = 1 + int((checkpoint.newest(progress) or Path("step_0000000")).name[5:])
            with checkpoint.writing(progress, step) as folder:
                (folder / "model").write_text(f"weights {job['config']['seed']}")
                files.write_json(folder / "state.json", {"step": step, "tokens": 10 * step})
            line = {"step": step, "loss": 1.5, "seconds": 1.0, "tokens_per_second": 1.0}
            (progress / "metrics.jsonl").write_text(json.dumps(line) + "\n")
            checkpoint.finish(progress, step)


@pytest.fixture
def engine(monkeypatch):
    return Engine(monkeypatch)


def train(inputs=(), **identity):
    with builds.Build("sft", spec(**identity), inputs, SFT) as build:
        build.finish(**builds.train(build, "sft", "sft", "sft.log", {"init": "i", "data": "d"}))


def test_training_publishes_its_last_checkpoint_and_curve(engine):
    train()
    content = need([SFT[0]])[0]
    assert (content["step"], content["tokens"]) == (1, 10)
    assert Path(SFT[1]).read_text() == "step,loss\n1,1.5\n"
    assert files.read_json(f"provenance/builds/{SFT[0]}.json")["built"]["attempts"] == 1
    job = engine.jobs[0]
    assert job["options"] == {"keep": 2} and job["seed"] == 3 and job["title"] == "sft"
    assert job["inputs"] == {"init": "i", "data": "d"} and job["config"] == IDENTITY


def test_what_was_trained_and_not_recorded_is_adopted(engine, capfd):
    train()
    before = Path(SFT[0]).read_bytes()
    for output in SFT:
        Path(output).unlink()  # as Snakemake does before it runs the rule again
    train()
    assert Path(SFT[0]).read_bytes() == before and len(engine.jobs) == 1
    assert "trained before for this very spec" in capfd.readouterr().err


@pytest.mark.parametrize("moment", ["before publishing", "former set aside", "renamed"])
def test_a_kill_while_publishing_costs_nothing(engine, monkeypatch, moment):
    train(seed=4)

    class Killed(BaseException):
        pass

    def publish(progress, target):
        if moment == "former set aside":
            target.rename(target.with_name(f".{target.name}.former"))
        if moment == "renamed":
            real(progress, target)
        raise Killed

    real = checkpoint.publish
    monkeypatch.setattr(checkpoint, "publish", publish)
    with pytest.raises(Killed):
        train()
    assert not manifest.last(SFT[0]).exists()
    monkeypatch.setattr(checkpoint, "publish", real)
    train()
    assert Path("results/x/sft/checkpoint/model").read_text() == "weights 3"
    assert len(engine.jobs) == 2
    need([SFT[0]])


def test_bytes_that_were_exchanged_since_are_not_adopted(engine, capfd):
    train()
    Path("results/x/sft/checkpoint/model").write_text("another's")
    Path(SFT[0]).unlink()
    train()
    assert "not what was published here; trained again" in capfd.readouterr().err
    assert len(engine.jobs) == 2
    assert Path("results/x/sft/checkpoint/model").read_text() == "weights 3"


def test_another_spec_or_other_inputs_start_afresh_and_say_so(engine, capfd):
    train()
    train(seed=4)
    assert (
        "holds the work of another spec or other inputs; starting afresh" in capfd.readouterr().err
    )
    files.write_json("input.json", 1)
    train(["input.json"], seed=4)
    files.write_json("input.json", 2)
    train(["input.json"], seed=4)
    assert len(engine.jobs) == 4
    assert manifest.read(SFT[0])["identity"]["seed"] == 4


def test_a_failed_training_keeps_its_work_and_counts_its_attempts(engine, capfd):
    engine.dies = "time limit"
    for _ in range(2):
        with pytest.raises(UserError, match="time limit"):
            train()
    with checkpoint.writing("results/x/sft/progress", 6) as folder:
        (folder / "model").write_text("half-way")
    engine.dies = None
    train()
    assert (
        "sft: attempt 3 goes on from results/x/sft/progress/step_0000006" in capfd.readouterr().err
    )
    assert manifest.read(SFT[0])["step"] == 7
    assert files.read_json(f"provenance/builds/{SFT[0]}.json")["built"]["attempts"] == 3


def test_an_engine_that_ends_without_a_result_is_no_success(engine, monkeypatch):
    """The former build's checkpoint must never be recorded as the new spec's."""
    train()
    monkeypatch.setattr(builds.launch, "run", lambda *arguments: None)
    with pytest.raises(UserError, match="without a finished checkpoint"):
        train(seed=4)


def test_a_changed_option_goes_on_with_the_same_work(engine):
    engine.dies = "killed"
    with pytest.raises(UserError):
        train()
    engine.dies = None
    told = files.read_json("spec.json")
    belongs = files.read_json("results/x/sft/progress/job.json")["belongs_to"]
    files.write_json("spec.json", {**told, "options": {"keep": 9}})
    with builds.Build("sft", "spec.json", [], SFT) as build:
        build.finish(**builds.train(build, "sft", "sft", "l", {}))
    assert engine.jobs[-1]["options"] == {"keep": 9} and engine.jobs[-1]["belongs_to"] == belongs


def test_a_stage_needs_a_spec_and_its_inputs(engine):
    with pytest.raises(UserError, match="nothing.json: there is no such spec"):
        builds.Build("sft", "nothing.json", [], SFT)
    with pytest.raises(UserError, match="blend.json: there is no such product; build it first"):
        builds.Build("sft", spec(), ["spec.json", "blend.json"], SFT)
    with builds.Build("sft", spec(), [], SFT) as build:
        pytest.raises(UserError, build.need, "results/x.json")
        shutil.copy("spec.json", SFT[0])
        shutil.copy("spec.json", SFT[1])
    assert provenance.BUILDS.exists()


def test_the_time_of_a_job_is_that_of_all_its_attempts_and_adopting_it_adds_none(
    engine, monkeypatch
):
    """A job is killed after 100 s, ends after 50 s more, and is later recorded once again."""

    def built():
        return files.read_json(f"provenance/builds/{SFT[0]}.json")["built"]

    clock = [1000.0]
    monkeypatch.setattr(builds.time, "time", lambda: clock[0])
    engine.dies = "killed"
    with pytest.raises(UserError):
        train()
    for path in Path("results/x/sft/progress").iterdir():
        os.utime(path, (1100.0, 1100.0))
    engine.dies, clock[0] = None, 5000.0
    work = builds.launch.run

    def run(*told):
        work(*told)
        clock[0] += 50.0

    monkeypatch.setattr(builds.launch, "run", run)
    train()
    assert (built()["seconds"], built()["attempts"]) == (150.0, 2)
    assert built()["started"] == "1970-01-01T00:16:40Z"  # the first attempt's
    for again in (8000.0, 9000.0):
        clock[0] = again
        for output in SFT:
            Path(output).unlink()
        train()
        assert (built()["seconds"], built()["attempts"]) == (150.0, 2)
        assert built()["started"] == "1970-01-01T00:16:40Z"
