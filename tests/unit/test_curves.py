"""The stages of a run on common axes."""

from pathlib import Path

import pytest

from nemoflow import manifest
from nemoflow.curves import Stage, charts, follow, starts
from nemoflow.products import Product
from small_results import Results, work_in


@pytest.fixture
def stages(tmp_path, monkeypatch):
    work_in(tmp_path, monkeypatch)
    results = Results()
    results.make()

    def read():
        named = zip(results.stages, results.checkpoints, strict=True)
        found = [Stage(name, Product.at(path)) for name, path in named]
        follow(found)
        return found

    return read


def test_a_phase_that_goes_on_counts_on(stages):
    first, second, *_ = stages()
    assert (second.offset, second.from_step, second.from_tokens) == (0, 100, 6400)
    assert second.points("loss")[0][0] == 101 * 64 and first.points("loss")[-1][0] == 6400


def test_a_phase_that_counts_anew_is_drawn_behind_the_one_before(stages):
    path = "results/small/pretrain/phase2/checkpoint.json"
    identity = {"stage": "pretrain", "init": "weights"}
    manifest.write(path, identity, [], step=200, tokens=12_800)
    found = stages()
    assert [stage.offset for stage in found[:3]] == [0, 6400, 0]
    assert [stage.from_step for stage in found[:3]] == [0, 0, 0]


def test_steps_stand_behind_each_other_on_an_axis_of_tokens(stages):
    steps = [stage for stage in stages() if stage.section == "rl"]
    assert starts(steps) == [(0, "rlvr1"), (6400, "rlvr2")]
    (reward,) = [chart for title, chart in charts(stages()) if title == "Reward"]
    assert reward.axes.x_range == (0, 12_800)


def test_what_is_not_finite_is_left_out(stages):
    curve = Path("results/small/sft/curve.csv")
    curve.write_text("step,tokens,loss,valid_loss\n1,64,nan,\n2,128,2.5,inf\n3,,1.5,2\n")
    sft = stages()[2]
    assert sft.points("loss") == [(128, 2.5)] and sft.result == [("loss", 2.5, 2.5)]


def test_how_often_a_stage_was_resumed(stages):
    assert stages()[0].resumed == 2
    Path("provenance/builds/results/small/pretrain/phase1/checkpoint.json.json").unlink()
    assert stages()[0].resumed is None
