"""Which stage follows which, and whose it is."""

from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nemoflow import graph
from nemoflow.errors import UserError
from small_config import with_runs

MICRO = ["pretrain.phase1", "pretrain.phase2", "sft", "rl.rlvr1", "rl.rlvr2"]


def entries(**after):
    return {name: SimpleNamespace(after=before) for name, before in after.items()}


@given(st.permutations("abcdef"), st.permutations(range(6)))
def test_any_mapping_of_a_line_is_put_in_order(line, written):
    before = dict(zip(line, [None, *line], strict=False))
    shuffled = {line[i]: SimpleNamespace(after=before[line[i]]) for i in written}
    assert graph.ordered(shuffled, "rl.steps") == list(line)


@pytest.mark.parametrize(
    ("after", "said"),
    [
        ({"a": None, "b": "c"}, "rl.steps.b.after: there is no c before it; known: a, b."),
        ({"a": None, "b": "a", "c": "a"}, "rl.steps.c.after: b already comes after a"),
        ({"a": None, "b": None}, "rl.steps.b.after: a already is the first"),
        ({"a": "a"}, "rl.steps.a.after: a come after each other in a circle"),
        ({"a": "b", "b": "a"}, "a, b come after each other in a circle; one of them must come"),
        ({"a": None, "b": "c", "c": "b"}, "after the last of the line (a)"),
    ],
)
def test_what_is_no_line_is_refused(after, said):
    with pytest.raises(UserError) as error:
        graph.ordered(entries(**after), "rl.steps")
    assert said in str(error.value)


def test_a_branch_hangs_on_the_chain_and_nothing_hangs_on_it():
    steps = entries(a=None, b="a", c="b")
    steps["c"].branch = True
    assert graph.ordered(steps, "rl.steps") == ["a", "b"]
    steps["d"] = SimpleNamespace(after="c")
    with pytest.raises(UserError, match="rl.steps.d.after: there is no c before it"):
        graph.ordered(steps, "rl.steps")


def test_the_recipes_have_the_chains_of_their_reports(config):
    assert graph.chain(config.run("super3"))[:5] == [
        "pretrain.phase1",
        "pretrain.phase2",
        "pretrain.long_context_1m",
        "pretrain.long_context_mixed",
        "sft",
    ]
    assert graph.steps(config.run("super3")) == ["rlvr1", "rlvr2", "rlvr3", "swe1", "swe2", "rlhf"]
    assert graph.steps(config.run("nano3")) == ["rlvr", "rlhf"]
    assert graph.chain(config.run("nano3"))[-1] == "rl.dpo"


def test_short_names_stand_for_the_last_of_each(config):
    run = config.run("micro")
    assert graph.chain(run) == MICRO
    assert graph.full_name(run, "pretrain") == "pretrain.phase2"
    assert graph.full_name(run, "rl") == "rl.rlvr2"
    assert [graph.short_name(run, stage) for stage in MICRO] == [
        "pretrain.phase1",
        "pretrain",
        "sft",
        "rl.rlvr1",
        "rl",
    ]
    for stage in MICRO:
        assert graph.full_name(run, graph.short_name(run, stage)) == stage
    with pytest.raises(UserError, match="no stage rl.rlvr3; known: pretrain, rl, pretrain"):
        graph.full_name(run, "rl.rlvr3")


def test_every_stage_starts_from_the_one_before(config):
    run = config.run("micro")
    assert [graph.previous(run, stage) for stage in MICRO] == [None, *MICRO[:-1]]
    assert graph.previous(config.run("nano3"), "rl.dpo") == "rl.rlhf"


def test_each_generation_owns_what_follows_its_start(config_folder):
    config = with_runs(
        config_folder,
        child="extends: micro\nstart: sft\n",
        grandchild="extends: child\nstart: rl.rlvr2\n",
        scorer="extends: grandchild\nstart: eval\n",
        whole="extends: grandchild\n",
    )
    runs = {name: config.run(name) for name in config.run_names() if "3" not in name}
    owners = {name: [graph.owner(runs, name, stage) for stage in MICRO] for name in runs}
    assert owners["micro"] == ["micro"] * 5
    assert owners["child"] == ["micro", "micro", "child", "child", "child"]
    assert owners["grandchild"] == ["micro", "micro", "child", "child", "grandchild"]
    assert owners["scorer"] == owners["grandchild"]
    assert owners["whole"] == ["whole"] * 5


IMPORTING = "extends: micro\nstart: {}\ninit: {{import: m}}\neval: {{stages: [rl]}}\n{}"
WEIGHTS = "pretrain: {phases: {phase1: {init: weights}}}\n"
BRANCH = "rl: {steps: {side: {after: rlvr1, branch: true, prompts: micro-problems, iterations: 1}}}"


@pytest.mark.parametrize(
    ("start", "more", "place", "trained"),
    [
        ("pretrain", WEIGHTS, None, MICRO),
        ("pretrain.phase2", "", "pretrain.phase1", MICRO[1:]),
        ("sft", "", "pretrain.phase2", MICRO[2:]),
        ("rl", "", "sft", MICRO[3:]),
        ("rl.rlvr2", "", "rl.rlvr1", MICRO[4:]),
        ("rl.rlvr2", BRANCH, "rl.rlvr1", [*MICRO[4:], "rl.side"]),
        ("eval", BRANCH, "rl.rlvr2", []),
    ],
)
def test_an_imported_model_takes_the_place_before_the_start(
    config_folder, start, more, place, trained
):
    config = with_runs(
        config_folder,
        imported=IMPORTING.format(start, more),
        child="extends: imported\nstart: eval\neval: {stages: [rl]}\n",
    )
    runs = {name: config.run(name) for name in ("imported", "child")}
    assert graph.stand_in(runs["imported"]) == place
    for name in runs:
        assert graph.importer(runs, name) == "imported"
        assert graph.stages(runs, name) == trained
        for stage in graph.chain(runs[name]):
            if stage in (*trained, place):
                assert graph.owner(runs, name, stage) == "imported"
                assert graph.is_imported(runs, name, stage) == (stage == place)
            else:
                with pytest.raises(UserError, match=f"there is no {stage} in {name}: it begins"):
                    graph.owner(runs, name, stage)


def test_children_of_a_run_with_an_imported_model_own_what_follows_their_start(config_folder):
    config = with_runs(
        config_folder,
        imported="extends: micro\nstart: sft\ninit: {import: m}\n",
        child="extends: imported\nstart: rl\n",
        same="extends: imported\nstart: sft\nsft: {iterations: 13}\n",
        whole="extends: imported\n",
    )
    runs = {name: config.run(name) for name in ("micro", "imported", "child", "same", "whole")}
    owners = {
        name: [graph.owner(runs, name, s) for s in MICRO[1:]] for name in runs if name[0] in "cs"
    }
    assert owners["child"] == ["imported", "imported", "child", "child"]
    assert owners["same"] == ["imported", "same", "same", "same"]
    assert graph.importer(runs, "whole") is graph.importer(runs, "micro") is None
    assert graph.stages(runs, "whole") == MICRO


@pytest.mark.parametrize(
    ("start", "first"),
    [("pretrain", 0), ("pretrain.phase2", 1), ("sft", 2), ("rl", 3), ("rl.rlvr2", 4), ("eval", 5)],
)
def test_a_run_may_start_at_any_stage(config_folder, start, first):
    config = with_runs(config_folder, child=f"extends: micro\nstart: {start}\n")
    assert graph.start_of(config.run("child")) == first


def test_settings_of_a_stage_are_its_own_and_without_options(config):
    run = config.run("micro")
    phase = graph.settings_of(run, "pretrain.phase1")
    assert list(phase["phases"]) == ["phase1"] and "options" not in phase["phases"]["phase1"]
    assert graph.settings_of(run, "sft")["after"] == "phase2"
    assert "options" not in graph.settings_of(run, "sft")
    assert graph.settings_of(run, "rl.rlvr2")["steps"]["rlvr2"]["prompts"] == "micro-problems"


def test_averages_stand_beside_the_chain(config):
    run = config.run("super3")
    assert graph.merged(run) == ["merged.125b", "merged.250b", "merged.500b"]
    assert graph.full_name(run, "merged") == "merged.500b"
    assert graph.trained(run, "merged.125b") == "pretrain.phase2"
    assert not set(graph.merged(run)) & set(graph.chain(run))
    assert graph.merged(config.run("nano3")) == []
    with pytest.raises(UserError, match="there is no stage merged; known: pretrain, rl, pretrain"):
        graph.full_name(config.run("nano3"), "merged")


def test_an_average_is_a_setting_of_the_phase_that_begins_with_it(config_folder):
    text = "extends: super3\npretrain: {merge: {windows: {500b: 15000}}}\n"
    ours, theirs = (with_runs(config_folder, other=text).run(name) for name in ("other", "super3"))
    changed = [
        stage
        for stage in graph.chain(ours)
        if graph.settings_of(ours, stage) != graph.settings_of(theirs, stage)
    ]
    assert changed == ["pretrain.long_context_1m"]
