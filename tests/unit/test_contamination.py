"""Items planted in what stages train on: found where they stand, counted exactly."""

import json
from itertools import accumulate

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import small_encoders
from indexed_writer import IndexedWriter
from nemoflow import contamination, manifest
from nemoflow.contamination import Job, Kept, search
from nemoflow.errors import UserError
from nemoflow.files import write_json, write_whole
from nemoflow.vocabulary import Folder

LONG = [f"{' '.join(f'item{item} word{i}' for i in range(7))} end." for item in range(4)]
SHORT = ["What is 3+4?", "What is 5+6?"]
TASKS = {"long": LONG, "short": SHORT}
ALL = [("long", number) for number in range(4)] + [("short", number) for number in range(2)]
HALF = " ".join(LONG[0].split()[:12])
CLEAN = ["The quick brown fox.", "jumps over " * 20, f"{HALF} and {HALF}", "What is 3+4? 7"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return Folder(small_encoders.chat(tmp_path_factory.mktemp("tokenizer")))


def encode(folder, text):
    return folder.huggingface.encode(text, add_special_tokens=False).ids


def tokens(place, folder, shards):
    """A job over shards of documents, and one of another split that holds every item."""
    told = []
    for split, documents in [*(("train", each) for each in shards), ("valid", [*LONG, *SHORT])]:
        prefix = place / f"{split}_{len(told)}"
        with IndexedWriter(prefix) as writer:
            for text in documents:
                writer.add(np.array([*encode(folder, text), folder.eos]))
        told.append({"prefix": str(prefix), "split": split, "tokens": len(documents)})
    return Job("tokens", {"shards": told}, place, str(folder.path))


def packed(place, folder, rows):
    """A job over packed rows, each of conversations, each of messages [role, text]."""
    (place / "train").mkdir(parents=True)
    ids, starts = [], []
    for conversations in rows:
        texts = ["".join(f"<|im_start|>{role}\n{text}<|im_end|>\n" for role, text in conversation)
                 for conversation in conversations]  # fmt: skip
        found = [[*encode(folder, text), folder.eos, folder.eos] for text in texts]
        ids.append(sum(found, []))
        starts.append([0, *accumulate(map(len, found))][:-1])
    lists = pa.list_(pa.int32())
    table = pa.table({"input_ids": pa.array(ids, lists), "seq_start_id": pa.array(starts, lists)})
    pq.write_table(table, place / "train/00000.parquet", row_group_size=1)
    return Job("packed", {}, place, str(folder.path))


def prompts(place, rows):
    """A job over rows of prompts."""
    write_whole(place / "train.jsonl", "".join(json.dumps(row) + "\n" for row in rows))
    return Job("prompts", {}, place, None)


def found(told):
    """{task: (numbers of the items found, documents that hold one)}."""
    return {task: (entry["found"], entry["documents"]) for task, entry in told["tasks"].items()}


@settings(
    max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(st.lists(st.lists(st.none() | st.sampled_from(ALL), max_size=4), min_size=1, max_size=3))
def test_planted_items_are_counted_exactly(folder, tmp_path_factory, planted):
    def document(place, item):
        if item is None:
            return CLEAN[place % len(CLEAN)]
        task, number = item
        return TASKS[task][number] if task == "short" else f"So, {LONG[number].upper()}\n\nYes."

    shards = [[document(i, item) for i, item in enumerate(shard)] for shard in planted]
    place = tmp_path_factory.mktemp("tokens")
    told = search(tokens(place, folder, shards), TASKS, Kept(place / "work", 0), 1)
    every = [item for shard in planted for item in shard]
    assert told["documents"] == len(every)
    for task, (numbers, documents) in found(told).items():
        of_task = [number for name, number in filter(None, every) if name == task]
        assert numbers == sorted({number + 1 for number in of_task})
        assert documents == len(of_task)
    entry = told["tasks"]["long"]
    assert (entry["items"], entry["short"]) == (4, 0)
    for example in entry["examples"]:
        where, _, number = example["where"].rpartition(", document ")
        shard = int(where.rpartition("_")[2])
        assert planted[shard][int(number) - 1] == ("long", example["item"] - 1)


def test_an_example_says_where_and_which_words(folder, tmp_path):
    job = tokens(tmp_path, folder, [[CLEAN[0], f"A: {LONG[2]}", LONG[2]], [LONG[1]]])
    shown = search(job, TASKS, Kept(tmp_path / "work", 0), 1)["tasks"]["long"]["examples"]
    words = LONG[2].rpartition(" word6")[0].split()
    first = {"item": 3, "where": f"{tmp_path}/train_0, document 2", "words": " ".join(words)}
    assert [example["item"] for example in shown] == [3, 2] and shown[0] == first


def test_messages_of_packed_conversations_are_texts(folder, tmp_path):
    rows = [
        [[("user", SHORT[0]), ("assistant", "7")], [("user", "Hello"), ("assistant", LONG[3])]],
        [[("system", "Be brief."), ("user", f"{SHORT[1]} And 2?")]],
    ]
    told = search(packed(tmp_path, folder, rows), TASKS, Kept(tmp_path / "work", 0), 1)
    assert told["documents"] == 3
    assert found(told) == {"long": ([4], 1), "short": ([1], 1)}
    (example,) = told["tasks"]["long"]["examples"]
    assert example["where"] == f"{tmp_path}/train/00000.parquet, row 1, sequence 2"


def test_questions_of_prompts_and_answers_of_pairs_are_texts(tmp_path, monkeypatch):
    monkeypatch.setattr("nemoflow.trained_texts.ROW_BYTES", 64)
    asked = {"input": [{"role": "user", "content": SHORT[1]}]}
    pair = [{"rank": 1, "completion": [{"role": "assistant", "content": LONG[0]}]}]
    rows = [
        {"question": LONG[1], "responses_create_params": {"input": [{"content": CLEAN[0]}]}},
        {"responses_create_params": asked, "expected_answer": "11"},
        {"context": [{"role": "user", "content": "Hi"}], "completions": pair},
    ]
    told = search(prompts(tmp_path, rows), TASKS, Kept(tmp_path / "work", 0), 1)
    assert told["documents"] == 3
    assert found(told) == {"long": ([1], 1), "short": ([2], 1)}
    assert told["tasks"]["short"]["examples"][0]["where"] == f"{tmp_path}/train.jsonl, row 2"


def test_prompts_that_nobody_trains_on_hold_nothing(tmp_path):
    told = search(Job("prompts", {}, tmp_path, None), TASKS, Kept(tmp_path / "work", 0), 1)
    assert told["documents"] == 0 and found(told) == {"long": ([], 0), "short": ([], 0)}


def test_a_damaged_row_is_named(tmp_path):
    write_whole(tmp_path / "train.jsonl", '{"question": "Hi"}\n{"question": \n')
    with pytest.raises(UserError, match=r"train.jsonl: byte 19: not_json"):
        search(Job("prompts", {}, tmp_path, None), TASKS, Kept(tmp_path / "work", 0), 1)


def test_processes_find_the_same_and_a_killed_job_goes_on(folder, tmp_path, monkeypatch):
    shards = [[f"{number} {LONG[number % 4]}", CLEAN[number % 4]] for number in range(7)]
    job = tokens(tmp_path, folder, shards)
    alone = search(job, TASKS, Kept(tmp_path / "alone", 0), 1)
    assert search(job, TASKS, Kept(tmp_path / "work", "ours"), 2) == alone

    read = []
    look = contamination.Looker.look
    monkeypatch.setattr(
        contamination.Looker,
        "look",
        lambda self, piece: read.append(piece.path) or look(self, piece),
    )
    next((tmp_path / "work").iterdir()).unlink()
    assert search(job, TASKS, Kept(tmp_path / "work", "ours"), 1) == alone and len(read) == 1
    assert search(job, TASKS, Kept(tmp_path / "work", "another"), 1) == alone and len(read) == 8


def test_an_item_in_two_products_counts_once(tmp_path):
    def entry(numbers, documents):
        shown = [{"item": number, "where": "there", "words": "words"} for number in numbers[:3]]
        counts = {"items": 9, "short": 1, "found": numbers, "documents": documents}
        return {"documents": 50, "tasks": {"a": {**counts, "examples": shown}}}

    paths = [f"{tmp_path}/tokens/x.json", f"{tmp_path}/prompts/x.json"]
    for path, told in zip(paths, (entry([1, 2], 7), entry([2, 3, 4], 3)), strict=True):
        manifest.write(path, {}, **told)
    told = contamination.gather("run", {"b": "why"}, paths)
    assert told["unchecked"] == {"b": "why"} and told["run"] == "run"
    assert told["data"] == {
        "tokens/x": {"documents": 50, "found": 2},
        "prompts/x": {"documents": 50, "found": 3},
    }
    shown = told["tasks"]["a"].pop("examples")
    assert [example["item"] for example in shown] == [1, 2, 3]
    counts = {"items": 9, "short": 1, "found": 4}
    assert told["tasks"]["a"] == {**counts, "documents": {"tokens/x": 7, "prompts/x": 3}}


def test_items_are_read_back_by_task(tmp_path):
    write_whole(tmp_path / "a/items.jsonl", '{"text": "one\\ntwo"}\n{"text": "three"}\n')
    write_json(tmp_path / "a.json", {})
    assert contamination.tasks_of([f"{tmp_path}/a.json"]) == {"a": ["one\ntwo", "three"]}
