"""lm-eval on a small model: the same score here and from a server; what is no score is refused."""

import functools
import json
import math
import statistics

import pytest

import small_evaluations as small
from nemoflow.engines import harness
from nemoflow.errors import UserError
from openai_server import Server
from small_evaluations import ANSWER, CHOICE


@pytest.fixture(scope="module")
def model(tmp_path_factory, tiny_tokenizer):
    return small.model(tmp_path_factory.mktemp("harness") / "model", tiny_tokenizer)


@pytest.fixture(scope="module")
def server(model):
    with Server(model) as server:
        yield server
        server.shutdown()


@pytest.fixture
def items(tmp_path):
    return small.items(tmp_path)


@pytest.mark.parametrize(
    ("task", "chat", "path"),
    [
        (ANSWER, True, "chat/completions"),
        (ANSWER, False, "completions"),
        (CHOICE, False, "completions"),
        (CHOICE, True, "completions"),
        ({**ANSWER, "gen_prefix": "the lazy"}, True, "completions"),  # begun for the model
    ],
)
def test_a_server_scores_as_transformers_does(model, server, items, task, chat, path):
    server.asked.clear()
    metric = "acc,none" if task is CHOICE else "exact_match,none"
    here = harness.evaluate(small.job(task, items, model, metric=metric, chat=chat))
    told = {"metric": metric, "chat": chat, "endpoint": server.told()}
    there = harness.evaluate(small.job(task, items, model, "endpoint", **told))
    assert here[0] == there[0] and here[0]["n"] == 6
    assert {asked for asked, _ in server.asked} == {f"/v1/{path}"}
    for ours, theirs in zip(here[1], there[1], strict=True):
        assert ours.get("generation") == theirs.get("generation")
        assert ours["doc"] == theirs["doc"] and ours["score"] == theirs["score"]
        if task is CHOICE:
            likelihoods = [[one[0] for one in sample["response"]] for sample in (ours, theirs)]
            assert likelihoods[0] == pytest.approx(likelihoods[1], abs=1e-4)
    if task is ANSWER and not chat:
        assert len({sample["generation"] for sample in here[1]}) > 1


def test_sampling_reaches_whoever_generates(model, server, items):
    server.asked.clear()
    drawn = {"temperature": 0.7, "top_p": 0.9, "max_new_tokens": 3, "until": ["x"]}
    told = {"endpoint": server.told(), "generation": drawn}
    harness.evaluate(small.job(ANSWER, items, model, "endpoint", **told))
    _, body = server.asked[-1]
    assert body | {"prompt": 0} == {
        **{"prompt": 0, "model": "micro", "max_tokens": 3, "temperature": 0.7, "top_p": 0.9},
        **{"stop": ["x"], "seed": 1234},
    }
    greedy, again, sampled = (
        harness.evaluate(small.job(ANSWER, items, model, generation=told))[1]
        for told in ({"temperature": 0}, {"max_new_tokens": 5}, {"temperature": 3.0})
    )
    assert greedy == again != sampled
    assert (
        harness.evaluate(small.job(ANSWER, items, model, generation={"temperature": 3.0}))[1]
        == sampled
    )


def test_examples_are_given_even_where_the_task_itself_says_none(model, items):
    task = {**CHOICE, "num_fewshot": 0, "fewshot_split": "test"}
    _, samples = harness.evaluate(small.job(task, items, model, metric="acc,none", fewshot=2))
    assert all(sample["prompt"].count("jumps over") == 3 for sample in samples)
    assert all(sample["prompt"].count("lazy fox") == 2 for sample in samples)


@pytest.fixture
def few(tmp_path, monkeypatch):
    """Let lm-eval know four names: it takes seconds to find its thousands."""
    import lm_eval.tasks

    folder, manager = small.files(tmp_path / "tasks", tmp_path), lm_eval.tasks.TaskManager
    made = functools.partial(manager, include_path=folder)
    monkeypatch.setattr(
        lm_eval.tasks, "TaskManager", lambda include_defaults: made(include_defaults=False)
    )


def test_a_group_has_the_score_of_all_its_tasks(model, few):
    told = {"metric": "acc,none", "fewshot": 0}
    score, samples = harness.evaluate(small.job("both", None, model, **told))
    assert [sample["task"] for sample in samples] == ["one"] * 2 + ["two"] * 6
    values = [sample["score"] for sample in samples]
    assert score["value"] == pytest.approx(statistics.mean(values))
    assert score["n"] == 8 and 0 <= score["stderr"] < 0.5
    alone, samples = harness.evaluate(small.job("two", None, model, **told))
    assert alone["n"] == 6 and "task" not in samples[0]


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("ones", "ones: lm-eval has no such task; did you mean one?"),
        ("pair", "pair is a tag of lm-eval: its tasks have no common score; name one of one, two"),
    ],
)
def test_a_name_that_has_no_score_is_refused(model, few, name, said):
    with pytest.raises(UserError) as error:
        harness.evaluate(small.job(name, None, model, metric="acc,none"))
    assert said in str(error.value)


def test_the_standard_error_is_that_of_the_samples(model, items):
    score, samples = harness.evaluate(small.job(CHOICE, items, model))
    values = [sample["score"] for sample in samples]
    assert score["stderr"] == pytest.approx(statistics.stdev(values) / math.sqrt(6))


def test_a_task_without_items_is_refused(model, tmp_path):
    for text in ("", "\n"):
        path = tmp_path / "none.jsonl"
        path.write_text(text)
        with pytest.raises(UserError, match=r"none.jsonl: no item"):
            harness.evaluate(small.job(CHOICE, str(path), model))


def test_sampling_of_what_is_not_written_is_refused(model, items):
    with pytest.raises(UserError, match="generation: the task rates given answers"):
        harness.evaluate(small.job(CHOICE, items, model, generation={"temperature": 1.0}))


def test_a_metric_that_is_not_reported_is_refused(model, items):
    with pytest.raises(UserError, match="f1,none: the harness reports acc,none; name one"):
        harness.evaluate(small.job(CHOICE, items, model, metric="f1,none"))


def test_a_model_of_nan_is_refused(model, items, tmp_path):
    import shutil

    from safetensors.torch import load_file, save_file

    broken = shutil.copytree(model, tmp_path / "broken")
    weights = load_file(broken / "model.safetensors")
    weights["lm_head.weight"][:] = math.nan
    save_file(weights, broken / "model.safetensors", metadata={"format": "pt"})
    for task in (ANSWER, CHOICE):
        with pytest.raises(UserError, match="logits are not finite"):
            harness.evaluate(small.job(task, items, broken))


def test_a_model_that_says_nothing_is_refused(model, server, items, monkeypatch):
    monkeypatch.setattr(server, "write", lambda prompt, body: " \n")
    for chat in (True, False):
        told = {"chat": chat, "endpoint": server.told()}
        with pytest.raises(UserError, match="answered nothing: each of 6 generations is empty"):
            harness.evaluate(small.job(ANSWER, items, model, "endpoint", **told))
    rated = {"token_logprobs": [None, *[math.nan] * 60], "top_logprobs": [{"1": math.nan}] * 61}
    monkeypatch.setattr(server, "rate", lambda prompt: rated)
    with pytest.raises(UserError, match="18 of 18 likelihoods are nan"):
        harness.evaluate(small.job(CHOICE, items, model, "endpoint", endpoint=server.told()))


FAULTS = {
    500: "answers 500, after 1 attempts; no score is written",
    404: "answers 404, after 1 attempts",
    json.dumps({"object": "error", "message": "out of memory"}): "without choices: {'object'",
    json.dumps({"choices": []}): "without choices",
}


@pytest.mark.parametrize("chat", [True, False])
@pytest.mark.parametrize("fault", FAULTS)
def test_a_server_that_fails_half_way_makes_no_score(model, server, items, fault, chat):
    """After two answers; lm-eval itself takes a chat without choices for an empty answer."""
    fine = {"text": "lazy", "index": 0, "message": {"content": "lazy"}}
    server.faults = [{"choices": [fine]}] * 2
    server.fault = fault if isinstance(fault, int) else json.loads(fault)
    told = {"chat": chat, "endpoint": server.told(retries=1), "batch_size": 1}
    try:
        with pytest.raises(UserError, match=FAULTS[fault]):
            harness.evaluate(small.job(ANSWER, items, model, "endpoint", **told))
    finally:
        server.faults, server.fault = [], None


def test_a_request_is_tried_again(model, server, items):
    server.faults = [500]
    told = {"chat": True, "endpoint": server.told(retries=2)}
    score, _ = harness.evaluate(small.job(ANSWER, items, model, "endpoint", **told))
    assert score["n"] == 6 and not server.faults
