"""What the commands answer about config."""

import pytest
import yaml

from nemoflow import __main__ as command
from nemoflow import graph, inspect
from nemoflow.config import Config
from nemoflow.errors import UserError
from small_config import with_runs


@pytest.fixture
def new(config_folder):
    """Write a run and read it."""

    def new(*keys, parent="micro"):
        said = inspect.new(Config(config_folder), "try", parent, list(keys))
        assert said[0].startswith(f"wrote {config_folder}/try.yaml: it owns ")
        config = Config(config_folder)
        return config.run("try"), yaml.safe_load((config_folder / "try.yaml").read_text())

    return new


@pytest.mark.parametrize(
    ("keys", "start"),
    [
        (["seed=7"], None),
        (["pretrain.schedule.peak=5e-3"], None),
        (["pretrain.phases.phase2.seed=7"], "pretrain.phase2"),
        (["sft.schedule.peak=5e-4", "rl.kl=0.1"], "sft"),
        (["rl.kl=0.1"], "rl.rlvr1"),
        (["rl.steps.rlvr2.kl=0.1"], "rl.rlvr2"),
        (["rl.steps.rlvr2=null"], "eval"),
        (["pretrain.phases.phase2=null"], "sft"),
        (["eval.tasks=[micro_facts]"], "eval"),
        (["export.dtype=bfloat16"], "eval"),
        (["sft.options.keep=5"], "eval"),
        (["rl.steps.rlvr3={after: rlvr2, prompts: micro-problems, iterations: 1}"], "rl.rlvr3"),
    ],
)
def test_a_new_run_owns_what_its_keys_change_and_what_follows(new, keys, start):
    run, written = new(*keys)
    assert written["extends"] == "micro" and written.get("start") == start == run.start


def test_a_new_run_of_a_new_run_starts_where_it_differs(config_folder, new):
    new("sft.schedule.peak=5e-4")
    inspect.new(Config(config_folder), "again", "try", ["rl.steps.rlvr2.kl=0.1"])
    config = Config(config_folder)
    runs = {name: config.run(name) for name in ("micro", "try", "again")}
    owners = [graph.owner(runs, "again", s) for s in ("pretrain.phase1", "sft", "rl.rlvr2")]
    assert owners == ["micro", "try", "again"]


def test_a_new_run_may_begin_with_an_imported_model(config_folder, new):
    run, written = new("init.import=models/base", "start=sft", "sft.schedule.peak=5e-4")
    assert written == {
        "extends": "micro", "init": {"import": "models/base"}, "start": "sft",
        "sft": {"schedule": {"peak": 5e-4}},
    }  # fmt: skip
    config = Config(config_folder)
    assert inspect.owned(run) == (
        "sft and after; before that stands models/base, in the place of pretrain.phase2"
    )
    (line,) = [line for line in inspect.runs(config) if line.startswith("try ")]
    assert " ".join(line.split()) == "try extends micro from sft imports models/base"
    with pytest.raises(UserError, match=r"try.yaml:\d: init.import: models/base: there is no such"):
        list(inspect.check(config, ["try"], None))
    for keys, start in ((["rl.kl=0.1"], "rl.rlvr1"), (["sft.iterations=13"], "sft")):
        inspect.new(config, f"child-{start[:2]}", "try", keys)
        assert Config(config_folder).run(f"child-{start[:2]}").start == start
    with pytest.raises(UserError, match="init: say where the imported model goes in"):
        inspect.new(config, "nowhere", "micro", ["init.import=models/base"])
    with pytest.raises(UserError, match="its architecture cannot change here"):
        inspect.new(config, "wider", "try", ["pretrain.model.norm_epsilon=1e-6"])


@pytest.mark.parametrize(
    ("name", "keys", "said"),
    [
        ("micro", ["seed=1"], "exists already"),
        ("Try", ["seed=1"], "a run's name has a-z"),
        ("../try", ["seed=1"], "a run's name has a-z"),
        ("data", ["seed=1"], "not data"),
        ("try", ["sft.peak=1"], "sft.peak is not a setting"),
        ("try", ["seed"], "not an assignment"),
        ("try", ["sft.batch.sequence=32"], "pack_size of mixture micro (64)"),
    ],
)
def test_a_wrong_new_run_is_not_written(config_folder, name, keys, said):
    before = sorted(config_folder.parent.rglob("*"))
    with pytest.raises(UserError) as error:
        inspect.new(Config(config_folder), name, "micro", keys)
    assert said in str(error.value)
    assert sorted(config_folder.parent.rglob("*")) == before


def test_show_prints_a_run_that_could_be_written_so(config):
    shown = yaml.safe_load("\n".join(inspect.show(config, "micro", None)))
    assert shown["pretrain"]["phases"]["phase2"]["after"] == "phase1"
    assert shown["sft"]["schedule"]["warmup_iterations"] == 2
    assert inspect.show(config, "micro", "sft.iterations") == ["12"]
    assert inspect.show(config, "micro", "eval.tasks") == ["- micro_arithmetic", "- micro_facts"]


@pytest.mark.parametrize(
    ("key", "said"),
    [
        ("sft.iteration", "in sft there is no key iteration; did you mean iterations?"),
        ("pretain", "in micro there is no key pretain; did you mean pretrain?"),
        ("sft.iterations.more", "in sft.iterations there is no key more. Known: none"),
        ("", "there is no key"),
    ],
)
def test_a_key_that_is_not_there_gets_the_nearest(config, key, said):
    for ask in (inspect.show, inspect.explain):
        with pytest.raises(UserError) as error:
            list(ask(config, "micro", key or "."))
        assert said in str(error.value)


def test_explain_names_the_place_and_what_it_replaced(config):
    lines = list(inspect.explain(config, "micro", "sft.iterations"))
    assert lines[0].startswith("sft.iterations = 12    config/micro.yaml:")
    assert [line.split(" says ")[0].strip() for line in lines[1:]] == ["super3-tiny", "super3"]
    assert "    super3-tiny says " in lines[1] and "config/super3-tiny.yaml:" in lines[1]


def test_explain_knows_defaults_overrides_and_what_a_phase_inherits(config, config_folder):
    (line,) = inspect.explain(config, "micro", "sft.options.keep")
    assert line == "sft.options.keep = 2    default of the model"
    overridden = Config(config_folder, overrides="sft.iterations=13")
    lines = list(inspect.explain(overridden, "micro", "sft.iterations"))
    assert lines[0] == 'sft.iterations = 13    set="sft.iterations=13"'
    assert lines[1].startswith("    micro says 12    config/micro.yaml:")
    lines = list(inspect.explain(config, "micro", "pretrain.phases.phase1.batch.global"))
    assert lines[0].startswith("pretrain.phases.phase1.batch.global = 4    config/micro.yaml:")


def test_explain_goes_through_a_mapping(config):
    lines = list(inspect.explain(config, "micro", "sft.batch"))
    assert lines[0] == "sft.batch is a mapping:"
    assert [line.split(" = ")[0] for line in lines if " = " in line] == [
        "sft.batch.global",
        "sft.batch.micro",
        "sft.batch.sequence",
    ]


def test_diff_lists_the_keys_that_differ_with_both_values(config_folder):
    text = "extends: micro\nstart: sft\nsft: {iterations: 13, spike: null}\n"
    config = with_runs(config_folder, child=text)
    lines = list(inspect.diff(config, "micro", "child"))
    assert "sft.iterations: 12 | 13" in lines and 'start: – | "sft"' in lines
    assert "sft.spike: 3.0 | –" in lines
    assert not [line for line in lines if line.startswith("pretrain")]
    assert list(inspect.diff(config, "micro", "micro")) == []


def test_runs_are_listed_broken_ones_too(config_folder):
    config = with_runs(config_folder, child="extends: micro\nstart: sft\n", bad="extends: [\n")
    lines = {line.split()[0]: line for line in inspect.runs(config)}
    assert lines["child"].endswith("extends micro from sft")
    assert "broken: " in lines["bad"] and "bad.yaml:2: not readable" in lines["bad"]
    assert "the whole pipeline at the smallest size" in lines["micro"]


def test_check_says_that_a_run_is_sound(config):
    assert list(inspect.check(config, ["micro"], None)) == [
        "micro: pretrain.phase1 → pretrain.phase2 → sft → rl.rlvr1 → rl.rlvr2: sound"
    ]
    assert "gaps of the recipe are stated in it" in list(inspect.check(config, ["nano3"], None))[0]


def test_the_command_line_answers_and_refuses(config_folder, monkeypatch, capsys):
    monkeypatch.chdir(config_folder.parent)
    command.main(["show", "micro", "sft.iterations", "--set", "sft.iterations=13"])
    assert capsys.readouterr().out == "13\n"
    command.main(["runs"])
    assert "micro" in capsys.readouterr().out
    for arguments in ([], ["build"], ["show"], ["new", "x", "seed=1"]):
        with pytest.raises(SystemExit) as stopped:
            command.main(arguments)
        assert stopped.value.code == 2
    with pytest.raises(UserError, match="there is no run mikro; did you mean micro?"):
        command.main(["show", "mikro"])
