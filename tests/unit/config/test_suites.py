"""Suites stand for their tasks, in order and once; their mistakes are told with their place."""

from types import SimpleNamespace

import pytest

from nemoflow import specs
from nemoflow.config import Config
from nemoflow.errors import UserError
from nemoflow.names import Names
from small_config import with_runs


@pytest.fixture
def suite(config_folder):
    """Write a suite of config/tasks/."""

    def write(name, *tasks):
        (config_folder / f"tasks/{name}.yaml").write_text(f"suite: [{', '.join(tasks)}]\n")
        return config_folder

    return write


def run(folder, tasks, **keys):
    told = "".join(f", {key}: {value}" for key, value in keys.items())
    return with_runs(folder, mine=f"extends: micro\nstart: eval\neval: {{tasks: {tasks}{told}}}\n")


def test_a_suite_becomes_its_tasks_in_order_and_none_twice(suite):
    suite("inner", "micro_facts", "mmlu")
    folder = suite("outer", "inner", "winogrande")
    config = run(folder, "[mmlu, outer, micro_arithmetic]")
    tasks = ["mmlu", "micro_facts", "winogrande", "micro_arithmetic"]
    assert config.run("mine").eval.tasks == tasks
    assert specs.of(config, "eval", {"run": "mine"}).identity["tasks"] == tasks
    assert Names(config).scored_tasks(SimpleNamespace(run="mine"))[: len(tasks)] == tasks


def test_a_suite_and_its_tasks_written_out_are_one_spec(suite):
    folder = suite("both", "micro_arithmetic", "micro_facts")
    told = [
        specs.of(run(folder, tasks), "eval", {"run": "mine"}).name
        for tasks in ("[both]", "[micro_arithmetic, micro_facts]")
    ]
    assert told[0] == told[1]


@pytest.mark.parametrize(
    ("tasks", "said"),
    [
        (["micro_fact"], "config/tasks/mine.yaml:1: suite: there is no task micro_fact; did you"),
        (["mine"], "config/tasks/mine.yaml:1: suite: mine holds mine: a circle"),
    ],
)
def test_a_wrong_suite_is_told_with_its_place(suite, tasks, said):
    with pytest.raises(UserError) as error:
        run(suite("mine", *tasks), "[mine]").run("mine")
    assert said in str(error.value)


def test_a_suite_has_no_scores_of_its_own(suite):
    config = run(suite("both", "micro_facts"), "[both]")
    with pytest.raises(UserError, match="both is a suite; ask for one of its tasks: micro_facts"):
        Names(config).task_prompts(SimpleNamespace(run="mine", task="both"))


@pytest.mark.parametrize("task", ["micro_fact", "both"])
def test_a_published_score_is_of_a_task(suite, task):
    published = f"{{sft: {{{task}: {{value: 0.5}}}}}}"
    config = run(suite("both", "micro_facts"), "[both]", published=published)
    with pytest.raises(UserError, match=rf"eval\.published\.sft\.{task}: there is no task {task}"):
        config.run("mine")


ENDPOINT = "{url: 'http://here:1235/v1', model: 'super3-{stage}'}"


def test_an_endpoint_is_an_option_and_knows_its_stage(config_folder):
    config = run(config_folder, "[mmlu]", backend="endpoint", endpoint=ENDPOINT)
    named = {"run": "mine", "stage": "sft", "task": "mmlu"}
    spec = specs.of(config, "eval_task", named)
    assert spec.options["endpoint"] == {
        **{"url": "http://here:1235/v1", "model": "super3-sft", "parallel": 4, "retries": 5},
        **{"timeout": 6000},
    }
    assert "endpoint" not in spec.identity and spec.identity["backend"] == "endpoint"
    assert "endpoint" not in specs.of(config, "eval", {"run": "mine"}).identity
    other = ENDPOINT.replace("here", "there")
    moved = run(config_folder, "[mmlu]", backend="endpoint", endpoint=other)
    assert specs.of(moved, "eval_task", named).name == spec.name


@pytest.mark.parametrize(
    ("endpoint", "said"),
    [
        ("null", "backend: endpoint needs eval.endpoint"),
        (ENDPOINT.replace("{stage}", "x"), "one model would be scored as that of each stage"),
        ("{url: here, model: '{stage}'}", "eval.endpoint.url"),
        ("{url: 'http://here', model: '{stage}', key: secret}", "eval.endpoint.key"),
    ],
)
def test_an_endpoint_that_cannot_be_is_refused(config_folder, endpoint, said):
    with pytest.raises(UserError) as error:
        run(config_folder, "[mmlu]", backend="endpoint", endpoint=endpoint).run("mine")
    assert said in str(error.value)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("suite: [mmlu]\nmetric: 'acc,none'\n", "a suite has no metric"),
        ("harness: mmlu\n", "say harness and metric, or suite alone"),
        ("harness: mmlu\nmetric: acc\n", "metric"),
        ("harness: mmlu\nmetric: 'acc,none'\ngeneration: {temperature: -1}\n", "temperature"),
    ],
)
def test_a_task_that_cannot_be_is_refused(config_folder, text, said):
    (config_folder / "tasks/mine.yaml").write_text(text)
    with pytest.raises(UserError) as error:
        Config(config_folder).data("tasks", "mine")
    assert said in str(error.value)


def test_what_is_rated_is_not_sampled(config_folder):
    path = config_folder / "tasks/micro_facts.yaml"
    path.write_text(path.read_text() + "generation: {temperature: 1.0}\n")
    with pytest.raises(UserError, match="generation: the task rates given answers"):
        Config(config_folder).data("tasks", "micro_facts")
