"""Which key of the config a key of a product's identity comes from."""

from collections.abc import Mapping
from typing import Any

from nemoflow.config.base import Strict
from nemoflow.config.run import Phase, Step

ENTRIES = {"pretrain": ("phases", "phase", Phase), "rl": ("steps", "step", Step)}
PLACES = {
    "tokenizer": "tokenizers.{tokenizer}",
    "plan": "corpora.{corpus}",
    "tokens": "corpora.{corpus}",
    "corpus": "corpora.{corpus}",
    "render": "mixtures.{mixture}.sources.{source}",
    "pack": "mixtures.{mixture}",
    "import_model": "init",
    "merge": "pretrain.merge",
    "sft": "sft",
    "resolve": "prompts.{prompts}",
    "export": "export",
    "eval_task": "eval",
    "eval": "eval",
    "eval_items": "tasks.{task}",
}
ELSEWHERE = {
    ("tokens", "dtype"): "tokenizers.{tokenizer}.dtype",
    ("corpus", "dtype"): "tokenizers.{tokenizer}.dtype",
    ("render", "template"): "mixtures.{mixture}.template",
    ("export", "engine"): "{section}.engine",
    ("export", "lora"): "sft.lora",
    ("contamination", "unchecked"): "eval.tasks",
    ("merge", "engine"): "pretrain.engine",
    ("merge", "iterations"): "pretrain.merge.windows.{window}",
    ("merge", "every"): "pretrain.phases.{phase}.options.window.every",
}


def fields_of(model: type[Strict]) -> set[str]:
    """The keys of a model as the YAML names them."""
    return {field.alias or name for name, field in model.model_fields.items()}


def dotted(rule: str, named: Mapping[str, str], key: tuple[str, ...]) -> str:
    """The config key that a key of the identity of a rule's product comes from.

    `named` are the rule's wildcards. No product tells the name of its blend: where `named` has it
    as `blend`, the key is one of the blend's file, else it stands below the phase that names it.
    """
    first = key[0]
    if first == "version":
        return f"version of stage {rule}"
    if place := ELSEWHERE.get((rule, first)):
        return place.format(**named, section=named.get("stage", "").partition(".")[0])
    if first == "model":
        return ".".join(("pretrain", *key))
    if rule in ENTRIES:
        entries, entry, model = ENTRIES[rule]
        inside = (entries, named[entry]) if first in fields_of(model) else ()
        return ".".join((rule, *inside, *key))
    if rule == "blend":
        blend = f"blends.{named['blend']}" if "blend" in named else phase_blend(named["phase"])
        return ".".join((blend, *key))
    if rule == "pack" and first == "weights":
        return ".".join(("mixtures", named["mixture"], "sources", *key[1:], "weight"))
    if rule == "eval_task" and first == "task":
        return ".".join(("tasks", named["task"], *key[1:]))
    return ".".join((PLACES.get(rule, rule).format(**named), *key))


def phase_blend(phase: str) -> str:
    """The key that names the blend of a phase."""
    return f"pretrain.phases.{phase}.blend"


def value_at(values: Any, key: tuple[str, ...]) -> Any:
    """The value at a key, None where there is none."""
    for name in key:
        values = values.get(name) if isinstance(values, dict) else None
    return values


def shown(value: Any) -> str:
    """A value for people; long text is cut."""
    text = "unset" if value is None else str(value)
    return text if len(text) <= 60 else f"{text[:57]}…"
