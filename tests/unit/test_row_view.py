"""Rows of a mixture as text: packed ones and a source's own."""

import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import small_encoders
from nemoflow import manifest, specs
from nemoflow.__main__ import main
from nemoflow.config import Config
from nemoflow.errors import UserError
from nemoflow.packing import SCHEMA
from nemoflow.products import PATHS
from nemoflow.vocabulary import Folder
from small_chats import assistant, user

PACKED = PATHS["pack"].format(mixture="mine")
ASKED = [user("What is 1+1?"), assistant("It is 2.", "1 and 1")]
ROWS = [
    {"id": 0, "messages": [user("Hello"), assistant("Hi")]},
    {"id": 1, "messages": [*ASKED, user("And 2+2?"), assistant("4", "2 and 2")]},
    {"id": 2, "messages": []},
]


@pytest.fixture
def folder(config_folder, monkeypatch):
    """The checkout of a mixture with a tokenizer, where nothing is rendered."""
    root = config_folder.parent
    monkeypatch.chdir(root)
    (root / "chats.jsonl").write_text("\n\n".join(map(json.dumps, ROWS)))
    (config_folder / "mixtures/mine.yaml").write_text(
        "tokenizer: micro\ntemplate: nemotron3\npack_size: 64\npad_multiple: 4\n"
        "sources: {chats: {source: {local: chats.jsonl}, weight: 1}}\n"
    )
    small_encoders.chat(root / "results/data/tokenizers/micro")
    manifest.write("results/data/tokenizers/micro.json", {})
    return root


def encoded(folder, *parts):
    """(ids, loss mask) of a packed sequence: of (text, whether it is trained), and padding."""
    tokenizer = Folder(folder / "results/data/tokenizers/micro")
    ids, learnt = [], []
    for text, trained in parts:
        found = tokenizer.huggingface.encode(text, add_special_tokens=False).ids
        ids += found
        learnt += [trained] * len(found)
    more = -(len(ids) - 1) % 4
    return ids + [tokenizer.eos] * more, learnt[1:] + [0] * (more + 1), more


def pack(folder, rows):
    """Write rows, lists of sequences (ids, loss mask), as row groups of two, two to a file."""
    made = []
    for row in rows:
        starts = [0]
        for ids, *_ in row:
            starts.append(starts[-1] + len(ids))
        ids, mask = ([token for part in row for token in part[i]] for i in (0, 1))
        made.append({"input_ids": ids, "loss_mask": mask, "seq_start_id": starts[:-1]})
    target = folder / "results/data/packed/mine/train"
    target.mkdir(parents=True)
    for number in range(0, len(made), 4):
        table = pa.Table.from_pylist(made[number : number + 4], schema=SCHEMA)
        pq.write_table(table, target / f"packed_{number:05d}.parquet", row_group_size=2)
    spec = specs.of(Config(folder / "config"), "pack", {"mixture": "mine"})
    manifest.write(PACKED, spec.identity)


def test_a_packed_row(folder, capsys):
    one = encoded(folder, ("<|im_start|>user\nHello", 0), ("Hi<|im_end|>", 1))
    other = encoded(folder, ("Bye", 0), ("</s>", 1))  # trained: not padding
    pack(folder, [[one]] * 6 + [[one, other]])
    main(["row", "mine", "7"])
    tokens, more = len(one[0]) + len(other[0]), one[2] + other[2]
    assert more > 0
    learnt = sum(one[1]) + 1
    assert capsys.readouterr().out.splitlines() == [
        "row 7 of train of mine (packed_00004.parquet)",
        f"2 sequences, {tokens - more} tokens, {learnt} trained, {more} of padding;"
        " what is trained is in ⟦brackets⟧",
        "",
        f"1 of 2: {len(one[0]) - one[2]} tokens, {sum(one[1])} trained",
        "<|im_start|>user",
        "Hello⟦Hi<|im_end|>⟧",
        "",
        f"2 of 2: {len(other[0]) - other[2]} tokens, 1 trained",
        "Bye⟦</s>⟧",
    ]
    main(["row", "mine", "7", "--color", "always", "--set", "mixtures.mine.seed=3"])
    said = capsys.readouterr().out
    assert said.startswith("built from another config; to be made again\n")
    assert "\033[1;32mHi<|im_end|>\033[0m" in said
    with pytest.raises(UserError, match="row 8: train of mine has rows 1 to 7"):
        main(["row", "mine", "8"])
    with pytest.raises(UserError, match="row 1: valid of mine has no rows"):
        main(["row", "mine", "1", "--split", "valid"])


def test_a_row_of_a_source(folder, capsys):
    main(["row", "mine", "2", "--source", "chats"])
    said = capsys.readouterr().out
    assert said.startswith("row 2 of chats of mine: chats.jsonl, line 3\n2 sequences, ")
    first, second = said.split("\n\n")[1:]
    assert "<think>\n⟦1 and 1\n</think>\nIt is 2.<|im_end|>\n⟧" in first and "2+2" not in first
    assert "<think></think>It is 2.<|im_end|>" in second and "⟦2 and 2\n</think>\n4" in second
    main(["row", "mine", "3", "--source", "chats"])
    assert capsys.readouterr().out.splitlines() == [
        "row 3 of chats of mine: chats.jsonl, line 5",
        "dropped: empty_messages",
    ]
    told = "mixtures.mine.sources.chats.reasoning={off: 1.0}"
    main(["row", "mine", "2", "--source", "chats", "--set", told])
    assert "reasoning_off; what is trained" in capsys.readouterr().out
    with pytest.raises(UserError, match="row 4: chats of mine has rows 1 to 3"):
        main(["row", "mine", "4", "--source", "chats"])


def test_what_is_not_there(folder):
    with pytest.raises(UserError, match="packed/mine.json is not built; build it:\n  snakemake"):
        main(["row", "mine", "1"])
    pack(folder, [[encoded(folder, ("Hello", 0), ("Hi", 1))]])
    (folder / "results/data/packed/mine").rename(folder / "elsewhere")
    with pytest.raises(UserError, match=f"not here; fetch it:\n  python -m nemoflow pull {PACKED}"):
        main(["row", "mine", "1"])
    with pytest.raises(UserError, match="no source chat; did you mean chats?"):
        main(["row", "mine", "1", "--source", "chat"])
    with pytest.raises(UserError, match="no mixtures? min; did you mean mine?"):
        main(["row", "min", "1"])


@pytest.mark.parametrize("number", ["0", "-1", "two"])
def test_a_row_has_a_number(number):
    with pytest.raises(SystemExit):
        main(["row", "mine", number])
