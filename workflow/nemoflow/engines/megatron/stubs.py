"""Import Megatron-Bridge, and let it check a config, where nothing of CUDA is installed.

Megatron-Bridge imports transformer-engine, modelopt and a dozen optional packages at the top of its
modules, and uses few of them to build a config or to read data. `install` lets these imports
succeed: a capitalised name becomes an empty class that takes any arguments, any other a mock.
`stand_in` answers its questions about the GPU.
"""

import abc
import importlib.abc
import importlib.machinery
import importlib.util
import sys
import types
import typing
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any
from unittest.mock import MagicMock

import typing_extensions

ABSENT = (
    "comet_ml",
    "datasets",
    "diffusers",
    "megatron.energon",
    "mlflow",
    "modelopt",
    "nvidia_resiliency_ext",
    "open_clip",
    "peft",
    "qwen_vl_utils",
    "sentencepiece",
    "tensorboard",
    "tiktoken",
    "timm",
    "torch.utils.tensorboard",
    "transformer_engine",
    "transformer_engine_torch",
    "triton",
    "wandb",
    "webdataset",
)

# Comes with torch, and imports another package.
NEEDED = {"torch.utils.tensorboard": "tensorboard"}


class StubType(abc.ABCMeta):
    """The type of a stub's classes: any public attribute exists."""

    def __getattr__(cls, name: str) -> MagicMock:
        if name.startswith("_"):
            raise AttributeError(name)
        value = MagicMock(name=f"{cls.__name__}.{name}")
        setattr(cls, name, value)
        return value

    def __getitem__(cls, item: Any) -> "StubType":
        return cls


class StubModule(types.ModuleType):
    """A module of an absent package: any name can be imported from it."""

    __path__: list[str] = []
    __version__ = "99.0.0"  # newer than every minimum that is asked for

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        if name[0].isupper():
            value: Any = StubType(name, (), {"__init__": lambda self, *args, **keywords: None})
        else:
            value = MagicMock(name=f"{self.__name__}.{name}")
        setattr(self, name, value)
        return value


class StubFinder(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Finds a stub for each module of the packages that are absent."""

    def __init__(self, absent: Sequence[str]):
        self.absent = absent

    def find_spec(
        self, name: str, path: Sequence[str] | None, target: types.ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        """The spec of a stub, None for a module that is not absent."""
        if any(name == absent or name.startswith(f"{absent}.") for absent in self.absent):
            return importlib.machinery.ModuleSpec(name, self, is_package=True)
        return None

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> StubModule:
        """The stub."""
        return StubModule(spec.name)

    def exec_module(self, module: types.ModuleType) -> None:
        """A stub has nothing to run."""


class FusedAdam:
    """transformer-engine's optimizer: Megatron-Bridge asks which arguments it takes."""

    def __init__(
        self,
        store_param_remainders=False,
        master_weight_dtype=None,
        exp_avg_dtype=None,
        exp_avg_sq_dtype=None,
        use_decoupled_grad=False,
    ):
        pass


# What `torch.cuda` says of them: name, compute capability, memory.
GPUS = {
    "b200": SimpleNamespace(name="NVIDIA B200", major=10, minor=0, total_memory=180 << 30),
    "h100": SimpleNamespace(name="NVIDIA H100", major=9, minor=0, total_memory=80 << 30),
}


def absent(names: Sequence[str] = ABSENT) -> list[str]:
    """Those of `names` that cannot be imported here."""
    packages = {name: NEEDED.get(name, name) for name in names}
    return [name for name, package in packages.items() if not there(package)]


def there(package: str) -> bool:
    """Whether a package is installed, without importing it."""
    try:
        return importlib.util.find_spec(package) is not None
    except ModuleNotFoundError:  # its parent is not
        return False


def install(names: Sequence[str] = ABSENT) -> None:
    """Make those of `names` importable in this process that are not installed."""
    sys.meta_path.insert(0, StubFinder(absent(names)))
    typing.override = typing_extensions.override  # a name of Python 3.12 that Bridge imports


def stand_in(gpu: str, per_node: int) -> None:
    """Answer as a node of `per_node` GPUs of a kind, in this process.

    Nothing is compiled from here on: torch's compiler takes longer to import than Megatron-Bridge.
    """
    import torch
    from transformer_engine.pytorch import optimizers

    device = GPUS[gpu]
    torch.compile = lambda function=None, **_: function or (lambda inner: inner)
    torch.cuda.get_device_properties = lambda *_: device
    torch.cuda.get_device_capability = lambda *_: (device.major, device.minor)
    torch.cuda.current_device = lambda: 0
    torch.cuda.device_count = lambda: per_node
    if isinstance(optimizers, StubModule):
        optimizers.FusedAdam = FusedAdam
