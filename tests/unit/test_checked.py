"""What is searched for items of evaluations, for which tasks, and which run holds the result."""

from types import SimpleNamespace

import pytest

from nemoflow import specs
from nemoflow.config import Config
from nemoflow.errors import UserError
from nemoflow.names import Names
from small_config import with_runs

ALL = "eval: {contamination: [pretrain, sft, rl]}\n"
DATA = [
    ("tokens", "micro-equations"), ("tokens", "micro-facts"), ("packed", "micro"),
    ("prompts", "micro-problems"),
]  # fmt: skip


@pytest.fixture
def family(config_folder):
    """Names of runs that search, and of their descendants."""
    task = "harness: mmlu\nmetric: 'acc,none'\n"
    (config_folder / "tasks/unknown.yaml").write_text(task)
    other = "[micro_facts, unknown]"
    return Names(
        with_runs(
            config_folder,
            searching=f"extends: micro\nstart: eval\n{ALL}",
            child=f"extends: micro\nstart: sft\n{ALL}",
            rl_only="extends: micro\nstart: eval\neval: {contamination: [rl]}\n",
            unknowing="extends: micro\nstart: eval\neval: {tasks: [unknown]}\n",
            other=f"extends: micro\nstart: eval\neval: {{tasks: {other}, contamination: [sft]}}\n",
        )
    )


def asked(names, run):
    job = SimpleNamespace(run=run)
    data = zip(names.checked_kinds(job), names.checked_data(job), strict=True)
    return [*zip(names.checkers(job), data, strict=True)]


def test_each_product_is_searched_once_by_the_run_that_trains_on_it(family):
    assert asked(family, "searching") == [("micro", product) for product in DATA]
    owners = ["micro", "micro", "child", "child"]
    assert asked(family, "child") == [*zip(owners, DATA, strict=True)]
    assert asked(family, "rl-only") == [("micro", DATA[-1])]
    assert asked(family, "micro") == []


def test_a_run_with_other_tasks_searches_itself(family):
    assert asked(family, "other") == [("other", ("packed", "micro"))]
    assert family.checked_tasks(SimpleNamespace(run="other")) == ["micro_facts"]
    told = specs.of(family.config, "contamination", {"run": "other"}).identity["unchecked"]
    assert list(told) == ["unknown"]
    with pytest.raises(UserError, match="task unknown: its file does not say where its items lie"):
        specs.of(family.config, "eval_items", {"task": "unknown"})


def test_the_inputs_of_a_search_follow_from_the_kind(family):
    told = {kind: SimpleNamespace(run="micro", kind=kind, data=data) for kind, data in DATA[1:]}
    inputs = {
        kind: (
            family.checked_corpus(job),
            family.checked_mixture(job),
            family.checked_prompts(job),
            family.decoder(job),
        )
        for kind, job in told.items()
    }
    assert inputs == {
        "tokens": ("micro-facts", [], [], "micro"),
        "packed": ([], "micro", [], "micro"),
        "prompts": ([], [], "micro-problems", []),
    }


def test_what_a_run_does_not_train_on_is_not_searched(family):
    job = SimpleNamespace(run="micro", kind="tokens", data="micro-fact")
    with pytest.raises(UserError, match="no tokens of micro micro-fact; did you mean micro-facts"):
        family.checked_corpus(job)


def test_nothing_to_search_or_to_search_for_is_an_error(family):
    with pytest.raises(UserError, match="micro searches no training data; set eval.contamination"):
        specs.of(family.config, "contamination", {"run": "micro"})
    with pytest.raises(UserError, match="unknowing: no task of eval.tasks says where its items"):
        family.checked_tasks(SimpleNamespace(run="unknowing"))


def test_the_recipes_search_all_that_they_train_on(config_folder):
    names = Names(Config(config_folder))
    for run in ("super3", "nano3", "super3-tiny", "nano3-tiny"):
        job = SimpleNamespace(run=run)
        assert {*names.checked_kinds(job)} == {"tokens", "packed", "prompts"}
        assert names.checked_tasks(job) == list(names.run(job).eval.tasks)


def test_searching_changes_no_score_s_spec(family):
    runs = ("micro", "searching")
    plain, searching = (specs.of(family.config, "eval", {"run": run}).identity for run in runs)
    assert plain == searching
