"""A palette as operations of a program, and back."""

from __future__ import annotations

from typing import Any

from palettizer import _native
from palettizer.coreai._constants import constant, shape, splat
from palettizer.coreai._fold import DENSE, joint
from palettizer.coreai._wheel import ir, ops


def replace(op: Any, palette: _native.Palette) -> None:
    """Puts a palette in the place of a weight: its indices, its table, and scales where there are some.

    `op` is its constant, or the operation at the end of a chain that makes it of integers, or of the values that a mask keeps:
    then the palette is of those.
    """
    values, mask = op.operands[0].owner.operands if op.name == DENSE else (None, None)
    kept = 0 if values is None else shape(values)[0]
    place = op if mask is not None else joint(op) or op
    kind = place.results[0].type.element_type
    with place.context, place.location, ir.InsertionPoint(place):
        place.results[0].replace_all_uses_with(emit(palette, kind, mask, kept))
    place.operation.erase()


def emit(palette: _native.Palette, kind: Any, mask: Any = None, kept: int = 0) -> Any:
    """Operations that make a weight of a palette, inserted where operations are: the value.

    Where there is a mask, a value of bits in the shape of the weight, the palette has indices where that has ones: so many
    are `kept`.
    """
    rank = len(palette.shape)
    # a constant whose value the operation looks at while it is made: one in the bytes of a resource ends the process
    axis = splat(palette.vector_axis or 0, (), ir.IntegerType.get_signed(16))
    width = ir.IntegerType.get_unsigned(palette.nbits)

    def look_up(table: Any) -> Any:
        if mask is None:
            return ops.lut_to_dense(constant(palette.indices, palette.index_shape, width), table, axis)
        sparse = ops.build_sparse_with_bitmask(constant(palette.indices, (kept,), width), mask)
        return ops.sparse_with_bitmask_to_dense(ops.lut_to_sparse_with_bitmask(sparse, table, axis))

    # what the mask keeps nothing of is zero before an offset is taken off: then the table has the numbers themselves
    if palette.lut_integers is None or (mask is not None and palette.lut_offset is not None):
        value = look_up(constant(palette.entries(), palette.lut_shape, kind))
    else:
        whole = ir.IntegerType.get_signed(8) if palette.lut_offset is None else ir.IntegerType.get_unsigned(8)
        assert palette.lut_scale is not None and palette.lut_scale_shape is not None
        # a number for each table: in the rank of the weight, as blocks of it
        blocks = tuple(palette.lut_scale_shape)[:rank]
        first = splat(0, blocks, whole) if palette.lut_offset is None else constant(palette.lut_offset, blocks, whole)
        value = ops.blockwise_shift_scale(
            data=look_up(constant(palette.lut_integers, palette.lut_shape, whole)), scale=constant(palette.lut_scale, blocks, kind),
            offset1=first, offset2=splat(0, blocks, kind),
        )  # fmt: skip
    if palette.scale is not None and palette.scale_shape is not None:
        blocks = tuple(palette.scale_shape)
        scale, zero = constant(palette.scale, blocks, kind), splat(0, blocks, kind)
        value = ops.blockwise_shift_scale(data=value, scale=scale, offset1=zero, offset2=zero)
    return value
