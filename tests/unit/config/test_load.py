"""Broken files stop nobody else; jobs keep the config that they were planned with."""

import pytest

from nemoflow.config import Config
from nemoflow.config.load import FROZEN, SUBMITTED, Runs, current
from nemoflow.errors import UserError
from nemoflow.files import canonical
from small_config import with_runs


def test_a_mistake_in_one_file_stops_no_other(config_folder):
    (config_folder / "blends/super3-phase1.yaml").write_text("weights: [")
    config = with_runs(config_folder, broken="extends: [", wrong="extends: micro\nsft: {peak: 1}\n")
    assert config.run("micro").about
    for name, said in (("broken", "broken.yaml:2"), ("wrong", "peak"), ("super3", "super3-phase1")):
        with pytest.raises(UserError, match=said):
            config.run(name)


@pytest.mark.parametrize(
    ("runs", "asked", "said"),
    [
        ({"a": "extends: a"}, "a", "config/a.yaml:1: extends: a extends a: a circle"),
        (
            {"a": "extends: b", "b": "extends: c", "c": "extends: a"},
            "a",
            "a extends b extends c ext",
        ),
        ({"a": "about: x\nextends: mikro"}, "a", "config/a.yaml:2: extends: there is no run mikro"),
        ({}, "mikro", "there is no run mikro; did you mean micro?"),
    ],
)
def test_parents_form_a_line_that_exists(config_folder, runs, asked, said):
    config = with_runs(config_folder, **runs)
    with pytest.raises(UserError) as error:
        config.run(asked)
    assert said in str(error.value)


def test_a_run_keeps_its_own_words_about_itself(config_folder):
    config = with_runs(config_folder, child="extends: micro\nstart: sft\n", next="extends: child\n")
    assert config.run("child").about is None and config.run("child").start == "sft"
    assert config.run("next").start is None and config.run("next").extends == "child"


def test_a_value_remembers_the_file_that_set_it(config_folder):
    config = with_runs(config_folder, child="extends: micro\nsft:\n  iterations: 13\n")
    assert config.place("runs", "child", "sft", "iterations") == "config/child.yaml:3"
    assert config.place("runs", "child", "sft", "mixture").startswith("config/micro.yaml:")
    assert config.place("runs", "child", "sft", "epochs").startswith("config/child.yaml:2")
    assert config.place("blends", "micro-phase1", "weights").startswith("config/blends/micro")


@pytest.mark.parametrize(
    ("text", "read"),
    [
        ("sft.iterations=13", lambda c: c.run("micro").sft.iterations == 13),
        ("seed=5", lambda c: c.run("micro").pretrain.phases["phase1"].seed == 5),
        ("rl.kl=0.5", lambda c: c.run("micro").rl.steps["rlvr2"].kl == 0.5),
        ("eval.tasks=[micro_facts],seed=1", lambda c: c.run("micro").eval.tasks == ["micro_facts"]),
        ("corpora.micro-facts.parts=3", lambda c: c.data("corpora", "micro-facts").parts == 3),
        (
            "blends.micro-phase1.weights.micro-facts=null",
            lambda c: list(c.data("blends", "micro-phase1").weights) == ["micro-equations"],
        ),
        (
            "corpora.micro-facts.source.builtin=null,corpora.micro-facts.source.seed=null,"
            "corpora.micro-facts.source.count=null,corpora.micro-facts.source.local=x.jsonl",
            lambda c: c.data("corpora", "micro-facts").source.local == "x.jsonl",
        ),
    ],
)
def test_an_override_reaches_its_key_with_its_type(config_folder, text, read):
    assert read(Config(config_folder, overrides=text))


@pytest.mark.parametrize("text", ["corpora.x.parts=1", "blends.micro-phase1=1", "tasks=1"])
def test_an_override_of_no_data_file_is_refused(config_folder, text):
    with pytest.raises(UserError, match="with a NAME of "):
        Config(config_folder, overrides=text)


def test_a_frozen_config_is_the_same_config(config, tmp_path):
    path = config.freeze(tmp_path)
    assert config.freeze(tmp_path) == path and len(list(tmp_path.iterdir())) == 1
    thawed = Config.thawed(path)
    for name in config.run_names():
        assert thawed.run(name) == config.run(name)
    assert thawed.data("mixtures", "micro") == config.data("mixtures", "micro")
    assert thawed.template("chatml") == config.template("chatml")
    assert canonical(thawed.raw) == canonical(config.raw)


def test_a_broken_file_is_frozen_with_its_error(config_folder, tmp_path):
    config = with_runs(config_folder, broken="extends: [")
    thawed = Config.thawed(config.freeze(tmp_path / "frozen"))
    assert thawed.run("micro") == config.run("micro")
    with pytest.raises(UserError, match="broken.yaml:2: not readable as YAML"):
        thawed.run("broken")


def test_jobs_read_what_their_controller_froze(config_folder, monkeypatch):
    monkeypatch.chdir(config_folder.parent)
    monkeypatch.delenv(FROZEN, raising=False)
    planned = current("sft.iterations=13", controller=True)
    (config_folder / "micro.yaml").write_text("extends: [")
    assert current(None, controller=False).run("micro") == planned.run("micro")
    with pytest.raises(UserError, match="not readable"):
        current(None, controller=True).run("micro")


def test_a_draft_is_a_run_that_no_file_holds(config):
    draft = config.with_draft("try", {"extends": "micro", "seed": 3})
    assert draft.run("try").sft.seed == 3 and "try" not in config.run_names()
    with pytest.raises(UserError, match="new: sft.peak is not a setting"):
        config.with_draft("try", {"extends": "micro", "sft": {"peak": 1}}).run("try")


def test_runs_are_a_mapping_checked_when_looked_up(config_folder):
    runs = Runs(with_runs(config_folder, broken="extends: ["))
    assert set(runs) >= {"micro", "broken", "super3"} and len(runs) == len(list(runs))
    assert runs["micro"].extends == "super3-tiny"
    with pytest.raises(UserError, match="broken.yaml"):
        runs["broken"]


def test_a_submitted_controller_has_the_config_of_its_submission(config, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv(FROZEN, str(config.freeze(tmp_path)))
    assert current(None, controller=True).run_names() == []  # no config/ here
    monkeypatch.setenv(FROZEN, str(config.freeze(tmp_path)))
    monkeypatch.setenv(SUBMITTED, "1")
    assert current(None, controller=True).run_names() == config.run_names()
