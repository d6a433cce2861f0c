"""Chains of operations that stand for a weight, computed: what a program would make of them."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from palettizer.coreai._constants import CONSTANT, FLOATS, bits, constant, element, read, shape
from palettizer.coreai._constants import stored as bytes_of
from palettizer.coreai._wheel import ir, mlir

Array = NDArray[Any]

LOOKUP, SCALE = "coreai.lut_to_dense", "coreai.blockwise_shift_scale"
SPARSE, SPARSE_LOOKUP = "coreai.build_sparse_with_bitmask", "coreai.lut_to_sparse_with_bitmask"
DENSE, CAST = "coreai.sparse_with_bitmask_to_dense", "coreai.cast"


def chains(program: Any) -> Iterator[Any]:
    """The operations of a program whose result is a weight that is stored in another form: the last of each chain."""
    found: list[Any] = []

    def look(op: Any) -> Any:
        if ends_chain(op):
            found.append(op)
        return ir.WalkResult.ADVANCE

    mlir(program).operation.walk(look)
    yield from found


def joint(op: Any) -> Any:
    """The constant in a chain that can be palettized in its turn: integers that are scaled, or the values that a mask keeps."""
    if op.name not in (SCALE, DENSE):
        return None
    inner = op.operands[0].owner
    if op.name == SCALE and inner.name == CONSTANT and element(inner.results[0]) in ("si8", "ui8"):
        return inner
    if op.name == DENSE and inner.name == SPARSE:
        kept = inner.operands[0].owner
        if kept.name == CONSTANT and element(kept.results[0]) in FLOATS and 0 not in shape(kept.results[0]):
            return kept
    return None


def ends_chain(op: Any) -> bool:
    """Whether an operation gives a weight that is stored in another form."""
    if op.name not in (LOOKUP, SCALE, DENSE) or _goes_on(op.results[0]):
        return False
    return is_constant(op.results[0])


def _goes_on(value: Any) -> bool:
    """Whether a chain goes on behind a value, at once or after a cast."""
    users = [use.owner for use in value.uses]
    return any(user.name in _STEPS or (user.name == CAST and _goes_on(user.results[0])) for user in users)


def is_constant(value: Any) -> bool:
    """Whether a value follows from constants alone."""
    op = value.owner
    name = getattr(op, "name", "")  # an argument of a graph belongs to a block
    if name == CONSTANT:
        return True
    return (name in _STEPS or name == CAST) and all(is_constant(operand) for operand in op.operands)


def stored(value: Any) -> int:
    """Bytes of all constants that a value is made of."""
    return sum(bytes_of(op) for op in _operations(value) if op.name == CONSTANT)


def parts(value: Any) -> dict[str, Any]:
    """What a value is made of: the operations, in order, what is stored for each element, and the tables."""
    ops = [op for op in _operations(value) if op.name != CONSTANT]
    found: dict[str, Any] = {
        "ops": [op.name.removeprefix("coreai.") for op in ops], "stored_dtype": None, "lut_shape": None, "lut_dtype": None,
        "scaled": False,
    }  # fmt: skip
    if ops:
        found["stored_dtype"] = _STORED.get(element(ops[0].operands[0]), element(ops[0].operands[0]))
    for at, op in enumerate(ops):
        if op.name in (LOOKUP, SPARSE_LOOKUP):
            table = op.operands[1]
            found["lut_shape"], found["lut_dtype"] = shape(table), _NAMES.get(element(table), element(table))
            # integers need one operation to be numbers; a second, or the first of tables of floats, scales the channels
            scales = sum(other.name == SCALE for other in ops[at:])
            found["scaled"] = scales > (0 if element(table) in FLOATS else 1)
    return found


def _operations(value: Any) -> list[Any]:
    """The operations that a value follows from, in order, each once."""
    found: list[Any] = []

    def look(op: Any) -> None:
        for operand in op.operands:
            look(operand.owner)
        if op not in found:
            found.append(op)

    look(value.owner)
    return found


def fold(op: Any) -> None:
    """Puts the values of a chain in its place."""
    value = op.results[0]
    made = np.ascontiguousarray(evaluate(value))
    with op.context, op.location, ir.InsertionPoint(op):
        value.replace_all_uses_with(constant(made.reshape(-1).view(np.uint8), shape(value), value.type.element_type))
    op.operation.erase()


def evaluate(value: Any, instead: dict[Any, Array] | None = None) -> Any:
    """The values of a constant, or of a chain of operations on constants, some of which may have other values."""
    op = value.owner
    if op.name == CAST:
        return evaluate(op.operands[0], instead).astype(_dtype(element(value)))
    if op.name != CONSTANT:
        return _STEPS[op.name](*(evaluate(operand, instead) for operand in op.operands))
    other = (instead or {}).get(op)
    return _array(op) if other is None else other.reshape(shape(value))


def _array(op: Any) -> Array:
    """The values of a constant; those of less than a byte unpacked."""
    value = op.results[0]
    data, width, name = read(op), bits(value), element(value)
    count = math.prod(shape(value))
    if width < 8:
        ones: Array = np.unpackbits(data, bitorder="little")[: count * width].reshape(count, width)
        whole: Array = (ones << np.arange(width, dtype=np.uint8)).sum(1, dtype=np.uint8)
        if name[0] == "s":
            whole = (whole.astype(np.int8) ^ (1 << width - 1)) - np.int8(1 << width - 1)  # of two's complement
        return whole.reshape(shape(value))
    return data.view(_dtype(name)).reshape(shape(value))


def _dtype(name: str) -> np.dtype[Any]:
    if name == "bf16":
        import ml_dtypes

        brain: np.dtype[Any] = np.dtype(ml_dtypes.bfloat16)
        return brain
    kind = {"f": "f", "s": "i", "u": "u", "i": "i"}[name[0]]
    return np.dtype(f"<{kind}{int(name.lstrip('fsui')) // 8}")


def _look_up(indices: Array, table: Array, axis: Array) -> Array:
    """`table` has an axis for each of the indices, then the entries, then the elements of a vector."""
    *groups, entries, length = table.shape
    at = int(axis.reshape(-1)[0]) % indices.ndim
    which = np.zeros((1,) * indices.ndim, np.int64)
    for dim, count in enumerate(groups):
        own = np.arange(indices.shape[dim]) // (indices.shape[dim] // count)
        which = which * count + own.reshape([-1 if i == dim else 1 for i in range(indices.ndim)])
    rows = table.reshape(-1, length)[which * entries + indices]
    made: Array = np.moveaxis(rows, -1, at + 1)
    return made.reshape([s * (length if i == at else 1) for i, s in enumerate(indices.shape)])


def _shift_scale(data: Array, scale: Array, first: Array, second: Array) -> Array:
    """(data − first) · scale + second, each a number for a block of the data."""
    scale, first, second = (_spread(one, data.shape) for one in (scale, first, second))
    wide = np.float32 if scale.dtype.itemsize < 4 else scale.dtype
    shifted = data.astype(wide) - first.astype(wide)
    made: Array = shifted * scale.astype(wide) + second.astype(wide)
    return made.astype(scale.dtype)


def _spread(blocks: Array, sizes: tuple[int, ...]) -> Array:
    for axis, size in enumerate(sizes):
        if blocks.shape[axis] not in (1, size):
            blocks = np.repeat(blocks, size // blocks.shape[axis], axis)
    return np.broadcast_to(blocks, sizes)


def _sparse(values: Array, mask: Array) -> tuple[Array, Array]:
    return values, mask


def _sparse_look_up(sparse: tuple[Array, Array], table: Array, axis: Array) -> tuple[Array, Array]:
    values, mask = sparse
    whole = np.zeros(mask.shape, values.dtype)
    whole[mask != 0] = values
    return _look_up(whole, table, axis)[mask != 0], mask


def _filled(sparse: tuple[Array, Array]) -> Array:
    values, mask = sparse
    whole = np.zeros(mask.shape, values.dtype)
    whole[mask != 0] = values
    return whole


_STEPS: dict[str, Callable[..., Any]] = {
    LOOKUP: _look_up,
    SCALE: _shift_scale,
    SPARSE: _sparse,
    SPARSE_LOOKUP: _sparse_look_up,
    DENSE: _filled,
}
"""Operations that make a weight of what is stored for it."""

_NAMES = {"f32": "float32", "f16": "float16", "bf16": "bfloat16", "si8": "int8", "ui8": "uint8"}
_STORED = {f"ui{width}": f"uint{width}" for width in (1, 2, 3, 4, 6, 8)} | {f"si{width}": f"int{width}" for width in (2, 4, 8)} | _NAMES
"""Names of types as they are listed."""
