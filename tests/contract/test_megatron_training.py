"""The megatron engine's program, killed and stopped, between Megatron-Bridge's own parts.

`standin_loop` says what is a stand-in and what is Megatron-Bridge's own.
"""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from nemoflow import checkpoint, iterations, metrics, specs, torch_dist
from nemoflow.config import Config
from nemoflow.files import read_json, write_json

ROOT = Path(__file__).parents[2]
CONFIG = Config(ROOT / "config")
STOP, SAVE, LOG = 20, 4, 2
KILLED = -signal.SIGKILL


def identity():
    """Super3's first phase on the tiny run's model, for 20 steps."""
    made = specs.of(CONFIG, "pretrain", {"run": "super3", "phase": "phase1"}).identity
    tiny = specs.of(CONFIG, "pretrain", {"run": "super3-tiny", "phase": "phase1"}).identity
    made = made | {"model": tiny["model"], "stop_iteration": STOP, "precision": "bf16"}
    made |= {"batch": {"global": 8, "micro": 1, "sequence": 64}}
    made["parallel"] = made["parallel"] | {"tensor": 1, "expert": 1, "sequence": False}
    return made


class Program:
    """Runs jobs, each in a process of its own that has Megatron-Bridge imported already."""

    def __init__(self):
        script = Path(__file__).with_name("standin_loop.py")
        self.process = subprocess.Popen(
            [sys.executable, "-W", "ignore", script],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": str(ROOT / "workflow")},
        )

    def start(self, progress, env=None, inputs=None, config=None, **asked):
        """Start a job in `progress`; the number of its process."""
        progress.mkdir(parents=True, exist_ok=True)
        job = {
            "task": "pretrain",
            "title": "pretrain.phase1",
            "config": identity() | (config or {}),
            "options": {
                "log_every": LOG, "save_every": SAVE, "keep": 2, "status_seconds": 5.0, "spike": 3.0
            },
            "seed": 1,
            "inputs": {"blend": None, "init": None, **(inputs or {})},
            "progress": str(progress),
        }  # fmt: skip
        write_json(progress / "job.json", job)
        self.log = progress / "log"
        told = {"job": str(progress / "job.json"), "log": str(self.log), "env": env or {}}
        self.process.stdin.write(json.dumps({**told, "asked": asked}) + "\n")
        self.process.stdin.flush()
        return int(self.answer())

    def wait(self):
        """The exit code of the job that was started; below 0 the signal that ended it."""
        return int(self.answer())

    def run(self, progress, **told):
        """Start a job and wait for it."""
        self.start(progress, **told)
        return self.wait()

    def answer(self):
        """The next line, without what Megatron-Bridge prints."""
        for line in self.process.stdout:
            if line.strip().lstrip("-").isdigit():
                return line
        raise AssertionError("the stand-in has ended")

    def close(self):
        """End it."""
        self.process.stdin.close()
        self.process.wait()


@pytest.fixture(scope="module")
def program():
    """The program, started once."""
    made = Program()
    yield made
    made.close()


@pytest.fixture(scope="module")
def undisturbed(program, tmp_path_factory):
    """The progress of a job that nothing happened to."""
    progress = tmp_path_factory.mktemp("undisturbed")
    assert program.run(progress) == 0, program.log.read_text()
    return progress


def weights(progress):
    """The bytes of the result's shards, by name."""
    folder = checkpoint.final(progress) / f"iter_{STOP:07d}"
    return {path.name: path.read_bytes() for path in folder.glob("*.distcp")}


def lines(progress):
    """The metrics without timings."""
    found = metrics.read(progress / "metrics.jsonl")
    return [{k: v for k, v in line.items() if k not in metrics.TIMINGS} for line in found]


def same(progress, undisturbed):
    """Whether a job has ended as one that nothing happened to."""
    return weights(progress) == weights(undisturbed) and lines(progress) == lines(undisturbed)


def test_the_result_is_a_folder_that_megatron_loads(undisturbed):
    final = checkpoint.final(undisturbed)
    assert read_json(final / "state.json") == {
        "task": "pretrain", "step": STOP, "tokens": STOP * 8 * 64, "model": identity()["model"]
    }  # fmt: skip
    found = torch_dist.iteration_folder(final)
    assert found.name == f"iter_{STOP:07d}" and iterations.flaw(found) is None
    assert torch_dist.read_metadata(found / ".metadata").common  # no common.pt any more
    assert torch_dist.model_config(found)["hidden_size"] == identity()["model"]["hidden_size"]
    kept = [path.name for path in checkpoint.steps(undisturbed)]
    assert kept == ["iter_0000012", "iter_0000016", f"step_{STOP:07d}"]


def test_metrics_have_the_keys_of_every_engine(undisturbed):
    found = metrics.read(undisturbed / "metrics.jsonl")
    assert [line["step"] for line in found] == list(range(LOG, STOP + 1, LOG))
    last = found[-1]
    assert last.keys() == {
        "step", "loss", "lr", "grad_norm", "tokens", "tokens_per_second", "seconds"
    }  # fmt: skip
    assert (last["lr"], last["tokens"]) == (0.02, STOP * 8 * 64)  # the rate of that very update


@pytest.mark.parametrize(
    ("step", "moment", "goes_on_from"),
    [(7, "trained", 4), (8, "shards", 4), (8, "tracked", 4)],
)
def test_killed_at_any_moment_it_ends_as_if_nothing_had_happened(
    program, tmp_path, undisturbed, step, moment, goes_on_from
):
    assert program.run(tmp_path, die=[step, moment]) == KILLED
    iterations.mend(tmp_path)  # as the stage does before it starts a job
    assert checkpoint.step_of(checkpoint.newest(tmp_path)) == goes_on_from
    assert program.run(tmp_path) == 0, program.log.read_text()
    assert same(tmp_path, undisturbed)


def test_killed_after_its_last_save_it_trains_no_step(program, tmp_path, undisturbed):
    assert program.run(tmp_path, die=[STOP, "saved"]) == KILLED
    assert program.run(tmp_path, bad={str(step): "nan" for step in range(STOP + 1)}) == 0
    assert same(tmp_path, undisturbed)
    assert program.run(tmp_path, die=[1, "trained"]) == 0  # finished, and not yet recorded


def test_sigterm_saves_and_the_next_start_goes_on(program, tmp_path, undisturbed):
    pid = program.start(tmp_path, seconds=0.1)
    while not (tmp_path / "metrics.jsonl").exists() or not lines(tmp_path):
        time.sleep(0.02)
    os.kill(pid, signal.SIGTERM)
    assert program.wait() == 75, program.log.read_text()
    newest = checkpoint.step_of(checkpoint.newest(tmp_path))
    assert f"SIGTERM: ended after step {newest} of {STOP}" in program.log.read_text()
    assert newest < STOP
    assert program.run(tmp_path) == 0
    assert same(tmp_path, undisturbed)


def test_it_saves_before_its_time_limit(program, tmp_path, undisturbed):
    ends = {"NEMOFLOW_ENDS": str(time.time() + 5)}
    assert program.run(tmp_path, seconds=0.5, env=ends) == 75, program.log.read_text()
    newest = checkpoint.step_of(checkpoint.newest(tmp_path))
    assert f"away: ended after step {newest} of {STOP}" in program.log.read_text()
    assert program.run(tmp_path) == 0
    assert same(tmp_path, undisturbed)


@pytest.mark.parametrize(
    ("bad", "said"), [({"11": "nan"}, "not finite"), ({"14": "99"}, "over 3.0 times the median")]
)
def test_a_loss_out_of_bounds_stops_the_job_for_good(program, tmp_path, bad, said):
    (step,) = map(int, bad)
    assert program.run(tmp_path, bad=bad) == 3
    assert f"stopped at step {step}: " in program.log.read_text()
    assert said in program.log.read_text()
    newest = checkpoint.step_of(checkpoint.newest(tmp_path))
    assert newest == (step - 1) // SAVE * SAVE  # the bad step is in no checkpoint
    assert read_json(tmp_path / "stopped.json")["step"] == step
    assert program.run(tmp_path, die=[1, "trained"]) == 1  # refused before Megatron-Bridge starts
    assert "lower schedule.peak" in program.log.read_text().splitlines()[-1]
    (tmp_path / "stopped.json").unlink()
    assert program.run(tmp_path) == 0


def test_a_phase_that_continues_takes_everything_and_its_own_checkpoint_first(
    program, tmp_path, undisturbed
):
    told = {
        "config": {"init": "continue", "stop_iteration": STOP + 6},
        "inputs": {"init": str(checkpoint.final(undisturbed))},
    }
    assert program.run(tmp_path / "whole", **told) == 0, program.log.read_text()
    steps = [line["step"] for line in lines(tmp_path / "whole")]
    assert steps == [STOP + 2, STOP + 4, STOP + 6]
    assert program.run(tmp_path / "killed", **told, die=[STOP + 5, "trained"]) == KILLED
    assert program.run(tmp_path / "killed", **told) == 0
    assert lines(tmp_path / "killed") == lines(tmp_path / "whole")
    told["config"]["stop_iteration"] = STOP
    assert program.run(tmp_path / "none", **told) == 1
    assert "continues at step 20" in program.log.read_text()


def test_a_phase_of_its_own_starts_at_step_0(program, tmp_path, undisturbed):
    told = {
        "config": {"init": "weights"},
        "inputs": {"init": str(checkpoint.final(undisturbed))},
    }
    assert program.run(tmp_path / "whole", **told) == 0, program.log.read_text()
    assert [line["step"] for line in lines(tmp_path / "whole")][0] == LOG
    assert program.run(tmp_path / "killed", **told, die=[11, "trained"]) == KILLED
    assert program.run(tmp_path / "killed", **told) == 0
    assert same(tmp_path / "killed", tmp_path / "whole")
    assert weights(tmp_path / "whole") != weights(undisturbed)
