"""What must fit together across files, before any job."""

from typing import TYPE_CHECKING, Any

from nemoflow import graph, padding
from nemoflow.config import averages, derived, items, local_engine, templates
from nemoflow.config.base import plain
from nemoflow.config.messages import nearest
from nemoflow.config.run import Run
from nemoflow.errors import UserError

if TYPE_CHECKING:
    from nemoflow.config.load import Config, Runs


def check_data(config: "Config", kind: str, name: str, model: Any) -> None:
    """A data file and the data files it names."""
    if kind == "blends":
        derived.refuse_twin(config, name, model)
        for corpus in model.weights or ():
            refer(config, "corpora", corpus, kind, name, "weights", corpus)
    elif kind == "mixtures":
        refer(config, "tokenizers", model.tokenizer, kind, name, "tokenizer")
        if model.import_ is None:
            templates.check(config, name, model)
    elif kind == "tasks" and model.prompts:
        refer(config, "prompts", model.prompts, kind, name, "prompts")
    elif kind == "tokenizers" and model.train:
        config.template(model.train.template)


def refer(config: "Config", kind: str, wanted: str, at: str, name: str, *key: str) -> Any:
    """The data file that a key names.

    Raises:
        UserError: there is none; with the key's place and the nearest name.
    """
    if wanted not in config.raw[kind]:
        words = {"corpora": "corpus", "prompts": "prompts file"}.get(kind, kind[:-1])
        raise UserError(
            f"{config.place(at, name, *key)}: {'.'.join(key)}:"
            f" {nearest(words, wanted, config.names(kind))} (config/{kind}/)"
        )
    return config.data(kind, wanted)


def check_run(runs: "Runs", name: str) -> None:
    """A run, the data it names, its sizes, and what it shares with its parent.

    Of stages that an imported model replaces, nothing is asked.
    """
    config, run = runs.config, runs[name]

    def fail(text: str, *key: str) -> None:
        raise UserError(f"{config.place('runs', name, *key)}: {'.'.join(key)}: {text}")

    try:
        graph.chain(run)
        graph.start_of(run)
        for stage in run.eval.stages:
            graph.full_name(run, stage)
    except UserError as error:
        key = str(error).partition(":")[0].split(".")
        place = config.place("runs", name, *(key if " " not in key[0] else ("eval", "stages")))
        raise UserError(f"{place}: {error}") from None
    stages = graph.stages(runs, name)
    check_pretrain(config, name, run, stages, fail)
    check_beginnings(runs, name, stages, fail)
    if "sft" in stages:
        check_sft(config, name, run, fail)
    local_engine.check(run, stages, fail)
    averages.check(run, stages, fail)
    check_steps(config, name, run, stages, fail)
    for task in run.eval.tasks:
        refer(config, "tasks", task, "runs", name, "eval", "tasks")
    check_shared(runs, name)
    try:
        for stage in run.eval.stages:
            graph.owner(runs, name, graph.full_name(run, stage))
    except UserError as error:
        fail(str(error), "eval", "stages")


def check_pretrain(config: "Config", name: str, run: Run, stages: list[str], fail: Any) -> None:
    """Blends, vocabulary, parallel sizes, and phases that only go forward."""
    model, key = run.pretrain.model, ("pretrain", "tokenizer")
    tokenizer = refer(config, "tokenizers", run.pretrain.tokenizer, "runs", name, *key)
    if tokenizer.vocab_size > model.vocab_size:
        fail(
            f"tokenizer {run.pretrain.tokenizer} has {tokenizer.vocab_size:,} ids, the model's"
            f" embedding {model.vocab_size:,} rows; make vocab_size at least as large",
            "pretrain", "model", "vocab_size",
        )  # fmt: skip
    for phase, entry in run.pretrain.phases.items():
        if f"pretrain.{phase}" not in stages:
            continue
        at = ("pretrain", "phases", phase)
        refer(config, "blends", entry.blend, "runs", name, *at, "blend")
        derived.check(config, run, phase, fail)
        check_parallel(run, entry.parallel, entry.batch.sequence, fail, *at, "parallel")
        if entry.batch.sequence > model.max_positions:
            fail(
                f"longer than model.max_positions ({model.max_positions})",
                *at, "batch", "sequence",
            )  # fmt: skip
        trained = f"pretrain.{entry.after}" in stages
        before = run.pretrain.phases[entry.after] if trained else None
        if before and entry.init == "continue" and entry.stop_iteration <= before.stop_iteration:
            fail(
                f"{entry.stop_iteration} is not after {entry.after}'s {before.stop_iteration},"
                " whose step it continues: the phase would train nothing",
                *at, "stop_iteration",
            )  # fmt: skip


def check_beginnings(runs: "Runs", name: str, stages: list[str], fail: Any) -> None:
    """A phase uses what it has to start from: the phase before it, or an imported model."""
    imported = graph.importer(runs, name) is not None
    for phase, entry in runs[name].pretrain.phases.items():
        random, at = entry.init == "random", ("pretrain", "phases", phase, "init")
        if f"pretrain.{phase}" not in stages:
            continue
        if entry.after is None and imported and random:
            fail("random would make nothing of the imported model; set weights", *at)
        if random if entry.after else not (random or imported):
            fail(
                "the first phase, and only the first, has init: random and no after; to begin with"
                f" an existing model, set init.import and start: pretrain.{phase}",
                *at,
            )


def check_sft(config: "Config", name: str, run: Run, fail: Any) -> None:
    """The mixture was made for this model and sequence length."""
    mixture = refer(config, "mixtures", run.sft.mixture, "runs", name, "sft", "mixture")
    cut, sequence = run.sft.parallel, run.sft.batch.sequence
    check_parallel(run, cut, sequence, fail, "sft", "parallel")
    multiple = padding.multiple(cut.context, cut.tensor, cut.sequence)
    if mixture.pad_multiple % multiple:
        fail(
            f"mixture {run.sft.mixture} pads each conversation to a multiple of"
            f" {mixture.pad_multiple} tokens; these sizes need pad_multiple: {multiple} there",
            "sft", "parallel", "context" if cut.context > 1 else "sequence",
        )  # fmt: skip
    if mixture.tokenizer != run.pretrain.tokenizer:
        fail(
            f"mixture {run.sft.mixture} is packed with tokenizer {mixture.tokenizer}, the model is"
            f" pretrained with {run.pretrain.tokenizer}",
            "sft", "mixture",
        )  # fmt: skip
    if mixture.pack_size != run.sft.batch.sequence:
        fail(
            f"{run.sft.batch.sequence} is not the pack_size of mixture {run.sft.mixture}"
            f" ({mixture.pack_size}); set the same in both",
            "sft", "batch", "sequence",
        )  # fmt: skip


def check_steps(config: "Config", name: str, run: Run, stages: list[str], fail: Any) -> None:
    """The prompts and the sizes of every step that is trained."""
    for step, entry in run.rl.steps.items():
        if f"rl.{step}" in stages:
            at = ("rl", "steps", step)
            refer(config, "prompts", entry.prompts, "runs", name, *at, "prompts")
            items.check(config, entry.prompts)
            check_parallel(run, entry.parallel, entry.max_sequence, fail, *at, "parallel")


def check_parallel(run: Run, parallel: Any, sequence: int, fail: Any, *key: str) -> None:
    """Sizes that must divide the architecture's numbers and the sequence, whatever the machine.

    `sequence` is in tokens. What Megatron's Mamba and attention layers assert when they are built
    (megatron/core/ssm/mamba_mixer.py, mamba_context_parallel.py, transformer_config.py) and its
    expert layer when it trains (moe/moe_layer.py).
    """
    model = run.pretrain.model
    for size, of, number, word in (
        ("expert", "moe.experts", model.moe.experts, "experts"),
        ("tensor", "attention.heads", model.attention.heads, "query heads"),
        ("tensor", "mamba.heads", model.mamba.heads, "Mamba heads"),
        ("tensor", "mamba.groups", model.mamba.groups, "Mamba groups"),
        ("tensor", "vocab_size", model.vocab_size, "rows of the embedding"),
        ("pipeline", "layers", model.layers, "layers of the pattern"),
    ):
        if number % getattr(parallel, size):
            fail(
                f"{getattr(parallel, size)} does not divide the {number} {word} (model.{of})",
                *key, size,
            )  # fmt: skip
    tensor, shared = parallel.tensor, model.attention.kv_heads
    if shared % tensor and tensor % shared:
        text = f"{tensor} neither divides the {shared} key and value heads nor is a multiple"
        fail(f"{text} (model.attention.kv_heads)", *key, "tensor")
    if tensor > 1 and "E" in model.pattern and not parallel.sequence:
        fail("experts with tensor > 1 need sequence parallelism; set true", *key, "sequence")
    check_context(model, parallel, sequence, fail, *key)


def check_context(model: Any, parallel: Any, sequence: int, fail: Any, *key: str) -> None:
    """The context-parallel size cuts the sequence in pairs, and the Mamba heads of each rank."""
    context, tensor = parallel.context, parallel.tensor
    if context > 1 and sequence % (2 * context):
        fail(f"sequences of {sequence} tokens are no multiple of 2 × {context}", *key, "context")
    if parallel.sequence and sequence % (context * tensor):
        text = f"sequences of {sequence} tokens are no multiple of context × tensor"
        fail(f"{text} = {context * tensor}", *key, "sequence")
    heads, groups = model.mamba.heads // tensor, model.mamba.groups // tensor
    if heads % context:
        text = f"{context} does not divide the {heads} Mamba heads of a tensor-parallel rank"
        fail(f"{text} (model.mamba.heads)", *key, "context")
    if groups % context and context % groups:
        text = f"{context} neither divides the {groups} Mamba groups of a rank nor is a multiple"
        fail(f"{text} (model.mamba.groups)", *key, "context")


def check_shared(runs: "Runs", name: str) -> None:
    """A run that starts later has its parent's settings before its start."""
    run = runs[name]
    first = graph.start_of(run)
    if run.extends is None or run.init is not None or first == 0:
        return
    config, parent, chain = runs.config, runs[run.extends], graph.chain(run)
    for stage in chain[:first]:
        if stage not in graph.chain(parent):
            raise UserError(
                f"{config.place('runs', name, 'start')}: start: {run.extends} has no stage {stage};"
                f" start before it"
            )
    if graph.importer(runs, name) is not None:
        check_imported(runs, name, chain[first] if first < len(chain) else None)
    trained, filed = graph.stages(runs, run.extends), config.unchanged(run.extends)
    for stage in [stage for stage in chain[:first] if stage in trained]:
        ours, theirs = graph.settings_of(run, stage), graph.settings_of(filed, stage)
        for key in difference(ours, theirs):
            dotted = ".".join((stage.partition(".")[0], *key))
            raise UserError(
                f"{config.place('runs', name, *dotted.split('.'))}: {dotted}: {stage} is shared"
                f" with {run.extends} (start: {run.start}): its keys cannot change here. Remove the"
                f" change, or set start: {stage}, and this run builds its own"
            )


def check_imported(runs: "Runs", name: str, start: str | None) -> None:
    """A run whose parents begin with an imported model starts after it, with its architecture."""
    run, config = runs[name], runs.config
    if start is not None:
        try:
            graph.owner(runs, name, graph.previous(run, start))
        except UserError as error:
            raise UserError(f"{config.place('runs', name, 'start')}: start: {error}") from None
    ours, theirs = plain(run.pretrain.model), plain(runs[run.extends].pretrain.model)
    for key in difference(ours, theirs):
        dotted = ".".join(("pretrain", "model", *key))
        raise UserError(
            f"{config.place('runs', name, *dotted.split('.'))}: {dotted}: the model is imported by"
            f" {graph.importer(runs, name)}: its architecture cannot change here. Remove the"
            " change, or import another model (init.import) here"
        )


def difference(ours: Any, theirs: Any, key: tuple[str, ...] = ()) -> list[tuple[str, ...]]:
    """The keys at which two mappings differ."""
    if isinstance(ours, dict) and isinstance(theirs, dict):
        names = sorted(set(ours) | set(theirs))
        return [k for n in names for k in difference(ours.get(n), theirs.get(n), (*key, n))]
    return [] if ours == theirs else [key]
