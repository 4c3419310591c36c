"""What each stage depends on: from the config and a rule's wildcards to the spec of the job."""

from nemoflow import graph, images
from nemoflow.config import Config, derived, items
from nemoflow.config.base import plain
from nemoflow.config.data import Corpus
from nemoflow.config.evaluation import Eval
from nemoflow.config.load import Runs
from nemoflow.config.run import Run
from nemoflow.errors import UserError
from nemoflow.spec import Spec

# Raise a stage's number when a change of code alters what it makes; tests/rules holds the digest
# of each stage's product and fails until that is done.
VERSIONS = {
    "image": 1,
    "tokenizer": 3,
    "plan": 2,
    "tokens": 2,
    "corpus": 2,
    "blend": 1,
    "import_model": 2,
    "pretrain": 1,
    "merge": 1,
    "render": 3,
    "pack": 2,
    "sft": 1,
    "resolve": 4,
    "rl": 1,
    "export": 2,
    "eval_task": 2,
    "eval": 2,
    "eval_items": 1,
    "overlap": 1,
    "contamination": 1,
    "report": 1,
}


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
    model = tokenized(config, corpus)
    return {
        "source": plain(model.source),
        "parts": model.parts,
        "shards_per_part": model.shards_per_part,
    }, {}


def tokens(config: Config, tokenizer: str, corpus: str, part: str = "") -> tuple[dict, dict]:
    """Shared: how documents become tokens; the same for every part."""
    model = tokenized(config, corpus)
    without = ("about", "source", "import", "parts", "shards_per_part", "max_dropped")
    dtype = config.data("tokenizers", tokenizer).dtype
    identity = {"corpus": corpus, "dtype": dtype, **plain(model, *without)}
    return identity, {"source": plain(model.source), "max_dropped": model.max_dropped}


def tokenized(config: Config, corpus: str) -> Corpus:
    """The model of a corpus that is tokenized here; UserError for an imported one."""
    model = config.data("corpora", corpus)
    if model.source is None:
        raise UserError(f"corpora.{corpus} is imported: it has neither plan nor parts")
    return model


def corpus(config: Config, tokenizer: str, corpus: str) -> tuple[dict, dict]:
    """Shared: the parts' spec and their number; of an imported one the path as written."""
    model = config.data("corpora", corpus)
    if model.import_ is not None:
        dtype = config.data("tokenizers", tokenizer).dtype
        return {"corpus": corpus, "dtype": dtype, "import": model.import_}, {}
    identity, _ = tokens(config, tokenizer, corpus)
    return {**identity, "parts": model.parts}, {}


def blend(config: Config, run: str, phase: str) -> tuple[dict, dict]:
    """The weights; not the blend's name in the config."""
    return {"weights": derived.weights(config, config.run(run), phase)}, {}


def import_model(config: Config, run: str) -> tuple[dict, dict]:
    """The path as written, the architecture, and the engine whose format the model gets.

    As options, who is going to read it, and how. Where engines differ, the local one's: the others
    read that of Hugging Face, too.
    """
    model = config.run(run)
    if model.init is None:
        raise UserError(f"{run} imports no model (init); its first stage trains from nothing")
    first, *_ = [*graph.own_stages(model), "eval"]
    continues = first.startswith("pretrain.") and graph.entry(model, first).init == "continue"
    asked = {f"{s}.engine": getattr(model, s).engine for s in readers(model, first)}
    options = {
        "readers": asked,
        "continues": f"pretrain.phases.{first.partition('.')[2]}.init" if continues else None,
    }
    engine = "local" if "local" in asked.values() else next(iter(asked.values()), "local")
    identity = {"engine": engine, "import": model.init.import_}
    return identity | {"model": plain(model.pretrain.model)}, options


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
        **plain(section, "phases", "tokenizer", "spike", "sample", "merge"),
        **plain(entry, "after", "blend", "options"),
    }
    return identity, {**plain(entry.options), "spike": section.spike}


def merge(config: Config, run: str, phase: str, window: str) -> tuple[dict, dict]:
    """The architecture, the window, and which checkpoints are kept of it."""
    section = config.run(run).pretrain
    kept = section.phases[phase].options.window
    return {
        "engine": section.engine,
        "model": plain(section.model),
        "iterations": section.merge.windows[window],
        "every": kept.every,
    }, {}


def render(config: Config, mixture: str, source: str) -> tuple[dict, dict]:
    """Shared: conversations and template; no weights, seed or pack size."""
    model = config.data("mixtures", mixture)
    entry = model.sources[source]
    identity = {
        **plain(entry, "weight"),
        "reasoning": plain(entry.reasoning or model.reasoning),
        "template": config.template(model.template),
    }
    return identity, {"max_dropped": model.max_dropped}


def pack(config: Config, mixture: str) -> tuple[dict, dict]:
    """Shared: weights, pack size, padding, split, seed; of imported rows the path as written."""
    model = config.data("mixtures", mixture)
    if model.import_ is not None:
        sizes = {"pack_size": model.pack_size, "pad_multiple": model.pad_multiple}
        return {"import": model.import_, **sizes}, {}
    weights = {name: source.weight for name, source in model.sources.items()}
    without = ("about", "tokenizer", "template", "sources", "gaps", "max_dropped", "reasoning")
    return {**plain(model, *without), "weights": weights}, {}


def sft(config: Config, run: str) -> tuple[dict, dict]:
    """The section and the architecture."""
    section = config.run(run).sft
    model = plain(config.run(run).pretrain.model)
    identity = {**plain(section, "mixture", "options", "spike"), "model": model}
    return identity, {**plain(section.options), "spike": section.spike}


def resolve(config: Config, prompts: str) -> tuple[dict, dict]:
    """Shared: the rows and how they are split; of the tasks to keep apart from, their items."""
    model = config.data("prompts", prompts)
    identity = plain(model, "about", "gaps", "expected", "max_dropped", "apart_from")
    apart_from = {task: items.of_task(config, task) for task in model.apart_from}
    return {**identity, "apart_from": apart_from}, {"max_dropped": model.max_dropped}


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
    """The type of the weights, the engine that wrote the checkpoint, and adapters to merge in."""
    model = config.run(run)
    full = graph.full_name(model, stage)
    section = graph.trained(model, full).partition(".")[0]
    adapted = full == "sft" and model.sft.lora and not graph.is_imported(Runs(config), run, full)
    lora = {"lora": plain(model.sft.lora)} if adapted else {}
    return {"engine": getattr(model, section).engine, **plain(model.export), **lora}, {}


def eval_task(config: Config, run: str, stage: str, task: str) -> tuple[dict, dict]:
    """The task and how the model is called; as an option, where."""
    section = config.run(run).eval
    told = plain(config.data("tasks", task), "about", "suite", "prompts", "items")
    options = {"endpoint": endpoint(section, stage)} if section.backend == "endpoint" else {}
    return {"task": told, "backend": section.backend, "batch_size": section.batch_size}, options


def endpoint(section: Eval, stage: str) -> dict:
    """The server of a stage's model."""
    told = plain(section.endpoint)
    return told | {key: told[key].replace("{stage}", stage) for key in ("url", "model")}


def eval(config: Config, run: str) -> tuple[dict, dict]:
    """What is evaluated, and the published scores beside it."""
    without = ("backend", "endpoint", "batch_size", "contamination")
    return plain(config.run(run).eval, *without), {}


def eval_items(config: Config, task: str) -> tuple[dict, dict]:
    """Shared: where a task's items lie; those of a task of ours are an input."""
    if why := items.unchecked(config, [task]):
        raise UserError(f"task {task}: {why[task]}")
    model = config.data("tasks", task)
    return ({"items": plain(model.items)} if model.items else {}), {}


def overlap(config: Config, run: str, kind: str, data: str) -> tuple[dict, dict]:
    """All that it follows from are its inputs."""
    return {"kind": kind}, {}


def contamination(config: Config, run: str) -> tuple[dict, dict]:
    """What it gathers are inputs; and why some tasks are not among them."""
    section = config.run(run).eval
    if not section.contamination:
        raise UserError(
            f"{run} searches no training data; set eval.contamination: [pretrain, sft, rl]"
        )
    return {"unchecked": items.unchecked(config, section.tasks)}, {}


def report(config: Config, run: str) -> tuple[dict, dict]:
    """The page follows from its inputs; the resolved config and what data lack are shown."""
    model, chain = config.run(run), graph.stages(Runs(config), run)
    gaps = {stage: derived.gaps(config, model, stage) for stage in chain}
    return {}, {"config": plain(model), "chain": chain, "gaps": gaps}


SPECS = {
    function.__name__: function
    for function in (
        image, tokenizer, plan, tokens, corpus, blend, import_model, pretrain, merge, render, pack,
        sft, resolve, rl, export, eval_task, eval, eval_items,
        overlap, contamination, report,
    )
}  # fmt: skip
