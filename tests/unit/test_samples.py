"""The answers that are shown: the same items through all stages."""

import json

import pytest

from nemoflow import lineage, manifest
from nemoflow.files import write_whole
from nemoflow.samples import LONGEST, SHOWN, samples

CHOICES = {"choices": ["blue", "white as snow"], "label": 0}


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def shown(rows_by_stage, metric="acc,none"):
    """What `samples` shows of a task whose stages gave these rows."""
    products = []
    for stage, rows in rows_by_stage.items():
        path = f"results/small/eval/{stage}/facts.json"
        lines = "".join(json.dumps(row) + "\n" for row in rows)
        write_whole(manifest.payload(path) / "samples.jsonl", lines)
        manifest.write(path, {"stage": "eval_task"}, metric=metric)
        products.append(lineage.Product.at(path))
    return samples(products, {"stages": ["pretrain", "rl"], "tasks": ["facts", "others"]})


def row(response, doc, target, score=1.0):
    return {"doc": doc, "prompt": "p" * 999, "response": response, "target": target, "score": score}


def test_the_first_items_in_the_order_of_the_stages():
    rows = [row(["4"], {"question": f"{number}+4?"}, "4") for number in range(2 * SHOWN)]
    items = shown({"rl": rows, "pretrain": rows})["facts"]
    assert [item["question"] for item in items] == [f"{number}+4?" for number in range(SHOWN)]
    assert items[0]["answers"] == [("pretrain", "4", 1.0), ("rl", "4", 1.0)]


def test_a_choice_is_shown_by_its_text():
    rows = [row([[-3.0, False], [-5.0, False]], CHOICES, 0)]
    (item,) = shown({"rl": rows})["facts"]
    assert item["target"] == "blue" and item["answers"] == [("rl", "blue", 1.0)]


def test_normalised_accuracy_chooses_by_likelihood_per_character():
    rows = [row([[-3.0, False], [-5.0, False]], CHOICES, 0, 0.0)]
    (item,) = shown({"rl": rows}, "acc_norm,none")["facts"]
    assert item["answers"] == [("rl", "white as snow", 0.0)]


def test_a_choice_without_text_is_shown_by_its_number():
    (item,) = shown({"rl": [row([[-3.0, False], [-1.0, False]], {}, 1)]})["facts"]
    assert item["target"] == "choice 2" and item["answers"][0][1] == "choice 2"


def test_of_a_long_prompt_the_end_is_shown():
    (item,) = shown({"rl": [row(["4"], {}, "4")]})["facts"]
    assert item["question"] == "… " + "p" * LONGEST
