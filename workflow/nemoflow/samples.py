"""Answers to show: the same questions through several stages of a run."""

import json
from collections.abc import Iterable
from itertools import islice
from pathlib import Path
from typing import Any

from nemoflow import manifest
from nemoflow.products import Product

SHOWN = 6  # items of a task
LONGEST = 400  # characters of a question or an answer


def samples(products: Iterable[Product], asked: dict[str, Any]) -> dict[str, list[dict[str, Any]]]:
    """Of each task the first items, with the answer of every stage whose samples are here.

    `asked` is the config's eval section, which has the order of tasks and stages.
    """
    places = {
        (Path(product.path).parent.name, Path(product.path).stem): product
        for product in products
        if product.kind == "scores"
    }
    shown = {}
    for task in asked["tasks"]:
        scores = {s: places[s, task] for s in asked["stages"] if (s, task) in places}
        answers = {stage: first_samples(score) for stage, score in scores.items()}
        answers = {stage: given for stage, given in answers.items() if given}
        if answers:
            metric = scores[next(iter(answers))].content["metric"]
            shown[task] = [
                item(dict(zip(answers, given, strict=True)), metric)
                for given in zip(*answers.values(), strict=False)
            ]
    return shown


def first_samples(score: Product) -> list[dict[str, Any]]:
    """The samples that are shown of a task; none where the bytes are not here."""
    path = manifest.payload(score.path) / "samples.jsonl"
    if not path.exists():
        return []
    with open(path, encoding="utf-8") as file:
        return [json.loads(line) for line in islice(file, SHOWN)]


def item(given: dict[str, dict[str, Any]], metric: str) -> dict[str, Any]:
    """One question through all stages: {question, target, answers: [(stage, text, score)]}."""
    one = next(iter(given.values()))
    target = choice(one["doc"], one["target"]) if likelihoods(one) else one["target"]
    return {
        "question": cut(str(one["doc"].get("question") or one["prompt"])),
        "target": cut(str(target)),
        "answers": [
            (stage, cut(answer(sample, metric)), sample["score"]) for stage, sample in given.items()
        ],
    }


def answer(sample: dict[str, Any], metric: str) -> str:
    """What a model said, or which choice it finds likeliest (`acc_norm`: per character)."""
    found = likelihoods(sample)
    if not found:
        return str(sample.get("generation", sample["response"][0]))
    if metric.startswith("acc_norm"):
        found = [one / len(choice(sample["doc"], place)) for place, one in enumerate(found)]
    return choice(sample["doc"], found.index(max(found)))


def likelihoods(sample: dict[str, Any]) -> list[float]:
    """The log-likelihood of each choice; empty where the model wrote its answer."""
    return [float(given[0]) for given in sample["response"] if isinstance(given, list)]


def choice(doc: dict[str, Any], place: Any) -> str:
    """The text of a choice, or its number where the item does not list them."""
    choices = doc.get("choices")
    if not isinstance(place, int):
        return str(place)
    return str(choices[place]) if isinstance(choices, list) else f"choice {place + 1}"


def cut(text: str) -> str:
    """The end of a long text: of a prompt with examples, the question."""
    return text if len(text) <= LONGEST else f"… {text[-LONGEST:]}"
