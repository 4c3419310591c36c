"""Score one model on one task with lm-eval: `python -m nemoflow.engines.harness JOB.json`.

Offline: the only task known to the harness is the one in the job, or, for a task of its own, its
data sets as they lie in the cache. A wrong image is told of first, so lm-eval is imported late.
"""

import difflib
import json
import random
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nemoflow import images
from nemoflow.engines import endpoint, outcome
from nemoflow.errors import UserError, report
from nemoflow.files import read_json, write_json, write_whole

if TYPE_CHECKING:
    from lm_eval.api.group import Group
    from lm_eval.api.model import LM
    from lm_eval.api.task import Task

# Draws of a bootstrap, for the standard errors of what is no mean (f1, median, perplexity); one
# process' share in lm_eval/api/metrics.py, so that the number of cores changes nothing.
BOOTSTRAP = 1000
GREEDY = {"do_sample": False, "temperature": 0.0}


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


def load(job: dict[str, Any]) -> "Task | Group":
    """The task of a job, or the group of tasks whose common score is asked for.

    Raises:
        UserError: the harness knows no such task, or a tag, whose tasks have no common score.
    """
    from lm_eval.tasks import TaskManager

    task = task_of(job)
    if job["items"] and not Path(job["items"]).read_text(encoding="utf-8").strip():
        raise UserError(f"{job['items']}: no item: the prompts of this task have no validation row")
    manager = TaskManager(include_defaults=isinstance(task, str))
    if isinstance(task, str) and task not in manager.all_tasks:
        near = difflib.get_close_matches(task, manager.all_tasks)
        hint = f"; did you mean {' or '.join(near)}?" if near else ""
        raise UserError(f"harness: {task}: lm-eval has no such task{hint}")
    if task in manager.all_tags:
        members = sorted(manager.load([task])["tasks"])
        raise UserError(
            f"harness: {task} is a tag of lm-eval: its tasks have no common score; name one of"
            f" {', '.join(members)}"
        )
    loaded = manager.load([task])
    name = task if isinstance(task, str) else task["task"]
    return loaded["groups"].get(name) or loaded["tasks"][name]


def leaves(root: "Task | Group") -> list["Task"]:
    """The tasks of a group, or the task alone."""
    return root.get_all_tasks() if hasattr(root, "get_all_tasks") else [root]


def prepare(root: "Task | Group", settings: dict[str, Any]) -> None:
    """Give tasks their number of examples and their way of sampling.

    lm-eval's own arguments pass over tasks whose file says `num_fewshot: 0`, as arc_challenge_chat
    does. Raises UserError for a task without items, and for sampling where nothing is written.
    """
    from lm_eval.defaults import DEFAULT_OTHER_SEED

    tasks = leaves(root)
    for task in tasks:
        if not len(task.eval_docs):
            raise UserError(f"task {task.task_name}: no items: there is nothing to score")
        task.set_config(key="num_fewshot", value=settings["fewshot"])
        task.set_fewshot_seed(DEFAULT_OTHER_SEED)
    writing = [task for task in tasks if task.OUTPUT_TYPE == "generate_until"]
    if settings.get("generation") and not writing:
        raise UserError("generation: the task rates given answers; nothing is written. Remove it")
    for task in writing:
        told = sampling(settings.get("generation", {}))
        task.set_config(key="generation_kwargs", value=told, update=True)


def sampling(told: dict[str, Any]) -> dict[str, Any]:
    """A task's `generation` by the harness' names; what it does not say is left out."""
    names = {"max_new_tokens": "max_gen_toks"}
    given = {names.get(key, key): value for key, value in told.items() if key != "temperature"}
    if "temperature" not in told:
        return given
    if not told["temperature"]:
        return given | GREEDY
    return given | {"do_sample": True, "temperature": told["temperature"]}


def model_of(job: dict[str, Any], root: "Task | Group") -> "LM":
    """The model, loaded here, started in vLLM, or asked for at an endpoint."""
    from lm_eval.api.registry import get_model

    backend, size = job["backend"], {"batch_size": job["batch_size"]}
    if backend == "endpoint":
        return endpoint.model(job, leaves(root))
    arguments = {"pretrained": job["model"], "dtype": "auto"}
    if backend == "hf":
        model = get_model("hf").create_from_arg_obj(arguments, {**size, "device": place(job)})
        refuse_numberless(model)
        return model
    arguments |= {"tensor_parallel_size": job["machine"]["gpus"]}
    return get_model(backend).create_from_arg_obj(arguments, size)


def seed() -> None:
    """lm-eval's own seeds of what is drawn: answers at a temperature."""
    import numpy
    from lm_eval.defaults import DEFAULT_OTHER_SEED, DEFAULT_RANDOM_SEED
    from lm_eval.utils import set_torch_seed

    random.seed(DEFAULT_RANDOM_SEED)
    numpy.random.seed(DEFAULT_OTHER_SEED)
    set_torch_seed(DEFAULT_OTHER_SEED)


def refuse_numberless(model: "LM") -> None:
    """UserError where logits are not finite: the likeliest token of nan is token 0, silently."""
    import torch

    with torch.no_grad():
        logits = model.model(torch.tensor([[model.prefix_token_id]], device=model.device)).logits
    if not torch.isfinite(logits).all():
        raise UserError(
            "the model's logits are not finite (nan or inf): its weights are broken, and no score"
            " would mean anything; train or export it again"
        )


def place(job: dict[str, Any]) -> str:
    """Where transformers computes: the GPU if there is one, with Mamba's kernels if installed."""
    from nemoflow.engines import device

    chosen = device.choose()
    if chosen.type == "cpu":
        device.without_kernels()
    device.tell("lm-eval", chosen)
    return str(chosen)


def evaluate(job: dict[str, Any]) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """The score {metric, value, stderr, n} and the samples of a job, as they are kept.

    Raises:
        UserError: there is nothing to score, nobody to ask, or no score in what was answered.
    """
    import lm_eval
    from lm_eval.tasks import TaskManager

    settings, root = job["task"], load(job)
    prepare(root, settings)
    seed()
    with endpoint.failures(job):
        # simple_evaluate would spend seconds on describing the machine, which is provenance's.
        results = lm_eval.evaluate(
            model_of(job, root),
            TaskManager(include_defaults=False).load([root]),
            limit=settings.get("limit"),
            apply_chat_template=settings["chat"],
            fewshot_as_multiturn=True,
            bootstrap_iters=BOOTSTRAP,
        )
    name = root.name if hasattr(root, "get_all_tasks") else root.task_name
    samples = outcome.samples(results["samples"], name, settings["metric"])
    outcome.refuse_silence(samples)
    score = outcome.score(results["results"][name], settings["metric"], len(samples))
    return score, [outcome.kept(sample, settings["metric"]) for sample in samples]


def main() -> None:
    """Run the job named on the command line; writes score.json and samples.jsonl."""
    images.probe()
    job = read_json(sys.argv[1])
    if job["backend"] == "endpoint":
        endpoint.check(job["endpoint"])
    import datasets

    datasets.disable_progress_bars()
    with tempfile.TemporaryDirectory() as cache:
        datasets.config.HF_DATASETS_CACHE = Path(cache)
        score, samples = evaluate(job)
    output = Path(job["output"])
    lines = [json.dumps(sample, sort_keys=True, default=float) + "\n" for sample in samples]
    write_whole(output / "samples.jsonl", "".join(lines))
    write_json(output / "score.json", score)


if __name__ == "__main__":
    report(main)
