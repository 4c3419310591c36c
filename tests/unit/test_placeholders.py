"""Rows that stand for rows of other sets: DAPO's and Skywork's styles, answers, what is missing."""

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import hub_server
from nemoflow.errors import UserError
from nemoflow.placeholders import first_answer
from small_prompts import placeholder, read, resolve, row, write

PATHS = {"question": "prompt.0.content", "answer": "reward_model.ground_truth"}
AGENT = {"type": "responses_api_agents", "name": "math_with_judge"}
DAPO = "Solve the following problem.\n\nWhat is 17 + 17?\n\nAnswer in whole numbers.\n\nRemember."


def theirs(question, answer):
    return {
        "prompt": [{"role": "user", "content": question}],
        "reward_model": {"ground_truth": answer},
    }


def sets(folder, dapo=(), skywork=()):
    """The external sets of a prompts file."""
    return {
        "dapo17k": {"source": write(folder / "dapo.jsonl", dapo), "style": "dapo", **PATHS},
        "skyworks": {
            "source": write(folder / "skywork.jsonl", skywork),
            "style": "skywork",
            **PATHS,
        },
    }


def test_both_styles_exactly(tmp_path):
    rows = [
        placeholder(1, uuid="a", pass_rate=0.25),
        row(0),
        placeholder(0, "skyworks", "Think.\n{question}\nDone.\n", tests=[1]),
        placeholder(0, "skyworks", "no slot"),
        placeholder(2),
    ]
    dapo = [theirs("another", "1"), theirs(DAPO, "34"), theirs("Only one.\n\nTwo.", "3")]
    told = resolve(
        tmp_path, rows, external=sets(tmp_path, dapo, [theirs("What is x?", '["\\\\frac{1}{2}"]')])
    )
    dapos = "Solve.\n\nWhat is 17 + 17?\n\nAnswer in whole numbers.\n\nBox it."
    whole = "Solve.\n\nOnly one.\n\nTwo.\n\nBox it."

    def made(dataset, asked, question, answer, **fields):
        return {
            "dataset": dataset,
            "agent_ref": AGENT,
            **fields,
            "question": question,
            "expected_answer": answer,
            "responses_create_params": {"input": [{"role": "user", "content": asked}]},
        }

    assert read(tmp_path / "out", "train") == [
        made("dapo17k", dapos, dapos, "34", uuid="a", pass_rate=0.25),
        row(0),
        made("skyworks", "Think.\nWhat is x?\nDone.\n", "What is x?", "\\frac{1}{2}", tests=[1]),
        made("skyworks", "What is x?", "What is x?", "\\frac{1}{2}"),
        made("dapo17k", whole, whole, "3"),
    ]
    assert {name: entry["rows"] for name, entry in told["external"].items()} == {
        "dapo17k": 2,
        "skyworks": 1,
    }
    names = [file["path"] for file in told["source_files"]]
    assert names == ["rows.jsonl", "dapo.jsonl", "skywork.jsonl"]


@pytest.mark.parametrize(
    ("answer", "found"),
    [
        ("34", "34"), ("1e5", "1e5"), ("true", "true"), ("null", "null"), ('"quoted"', '"quoted"'),
        ("", ""), ("x = 2", "x = 2"), ("[]", "[]"), ("{}", "{}"), ("[", "["),
        ('["34", "35"]', "34"), ("[34]", 34), ('[["a"]]', ["a"]), ("[null]", None),
        ('{"a": "1", "b": 2}', "1"), (34, 34), (["a", "b"], ["a", "b"]), (0.5, 0.5),
    ],
)  # fmt: skip
def test_answers_stay_text_unless_it_holds_a_list_or_an_object(answer, found):
    assert first_answer(answer) == found and type(first_answer(answer)) is type(found)


@pytest.mark.parametrize(
    ("faulty", "reason", "message"),
    [
        (placeholder(9), "no_such_row", r"dapo17k \(local .*dapo\.jsonl\) has no row 9"),
        (placeholder(-1), "bad_placeholder", "row must be a number from 0"),
        (placeholder(True), "bad_placeholder", "row must be a number from 0"),
        (placeholder("0"), "bad_placeholder", "row must be a number from 0"),
        (placeholder(0, "other"), "unknown_set", "a row of other, which external does not name"),
        (placeholder(0, template="text"), "bad_placeholder", "must have prefix and suffix"),
        (placeholder(0, "skyworks"), "bad_placeholder", "question_template must be text"),
        (placeholder(1), "missing_key", "row 1 of dapo17k .* has no reward_model.ground_truth"),
        (placeholder(2), "missing_key", "row 2 of dapo17k .* has no prompt.0.content"),
        (placeholder(3), "no_such_row", "has no row 3"),
        ({**placeholder(0), "agent_ref": None}, "no_agent", "it has no agent_ref"),
        ({**placeholder(0), "_hf_placeholder": 7}, "bad_placeholder", "row must be a number"),
    ],
)
def test_what_cannot_be_filled_stops_the_job_and_names_set_and_row(
    tmp_path, faulty, reason, message
):
    dapo = [
        theirs(DAPO, "34"),
        {"prompt": [{"content": "q"}]},
        theirs(None, "1"),
        "{",
        theirs("q", "5"),
    ]
    told = {"external": sets(tmp_path, dapo, [theirs("q", "1")])}
    named = rf"1 {reason} \(first: rows\.jsonl, row 2: .*{message}"
    with pytest.raises(UserError, match=named):
        resolve(tmp_path, [row(0), faulty, placeholder(4)], **told)
    facts = resolve(tmp_path, [row(0), faulty, placeholder(4)], **told, max_dropped=0.4)
    assert facts["rows"] == {"in": 3, "kept": 2, "dropped": {reason: 1}}
    assert read(tmp_path / "out", "train")[1]["expected_answer"] == "5"


def test_sets_of_the_hub_are_pinned_and_read_in_the_order_of_their_files(tmp_path, monkeypatch):
    hub = hub_server.Hub()
    monkeypatch.setenv("HF_ENDPOINT", hub.url)
    monkeypatch.setenv("HF_TOKEN_PATH", str(tmp_path / "no-token"))
    files = {}
    for part, numbers in enumerate((range(3), range(3, 5))):
        table = pa.Table.from_pylist([theirs(f"question {n}", str(n)) for n in numbers])
        pq.write_table(table, tmp_path / "part", row_group_size=1)
        files[f"data/math-0000{part}-of-00002.parquet"] = (tmp_path / "part").read_bytes()
    rows = [placeholder(4, "skyworks", "{question}!"), placeholder(1, "skyworks", "{question}?")]
    hub.add("Skywork/OR1", {**files, "data/code-00000.parquet": b"not read"}, commit="d" * 40)
    source = {"hub": "Skywork/OR1", "revision": "main", "split": "math"}
    external = {"skyworks": {"source": source, "style": "skywork", **PATHS}}
    told = resolve(tmp_path, rows, external=external)
    assert [r["expected_answer"] for r in read(tmp_path / "out", "train")] == ["4", "1"]
    assert told["external"] == {"skyworks": {"pinned": {"revision": "d" * 40}, "rows": 2}}
    assert [f["path"] for f in told["source_files"]] == ["rows.jsonl", *sorted(files)]
    hub.shutdown()
    hub.server_close()
