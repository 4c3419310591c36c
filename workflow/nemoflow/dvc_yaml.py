"""dvc.yaml: params, metrics and plots, so that DVC compares two commits of results.

`dvc params diff REV`, `dvc metrics diff REV`, `dvc plots diff REV`. The page of `dvc plots` loads
Vega from a content delivery network (dvc_render/vega.py); `python -m nemoflow compare` loads none.
"""

from collections.abc import Iterator
from pathlib import Path

import yaml

from nemoflow import graph
from nemoflow.config import Config
from nemoflow.errors import UserError
from nemoflow.files import write_whole
from nemoflow.products import trace
from nemoflow.progress import say
from nemoflow.revision import WorkingTree

NAME = "dvc.yaml"
HEADER = "# Written by nemoflow publish from the results that are here; not to be edited.\n"


def write_dvc_yaml() -> bool:
    """Write dvc.yaml for the results in the working directory; False where nothing changes.

    One that was not written here is left as it is, after saying so.
    """
    path = Path(NAME)
    before = path.read_text() if path.exists() else None
    if before is not None and not before.startswith(HEADER):
        say(
            f"{NAME}: not written by nemoflow, so it is left as it is. Move it into a folder, where"
            " DVC reads it too: then one is written here for `dvc metrics`, `params` and `plots`"
        )
        return False
    text = HEADER + yaml.safe_dump(content(Config()), sort_keys=False, width=1000)
    if text != before:
        write_whole(path, text)
    return text != before


def content(config: Config) -> dict[str, list]:
    """What dvc.yaml holds, in an order that follows from the names alone."""
    tree = WorkingTree()
    metrics = [f"results/{run}/eval.json" for run in tree.runs()]
    params = {path for run in tree.runs() for path in files_of(config, run)}
    products = trace(metrics)
    owners = sorted({product.owner for product in products.values()})
    curves = [path for owner in owners for path in tree.paths(f"results/{owner}/**/curve.csv")]
    return {
        "params": sorted(params),
        "metrics": metrics,
        "plots": [{path: axes(path)} for path in curves if "/progress/" not in path],
    }


def axes(curve: str) -> dict[str, str]:
    """The columns of a curve that are drawn: RL's measure is the reward, all others' the loss."""
    return {"x": "step", "y": "reward" if curve.split("/")[2] == "rl" else "loss"}


def files_of(config: Config, name: str) -> list[str]:
    """The YAML files that a run is made of; none where its file is gone, or is wrong by now."""
    try:
        return list(named_files(config, name))
    except UserError:
        return []


def named_files(config: Config, name: str) -> Iterator[str]:
    """A run's file, those of its parents, and the data files that it names."""
    run = config.run(name)
    yield from (f"config/{parent}.yaml" for parent, _ in config.lineage(name))
    phases = [run.pretrain.phases[phase] for phase in graph.phases(run)]
    tokenizer = config.data("mixtures", run.sft.mixture).tokenizer
    steps = [step.prompts for step in run.rl.steps.values()]
    asked = [config.data("tasks", task).prompts for task in run.eval.tasks]
    blends = {phase.blend for phase in phases}
    named = {
        "tokenizers": {run.pretrain.tokenizer, tokenizer},
        "blends": blends,
        "corpora": {
            name for blend in blends for name in config.data("blends", blend).weights or ()
        },
        "mixtures": {run.sft.mixture},
        "prompts": {prompts for prompts in (*steps, *asked) if prompts},
        "tasks": {*run.eval.tasks, *config.layered("runs", name).value["eval"]["tasks"]},
    }
    for kind, names in named.items():
        yield from (f"config/{kind}/{name}.yaml" for name in names)
