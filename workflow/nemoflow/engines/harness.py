"""Score one model on one task with lm-eval: `python -m nemoflow.engines.harness JOB.json`.

Offline: the only task known to the harness is the one in the job, or, for a task of its own, its
data sets as they lie in the cache. A wrong image is told of first, so lm-eval is imported late.
"""

import json
import math
import sys
import tempfile
from pathlib import Path
from typing import Any

from nemoflow import images
from nemoflow.errors import UserError, report
from nemoflow.files import read_json, write_json, write_whole


def task_of(job: dict[str, Any]) -> dict[str, Any] | str:
    """The harness' name of its own task, or our task's mapping with its items put in."""
    told = job["task"]["harness"]
    if isinstance(told, str):
        return told
    return {
        "task": "items",
        "dataset_path": "json",
        "dataset_kwargs": {"data_files": {"test": job["items"]}},
        "test_split": "test",
        **told,
    }


def evaluate(job: dict[str, Any]) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """The score {metric, value, stderr, n} and the samples of a job.

    Raises:
        UserError: the task does not report the metric that its file names.
    """
    import lm_eval
    from lm_eval.tasks import TaskManager

    task, settings = task_of(job), job["task"]
    there = place(job) if job["backend"] == "hf" else None
    parallel = {} if there else {"tensor_parallel_size": job["machine"]["gpus"]}
    results = lm_eval.simple_evaluate(
        model=job["backend"],
        model_args={"pretrained": job["model"], "dtype": "auto", **parallel},
        tasks=[task],
        num_fewshot=settings["fewshot"],
        limit=settings.get("limit"),
        batch_size=job["batch_size"],
        device=there,
        apply_chat_template=settings["chat"],
        task_manager=TaskManager(include_defaults=isinstance(task, str)),
        bootstrap_iters=0,
        log_samples=True,
    )
    name = task if isinstance(task, str) else task["task"]
    found, metric = results["results"][name], settings["metric"]
    if metric not in found:
        known = ", ".join(key for key in found if "," in key and "stderr" not in key)
        raise UserError(f"task metric {metric}: the harness reports {known}; name one of them")
    samples = results["samples"][name]
    value, n = float(found[metric]), len(samples)
    stderr = math.sqrt(value * (1 - value) / (n - 1)) if 0 <= value <= 1 and n > 1 else None
    return {"metric": metric, "value": value, "stderr": stderr, "n": n}, samples


def place(job: dict[str, Any]) -> str:
    """Where transformers computes: the GPU if there is one, with Mamba's kernels if installed."""
    from nemoflow.engines import device

    chosen = device.choose()
    if chosen.type == "cpu":
        device.without_kernels()
    device.tell("lm-eval", chosen)
    return str(chosen)


def kept(sample: dict[str, Any], metric: str) -> dict[str, Any]:
    """What of a sample is the same in every run on every machine.

    `generation` is the text as the model wrote it; `response` what the task's filters made of it,
    or the likelihoods of a multiple choice.
    """
    said = sample["resps"][0][0]
    return {
        **({"generation": said} if isinstance(said, str) else {}),
        "doc": sample["doc"],
        "prompt": sample["arguments"][0][0],
        "response": sample["filtered_resps"],
        "target": sample["target"],
        "score": sample[metric.split(",")[0]],
    }


def main() -> None:
    """Run the job named on the command line; writes score.json and samples.jsonl."""
    images.probe()
    import datasets

    job = read_json(sys.argv[1])
    datasets.disable_progress_bars()
    with tempfile.TemporaryDirectory() as cache:
        datasets.config.HF_DATASETS_CACHE = Path(cache)
        score, samples = evaluate(job)
    metric, output = job["task"]["metric"], Path(job["output"])
    wanted = [s for s in samples if s.get("filter", "none") == metric.split(",")[1]]
    lines = [json.dumps(kept(s, metric), sort_keys=True, default=float) + "\n" for s in wanted]
    write_whole(output / "samples.jsonl", "".join(lines))
    write_json(output / "score.json", {**score, "n": len(wanted)})


if __name__ == "__main__":
    report(main)
