"""An existing model as the beginning of a run: what it is, whether it fits, and its copy.

Two formats: `huggingface`, a folder with config.json and safetensors files; `megatron`, a
checkpoint of torch_dist, or one iteration's folder of it.
"""

import fcntl
import os
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nemoflow import hub, manifest, shards, specs, torch_dist
from nemoflow.config import Config
from nemoflow.errors import UserError
from nemoflow.files import read_json, write_json, write_whole
from nemoflow.progress import in_bytes, say

HUGGINGFACE, MEGATRON = "huggingface", "megatron"
CLONE = 0x40049409  # FICLONE of linux/fs.h: share the bytes, where the file system can
CHUNK = 64 * 2**20  # bytes
EVERY = 10  # seconds between two lines about a long copy


@dataclass(frozen=True)
class Found:
    """A checkpoint: `folder` is Megatron's iteration, or the model's own.

    `files` are relative to it; hidden ones and those of other iterations are not the model's.
    """

    format: str
    folder: Path
    files: list[str]


def take(identity: Mapping[str, Any], options: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    """Check the model that a spec names, and copy it into an empty folder; its facts.

    UserError as `find`, `check_model` and `check_use`.
    """
    written, model = identity["import"], identity["model"]
    found = find(written)
    check_model(found, model)
    facts = facts_of(found, model)
    check_use(written, facts, options)
    copy(found, folder)
    return facts


def unconverted(facts: Mapping[str, Any], parity: str) -> None:
    """Write the verdict on a model that stays in the format it came in."""
    skipped = f"the model stays in the format it came in ({facts['format']})"
    write_json(parity, {"skipped": skipped, "verdict": "passed"})


def find(written: str) -> Found:
    """The checkpoint at a path as the user wrote it.

    Raises:
        UserError: there is none; says what lies there instead.
    """
    path, key = Path(written), f"init.import: {written}"
    if not os.path.exists(path):
        raise UserError(f"{key}: there is no such folder")
    if not path.is_dir():
        raise UserError(f"{key}: a file; name the folder that holds it")
    if not os.access(path, os.R_OK | os.X_OK):
        raise UserError(f"{key}: not readable for you; ask who owns it for the right to")
    names = sorted(entry.name for entry in path.iterdir())
    if not names:
        raise UserError(f"{key}: the folder is empty")
    files = [name for name in names if not name.startswith(".") and (path / name).is_file()]
    weights = [name for name in files if name.endswith(".safetensors") or name == shards.INDEX]
    iteration = torch_dist.iteration_folder(path)
    if iteration is not None and weights:
        raise UserError(
            f"{key}: two models in one folder: a Megatron checkpoint ({iteration.name}) and"
            f" {weights[0]}; name a folder that holds one of them"
        )
    if iteration is not None:
        inside = (p.relative_to(iteration) for p in sorted(iteration.rglob("*")) if p.is_file())
        return Found(MEGATRON, iteration, [file.as_posix() for file in inside])
    if weights and "config.json" in files:
        return Found(HUGGINGFACE, path, files)
    raise UserError(f"{key}: {neither(weights, names)}")


def neither(weights: list[str], names: list[str]) -> str:
    """Why a folder is of neither format."""
    if weights:
        return f"{weights[0]}, but no config.json beside it"
    if old := [name for name in names if name.endswith((".bin", ".pt", ".pth", ".nemo"))]:
        return (
            f"weights as {old[0]}; convert them to safetensors (save_pretrained), or name a"
            " Megatron checkpoint"
        )
    return (
        "neither a Hugging Face model (config.json, *.safetensors) nor a Megatron checkpoint"
        f" ({torch_dist.TRACKER}, iter_0000100/); there lie {shards.some(names)}"
    )


def check_model(found: Found, model: Mapping[str, Any]) -> None:
    """Raise UserError where a checkpoint's own config and the run's model section disagree."""
    if found.format == HUGGINGFACE:
        name, differing = "config.json", hub.differences(config_of(found), model)
    else:
        config = torch_dist.model_config(found.folder)
        name, differing = "run_config.yaml", torch_dist.differences(config, model)
    if differing:
        listed = "".join(f"\n  {line}" for line in differing)
        raise UserError(
            f"{found.folder / name}: not the architecture of the run:{listed}\n"
            "Set pretrain.model to what the imported model is, or import another."
        )


def config_of(found: Found) -> dict[str, Any]:
    """The config.json of a Hugging Face model."""
    path = found.folder / "config.json"
    try:
        config = read_json(path)
    except ValueError as error:
        raise UserError(f"{path}: not readable as JSON: {error}") from None
    if not isinstance(config, dict):
        raise UserError(f"{path}: not the config of a model")
    return config


def check_use(written: str, facts: Mapping[str, Any], use: Mapping[str, Any]) -> None:
    """Raise UserError for a checkpoint that the run cannot begin with.

    `facts` are what is known of it, the format at least. `use` are the options of the import's
    spec: `readers`, the engines that read the model by the key that names each, and `continues`,
    the key that asks for its optimizer, if one does.
    """
    local = [key for key, engine in use["readers"].items() if engine == "local"]
    if facts["format"] == MEGATRON and local:
        raise UserError(
            f"{local[0]}: the local engine cannot read the Megatron checkpoint {written}; export it"
            " to Hugging Face format first (Megatron-Bridge, AutoBridge.export_ckpt), or set"
            " engine: megatron"
        )
    if use["continues"] and not facts.get("optimizer", facts["format"] == MEGATRON):
        raise UserError(
            f"{use['continues']}: continue needs an optimizer, and {written} ({facts['format']})"
            " has none; set init: weights"
        )


def refuse_missing(
    identity: Mapping[str, Any], product: Path, place: str, find: Callable[[str], Any]
) -> None:
    """Raise UserError where `find` finds nothing to import; no file is read.

    Where the product stands, built from this very identity, the path need not exist any more.
    """
    built = manifest.read(product) if product.exists() else {}
    if "import" not in identity or built.get("identity") == identity:
        return
    try:
        find(identity["import"])
    except UserError as error:
        raise UserError(f"{place}: {error}") from None


def check_early(config: Config, run: str, product: Path) -> None:
    """Raise UserError for what would stop a run's import, found without reading any weights.

    Where the product stands, built from this very spec, the path need not exist any more.
    """
    spec = specs.of(config, "import_model", {"run": run})
    built = manifest.read(product) if product.exists() else {}
    try:
        if built.get("identity") == spec.identity:
            check_use(spec.identity["import"], built["model"], spec.options)
            return
        found = find(spec.identity["import"])
        check_use(spec.identity["import"], {"format": found.format}, spec.options)
        check_model(found, spec.identity["model"])
    except UserError as error:
        raise UserError(f"{config.place('runs', run, 'init', 'import')}: {error}") from None


def facts_of(found: Found, model: Mapping[str, Any]) -> dict[str, Any]:
    """What the manifest tells of a checkpoint, all of whose files are there and whole.

    Raises:
        UserError: a file is missing, damaged or cut short, or the weights lack what `model` has.
    """
    if found.format == MEGATRON:
        return facts_of_megatron(found)
    tensors, config = shards.read_all(found.folder, found.files), config_of(found)
    has_mtp = any(name.startswith("mtp.") for name in tensors)
    if has_mtp != bool(model.get("mtp")):
        raise UserError(
            f"{found.folder}: it has {'' if has_mtp else 'no '}weights of an MTP head (mtp.*), but"
            f" pretrain.model.mtp is {'not set; set it' if has_mtp else 'set; set it to null'}"
        )
    version = config.get("transformers_version")
    return {
        "format": HUGGINGFACE,
        **({"transformers": version} if version else {}),
        **counted(tensors),
    }


def facts_of_megatron(found: Found) -> dict[str, Any]:
    """The same of a Megatron checkpoint; its optimizer's tensors are not counted."""
    tensors = torch_dist.check(found.folder).tensors
    weights = {name: tensor for name, tensor in tensors.items() if "optimizer" not in name}
    told = read_json(found.folder / "metadata.json")
    iteration = torch_dist.ITERATION.fullmatch(found.folder.name)
    return {
        "format": MEGATRON,
        "backend": told["sharded_backend"],
        "backend_version": told.get("sharded_backend_version", 1),
        **({"iteration": int(iteration[1])} if iteration else {}),
        "optimizer": len(weights) < len(tensors),
        **counted(weights),
    }


def counted(tensors: Mapping[str, shards.Tensor]) -> dict[str, Any]:
    """Tensors, parameters, and the type that most of them have."""
    sizes: Counter[str] = Counter()
    for tensor in tensors.values():
        sizes[tensor.dtype] += tensor.size
    dtype = sizes.most_common(1)[0][0] if sizes else None
    return {"tensors": len(tensors), "parameters": sum(sizes.values()), "dtype": dtype}


def copy(found: Found, folder: Path) -> None:
    """Copy a checkpoint into an empty folder, in the layout that its readers expect.

    A Megatron iteration lies in a folder of its own, beside the tracker that names it.
    """
    target = folder
    if found.format == MEGATRON:
        target = folder / found.folder.name
        iteration = torch_dist.ITERATION.fullmatch(found.folder.name)
        number = str(int(iteration[1])) if iteration else found.folder.name
        write_whole(folder / torch_dist.TRACKER, number + "\n")
    total = sum((found.folder / name).stat().st_size for name in found.files)
    say(f"copying {in_bytes(total)} in {len(found.files)} files from {found.folder}")
    done, told = 0, time.monotonic()
    for name in found.files:
        (target / name).parent.mkdir(parents=True, exist_ok=True)
        for size in copied(found.folder / name, target / name):
            done += size
            if time.monotonic() - told > EVERY:
                told = time.monotonic()
                say(f"{in_bytes(done)} of {in_bytes(total)}")
    if done != total:
        raise UserError(f"{found.folder}: changed while it was copied; try again")


def copied(source: Path, target: Path) -> Iterator[int]:
    """Copy a file, by sharing its bytes where the file system can; the bytes of each piece."""
    with open(source, "rb") as file, open(target, "wb") as copy:
        try:
            fcntl.ioctl(copy.fileno(), CLONE, file.fileno())
            yield os.fstat(file.fileno()).st_size
            return
        except OSError:
            pass  # another file system, or one that shares nothing
        while piece := file.read(CHUNK):
            copy.write(piece)
            yield len(piece)
