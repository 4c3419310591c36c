"""What each job depends on: its spec.

A spec has an `identity`, the config that decides what the stage makes plus the stage's version,
and `options`, keys that cannot change a result. The digest of the identity names the spec's file,
the one parameter that Snakemake sees: changing a key re-runs exactly the stages that read it.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nemoflow import graph, images
from nemoflow.config import Config
from nemoflow.config.base import plain
from nemoflow.config.load import Runs
from nemoflow.config.run import Run
from nemoflow.errors import UserError
from nemoflow.files import digest, read_json, write_json

# Raise a stage's number when a change of code alters what it makes; tests/rules holds the digest
# of each stage's product and fails until that is done.
VERSIONS = {
    "image": 1,
    "tokenizer": 2,
    "plan": 1,
    "tokens": 1,
    "corpus": 1,
    "blend": 1,
    "import_model": 1,
    "pretrain": 1,
    "render": 1,
    "pack": 1,
    "sft": 1,
    "resolve": 2,
    "rl": 1,
    "export": 1,
    "eval_task": 1,
    "eval": 1,
    "report": 1,
}


@dataclass(frozen=True)
class Spec:
    """What a job depends on."""

    stage: str
    run: str | None
    identity: dict[str, Any]
    options: dict[str, Any]

    @property
    def name(self) -> str:
        """`{run}-{stage}-{digest}`; no run for shared data."""
        return "-".join([*([self.run] if self.run else []), self.stage, digest(self.identity)])

    def write(self, folder: Path) -> Path:
        """Write `{folder}/{name}.json` if its content is not there yet, and return the path."""
        path = folder / f"{self.name}.json"
        content = {
            "stage": self.stage,
            "run": self.run,
            "identity": self.identity,
            "options": self.options,
        }
        if not path.exists() or read_json(path) != content:
            write_json(path, content)
        return path


def read(path: str | Path, stage: str) -> Spec:
    """The spec of a stage in a file that `Spec.write` wrote.

    Raises:
        UserError: there is no such file, or it holds something else.
    """
    try:
        content = read_json(path)
    except FileNotFoundError:
        raise UserError(
            f"{path}: there is no such spec; a dry run of Snakemake writes the specs of its jobs"
        ) from None
    except ValueError as error:
        raise UserError(f"{path}: not readable as JSON: {error}") from None
    if not isinstance(content, dict) or content.keys() != Spec.__dataclass_fields__.keys():
        raise UserError(f"{path}: not a spec; it has {', '.join(Spec.__dataclass_fields__)}")
    if content["stage"] != stage:
        raise UserError(f"{path}: a spec of {content['stage']}, not of {stage}")
    return Spec(**content)


def last_step(identity: Mapping[str, Any]) -> int | None:
    """The step at which a training ends, by its config; None where only its data tell."""
    return identity.get("stop_iteration") or identity.get("iterations")


def of(config: Config, stage: str, wildcards: dict[str, str]) -> Spec:
    """The spec of the job that a rule and its wildcards name."""
    identity, options = SPECS[stage](config, **wildcards)
    return Spec(
        stage=stage,
        run=wildcards.get("run"),
        identity={"stage": stage, "version": VERSIONS[stage], **identity},
        options=options,
    )


def image(config: Config, image: str) -> tuple[dict, dict]:
    """What is fetched; the cached file's name follows from the same two."""
    told = plain(images.named(image))
    return {key: told[key] for key in images.FETCHED & set(told)}, {}


def tokenizer(config: Config, tokenizer: str) -> tuple[dict, dict]:
    """Shared: the tokenizer's file, without the shards' type."""
    model = config.data("tokenizers", tokenizer)
    identity = plain(model, "about", "dtype")
    if model.train:
        identity["train"]["template"] = config.template(model.train.template)
    return identity, {}


def plan(config: Config, corpus: str) -> tuple[dict, dict]:
    """Shared: where the corpus lies and how it is cut."""
    model = config.data("corpora", corpus)
    return {
        "source": plain(model.source),
        "parts": model.parts,
        "shards_per_part": model.shards_per_part,
    }, {}


def tokens(config: Config, tokenizer: str, corpus: str, part: str = "") -> tuple[dict, dict]:
    """Shared: how documents become tokens; the same for every part."""
    model = config.data("corpora", corpus)
    without = ("about", "source", "parts", "shards_per_part", "max_dropped")
    dtype = config.data("tokenizers", tokenizer).dtype
    identity = {"corpus": corpus, "dtype": dtype, **plain(model, *without)}
    return identity, {"source": plain(model.source), "max_dropped": model.max_dropped}


def corpus(config: Config, tokenizer: str, corpus: str) -> tuple[dict, dict]:
    """Shared: the parts' spec and their number."""
    identity, _ = tokens(config, tokenizer, corpus)
    return {**identity, "parts": config.data("corpora", corpus).parts}, {}


def blend(config: Config, run: str, phase: str) -> tuple[dict, dict]:
    """The weights; not their names in the config."""
    name = config.run(run).pretrain.phases[phase].blend
    return {"weights": plain(config.data("blends", name))["weights"]}, {}


def import_model(config: Config, run: str) -> tuple[dict, dict]:
    """The path as written and the architecture; as options, who is going to read it, and how."""
    model = config.run(run)
    if model.init is None:
        raise UserError(f"{run} imports no model (init); its first stage trains from nothing")
    first, *_ = [*graph.own_stages(model), "eval"]
    continues = first.startswith("pretrain.") and graph.entry(model, first).init == "continue"
    options = {
        "readers": {f"{s}.engine": getattr(model, s).engine for s in readers(model, first)},
        "continues": f"pretrain.phases.{first.partition('.')[2]}.init" if continues else None,
    }
    return {"import": model.init.import_, "model": plain(model.pretrain.model)}, options


def readers(run: Run, first: str) -> list[str]:
    """The sections whose engines read the imported model that goes into a run's `first` stage.

    Pretraining and SFT read it as it is; RL and evaluation its export, which the engine of the
    stage in whose place it stands writes.
    """
    trained = first if first.startswith(("pretrain.", "sft")) else None
    exported, evaluated = graph.stand_in(run), [graph.full_name(run, s) for s in run.eval.stages]
    if trained and exported not in evaluated:
        exported = None
    return sorted({stage.partition(".")[0] for stage in (trained, exported) if stage})


def pretrain(config: Config, run: str, phase: str) -> tuple[dict, dict]:
    """The section and the phase."""
    section = config.run(run).pretrain
    entry = section.phases[phase]
    identity = {
        **plain(section, "phases", "tokenizer", "spike"),
        **plain(entry, "after", "blend", "options"),
    }
    return identity, {**plain(entry.options), "spike": section.spike}


def render(config: Config, mixture: str, source: str) -> tuple[dict, dict]:
    """Shared: conversations and template; no weights, seed or pack size."""
    model = config.data("mixtures", mixture)
    entry = model.sources[source]
    identity = {**plain(entry, "weight"), "template": config.template(model.template)}
    return identity, {"max_dropped": model.max_dropped}


def pack(config: Config, mixture: str) -> tuple[dict, dict]:
    """Shared: weights, pack size, padding, split, seed."""
    model = config.data("mixtures", mixture)
    weights = {name: source.weight for name, source in model.sources.items()}
    without = ("about", "tokenizer", "template", "sources", "gaps", "max_dropped")
    return {**plain(model, *without), "weights": weights}, {}


def sft(config: Config, run: str) -> tuple[dict, dict]:
    """The section and the architecture."""
    section = config.run(run).sft
    model = plain(config.run(run).pretrain.model)
    identity = {**plain(section, "mixture", "options", "spike"), "model": model}
    return identity, {**plain(section.options), "spike": section.spike}


def resolve(config: Config, prompts: str) -> tuple[dict, dict]:
    """Shared: the rows and how they are split."""
    model = config.data("prompts", prompts)
    return plain(model, "about", "gaps", "expected"), {}


def rl(config: Config, run: str, step: str) -> tuple[dict, dict]:
    """The section, the step and the architecture."""
    section = config.run(run).rl
    entry = section.steps[step]
    identity = {
        **plain(section, "steps"),
        **plain(entry, "after", "branch", "prompts", "options", "spike"),
        "model": plain(config.run(run).pretrain.model),
    }
    return identity, {**plain(entry.options), "spike": entry.spike}


def export(config: Config, run: str, stage: str) -> tuple[dict, dict]:
    """The type of the weights, and the engine that wrote the checkpoint."""
    model = config.run(run)
    section = graph.full_name(model, stage).partition(".")[0]
    return {"engine": getattr(model, section).engine, **plain(model.export)}, {}


def eval_task(config: Config, run: str, stage: str, task: str) -> tuple[dict, dict]:
    """The task and how the model is called."""
    section = config.run(run).eval
    model = plain(config.data("tasks", task), "about", "prompts")
    return {"task": model, "backend": section.backend, "batch_size": section.batch_size}, {}


def eval(config: Config, run: str) -> tuple[dict, dict]:
    """What is evaluated, and the published scores beside it."""
    return plain(config.run(run).eval, "backend", "batch_size"), {}


def report(config: Config, run: str) -> tuple[dict, dict]:
    """The page follows from its inputs; the resolved config is shown on it."""
    return {}, {"config": plain(config.run(run)), "chain": graph.stages(Runs(config), run)}


SPECS = {
    function.__name__: function
    for function in (
        image, tokenizer, plan, tokens, corpus, blend, import_model, pretrain, render, pack, sft,
        resolve, rl, export, eval_task, eval, report,
    )
}  # fmt: skip
