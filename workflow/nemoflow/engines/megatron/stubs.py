"""Import Megatron-Bridge where nothing of CUDA is installed.

Megatron-Bridge imports transformer-engine, modelopt and a dozen optional packages at the top of its
modules, and uses few of them to build a config or to read data. `install` lets these imports
succeed: a capitalised name becomes an empty class that takes any arguments, any other a mock.
"""

import abc
import importlib.abc
import importlib.machinery
import sys
import types
import typing
from collections.abc import Sequence
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


class StubType(abc.ABCMeta):
    """The type of a stub's classes: any public attribute exists."""

    def __getattr__(cls, name: str) -> MagicMock:
        if name.startswith("_"):
            raise AttributeError(name)
        value = MagicMock(name=f"{cls.__name__}.{name}")
        setattr(cls, name, value)
        return value


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
        if any(name == absent or name.startswith(f"{absent}.") for absent in self.absent):
            return importlib.machinery.ModuleSpec(name, self, is_package=True)
        return None

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> StubModule:
        return StubModule(spec.name)

    def exec_module(self, module: types.ModuleType) -> None:
        pass


def install(absent: Sequence[str] = ABSENT) -> None:
    """Make the `absent` packages importable in this process."""
    sys.meta_path.insert(0, StubFinder(absent))
    typing.override = typing_extensions.override  # a name of Python 3.12 that Bridge imports
