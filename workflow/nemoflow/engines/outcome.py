"""What the harness found: the score, the samples that are kept, and answers that are none."""

import math
from typing import Any

from nemoflow.errors import UserError

Sample = dict[str, Any]


def samples(found: dict[str, list[Sample]], name: str, metric: str) -> list[Sample]:
    """The samples that a metric is of; those of a group's tasks say which task is theirs."""
    chosen = metric.split(",")[1]
    return [
        sample if task == name else {**sample, "task": task}
        for task, given in found.items()
        for sample in given
        if sample.get("filter", "none") == chosen
    ]


def score(found: dict[str, Any], metric: str, n: int) -> dict[str, Any]:
    """{metric, value, stderr, n}; the standard error as lm-eval has it, None where it has none.

    Raises:
        UserError: the task does not report the metric that its file names, or no number.
    """
    if metric not in found:
        known = ", ".join(key for key in found if "," in key and "_stderr," not in key)
        raise UserError(f"task metric {metric}: the harness reports {known}; name one of them")
    value, stderr = float(found[metric]), found.get("{}_stderr,{}".format(*metric.split(",")))
    if not math.isfinite(value):
        raise UserError(f"task metric {metric} is {value}: no score")
    return {
        "metric": metric,
        "value": value,
        "stderr": float(stderr) if isinstance(stderr, (int, float)) else None,
        "n": n,
    }


def refuse_silence(found: list[Sample]) -> None:
    """UserError where the model answered nothing: a score of 0 would tell of a wrong model."""
    if not found:
        raise UserError("no items: there is nothing to score")
    answers = [answer for sample in found for answer, *_ in sample["resps"]]
    texts = [answer for answer in answers if isinstance(answer, str)]
    if texts and not any(text.strip() for text in texts):
        raise UserError(
            f"the model answered nothing: each of {len(texts):,} generations is empty. It may end"
            " at once (chat template, `until` of the task), or be the wrong model; no score is"
            " written"
        )
    likelihoods = [one[0] if isinstance(one, (tuple, list)) else one for one in answers]
    broken = sum(isinstance(one, float) and math.isnan(one) for one in likelihoods)
    if broken:
        raise UserError(
            f"the model answered nothing: {broken:,} of {len(answers):,} likelihoods are nan; its"
            " weights are broken, and no score is written"
        )


def kept(sample: Sample, metric: str) -> Sample:
    """What of a sample is the same in every run on every machine.

    `generation` is the text as the model wrote it; `response` what the task's filters made of it,
    or the likelihoods of a multiple choice; `task` the one of a group.
    """
    said = sample["resps"][0][0]
    return {
        **({"task": sample["task"]} if "task" in sample else {}),
        **({"generation": said} if isinstance(said, str) else {}),
        "doc": sample["doc"],
        "prompt": sample["arguments"][0][0],
        "response": sample["filtered_resps"],
        "target": sample["target"],
        "score": sample[metric.split(",")[0]],
    }
