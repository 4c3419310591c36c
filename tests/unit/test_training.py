"""Training in a stage: what it keeps and publishes, and how it goes on after any end."""

import json
import os
import shutil
from pathlib import Path

import pytest

from nemoflow import build as builds
from nemoflow import checkpoint, files, manifest, provenance, training
from nemoflow.errors import UserError
from nemoflow.machine import Machine
from nemoflow.need import need
from small_stage import IDENTITY, SFT, spec


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    """Work in a folder of its own, as in a repository's root."""
    monkeypatch.chdir(tmp_path)


class Engine:
    """Stands in for the training process: leaves a final checkpoint, as an engine does."""

    def __init__(self, monkeypatch):
        self.jobs, self.dies = [], None
        monkeypatch.setattr(training.running, "run", self.run)

    def run(self, line, log, keep_open):
        job = files.read_json(line.argv[-1])
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
        inputs = {"init": "i", "data": "d"}
        build.finish(**training.train(build, "sft", "sft", "sft.log", inputs, Machine()))


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
    monkeypatch.setattr(training.running, "run", lambda *arguments: None)
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
        build.finish(**training.train(build, "sft", "sft", "l", {}, Machine()))
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
    monkeypatch.setattr(training.time, "time", lambda: clock[0])
    engine.dies = "killed"
    with pytest.raises(UserError):
        train()
    for path in Path("results/x/sft/progress").iterdir():
        os.utime(path, (1100.0, 1100.0))
    engine.dies, clock[0] = None, 5000.0
    work = training.running.run

    def run(*told):
        work(*told)
        clock[0] += 50.0

    monkeypatch.setattr(training.running, "run", run)
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


def test_a_training_that_stopped_itself_is_refused_before_it_takes_a_gpu(engine):
    engine.dies = "stopped"
    with pytest.raises(UserError):
        train()
    told = {"step": 12, "reason": "loss nan and gradient norm 1.0: not finite"}
    files.write_json("results/x/sft/progress/stopped.json", told)
    engine.dies = None
    with pytest.raises(UserError, match="stopped itself at step 12.*lower schedule.peak"):
        train()
    assert len(engine.jobs) == 1
    Path("results/x/sft/progress/stopped.json").unlink()
    train()
    assert files.read_json(f"provenance/builds/{SFT[0]}.json")["built"]["attempts"] == 2


def test_a_torn_checkpoint_is_skipped_and_said(engine, capfd):
    engine.dies = "killed"
    with pytest.raises(UserError):
        train()
    torn = Path("results/x/sft/progress/megatron/iter_0000200")
    torn.mkdir(parents=True)
    engine.dies = None
    train()
    told = capfd.readouterr().err
    assert "iter_0000200 was being written when its job ended (no .metadata in it)" in told
    assert not torn.exists() and "goes on from" not in told


def test_a_full_disk_stops_a_job_before_it_starts(engine, monkeypatch):
    def full(*told):
        raise UserError("free some")

    monkeypatch.setattr(training.room, "check", full)
    with pytest.raises(UserError, match="free some"):
        train()
    assert engine.jobs == []


def test_window_and_milestones_are_products_of_their_own(engine):
    """`merge` reads the window; neither is part of the checkpoint's bytes."""
    progress = Path("results/x/sft/progress")

    def save(*steps):
        for step in steps:
            with checkpoint.writing(progress, step) as folder:
                (folder / "model").write_text(f"{step}")

    engine.dies = "killed"
    with pytest.raises(UserError):
        train()
    save(2, 4, 5)
    engine.dies = None
    options = {"keep": 2, "milestones": 5, "window": {"iterations": 3, "every": 2}}
    with builds.Build("sft", spec(options), [], SFT) as build:
        inputs = {"init": "i", "data": "d"}
        build.finish(**training.train(build, "sft", "sft", "sft.log", inputs, Machine()))
    window, milestones, made = need(
        ["results/x/sft/window.json", "results/x/sft/milestones.json", SFT[0]]
    )
    assert (window["steps"], milestones["steps"], made["step"]) == ([4], [5], 6)
    assert [file["path"] for file in made["files"]] == ["model", "state.json"]
    assert [file["path"] for file in window["files"]] == ["step_0000004/model"]
    train(seed=4)  # another spec, without window
    assert not Path("results/x/sft/window.json").exists()
    assert not Path("results/x/sft/window").exists()
