"""RL rows: everything kept, checked, counted, split by environment."""

import datetime
import json
import tracemalloc
from collections import Counter

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nemoflow import prompts
from nemoflow.errors import UserError
from small_prompts import read, resolve, row, write

AGENT = {"type": "responses_api_agents", "name": "calendar"}
KEYS = st.text(max_size=8)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**200), 2**200) | st.text()
    | st.floats(allow_nan=False, allow_infinity=False),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=3),
    max_leaves=8,
)  # fmt: skip
TAKEN = {"responses_create_params", "agent_ref", "_hf_placeholder"}
FIELDS = st.dictionaries(KEYS, VALUES, max_size=5).filter(lambda fields: not TAKEN & set(fields))


def exact(rows):
    """Rows with their types: true is not 1, and 1.0 not 1."""
    return repr(rows)


@settings(max_examples=60)
@given(st.lists(FIELDS, min_size=1, max_size=10), st.booleans())
def test_rows_come_out_as_they_went_in(tmp_path_factory, fields, named):
    rows = [row(number, **extra) for number, extra in enumerate(fields)]
    if not named:
        for each in rows:
            del each["agent_ref"]
    folder = tmp_path_factory.mktemp("prompts")
    told = resolve(folder, rows, agent=AGENT, external={})
    assert told["rows"] == {"in": len(rows), "kept": len(rows), "dropped": {}}
    expected = rows if named else [each | {"agent_ref": AGENT} for each in rows]
    assert exact(read(folder / "out", "train")) == exact(expected)


def test_what_a_manifest_tells(tmp_path):
    rows = [row(0, uuid="é漢\u2028"), row(1, "code"), "[1]", "{", row(2) | {"agent_ref": None}]
    told = resolve(tmp_path, rows, [row(1), row(3)], max_dropped=0.5)
    assert told["rows"] == {
        "in": 7,
        "kept": 4,
        "dropped": {"no_agent": 1, "not_an_object": 1, "not_json": 1},
    }
    nobodys = {"no_agent": 1, "not_an_object": 1, "not_json": 1}
    assert told["environments"] == {
        "(none)": {"in": 3, "dropped": nobodys, "train": 0, "validation": 0},
        "boxed_math": {"in": 3, "dropped": {}, "train": 1, "validation": 2},
        "code": {"in": 1, "dropped": {}, "train": 1, "validation": 0},
    }
    assert (told["train"], told["validation"], told["in_both"]) == (2, 2, 1)
    assert [file["path"] for file in told["source_files"]] == ["rows.jsonl", "held.jsonl"]
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        "train.jsonl",
        "validation.jsonl",
    ]
    json.dumps(told)


@pytest.mark.parametrize(
    ("broken", "message"),
    [
        ({"responses_create_params": None}, r"input must be a list of messages"),
        ({"responses_create_params": {"input": []}}, "input is empty"),
        ({"responses_create_params": {"input": ["text"]}}, r"input\.0 must be an object"),
        ({"responses_create_params": {"input": [{"role": "user"}]}}, r"input\.0 must be an object"),
        (
            {"responses_create_params": {"input": [{"role": "u", "content": ""}], "tools": {}}},
            "tools must be a list",
        ),
        ({"agent_ref": "boxed_math"}, "agent_ref must be an object"),
        ({"agent_ref": {"type": "x"}}, r"agent_ref\.name must be a name"),
        ({"agent_ref": None}, "no_agent .*it has no agent_ref"),
        ({"_hf_placeholder": {"row": 3}, "dataset": "dapo"}, "row of dapo, which external does"),
        ("{", "not_json"),
        ("[" * 2000 + "]" * 2000, "not_json"),
        ('{"a": ' * 980 + "1" + "}" * 980, "not_json|no_agent|bad_input"),
    ],
)
def test_a_row_that_cannot_be_used_stops_the_job_and_is_named(tmp_path, broken, message):
    faulty = broken if isinstance(broken, str) else row(2) | broken
    named = r"1 of 2 rows cannot be used.*rows\.jsonl, (row|line) 2.*max_dropped: 0\.0"
    with pytest.raises(UserError, match=named) as error:
        resolve(tmp_path, [row(1), faulty])
    assert error.match(message)
    assert not list((tmp_path / "out").iterdir())
    told = resolve(tmp_path, [row(1), faulty], max_dropped=0.5)
    assert told["rows"]["kept"] == 1 and read(tmp_path / "out", "train") == [row(1)]


def test_entries_of_a_conversation_that_are_no_messages(tmp_path):
    call = {"type": "function_call", "name": "f", "arguments": "{}", "call_id": "1"}
    entries = [
        {"role": "user", "content": [{"type": "input_text", "text": "hello"}]},
        {"type": "reasoning", "summary": []},
        call,
        {"type": "function_call_output", "call_id": "1", "output": "2"},
    ]
    rows = [row(1) | {"responses_create_params": {"input": entries, "tools": []}}]
    assert resolve(tmp_path, rows)["train"] == 1
    assert read(tmp_path / "out", "train") == rows


def test_values_of_parquet_that_json_has_not(tmp_path):
    rows = [row(0, when=None), row(1, when=datetime.datetime(2026, 1, 1))]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "rows.parquet")
    told = {"kind": "rl", "holdout": 0, "seed": 1, "max_dropped": 0.5}
    told["sources"] = [{"local": str(tmp_path / "rows.parquet")}]
    (tmp_path / "out").mkdir()
    facts = prompts.make(told, tmp_path / "out", tmp_path)
    assert facts["environments"]["boxed_math"]["dropped"] == {"not_json": 1}
    assert read(tmp_path / "out", "train") == rows[:1]


def test_evaluation_items_need_no_agent(tmp_path):
    items = [{"stem": "The sky is", "choices": ["blue", "red"], "label": 0}]
    told = resolve(tmp_path, [], items, kind="items")
    assert told["validation"] == 1 and read(tmp_path / "out", "validation") == items
    assert list(told["environments"]) == ["(none)"]
    assert not (tmp_path / "out/train.jsonl").exists()


def test_nothing_to_train_on(tmp_path):
    with pytest.raises(UserError, match=r"sources has no rows that can be used.*1 not_json"):
        resolve(tmp_path, ["{"], max_dropped=1.0)
    with pytest.raises(UserError, match="holdout 3 leaves none of 3 rows"):
        resolve(tmp_path, [row(i) for i in range(3)], holdout=3)


def pair(context="2+2?", ranks=(0, 1)):
    def answer(text, rank):
        return {"rank": rank, "completion": [{"role": "assistant", "content": text}]}

    asked = [{"role": "user", "content": context}]
    return {"context": asked, "completions": [answer("4", ranks[0]), answer("5", ranks[1])]}


def test_pairs_of_answers(tmp_path):
    rows = [pair(str(number)) for number in range(8)]
    told = resolve(tmp_path, rows, kind="pairs", holdout=2)
    assert (told["train"], told["validation"], told["in_both"]) == (6, 2, 0)


@pytest.mark.parametrize(
    ("faulty", "text"),
    [
        (pair() | {"context": "2+2?"}, "context must be a list"),
        (pair() | {"completions": pair()["completions"][:1]}, "must be two objects"),
        (pair(ranks=(1, 1)), "same rank"),
        (pair(ranks=("a", "b")), "must be two objects"),
    ],
)
def test_pairs_that_nemo_rl_would_refuse(faulty, text, tmp_path):
    with pytest.raises(UserError, match=rf"bad_pair \(first: rows\.jsonl, row 2: .*{text}"):
        resolve(tmp_path, [pair(), faulty], kind="pairs")


def test_every_environment_is_in_validation_after_what_is_dropped(tmp_path):
    rows = [row(i, "math", pass_rate=i / 600) for i in range(600)]
    rows += [row(i + 1000, "code", pass_rate=1) for i in range(400)]
    rows += [row(5000, "rare", pass_rate=0), row(5001, "rare", pass_rate=0), row(1, "bad")]
    told = resolve(tmp_path, rows, holdout=100, seed=7, difficulty="pass_rate", max_dropped=0.001)
    counts = {name: (c["train"], c["validation"]) for name, c in told["environments"].items()}
    assert counts == {"bad": (0, 0), "math": (540, 60), "code": (360, 40), "rare": (1, 1)}
    assert told["environments"]["bad"]["dropped"] == {"no_difficulty": 1}
    held = Counter(each["agent_ref"]["name"] for each in read(tmp_path / "out", "validation"))
    assert held == {"math": 60, "code": 40, "rare": 1}
    known = told["difficulty"]
    trained = [each["pass_rate"] for each in read(tmp_path / "out", "train")]
    assert (known["field"], known["min"], known["max"]) == ("pass_rate", 0.0, 1.0)
    assert known["mean"] == pytest.approx(sum(trained) / len(trained), rel=1e-5)
    assert known["environments"]["code"] == {"min": 1.0, "mean": 1.0, "max": 1.0}


def test_training_rows_that_hold_an_item_of_a_task_are_dropped(tmp_path):
    item = "one two three four five six seven eight nine ten eleven twelve thirteen fourteen"
    short = "Capital of France?"
    tasks = {
        "quiz": {
            "sources": [write(tmp_path / "quiz.jsonl", [{"q": {"text": item}}])],
            "text_field": "q.text",
        },
        "ours": {"sources": [write(tmp_path / "ours.jsonl", [{"stem": short, "label": 0}])]},
    }
    rows = [row(0), row(1), row(2), row(3)]
    texts = [f"Say it: {item.upper()}, please", "capital of – FRANCE", f"And the {short}", "else"]
    for each, text in zip(rows, texts, strict=True):
        each["responses_create_params"]["input"][0]["content"] = text
    told = resolve(tmp_path / "a", rows, rows[:1], apart_from=tasks)
    assert read(tmp_path / "a/out", "train") == rows[2:]
    assert read(tmp_path / "a/out", "validation") == rows[:1]  # not trained on
    assert told["rows"] == {"in": 5, "kept": 3, "dropped": {"evaluation_item": 2}}
    assert {name: task["dropped"] for name, task in told["apart_from"].items()} == {
        "quiz": 1,
        "ours": 1,
    }
    names = {file["path"] for file in told["source_files"]}
    assert names == {"rows.jsonl", "held.jsonl", "quiz.jsonl", "ours.jsonl"}
    tasks["quiz"]["text_field"] = "text"
    with pytest.raises(UserError, match=r"quiz\.jsonl of local .*an item has no text in text"):
        resolve(tmp_path / "b", rows, apart_from=tasks)


def test_rows_are_not_in_memory_together(tmp_path):
    external = {"dapo17k": {"source": write(tmp_path / "set.jsonl", ["{}"]), "style": "dapo"}}
    external["dapo17k"] |= {"question": "q", "answer": "a"}
    rows = [row(number, padding="x" * 10_000) for number in range(1500)]
    source = write(tmp_path / "rows.jsonl", rows)
    (tmp_path / "out").mkdir()
    told = {"kind": "rl", "holdout": 10, "seed": 1, "sources": [source], "external": external}
    del rows
    tracemalloc.start()
    prompts.make(told, tmp_path / "out", tmp_path)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert (tmp_path / "out/train.jsonl").stat().st_size > 14_000_000
    assert peak < 12_000_000  # two blocks of reading are 8 MB
