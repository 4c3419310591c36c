"""The mean of a training's checkpoints, tensor by tensor, without building the model.

megatron-core's checkpoints are torch.distributed's, so its own writer asks for each tensor when it
is its turn: memory holds one tensor of the model in float32, and one of a checkpoint. The largest
of Super are a layer's experts, 512 × 2,688 × 1,024: 5.6 GB.
"""

import functools
import io
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch.distributed import checkpoint as dcp
from torch.distributed.checkpoint.metadata import Metadata, TensorStorageMetadata
from torch.distributed.checkpoint.planner import SavePlan, WriteItem, WriteItemType

from nemoflow import checkpoint, iterations, ranks
from nemoflow.errors import UserError
from nemoflow.files import write_json
from nemoflow.progress import say
from nemoflow.torch_dist import COMMON, check, iteration_folder

# What a HybridModel's checkpoint has of it, and what all ranks share; the rest is the optimizer's,
# and the generators' states.
KEPT = ("embedding.", "decoder.", "mtp.", "output_layer.", "common_state")
COPIED = ("metadata.json", COMMON, "run_config.yaml", iterations.STATE)


class Reader(dcp.FileSystemReader):
    """Reads single entries of a checkpoint; its index is read once."""

    @functools.cached_property
    def index(self) -> Metadata:
        """The parsed `.metadata`."""
        return super().read_metadata()

    def read_metadata(self, *_: Any, **__: Any) -> Metadata:
        """The same, for every tensor that is loaded."""
        return self.index

    def tensor(self, name: str) -> torch.Tensor:
        """A whole tensor, put together from its pieces."""
        told = self.index.state_dict_metadata[name]
        state = {name: torch.empty(told.size, dtype=told.properties.dtype)}
        dcp.load(state, storage_reader=self, no_dist=True)
        return state[name]

    def bytes_of(self, name: str) -> io.BytesIO:
        """An entry that is no tensor, as it lies on disk."""
        (place,) = (at for key, at in self.index.storage_data.items() if key.fqn == name)
        with open(Path(self.path) / place.relative_path, "rb") as file:
            file.seek(place.offset)
            return io.BytesIO(file.read(place.length))


class Mean(dcp.DefaultSavePlanner):
    """Gives the writer each tensor's mean over several checkpoints, and bytes of the last."""

    def __init__(self, readers: Sequence[Reader]):
        super().__init__()
        self.readers = readers

    def resolve_data(self, write_item: WriteItem) -> torch.Tensor | io.BytesIO:
        """What is written for one entry, whole."""
        name, (*earlier, last) = write_item.index.fqn, self.readers
        if write_item.type == WriteItemType.BYTE_IO:
            return last.bytes_of(name)
        total = last.tensor(name)
        dtype = total.dtype
        if not dtype.is_floating_point:
            return total
        total = total.float()
        for reader in earlier:
            total += reader.tensor(name)
        return (total / len(self.readers)).to(dtype)

    def create_global_plan(self, plans: list[SavePlan]) -> tuple[list[SavePlan], Metadata]:
        """As torch has it, with what megatron-core (up to 0.18) keeps beside."""
        plans, metadata = super().create_global_plan(plans)
        kept = getattr(self.readers[-1].index, "mcore_data", {})
        metadata.mcore_data = {k: v for k, v in kept.items() if k.startswith(KEPT)}
        return plans, metadata


def merge(job: dict[str, Any]) -> int:
    """Write {progress}/final/, a checkpoint of the last's iteration, and merged.json; exit code.

    `inputs`: checkpoints, ascending. The first process works alone. Megatron's model computes on
    GPUs alone, so merged.json has no losses.

    Raises:
        UserError: a checkpoint is not whole, or they are not of one model.
    """
    if ranks.place()[0]:
        return 0
    folders = [Path(path) for path in job["inputs"]["checkpoints"]]
    sources, progress = [source_of(folder) for folder in folders], Path(job["progress"])
    last = sources[-1]
    final, folder = progress / "final", progress / ".final.tmp"
    for leftover in (final, folder):
        shutil.rmtree(leftover, ignore_errors=True)
    target = folder / last.name
    target.mkdir(parents=True)
    average(sources, target)
    for name in COPIED:
        if (last / name).exists():
            shutil.copyfile(last / name, target / name)
    iterations.track(folder, target)
    shutil.copyfile(folders[-1] / "state.json", folder / "state.json")
    check(target)
    steps = [checkpoint.step_of(source) for source in sources]
    write_json(progress / "merged.json", {"steps": steps})
    checkpoint.sync_tree(folder)
    folder.rename(final)
    return 0


def source_of(folder: Path) -> Path:
    """The iteration's folder in one of the checkpoints.

    Raises:
        UserError: there is none.
    """
    if (found := iteration_folder(folder)) is None:
        raise UserError(f"{folder}: no Megatron checkpoint to average")
    return found


def average(sources: Sequence[Path], target: Path) -> None:
    """Write the mean of iterations' folders into another.

    Raises:
        UserError: they hold different tensors, or one is not whole.
    """
    contents = [weights_of(source) for source in sources]
    for source, content in zip(sources, contents, strict=True):
        if odd := sorted(set(content.items()) ^ set(contents[-1].items())):
            raise UserError(
                f"{source}: not of the same model as {sources[-1]}; first difference {odd[0][0]}"
            )
    readers = [Reader(source) for source in sources]
    index = readers[-1].index.state_dict_metadata
    state: dict[str, Any] = {}
    for name, told in index.items():
        if not name.startswith(KEPT):
            continue
        if isinstance(told, TensorStorageMetadata):
            state[name] = torch.empty(told.size, dtype=told.properties.dtype, device="meta")
        else:
            state[name] = io.BytesIO()
    say(f"mean of {len(sources)} checkpoints: {len(contents[-1])} tensors")
    writer = dcp.FileSystemWriter(target, single_file_per_rank=True, thread_count=1)
    dcp.save(state, storage_writer=writer, planner=Mean(readers), no_dist=True)


def weights_of(source: Path) -> dict[str, Any]:
    """The model's tensors in an iteration's folder.

    Raises:
        UserError: it is not whole, or has none.
    """
    found = {k: v for k, v in check(source).tensors.items() if k.startswith(KEPT)}
    if not found:
        raise UserError(f"{source}: no weights of a hybrid model in it")
    return found
