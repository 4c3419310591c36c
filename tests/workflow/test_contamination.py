"""A finished run's training data, searched for items of which some come from there."""

import json

import numpy as np

from compared_words import words_of
from nemoflow.decoding import Decoder
from nemoflow.indexed import IndexedReader
from nemoflow.overlap import SPAN
from nemoflow.vocabulary import Folder

TASK = """\
harness: planted
metric: acc,none
items: {source: {local: planted.jsonl}, text_field: question}
"""
SET = "eval.tasks=[micro_facts,planted,planted_elsewhere],eval.contamination=[pretrain,sft,rl]"


def documents(folder, corpus):
    """The texts of a corpus's training split, and where each stands."""
    decoder = Decoder(Folder(folder / "results/data/tokenizers/micro"))
    for prefix in sorted((folder / f"results/data/tokens/micro/{corpus}").glob("*/train_*.bin")):
        reader = IndexedReader(prefix.with_suffix(""))
        for number in range(len(reader)):
            where = f"{prefix.relative_to(folder).with_suffix('')}, document {number + 1}"
            yield where, " ".join(decoder.texts(np.asarray(reader.document(number))))


def test_items_that_stand_in_training_data_are_counted_by_product(copy):
    facts = list(documents(copy.folder, "micro-facts"))
    where, text = facts[100]
    planted = " ".join(words_of(text)[-SPAN:]).upper()
    rows = (copy.folder / "results/data/prompts/micro-problems/train.jsonl").read_text()
    asked = [json.loads(row)["question"] for row in rows.splitlines()]
    questions = [planted, "Which of these thirteen or more words " * 3, asked[3]]
    lines = "".join(json.dumps({"question": question}) + "\n" for question in questions)
    (copy.folder / "planted.jsonl").write_text(lines)
    (copy.folder / "config/tasks/planted.yaml").write_text(TASK)
    (copy.folder / "config/tasks/planted_elsewhere.yaml").write_text(TASK.partition("items")[0])

    target = "results/micro/contamination.json"
    copy.run(*copy.snakemake("--config", f'set="{SET}"', "--", target), check=True)
    told = copy.json(target)
    assert list(told["unchecked"]) == ["planted_elsewhere"]
    assert told["data"]["tokens/micro-facts"]["documents"] == len(facts)
    clean, found = told["tasks"]["micro_facts"], told["tasks"]["planted"]
    assert (clean["items"], clean["short"], clean["found"]) == (12, 12, 0)
    assert (found["items"], found["short"], found["found"]) == (3, 1, 2)
    holding = [f" {planted.lower()} " in f" {' '.join(words_of(text))} " for _, text in facts]
    assert found["documents"]["tokens/micro-facts"] == sum(holding) >= 1
    alike = [words_of(question) for question in asked].count(words_of(asked[3]))
    assert found["documents"]["prompts/micro-problems"] == alike
    assert found["documents"]["tokens/micro-equations"] == 0
    first = facts[holding.index(True)][0]
    assert {"item": 1, "where": first, "words": planted.lower()} in found["examples"]
