"""Constants of a program: their values as bytes, and new ones made of bytes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from palettizer.coreai._wheel import copy_constant, ir, ops

Bytes = NDArray[np.uint8]

CONSTANT = "coreai.constant"
FLOATS = ("f32", "f16", "bf16")
_ALIGNMENT = 1
"""Of the bytes of a constant in the file. Above 16, the wheel's reader does not accept what its writer made."""


def element(value: Any) -> str:
    """The name of the type of a value's elements, such as `f32` or `ui4`."""
    return str(value.type.element_type)


def shape(value: Any) -> tuple[int, ...]:
    """The shape of a value."""
    return tuple(int(size) for size in value.type.shape)


def is_tensor(value: Any) -> bool:
    """Whether a value is a tensor of a shape that is known."""
    return isinstance(value.type, ir.RankedTensorType) and value.type.has_static_shape


def bits(value: Any) -> int:
    """Bits of an element."""
    kind = value.type.element_type
    if element(value) in ("f16", "bf16"):
        return 16
    return int(getattr(kind, "width", 32))


def stored(op: Any) -> int:
    """Bytes of a constant's values in the file, where one number for all is one number."""
    return _packed(op.results[0]) // (math.prod(shape(op.results[0])) if getattr(op.attributes["value"], "is_splat", False) else 1)


def _packed(value: Any) -> int:
    return -(-math.prod(shape(value)) * bits(value) // 8)


def read(op: Any) -> Bytes:
    """The values of a constant: little-endian, row-major, those of less than a byte packed."""
    found = np.zeros(_packed(op.results[0]), np.uint8)
    copy_constant(op, found)
    return found


def constant(data: Bytes, sizes: Sequence[int], kind: Any) -> Any:
    """A new constant where operations are inserted."""
    tensor = ir.RankedTensorType.get(list(sizes), kind)
    flat = np.ascontiguousarray(data).reshape(-1).view(np.uint8)
    attribute = ir.DenseResourceElementsAttr.get_from_buffer(flat, "palettizer", tensor, alignment=_ALIGNMENT)
    return ops.ConstantOp(value=attribute).result


def splat(number: float, sizes: Sequence[int], kind: Any) -> Any:
    """A new constant that is one number everywhere."""
    tensor = ir.RankedTensorType.get(list(sizes), kind)
    whole = isinstance(kind, ir.IntegerType)
    one = ir.IntegerAttr.get(kind, int(number)) if whole else ir.FloatAttr.get(kind, float(number))
    return ops.ConstantOp(value=ir.DenseElementsAttr.get_splat(tensor, one)).result
