"""A device beside the CPU that any machine has: it computes, and refuses to mix, as CUDA does.

`install` names it "standin"; inside `Mode` tensors can be made on it and moved to and from it.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map
from torch.utils.backend_registration import _setup_privateuseone_for_python_backend

# As on CUDA: copies between devices, and indices from the CPU.
MIXES = ("aten::_to_copy", "aten::copy_", "aten::index", "aten::index_put", "aten::index_put_")


class There(torch.Tensor):
    """A tensor of the stand-in device; `here` holds its values."""

    __torch_function__ = torch._C._disabled_torch_function_impl

    @staticmethod
    def __new__(cls, here: torch.Tensor):
        """A tensor like `here`, but for its device."""
        return torch.Tensor._make_wrapper_subclass(
            cls, here.shape, strides=here.stride(), dtype=here.dtype, device="standin:0"
        )

    def __init__(self, here: torch.Tensor):
        self.here = here

    @classmethod
    def __torch_dispatch__(cls, function, types, args=(), kwargs=None):
        return call(function, args, kwargs or {})


class Mode(TorchDispatchMode):
    """Lets functions without tensors among their arguments make some there."""

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        return call(function, args, kwargs or {})


def call(function: Callable, args: tuple, kwargs: dict[str, Any]) -> Any:
    """Compute on the CPU what a function makes of tensors that all lie on one device."""
    given = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, torch.Tensor)]
    there = [isinstance(tensor, There) for tensor in given]
    alien = [tensor for tensor, is_there in zip(given, there, strict=True) if not is_there]
    if any(there) and any(t.ndim for t in alien) and function._schema.name not in MIXES:
        raise RuntimeError(f"{function}: tensors on two devices: {[t.shape for t in given]}")
    result_there = there[0] if function._schema.name == "aten::copy_" else any(there)
    if device := kwargs.get("device"):
        result_there = torch.device(device).type == "standin"
        kwargs = kwargs | {"device": torch.device("cpu")}
    result = function(*tree_map(here, args), **tree_map(here, kwargs))
    same = {id(here(tensor)): tensor for tensor in given}  # changed in place

    def back(value: Any) -> Any:
        if not isinstance(value, torch.Tensor) or id(value) in same:
            return same.get(id(value), value)
        return There(value) if result_there else value

    return tree_map(back, result)


def here(value: Any) -> Any:
    """A tensor's values on the CPU; anything else as it is."""
    return value.here if isinstance(value, There) else value


def install() -> None:
    """Register the device for the rest of the process."""
    _setup_privateuseone_for_python_backend("standin")
    made = torch.tensor

    def tensor(data: Any, *, device: Any = None, **rest: Any) -> torch.Tensor:
        """torch.tensor, which does not ask the mode for a device of Python's."""
        return made(data, **rest) if device is None else made(data, **rest).to(device)

    torch.tensor = tensor
