"""The ConfigContainer of a job, by the recipe functions of whatever release is installed.

A recipe function is asked for what no key of ours says: kernels, recomputation, environment
variables. Everything that a key says is set afterwards, whatever the function had there. The
functions of branch super-v3 (0.4.0rc0) take keyword arguments, those of the releases from 0.4 on
none or the kind of adapters.
"""

import importlib
import inspect
import typing
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from importlib import metadata
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from megatron.bridge import AutoBridge
from megatron.bridge.training import config as bridge
from megatron.bridge.training.mixed_precision import get_mixed_precision_config

from nemoflow.engines.megatron.settings import Setting, Settings, config_key, settings
from nemoflow.errors import UserError
from nemoflow.files import write_json
from nemoflow.hub import hub_config

RECIPES = "megatron.bridge.recipes.nemotronh"
FUNCTIONS = {
    "pretrain": ("pretrain_config",),
    "sft": ("sft_config", "finetune_config"),
    "lora": ("peft_config", "finetune_config"),
}
# Fields by their names in other releases, and what a release does that has no such field.
ALIASES = {"model.hybrid_layer_pattern": ("model.hybrid_override_pattern",)}
ALWAYS = {"model.mamba_chunk_size": 128}
PACKED = ("GPTSFTDatasetConfig", "FinetuningDatasetConfig")  # 0.6; up to 0.5
SPECS = ("offline_packing_specs", "packed_sequence_specs")
SPECS_MODULES = ("megatron.bridge.data.packing", "megatron.bridge.data.datasets.packed_sequence")
GENERATIONS = {8: "a100", 9: "h100", 10: "b200"}  # by compute capability


def build(job: Mapping[str, Any]) -> bridge.ConfigContainer:
    """The container of a job.json of task pretrain or sft, not validated yet.

    Raises:
        UserError: no recipe function of this release can be called, a field that a key of ours
            says is not there, or `settings` refuses.
    """
    told = settings(job, gpu_kind())
    container = call(recipe_of(job), keywords(job), job["config"]["model"])
    prepare(container, job, told)
    for field, setting in told.items():
        put(container, field, setting, job)
    return container


def gpu_kind() -> str:
    """The kind of this process's GPU, by its compute capability."""
    major, minor = torch.cuda.get_device_capability()
    if major not in GENERATIONS:
        raise UserError(f"GPUs of compute capability {major}.{minor} are not known here")
    return GENERATIONS[major]


def release() -> str:
    """The release of Megatron-Bridge, for messages."""
    return f"Megatron-Bridge {metadata.version('megatron-bridge')}"


def recipe_of(job: Mapping[str, Any]) -> Callable[..., Any]:
    """The recipe function for a job: of Super where experts have a latent space, else of Nano."""
    config = job["config"]
    family = f"nemotron_3_{'super' if config['model']['moe'].get('latent') else 'nano'}"
    kind = "lora" if config.get("lora") else job["task"]
    module = importlib.import_module(f"{RECIPES}.{family}")
    wanted = [f"{family}_{name}" for name in FUNCTIONS[kind]]
    for name in wanted:
        if function := getattr(module, name, None):
            return function
    there = [name for name in dir(module) if name.endswith("_config") and name[0] != "_"]
    raise UserError(
        f"{release()}: {module.__name__} has none of {', '.join(wanted)}, only"
        f" {', '.join(there) or 'nothing of the kind'}; use the image that envs/images.yaml names"
    )


def keywords(job: Mapping[str, Any]) -> dict[str, Any]:
    """What a recipe function must be told that no field can say afterwards, under all its names."""
    config = job["config"]
    scheme = "lora" if config.get("lora") else None
    told = {"seq_length": config["batch"]["sequence"]}
    if job["task"] == "sft":
        return told | {"peft": scheme, "peft_scheme": scheme, "packed_sequence": True}
    blend = job["inputs"].get("blend")
    return told | ({"per_split_data_args_path": blend} if blend else {"mock": True})


def call(function: Callable[..., Any], known: Mapping[str, Any], model: Mapping[str, Any]) -> Any:
    """What a recipe function returns, told those of the `known` keywords that it takes.

    Raises:
        UserError: it takes something that is not known here.
    """
    parameters = inspect.signature(function).parameters.values()
    kinds = inspect.Parameter
    named = [p for p in parameters if p.kind in (kinds.POSITIONAL_OR_KEYWORD, kinds.KEYWORD_ONLY)]
    open_ended = [p for p in parameters if p.kind is kinds.VAR_KEYWORD]
    strange = [
        str(p)
        for p in parameters
        if p.kind in (kinds.POSITIONAL_ONLY, kinds.VAR_POSITIONAL)
        or (p in named and p.default is p.empty and p.name not in known)
    ]
    names = {p.name for p in named} | {name for p in open_ended for name in accepted(p, known)}
    where = f"{function.__module__}.{function.__name__}{inspect.signature(function)}"
    if strange:
        raise UserError(
            f"{release()}: {where}: nothing is known of {', '.join(strange)}; recipe functions that"
            f" can be called take no arguments, or keywords among {', '.join(known)}"
        )
    try:
        with local_model(model):
            return function(**{name: known[name] for name in known if name in names})
    except TypeError as error:
        raise UserError(f"{release()}: {where} cannot be called: {error}") from error


def accepted(parameter: inspect.Parameter, known: Mapping[str, Any]) -> set[str]:
    """The keywords that `**kwargs: Unpack[...]` names; all that are known where it names none."""
    for told in typing.get_args(parameter.annotation):
        if fields := getattr(told, "__annotations__", None):
            return set(fields)
    return set(known)


@contextmanager
def local_model(model: Mapping[str, Any]) -> Iterator[None]:
    """Let recipe functions read our architecture where they would ask the hub for the model's."""
    asked = AutoBridge.__dict__["from_hf_pretrained"]
    whole = {"ffn": None, "mtp": None, "norm_epsilon": 1e-5, **model}
    whole["moe"] = {"latent": None, **model["moe"]}
    with TemporaryDirectory() as folder:
        write_json(Path(folder) / "config.json", hub_config(whole, "bfloat16"))
        ours = asked.__func__
        AutoBridge.from_hf_pretrained = classmethod(lambda cls, *_, **__: ours(cls, folder))
        try:
            yield
        finally:
            AutoBridge.from_hf_pretrained = asked


def prepare(container: Any, job: Mapping[str, Any], told: Settings) -> None:
    """Put in place what fields are then set in: precision, adapters, a dataset of packed rows."""
    container.mixed_precision = get_mixed_precision_config(told.pop("mixed_precision").value)
    if job["config"].get("lora") and container.peft is None:
        raise UserError(f"{release()}: its recipe function made no adapters (lora)")
    if job["task"] == "sft":
        container.dataset = packed_dataset(told)


def packed_dataset(told: Settings) -> Any:
    """The dataset config of packed rows; recipe functions come with one of a hub's data set."""
    kind = next(getattr(bridge, name) for name in PACKED if hasattr(bridge, name))
    place = next(name for name in SPECS if name in kind.__dataclass_fields__)
    prefix = f"dataset.{SPECS[0]}."
    specs = [name for name in told if name.startswith(prefix)]
    values = {name.removeprefix(prefix): told.pop(name).value for name in specs}
    made = specs_class()(**values)
    return kind(seq_length=told["dataset.seq_length"].value, **{place: made})


def specs_class() -> type:
    """The class of what is said of packed rows, wherever the release keeps it."""
    for name in SPECS_MODULES:
        try:
            return importlib.import_module(name).PackedSequenceSpecs
        except (ModuleNotFoundError, AttributeError):
            continue
    raise UserError(f"{release()}: no PackedSequenceSpecs in {', '.join(SPECS_MODULES)}")


def put(container: Any, field: str, setting: Setting, job: Mapping[str, Any]) -> None:
    """Set one field.

    Raises:
        UserError: a key of ours says it, and the release has no such field.
    """
    for name in (field, *ALIASES.get(field, ())):
        *parents, last = name.split(".")
        holder = container
        for parent in parents:
            holder = getattr(holder, parent, None)
        if isinstance(holder, dict):
            holder[last] = setting.value
            return
        if hasattr(holder, last):
            setattr(holder, last, typed(setting.value))
            return
    if setting.key and setting.value not in (None, ALWAYS.get(field)):
        raise UserError(f"{config_key(job, setting.key)}: {release()} has no field {field}")


def typed(value: Any) -> Any:
    """A dtype for its name; anything else as it is."""
    if isinstance(value, str) and value.startswith("torch."):
        return getattr(torch, value.removeprefix("torch."))
    return value
