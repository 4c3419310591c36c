"""Sources to spools: the same bytes by any number of processes, and every row accounted for."""

import gzip
import json
import os
import signal

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

import small_chats
import small_encoders
from nemoflow import rendering
from nemoflow.chat_template import Template
from nemoflow.errors import UserError
from nemoflow.messages import cleaned
from nemoflow.reasoning import parts
from nemoflow.spool import Spool
from nemoflow.vocabulary import Folder
from small_chats import CHATML, NEMOTRON, Chats, assistant, one, rendered, stretches, user

PARTS = ("tokens.bin", "masks.bin", "sequences.bin", "spool.json")


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory):
    return small_encoders.chat(tmp_path_factory.mktemp("chat"))


@pytest.fixture(scope="module")
def folder(tokenizer):
    return Folder(tokenizer)


@pytest.fixture
def make(tmp_path, tokenizer, monkeypatch):
    """Renders the files of a folder, 16 rows at a time: (what is told, the spool's files)."""
    monkeypatch.setattr(rendering, "BATCH_ROWS", 16)

    def run(rows=None, workers=1, template=NEMOTRON, max_dropped=0.0, **told):
        local = {"local": str(rows or tmp_path / "rows")}
        asked = {"template": template, "source": local, "max_dropped": max_dropped}
        asked = small_chats.SETTINGS | asked | told
        out = tmp_path / "spool"
        found = rendering.make(asked, tokenizer, out, tmp_path / "cache", workers)
        return found, [(out / name).read_bytes() for name in PARTS]

    (tmp_path / "rows").mkdir()
    return run


def lines(rows):
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode()


def answer(text, **fields):
    return {"messages": [user("a"), assistant(text)], **fields}


def test_any_number_of_processes_writes_the_same_bytes(make, tmp_path):
    """And what is written is what is kept: sequences, tokens, masks, their counts."""
    chats = Chats(3)
    rows, reasons = zip(*(chats.maybe_spoiled(0.2) for _ in range(200)), strict=True)
    for name, part in (("a", rows[:90]), ("b", ()), ("c", rows[90:])):
        (tmp_path / f"rows/{name}.jsonl").write_bytes(lines(part))
    modes = {"off": 0.1, "low_effort": 0.1, "budget": {"share": 0.2, "tokens": [1, 4]}}
    asked = {"max_dropped": 0.5, "reasoning": small_chats.REASONING | modes}
    (told, one), (told_too, three) = (make(workers=n, **asked) for n in (1, 3))
    assert one == three and told == told_too
    assert told["rows"]["in"] == 200
    assert told["rows"]["kept"] == reasons.count(None)
    dropped = told["rows"]["dropped"]
    assert dropped == {reason: reasons.count(reason) for reason in sorted({*reasons} - {None})}
    spool = Spool(tmp_path / "spool")
    assert spool.rows == told["rows"]["kept"] and len(spool.sequences) == told["sequences"]
    assert len(spool.tokens) == told["tokens"] and spool.masks.sum() == told["trained_tokens"]
    assert told["reasoning"].keys() == {
        *("low_effort", "reasoning_budget", "reasoning_cut", "reasoning_off")
    }
    assert [file["path"] for file in told["source_files"]] == ["a.jsonl", "b.jsonl", "c.jsonl"]


def test_every_kind_of_file_gives_the_same_spool(make, tmp_path, folder):
    """Parquet fills in nulls where a message has no tool calls and a row no tools."""
    call = {"type": "function", "function": {"name": "now", "arguments": '{"zone": null}'}}
    rows = [
        answer("b", id="x"),
        {"messages": [user("a"), {"role": "assistant", "tool_calls": [call]}, user("c")]},
        {"messages": [user("a"), {"role": "assistant", "content": "b"}], "tools": "[]"},
        {"messages": [user("a"), assistant("b", "why")], "tools": '[{"name": "now"}]'},
    ] * 9
    rows = [{**row, "id": number} for number, row in enumerate(rows)]
    kinds = {
        "a.jsonl": lines(rows),
        "a.json.gz": gzip.compress(lines(rows)),
        "a.jsonl.zst": zstandard.compress(lines(rows)),
    }
    table = pa.Table.from_pylist(
        [{"messages": r["messages"], "tools": r.get("tools")} for r in rows]
    )
    found = []
    for name in (*kinds, "a.parquet"):
        place = tmp_path / name.replace(".", "-")
        place.mkdir()
        if name in kinds:
            (place / name).write_bytes(kinds[name])
        else:
            pq.write_table(table, place / name, row_group_size=5)
        told, written = make(place, workers=2)
        assert told["rows"] == {"in": 36, "kept": 36, "dropped": {}}
        found.append(written)
    assert all(written == found[0] for written in found)
    spool, plain = Spool(tmp_path / "spool"), small_chats.renderer(folder, NEMOTRON)
    expected = [sequence for row in rows for sequence in one(plain, row)]
    assert spool.sequences["row"].tolist() == list(range(36)) and len(expected) == 36
    for index, (ids, mask) in enumerate(expected):
        assert [part.tolist() for part in spool.sequence(index)] == [ids.tolist(), mask.tolist()]


def test_the_first_place_of_each_reason_is_named(make, tmp_path):
    bad = [{"messages": []}, answer("c", id=7), {"messages": [], "id": 7}, [1]]
    content = lines([answer("b", id=7), *bad]) + b'{"messages": [\n'
    content += lines([answer(str(number)) for number in range(30)])
    (tmp_path / "rows/a.jsonl.gz").write_bytes(gzip.compress(content))
    (tmp_path / "rows/b.jsonl").write_bytes(lines([answer("d", id=7), {"messages": 3}]))
    with pytest.raises(UserError) as caught:
        make(workers=2, max_dropped=0.1)
    said = str(caught.value)
    assert said.startswith("7 of 38 rows cannot be used: ")
    for told in (
        "2 empty_messages (first: a.jsonl.gz, line 2)",
        "2 duplicate_id (first: a.jsonl.gz, line 3)",
        "1 not_an_object (first: a.jsonl.gz, line 5: every line holds one object)",
        "1 not_json (first: a.jsonl.gz, line 6: ",
        "1 missing_messages (first: b.jsonl, line 2)",
    ):
        assert told in said
    assert "max_dropped: 0.1 allows; mend the rows, or raise it" in said
    with pytest.raises(UserError, match="holds no rendered conversations"):
        Spool(tmp_path / "spool")
    told, _ = make(max_dropped=0.2)
    assert told["rows"]["in"] == told["rows"]["kept"] + sum(told["rows"]["dropped"].values())


def test_rows_of_one_id_are_found_wherever_they_lie(make, tmp_path):
    """In other batches and files too; of those that cannot be used the next one is taken."""
    rows = [answer(f"b{number}", id=f"x{number % 40}") for number in range(60)]
    rows[0]["messages"] = []
    (tmp_path / "rows/a.jsonl").write_bytes(lines(rows[:50]))
    (tmp_path / "rows/b.jsonl").write_bytes(lines(rows[50:]))
    told, written = make(max_dropped=1.0)
    assert told["rows"]["kept"] == 40
    assert told["rows"]["dropped"] == {"duplicate_id": 19, "empty_messages": 1}
    assert make(workers=3, max_dropped=1.0) == (told, written)
    kept, _ = make(max_dropped=1.0, duplicates="keep")
    assert kept["rows"]["kept"] == 59


def test_rows_of_parquet_are_named_by_number(make, tmp_path):
    rows = [answer("b")] * 20 + [{"messages": []}]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "rows/a.parquet", row_group_size=6)
    with pytest.raises(UserError, match=r"1 empty_messages \(first: a\.parquet, row 21\)"):
        make()


def test_filters_are_no_faults(make, tmp_path):
    rows = [answer("b", used_in=["v3"], score=number) for number in range(9)] + [answer("c")]
    (tmp_path / "rows/a.jsonl").write_bytes(lines(rows))
    told, _ = make(used_in="v3", filters={"score": {"min": 6}})
    assert told["rows"] == {"in": 10, "kept": 3, "dropped": {"filter:score": 6, "used_in": 1}}
    with pytest.raises(
        UserError, match="no conversation is left to train on, rows: .*'used_in': 10"
    ):
        make(used_in="v4")


@pytest.mark.parametrize("content", [b"\n\n", b""])
def test_a_source_without_rows_is_refused(make, tmp_path, content):
    (tmp_path / "rows/a.jsonl").write_bytes(content)
    with pytest.raises(UserError, match="no row in any of its files|all its files are empty"):
        make()


def test_a_template_that_trains_nothing_stops_before_anything_is_written(make, tmp_path):
    (tmp_path / "rows/a.jsonl").write_bytes(lines([answer("b")] * 99))
    silent = "{% for m in messages if m.role == 'user' %}{{ m.content }}{% endfor %}"
    with pytest.raises(UserError, match="template: 16 of the first 16 rows cannot be trained on"):
        make(template=silent + "{% generation %}{% endgeneration %}", max_dropped=1.0)
    assert not (tmp_path / "spool").exists()


def killed(path, rows):
    """A process that the machine ends for want of memory."""
    os.kill(os.getpid(), signal.SIGKILL)


def test_a_process_that_is_killed_is_told_in_a_sentence(make, tmp_path, monkeypatch):
    (tmp_path / "rows/a.jsonl").write_bytes(lines([answer("b")] * 99))
    monkeypatch.setattr(rendering.Process, "work", killed)
    with pytest.raises(UserError, match="one of 2 processes was killed, most likely"):
        make(workers=2, template=CHATML)
    with pytest.raises(UserError, match="holds no rendered conversations"):
        Spool(tmp_path / "spool")


# What a text must not hold: rows with it are dropped, and counted.
HELD = ("<|im_", "<tool_call>", "<s>", "</s>", "<unk>")
texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=12).filter(
    lambda text: not any(token in text for token in HELD)
)


@pytest.fixture(scope="module")
def ours(folder):
    return small_chats.renderer(folder, NEMOTRON)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.booleans(), texts, st.none() | texts), max_size=8))
def test_every_answer_is_trained_once_whatever_is_said(folder, ours, told):
    turns = [assistant(text, why) if answers else user(text) for answers, text, why in told]
    made = one(ours, {"messages": turns})
    answers = [turn for turn in turns if turn["role"] == "assistant"]
    if not answers:
        assert made.reason == ("no_assistant" if turns else "empty_messages")
        return
    told = [stretches(folder, sequence) for sequence in made]
    trained = [text for sequence in told for text, mask in sequence if mask]
    assert trained == ["".join(written(turn)) for turn in answers]


def written(turn):
    """What an assistant's turn trains, its calls aside."""
    thought = turn["reasoning_content"] or ""
    thought = f"{thought}\n</think>\n" if thought.strip() else ""
    return f"{thought}{turn['content'] or ''}", "<|im_end|>\n"


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 1 << 32))
def test_every_row_is_kept_or_dropped_for_one_reason(folder, seed):
    """40 conversations at a time, a third of them spoiled.

    Of the others, over the sequences of a row, each answer and its terminator is trained once, and
    nothing else; the stretches of a sequence are together what the template writes.
    """
    chats = Chats(seed)
    rows, reasons = zip(*(chats.maybe_spoiled(0.3) for _ in range(40)), strict=True)
    made = rendered(folder, rows)
    assert {n: drop.reason for n, drop in made.dropped.items()} == {
        number: reason for number, reason in enumerate(reasons) if reason
    }
    assert sorted([*made.kept, *made.dropped]) == list(range(40))
    template = Template(NEMOTRON)
    for number, sequences in made.kept.items():
        turns = cleaned(rows[number]["messages"])
        told = [stretches(folder, sequence) for sequence in sequences]
        trained = [text for sequence in told for text, mask in sequence if mask]
        answers = [turn for turn in turns if turn["role"] == "assistant"]
        for text, turn in zip(trained, answers, strict=True):
            beginning, end = written({"reasoning_content": None, **turn})
            assert text.startswith(beginning) and text.endswith(end)
            assert text.count("<|im_end|>") == 1
            assert text.count("<tool_call>") == len(turn.get("tool_calls", ()))
            assert "tool_calls" in turn or text == beginning + end
        tools = rows[number].get("tools")
        tools = json.loads(tools) if isinstance(tools, str) else tools
        for part, sequence in zip(parts(turns, False), told, strict=True):
            plain = template.text(turns[: part.end], {"tools": tools, **part.arguments})
            assert "".join(text for text, _ in sequence) == plain
