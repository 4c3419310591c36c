"""Averages of checkpoints fit the phase that keeps them and the phase that goes on from them."""

import pytest

from nemoflow.errors import UserError
from small_config import with_runs

AVERAGED = (
    "extends: micro\npretrain: {merge: {phase: phase2, windows: {last: 8}},"
    " phases: {phase2: {options: {window: {iterations: 12, every: 4}}}}}\n"
)
THIRD = (
    "phase3: {after: phase2, init: merged, blend: micro-phase2, stop_iteration: 8,"
    " schedule: {style: constant, warmup_iterations: 0, decay_iterations: 0, end_iteration: 8}}"
)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("merge: {phase: phase9}", "pretrain.merge.phase: there is no phase phase9; known: phase1"),
        ("merge: {windows: {last: 13}}", "pretrain.merge.windows.last: longer than the window tha"),
        ("merge: {windows: {last: 3}}", "last: no checkpoint lies in the last 3 iterations befor"),
        (
            "phases: {phase2: {options: {window: null}}}",
            "pretrain.phases.phase2.options.window: not set, so no checkpoints are kept for pre",
        ),
        (
            "merge: {windows: {last: 20}}, phases: {phase2: {options: {window: {iterations: 30}}}}",
            "longer than phase2, which trains 12 iterations",
        ),
        (f"merge: null, phases: {{{THIRD}}}", "phase3.init: phase2 has no average to begin with"),
    ],
)
def test_what_cannot_be_averaged_is_refused(config_folder, text, said):
    child = f"extends: averaged\npretrain: {{{text}}}\n"
    config = with_runs(config_folder, averaged=AVERAGED, odd=child)
    with pytest.raises(UserError) as error:
        config.run("odd")
    assert said in str(error.value)


def test_an_average_of_a_phase_that_nobody_trains_is_refused(config_folder):
    text = "extends: averaged\ninit: {import: base}\nstart: sft\neval: {stages: [merged, sft]}\n"
    config = with_runs(config_folder, averaged=AVERAGED, taken=text)
    with pytest.raises(UserError, match="eval.stages: merged: phase2 is not trained for this run"):
        config.run("taken")


def test_a_child_may_name_windows_of_its_own(config_folder):
    text = "extends: averaged\npretrain: {merge: {windows: {last: null, short: 5, long: 12}}}\n"
    config = with_runs(config_folder, averaged=AVERAGED, windows=text)
    assert config.run("windows").pretrain.merge.windows == {"short": 5, "long": 12}


def test_an_average_is_evaluated_beside_the_last_checkpoint_of_its_phase(config_folder):
    config = with_runs(
        config_folder,
        averaged=AVERAGED,
        later="extends: averaged\nstart: eval\neval: {stages: [sft, rl]}\n",
        named="extends: averaged\nstart: eval\neval: {stages: [merged.last, pretrain]}\n",
        taken="extends: averaged\ninit: {import: base}\nstart: sft\n",
    )
    stages = {
        name: config.run(name).eval.stages for name in ("averaged", "later", "named", "taken")
    }
    assert stages == {
        "averaged": ["pretrain", "merged", "sft", "rl"],
        "later": ["sft", "rl"],
        "named": ["merged.last", "pretrain"],
        "taken": ["pretrain", "sft", "rl"],
    }
    super3 = config.run("super3").eval.stages
    assert super3 == ["pretrain.phase2", "merged", "pretrain", "sft", "rl"]
