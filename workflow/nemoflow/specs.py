"""What each stage depends on: from the config and a rule's wildcards to the spec of the job."""

from nemoflow import graph, images
from nemoflow.config import Config, derived, items
from nemoflow.config.base import plain
from nemoflow.config.data import Corpus
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
    "import_model": 1,
    "pretrain": 1,
    "render": 3,
    "pack": 2,
    "sft": 1,
    "resolve": 4,
    "rl": 1,
    "export": 1,
    "eval_task": 1,
    "eval": 1,
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
        **plain(section, "phases", "tokenizer", "spike", "sample"),
        **plain(entry, "after", "blend", "options"),
    }
    return identity, {**plain(entry.options), "spike": section.spike}


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
    """The type of the weights, and the engine that wrote the checkpoint."""
    model = config.run(run)
    section = graph.full_name(model, stage).partition(".")[0]
    return {"engine": getattr(model, section).engine, **plain(model.export)}, {}


def eval_task(config: Config, run: str, stage: str, task: str) -> tuple[dict, dict]:
    """The task and how the model is called."""
    section = config.run(run).eval
    model = plain(config.data("tasks", task), "about", "prompts", "items")
    return {"task": model, "backend": section.backend, "batch_size": section.batch_size}, {}


def eval(config: Config, run: str) -> tuple[dict, dict]:
    """What is evaluated, and the published scores beside it."""
    return plain(config.run(run).eval, "backend", "batch_size"), {}


def report(config: Config, run: str) -> tuple[dict, dict]:
    """The page follows from its inputs; the resolved config and what blends lack are shown."""
    model = config.run(run)
    gaps = {phase: derived.gaps(config, model, phase) for phase in model.pretrain.phases}
    return {}, {"config": plain(model), "chain": graph.stages(Runs(config), run), "gaps": gaps}


SPECS = {
    function.__name__: function
    for function in (
        image, tokenizer, plan, tokens, corpus, blend, import_model, pretrain, render, pack, sft,
        resolve, rl, export, eval_task, eval, report,
    )
}  # fmt: skip
