"""All parameters of a model, with the modules that hold them.

Which classes of modules have weights to palettize, and which axis of a weight holds the output channels, is decided
here. Parameters that are one tensor have the same `identity`.
"""

from __future__ import annotations

import math
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, Dict, Iterator, NamedTuple, Optional, Tuple, Type

import torch
from torch import nn
from torch.nn.utils import parametrize

from palettizer.torch.palettization._sharding import full_shapes, gathered, is_dtensor, plain_name, wrapped_units


class Kind(NamedTuple):
    """A class of modules: its parameters that can be palettized, and the axes of their channels."""

    parameters: Tuple[str, ...]
    axes: Tuple[int, int]
    """Of the output channels, and of the input channels."""


_FORWARD = Kind(("weight",), (0, 1))
_TRANSPOSED = Kind(("weight",), (1, 0))

FLOATS = (torch.float32, torch.float16, torch.bfloat16, torch.float64)

KINDS: Dict[Type[nn.Module], Kind] = {
    nn.Linear: _FORWARD,
    nn.Embedding: _FORWARD,
    nn.Conv1d: _FORWARD,
    nn.Conv2d: _FORWARD,
    nn.Conv3d: _FORWARD,
    nn.ConvTranspose1d: _TRANSPOSED,
    nn.ConvTranspose2d: _TRANSPOSED,
    nn.ConvTranspose3d: _TRANSPOSED,
    # With sizes of their own, query, key and value have a parameter each. The output projection is a Linear inside.
    nn.MultiheadAttention: Kind(("in_proj_weight", "q_proj_weight", "k_proj_weight", "v_proj_weight"), (0, 1)),
}
"""Subclasses count, as in coremltools."""


class Facts(NamedTuple):
    """What the plan needs to know of a parameter without touching its values."""

    shape: Tuple[int, ...]
    numel: int
    dtype: torch.dtype
    problem: Optional[str]
    """Why its values cannot be had, if they cannot."""


@dataclass(frozen=True)
class Owner:
    """A module that holds a parameter."""

    module: nn.Module
    module_name: str
    parameter: str
    facts: Facts
    identity: Any
    wrapper: Optional[nn.Module] = None
    """The FullyShardedDataParallel wrapper that keeps the parameter in shards."""

    @property
    def name(self) -> str:
        """The qualified name, as in `named_parameters`."""
        return f"{self.module_name}.{self.parameter}" if self.module_name else self.parameter

    @property
    def kind(self) -> Optional[Kind]:
        """The kind of the module, or None."""
        return next((kind for cls, kind in KINDS.items() if isinstance(self.module, cls)), None)

    @property
    def supported(self) -> bool:
        """Whether this is a parameter that can be palettized."""
        return self.kind is not None and self.parameter in self.kind.parameters

    @property
    def axes(self) -> Tuple[int, int]:
        """The axes of the output and the input channels."""
        return (0, 1) if self.kind is None else self.kind.axes

    def values(self, write: bool = False) -> "AbstractContextManager[torch.Tensor]":
        """The whole tensor; with `write`, changes made in place are kept."""
        return gathered(self.module, self.parameter, self.wrapper, write)


def walk(model: nn.Module) -> Iterator[Owner]:
    """Every parameter of every module, in the order of `named_modules`; a shared one comes once for each owner.

    >>> [owner.name for owner in walk(nn.Sequential(nn.Linear(2, 3), nn.ReLU()))]
    ['0.weight', '0.bias']
    """
    wrapped = wrapped_units(model)
    shapes = full_shapes(model, wrapped)
    for long_name, module in model.named_modules():
        name = plain_name(long_name)
        for parameter, value in list(module._parameters.items()):
            if value is not None:
                facts = _facts(value, shapes.get(id(value)))
                yield Owner(module, name, parameter, facts, _identity(value, facts), wrapped.get(id(module)))
        yield from _computed(name, module)


def _facts(value: torch.Tensor, whole: Optional[Tuple[int, ...]]) -> Facts:
    if isinstance(value, (nn.UninitializedParameter, nn.UninitializedBuffer)):
        return Facts((), 0, torch.float32, "has no shape yet (a lazy module); run the model once first")
    shape = tuple(value.shape) if whole is None else whole
    numel, problem = math.prod(shape), None
    if value.is_meta:
        problem = "is on the meta device and has no values"
    elif value.is_quantized:
        problem = f"is quantized already ({value.dtype})"
    elif value.layout != torch.strided:
        problem = f"is sparse ({value.layout})"
    elif hasattr(value, "__tensor_flatten__") and not is_dtensor(value):
        problem = f"is a {type(value).__name__}, whose values are not stored as plain floats"
    elif value.dtype not in FLOATS:
        names = ", ".join(str(dtype).replace("torch.", "") for dtype in FLOATS)
        problem = f"has dtype {str(value.dtype).replace('torch.', '')}; {names} can be palettized"
    elif numel == 0:
        problem = "has no elements"
    return Facts(shape, numel, value.dtype, problem)


def _identity(value: torch.Tensor, facts: Facts) -> Any:
    """The same for parameters that are one tensor: one object, or the same view of the same memory."""
    if facts.problem is not None or is_dtensor(value) or facts.shape != tuple(value.shape):
        return id(value)
    return Memory(value.untyped_storage().data_ptr(), int(value.storage_offset()), facts.shape, value.stride(), value.dtype)


class Memory(NamedTuple):
    """Where a tensor's elements lie."""

    storage: int
    offset: int
    shape: Tuple[int, ...]
    stride: Tuple[int, ...]
    dtype: torch.dtype

    def span(self) -> Tuple[int, int]:
        """The first byte in the storage, and the one behind the last."""
        last = sum((size - 1) * stride for size, stride in zip(self.shape, self.stride))
        return self.offset * self.dtype.itemsize, (self.offset + last + 1) * self.dtype.itemsize

    def overlaps(self, other: "Memory") -> bool:
        """Whether the two may have an element in common."""
        (start, end), (other_start, other_end) = self.span(), other.span()
        return self.storage == other.storage and start < other_end and other_start < end


def _computed(name: str, module: nn.Module) -> Iterator[Owner]:
    """Weights that are computed of other parameters, and so are no parameters themselves."""
    kind = next((kind for cls, kind in KINDS.items() if isinstance(module, cls)), None)
    for parameter in kind.parameters if kind is not None else ():
        if parameter in module._parameters:
            continue
        if parametrize.is_parametrized(module, parameter):
            problem = "is computed by a parametrization; remove it first with remove_parametrizations"
        elif isinstance(module.__dict__.get(parameter), torch.Tensor):
            problem = "is computed before each forward (weight_norm or pruning); make it permanent first"
        else:
            continue
        yield Owner(module, name, parameter, Facts((), 0, torch.float32, problem), (id(module), parameter))
