"""A palette as operations of a program, and back."""

from __future__ import annotations

from typing import Any

from palettizer import _native
from palettizer.coreai._constants import constant, splat
from palettizer.coreai._wheel import ir, ops


def replace(op: Any, palette: _native.Palette) -> None:
    """Puts a palette in the place of a constant: its indices, its table, and scales where there are some."""
    kind = op.results[0].type.element_type
    with op.context, op.location, ir.InsertionPoint(op):
        op.results[0].replace_all_uses_with(emit(palette, kind))
    op.operation.erase()


def emit(palette: _native.Palette, kind: Any) -> Any:
    """Operations that make a weight of a palette, inserted where operations are: the value."""
    rank = len(palette.shape)
    indices = constant(palette.indices, palette.index_shape, ir.IntegerType.get_unsigned(palette.nbits))
    # a constant whose value the operation looks at while it is made: one in the bytes of a resource ends the process
    axis = splat(palette.vector_axis or 0, (), ir.IntegerType.get_signed(16))
    if palette.lut_integers is None:
        value = ops.lut_to_dense(indices, constant(palette.entries(), palette.lut_shape, kind), axis)
    else:
        whole = ir.IntegerType.get_signed(8) if palette.lut_offset is None else ir.IntegerType.get_unsigned(8)
        table = constant(palette.lut_integers, palette.lut_shape, whole)
        assert palette.lut_scale is not None and palette.lut_scale_shape is not None
        # a number for each table: in the rank of the weight, as blocks of it
        blocks = tuple(palette.lut_scale_shape)[:rank]
        first = splat(0, blocks, whole) if palette.lut_offset is None else constant(palette.lut_offset, blocks, whole)
        value = ops.blockwise_shift_scale(
            data=ops.lut_to_dense(indices, table, axis), scale=constant(palette.lut_scale, blocks, kind), offset1=first,
            offset2=splat(0, blocks, kind),
        )  # fmt: skip
    if palette.scale is not None and palette.scale_shape is not None:
        blocks = tuple(palette.scale_shape)
        scale, zero = constant(palette.scale, blocks, kind), splat(0, blocks, kind)
        value = ops.blockwise_shift_scale(data=value, scale=scale, offset1=zero, offset2=zero)
    return value
