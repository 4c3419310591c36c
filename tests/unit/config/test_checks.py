"""What must fit together across files; tests/workflow/test_mistakes.py has the commonest."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nemoflow.config import Config
from nemoflow.config.checks import difference
from nemoflow.errors import UserError
from small_config import with_runs

trees = st.recursive(
    st.integers(0, 2), lambda inner: st.dictionaries(st.sampled_from("abc"), inner, max_size=3)
).filter(lambda tree: isinstance(tree, dict))


def value_at(tree, key):
    for name in key:
        tree = tree.get(name) if isinstance(tree, dict) else None
    return tree


@given(trees, trees)
def test_difference_names_exactly_the_keys_that_differ(ours, theirs):
    keys = difference(ours, theirs)
    assert bool(keys) == (ours != theirs)
    assert sorted(keys) == sorted(difference(theirs, ours)) and len(set(keys)) == len(keys)
    for key in keys:
        assert value_at(ours, key) != value_at(theirs, key)


@pytest.fixture
def child(config_folder):
    """The error of a run that extends micro."""

    def refused(text, name="child"):
        config = with_runs(config_folder, **{name: text})
        with pytest.raises(UserError) as error:
            config.run(name)
        return str(error.value)

    return refused


@pytest.mark.parametrize(
    ("keys", "said"),
    [
        (
            "pretrain: {model: {max_positions: 32}}",
            "phase1.batch.sequence: longer than model.max_positions",
        ),
        ("pretrain: {tokenizer: tiny, model: {vocab_size: 512}}", "is packed with tokenizer micro"),
        ("pretrain: {tokenizer: nano4}", "there is no tokenizer nano4; did you mean nano3?"),
        ("sft: {mixture: mikro}", "there is no mixture mikro; did you mean micro?"),
        (
            "eval: {stages: [rl.rlvr3]}",
            "there is no stage rl.rlvr3; known: pretrain, rl, pretrain",
        ),
        ("rl: {steps: {rlvr2: {after: rlvr2}}}", "rlvr2 come after each other in a circle"),
        ("pretrain: {phases: {phase2: {init: random}}}", "the first phase, and only the first"),
        (
            "rl: {parallel: {expert: 2}}",
            "rl.steps.rlvr1.parallel.expert: the local engine works on",
        ),
        ("rl: {minibatches: 3}", "minibatches (3) does not divide a step's 16 rollouts"),
        ("sft: {parallel: {sequence: true}}", "sequence parallelism needs tensor > 1"),
        ("start: sft\nsft: {mixture: null}", "sft.mixture"),
        ("start: rl.rlvr9", "there is no stage rl.rlvr9; known: pretrain, rl, eval"),
    ],
)
def test_what_does_not_fit_is_told_with_its_place(child, keys, said):
    message = child(f"extends: micro\n{keys}\n")
    assert said in message and message.startswith("config/")


def test_parallel_sizes_divide_what_they_cut(config_folder):
    config = with_runs(config_folder, child="extends: super3\nrl: {parallel: {expert: 3}}\n")
    with pytest.raises(UserError, match="rlvr1.parallel.expert: 3 does not divide the 512 experts"):
        config.run("child")


def test_a_shared_stage_keeps_the_settings_of_its_parent(child):
    message = child("extends: micro\nstart: rl\nsft: {iterations: 13}\n")
    assert message.startswith("config/child.yaml:3: sft.iterations: sft is shared with micro")
    assert "set start: sft" in message
    message = child("extends: micro\nstart: sft\npretrain: {batch: {global: 8}}\n")
    assert "pretrain.phases.phase1.batch.global: pretrain.phase1 is shared" in message


def test_a_shared_stage_starts_from_the_same_stage_as_its_parents(child):
    message = child("extends: micro\nstart: rl\npretrain: {phases: {phase2: null}}\n")
    assert "sft is shared with micro" in message


def test_a_stage_that_the_parent_lacks_cannot_be_shared(child):
    step = "{after: rlvr2, iterations: 1, prompts: micro-problems}"
    message = child(f"extends: micro\nstart: eval\nrl: {{steps: {{rlvr3: {step}}}}}\n")
    assert "micro has no stage rl.rlvr3; start before it" in message


def test_a_run_without_a_parent_owns_everything(config_folder):
    path = config_folder / "super3.yaml"
    path.write_text(path.read_text() + "\nstart: sft\n")
    with pytest.raises(UserError, match="only a run that extends another can start"):
        Config(config_folder).run("super3")


INIT = "extends: micro\ninit: {import: m}\n"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("extends: micro\ninit: {import: m}\n", "child.yaml:2: init: say where the imported model"),
        ("extends: micro\nstart: sft\ninit: m\n", "child.yaml:3: init must be a mapping"),
        ("extends: micro\nstart: sft\ninit: {path: m}\n", "init.path is not a setting"),
        (
            f"{INIT}start: sfd\n",
            "child.yaml:3: start: there is no stage sfd; known: pretrain, rl, ",
        ),
        (f"{INIT}start: rl\n", "eval.stages: there is no pretrain.phase2 in child: it begins with"),
        (
            f"{INIT}start: pretrain\n",
            "phase1.init: random would make nothing of the imported model",
        ),
        (
            "extends: micro\npretrain: {phases: {phase1: {init: weights}}}\n",
            "phase1.init: the first phase, and only the first, has init: random and no after; to",
        ),
        (
            f"{INIT}start: sft\nsft: {{batch: {{sequence: 32}}}}\n",
            "sft.batch.sequence: 32 is not the pack_size",
        ),
    ],
)
def test_an_import_that_does_not_fit_is_told_with_its_place(child, text, said):
    message = child(text)
    assert said in message and message.startswith("config/")


def test_nothing_is_asked_of_stages_that_an_imported_model_replaces(config_folder):
    wrong = "pretrain: {batch: {sequence: 9999}, precision: bf16}\nsft: {mixture: none}\n"
    later = f"{INIT}start: rl\neval: {{stages: [sft, rl]}}\n{wrong}"
    config = with_runs(config_folder, child=later, phase=f"{INIT}start: pretrain.phase2\n")
    assert config.run("child").pretrain.precision == "bf16"
    assert config.run("phase").init.import_ == "m"


def test_children_share_the_imported_model_of_their_parent(config_folder):
    later = f"{INIT}start: sft\n"
    config = with_runs(
        config_folder,
        imported=later,
        good="extends: imported\nstart: rl\npretrain: {batch: {global: 8}}\n",
        early="extends: imported\nstart: pretrain.phase2\n",
        other="extends: imported\nstart: rl\npretrain: {model: {norm_epsilon: 1e-6}}\n",
        shared="extends: imported\nstart: rl\nsft: {iterations: 13}\n",
    )
    assert config.run("good").init is None  # its own would be another model
    for name, said in {
        "early": "start: there is no pretrain.phase1 in early: it begins with the imported model",
        "other": "pretrain.model.norm_epsilon: the model is imported by imported",
        "shared": "sft.iterations: sft is shared with imported",
    }.items():
        with pytest.raises(UserError, match=f"config/{name}.yaml:.* {said}"):
            config.run(name)


def test_a_grandchild_is_held_to_its_own_parent(config_folder):
    config = with_runs(
        config_folder,
        child="extends: micro\nstart: sft\nsft: {schedule: {peak: 5e-4}}\n",
        good="extends: child\nstart: rl\nrl: {kl: 0.1}\n",
        bad="extends: child\nstart: rl\nsft: {schedule: {peak: 1e-3}}\n",
    )
    assert config.run("good").sft.schedule.peak == 5e-4
    with pytest.raises(UserError, match="sft is shared with child"):
        config.run("bad")


def test_options_of_a_shared_stage_may_differ(config_folder):
    config = with_runs(
        config_folder, child="extends: micro\nstart: rl\nsft: {options: {keep: 5}}\n"
    )
    assert config.run("child").sft.options.keep == 5


@pytest.mark.parametrize(
    ("path", "text", "said"),
    [
        ("blends/micro-phase1.yaml", "weights: {mikro-facts: 1}", "did you mean micro-facts?"),
        (
            "mixtures/micro.yaml",
            "template: chatml2",
            "there is no template chatml2; did you mean chatml",
        ),
        ("tasks/micro_facts.yaml", "prompts: facts", "there is no prompts file facts"),
        ("tokenizers/micro.yaml", "template: llama", "there is no template llama"),
    ],
)
def test_a_data_file_names_only_files_that_exist(config_folder, path, text, said):
    file, key = config_folder / path, text.partition(":")[0]
    file.write_text(re.sub(rf"\b{key}: .*", text, file.read_text()))
    with pytest.raises(UserError, match="config/") as error:
        Config(config_folder).run("micro")
    assert said in str(error.value)


def test_every_run_of_ours_is_sound(config):
    for name in config.run_names():
        assert config.run(name).eval.tasks
