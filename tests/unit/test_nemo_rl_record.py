"""TensorBoard's files into metrics.jsonl, and NeMo-RL's checkpoint folders."""

import math
from base64 import b64decode
from pathlib import Path

import nemo_rl_stand_in
from nemoflow import metrics
from nemoflow.engines.nemo_rl import driver, resume
from nemoflow.engines.nemo_rl.events import Events
from nemoflow.engines.nemo_rl.record import Record

WRITTEN = b64decode((Path(__file__).parents[1] / "data/nemo_rl/events.base64").read_text())


def test_a_file_that_tensorboard_2_wrote(tmp_path):
    (tmp_path / "events").write_bytes(WRITTEN)
    *scalars, (step, tag, value) = Events(tmp_path / "events").scalars()
    assert scalars[:3] == [
        (1, "train/loss", 0.25),
        (1, "train/reward", -0.5),
        (300, "timing/train/total_step_time", 1e6),
    ]
    assert scalars[3][:2] == (2**40, "train/lr")
    assert (step, tag, math.isnan(value)) == (5, "b", True)


def test_a_file_is_read_on_and_its_torn_end_waited_for(tmp_path):
    path = tmp_path / "events"
    path.write_bytes(WRITTEN[:-20])
    events = Events(path)
    assert len(list(events.scalars())) == 4
    assert list(events.scalars()) == []
    path.write_bytes(WRITTEN)
    assert [tag for _, tag, _ in events.scalars()] == ["a", "b"]


def test_a_resumed_record_goes_on_where_the_checkpoint_stood(tmp_path):
    def attempt(number, steps):
        folder = tmp_path / "logs" / f"exp_{number:03d}" / "tensorboard"
        folder.mkdir(parents=True)
        for step in steps:
            nemo_rl_stand_in.log(folder / "events.out.tfevents.1", step, 1.0 / step)

    record = Record(tmp_path, tmp_path / "logs", 0, 0)
    attempt(1, [1, 2, 3])
    assert [step for step, _ in record.update()] == [1, 2, 3]
    record.close()
    record = Record(tmp_path, tmp_path / "logs", 2, 2000)  # step 3 was lost with the kill
    attempt(2, [3, 4])
    assert [step for step, _ in record.update()] == [3, 4]
    assert list(record.update()) == []
    record.close()
    lines = metrics.read(tmp_path / "metrics.jsonl")
    assert [(line["step"], line["tokens"], line["seconds"]) for line in lines] == [
        (n, 1000 * n, 2.0 * n) for n in (1, 2, 3, 4)
    ]


def test_only_whole_checkpoints_stay(tmp_path, capsys):
    for step in (2, 4, 6, 8):
        nemo_rl_stand_in.save(tmp_path, step)
    (tmp_path / "step_4").rename(tmp_path / "old_step_4")  # killed between two renames
    (tmp_path / "step_6" / "training_info.json").write_text("{")
    (tmp_path / "step_8" / "policy" / "weights" / "iter_0000000" / "w").write_text("")
    (tmp_path / "tmp_step_9").mkdir()
    (tmp_path / "initial").mkdir()
    resume.clean(tmp_path, "rl.rlvr1")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["initial", "step_2", "step_4"]
    assert capsys.readouterr().err.count("is no whole checkpoint; removed") == 3
    resume.discard(tmp_path, 1)
    resume.clean(tmp_path, "rl.rlvr1")
    assert list(tmp_path.iterdir()) == []  # no telling whether the conversion is whole


def test_save_by_follows_the_jobs_time_limit(monkeypatch):
    monkeypatch.delenv("NEMOFLOW_ENDS", raising=False)
    assert driver.save_by(0.0) is None
    for hours, wanted in ((4, "00:03:30:00"), (12, "00:11:30:00"), (48, "01:23:30:00")):
        monkeypatch.setenv("NEMOFLOW_ENDS", str(hours * 3600))
        assert driver.save_by(0.0) == wanted
    monkeypatch.setenv("NEMOFLOW_ENDS", "600")
    assert driver.save_by(0.0) == "00:00:07:30"
