"""How far jobs are and what they took, from files that may be torn or missing."""

import json

import pytest

from nemoflow import figures
from small_slurm import job

PATH = "results/micro/sft/checkpoint.json"


@pytest.fixture
def sft(tmp_path, monkeypatch):
    """Training under way at step 30 of 100, two steps a second, in its third attempt."""
    monkeypatch.chdir(tmp_path)
    progress = tmp_path / "results/micro/sft/progress"
    progress.mkdir(parents=True)
    machine = {"nodes": 2, "gpus": 8}
    told = {"config": {"iterations": 100}, "machine": machine}
    (progress / "job.json").write_text(json.dumps(told))
    lines = [
        {"step": s, "loss": 3 - s / 100, "seconds": s / 2, "tokens_per_second": 900.0}
        for s in (10, 20, 30)
    ]
    (progress / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    attempts = {"count": 3, "first": 0.0, "spent": 7200.0, "started": None}
    (progress / "attempts.json").write_text(json.dumps(attempts))
    return tmp_path / PATH


def of_training(path):
    return figures.of_training(path.relative_to(path.parents[3]))


def test_step_speed_time_left_and_gpu_hours_of_training_under_way(sft):
    found = of_training(sft)
    assert (found.step, found.total, found.loss) == (30, 100, 2.7)
    assert (found.left, found.tokens_per_second) == (35.0, 900.0)
    assert (found.attempts, found.gpu_hours) == (3, 32.0)


def test_torn_files_count_as_unknown(sft):
    progress = sft.parent / "progress"
    with open(progress / "metrics.jsonl", "a") as file:
        file.write('{"step": 40, "lo')
    assert of_training(sft).step == 30
    for name in ("job.json", "attempts.json", "metrics.jsonl"):
        (progress / name).write_text('{"count')
    found = of_training(sft)
    assert (found.step, found.total, found.left, found.gpu_hours) == (None, None, None, 0.0)


def test_a_finished_stage_is_told_from_manifest_record_and_curve_in_a_clone(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for path in (PATH, f"provenance/builds/{PATH}.json"):
        (tmp_path / path).parent.mkdir(parents=True)
    (tmp_path / PATH).write_text('{"step": 100}')
    built = {"built": {"seconds": 1800.0, "gpus": 16, "attempts": 2}}
    (tmp_path / f"provenance/builds/{PATH}.json").write_text(json.dumps(built))
    (tmp_path / "results/micro/sft/curve.csv").write_text("step,loss\n50,3.0\n100,2.5\n")
    found = of_training(tmp_path / PATH)
    assert (found.step, found.loss, found.gpu_hours, found.attempts) == (100, 2.5, 8.0, 2)


def test_a_job_without_a_count_of_its_own_takes_slurms():
    found = figures.Figures()
    found.run_on(job(elapsed="1-01:00:00", nodes="2", resources="gres:gpu:8"))
    assert (found.seconds, found.gpu_hours) == (90000.0, 400.0)


@pytest.mark.parametrize(
    ("text", "seconds"), [("0:05", 5), ("1:00:05", 3605), ("2-00:00:00", 172800), ("N/A", None)]
)
def test_slurms_durations(text, seconds):
    assert figures.elapsed(text) == seconds


def test_a_recent_restart_gives_no_negative_time():
    lines = [{"step": 40, "seconds": 9.0}, {"step": 42, "seconds": 1.0}]
    assert figures.left(lines, 100) is None
