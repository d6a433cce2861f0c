"""All parameters of a model, with the modules that hold them.

Parameters that are one tensor have the same `identity`.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import nn

from palettizer.torch.palettization._plan.layers import BARE, Kind, computed, kind_of
from palettizer.torch.palettization._plan.sharding import full_shapes, gathered, is_dtensor, plain_name, wrapped_units

FLOATS = (torch.float32, torch.float16, torch.bfloat16, torch.float64)


class Facts(NamedTuple):
    """What the plan needs to know of a parameter without touching its values."""

    shape: tuple[int, ...]
    numel: int
    dtype: torch.dtype
    problem: str | None
    """Why its values cannot be had, if they cannot."""


@dataclass(frozen=True)
class Owner:
    """A module that holds a parameter."""

    module: nn.Module
    module_name: str
    parameter: str
    facts: Facts
    identity: Any
    wrapper: nn.Module | None = None
    """The FullyShardedDataParallel wrapper that keeps the parameter in shards."""

    @property
    def name(self) -> str:
        """The qualified name, as in `named_parameters`."""
        return f"{self.module_name}.{self.parameter}" if self.module_name else self.parameter

    @property
    def kind(self) -> Kind | None:
        """The kind of the module, or None."""
        return kind_of(self.module)

    @property
    def supported(self) -> bool:
        """Whether this is a weight of a layer, which is palettized without being named."""
        kind = self.kind
        return kind is not None and not kind.in_training and kind.has(self.parameter)

    @property
    def axes(self) -> tuple[int, int]:
        """The axes of the output and the input channels."""
        return self.kind.axes if self.kind is not None and self.supported else BARE.axes

    def values(self, write: bool = False) -> AbstractContextManager[torch.Tensor]:
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


def _facts(value: torch.Tensor, whole: tuple[int, ...] | None) -> Facts:
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
    shape: tuple[int, ...]
    stride: tuple[int, ...]
    dtype: torch.dtype

    def span(self) -> tuple[int, int]:
        """The first byte in the storage, and the one behind the last."""
        last = sum((size - 1) * stride for size, stride in zip(self.shape, self.stride))
        return self.offset * self.dtype.itemsize, (self.offset + last + 1) * self.dtype.itemsize

    def overlaps(self, other: Memory) -> bool:
        """Whether the two may have an element in common."""
        (start, end), (other_start, other_end) = self.span(), other.span()
        return self.storage == other.storage and start < other_end and other_start < end


def _computed(name: str, module: nn.Module) -> Iterator[Owner]:
    """Weights that are computed of other parameters, and so are no parameters themselves."""
    kind = kind_of(module)
    for parameter, problem in ({} if kind is None else computed(module, kind)).items():
        yield Owner(module, name, parameter, Facts((), 0, torch.float32, problem), (id(module), parameter))
