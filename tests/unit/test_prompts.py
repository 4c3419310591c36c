"""RL rows: everything kept, checked, split by agent."""

import json
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nemoflow.errors import UserError
from nemoflow.prompts import resolve

RL = {"kind": "rl"}


def row(number, agent="boxed_math", **fields):
    asked = {"input": [{"role": "user", "content": f"question {number}"}]}
    reference = {"type": "responses_api_agents", "name": agent}
    return {"responses_create_params": asked, "agent_ref": reference, **fields}


def read(folder, name):
    path = folder / f"{name}.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def test_every_field_is_kept_with_its_type(tmp_path):
    rows = [
        row(0, expected_answer="34", verifier_metadata={"tests": [1, 2.5, None]}, uuid="é漢\u2028"),
        row(1, expected_answer=["a"], big=2**80, tools=[]),
        row(2, expected_answer={"x": "1e5"}, nested=[[{"a": False}]]),
    ]
    counts = resolve(rows, None, 0, 1, RL, tmp_path)
    assert read(tmp_path, "train") == rows
    assert list(read(tmp_path, "train")[0]) == list(rows[0])
    assert not (tmp_path / "validation.jsonl").exists()
    assert counts == {
        "train": 3,
        "validation": 0,
        "agents": {"train": {"boxed_math": 3}, "validation": {}},
        "in_both": 0,
    }


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 30), st.sampled_from("abc")), min_size=2, max_size=80),
    st.integers(1, 20),
    st.integers(0, 5),
)
def test_the_holdout_is_disjoint_and_seeded(tmp_path_factory, keys, holdout, seed):
    rows = [row(number, agent, place=place) for place, (number, agent) in enumerate(keys)]
    rows = [{**r, "responses_create_params": {"input": [r["agent_ref"]["name"], str(k[0])]}}
            for r, k in zip(rows, keys, strict=True)]  # fmt: skip
    if holdout >= len(rows):
        return
    results = []
    if all(len({k for k in keys if k[1] == agent}) < 2 for agent in "abc"):
        with pytest.raises(UserError, match="two different prompts"):
            resolve(rows, None, holdout, seed, RL, tmp_path_factory.mktemp("prompts"))
        return
    for _ in range(2):
        folder = tmp_path_factory.mktemp("prompts")
        counts = resolve(rows, None, holdout, seed, RL, folder)
        train, validation = read(folder, "train"), read(folder, "validation")
        results.append((train, validation))
    assert results[0] == results[1]
    assert sorted(r["place"] for r in train + validation) == list(range(len(rows)))
    assert train and counts["in_both"] == 0
    prompts = [
        {tuple(r["responses_create_params"]["input"]) for r in s} for s in (train, validation)
    ]
    assert not prompts[0] & prompts[1]
    for agent in {key[1] for key in keys}:
        if len({key for key in keys if key[1] == agent}) > 1:
            assert any(r["agent_ref"]["name"] == agent for r in validation)


def test_the_holdout_has_every_agents_share(tmp_path):
    rows = [row(i, "math") for i in range(600)] + [row(i + 1000, "code") for i in range(400)]
    rows += [row(5000, "rare"), row(5001, "rare")]
    counts = resolve(rows, None, 100, 7, RL, tmp_path)
    assert counts["agents"]["validation"] == {"code": 40, "math": 60, "rare": 1}
    assert counts["train"] + counts["validation"] == len(rows)
    one = read(tmp_path, "validation")
    resolve(rows, None, 100, 8, RL, tmp_path)
    assert read(tmp_path, "validation") != one
    assert Counter(r["agent_ref"]["name"] for r in one) == counts["agents"]["validation"]


def test_given_validation_rows_are_kept_as_they_are(tmp_path):
    counts = resolve([row(1), row(2)], [row(2), row(3)], 0, 1, RL, tmp_path)
    assert (counts["train"], counts["validation"], counts["in_both"]) == (2, 2, 1)
    assert read(tmp_path, "validation") == [row(2), row(3)]


def test_evaluation_items_need_no_agent(tmp_path):
    items = [{"stem": "The sky is", "choices": ["blue", "red"], "label": 0}]
    counts = resolve([], items, 0, 1, {"kind": "items"}, tmp_path)
    assert counts["validation"] == 1 and read(tmp_path, "validation") == items
    assert not (tmp_path / "train.jsonl").exists()


@pytest.mark.parametrize(
    ("broken", "message"),
    [
        ({"responses_create_params": None}, r"row 2: responses_create_params\.input must be"),
        ({"responses_create_params": {"input": []}}, "row 2: .*input is empty"),
        ({"agent_ref": "boxed_math"}, "row 2: agent_ref must be an object"),
        ({"agent_ref": {"type": "x"}}, r"row 2: agent_ref\.name must be a name"),
        ({"_hf_placeholder": {"row": 3}, "dataset": "dapo"}, r"external set \(dapo\)"),
    ],
)
def test_faulty_rows_are_named(tmp_path, broken, message):
    with pytest.raises(UserError, match=message):
        resolve([row(1), row(2) | broken], None, 0, 1, RL, tmp_path)
    assert not list(tmp_path.iterdir())


def test_nothing_to_train_on(tmp_path):
    with pytest.raises(UserError, match="no rows"):
        resolve([], None, 0, 1, RL, tmp_path)
    with pytest.raises(UserError, match="holdout 3 leaves none of 3 rows"):
        resolve([row(i) for i in range(3)], None, 3, 1, RL, tmp_path)


def pair(context="2+2?", ranks=(0, 1)):
    def answer(text, rank):
        return {"rank": rank, "completion": [{"role": "assistant", "content": text}]}

    asked = [{"role": "user", "content": context}]
    return {"context": asked, "completions": [answer("4", ranks[0]), answer("5", ranks[1])]}


def test_pairs_of_answers(tmp_path):
    rows = [pair(str(n)) for n in range(8)]
    counts = resolve(rows, None, 2, 1, {"kind": "pairs"}, tmp_path)
    assert (counts["train"], counts["validation"]) == (6, 2)


@pytest.mark.parametrize(
    ("row", "text"),
    [
        (pair() | {"context": "2+2?"}, "context must be a list"),
        (pair() | {"completions": pair()["completions"][:1]}, "must be two objects"),
        (pair(ranks=(1, 1)), "same rank"),
        (pair(ranks=("a", "b")), "must be two objects"),
    ],
)
def test_pairs_that_nemo_rl_would_refuse(row, text, tmp_path):
    with pytest.raises(UserError, match=f"row 2: .*{text}"):
        resolve([pair(), row], None, 0, 1, {"kind": "pairs"}, tmp_path)
