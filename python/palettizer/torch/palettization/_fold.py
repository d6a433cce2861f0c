"""Integer LUTs with a per-channel scale, in the one form that a Core ML converter takes.

coremltools 9.0 converts a table of integers, and it converts a table of floats with a per-channel scale, but not a
table of integers with one. So the scale goes into the scales of the tables, and each output channel gets a table of its
own: the same integers, multiplied by the table's scale and the channel's in one. The weights are then the product with
that one scale, rounded once.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Dict, Iterator

import numpy as np
import torch
from numpy.typing import NDArray

if TYPE_CHECKING:
    from palettizer import _native

# Elements unpacked at a time; a multiple of 8, so that chunks begin with a byte.
_CHUNK = 1 << 18


def fold_scale(made: "_native.Palette", dense: torch.Tensor, output_axis: int) -> Dict[str, torch.Tensor]:
    """Writes the weights with the folded scale to `dense`, and returns the buffers that go with them.

    `made` has integer tables and a per-channel scale; the tables come out with one group for each output channel.
    """
    from palettizer.torch.palettization._palettize import from_bytes

    assert made.lut_integers is not None and made.lut_scale is not None and made.scale is not None
    dtype, channels = dense.dtype, dense.shape[output_axis]
    signed = made.lut_offset is None
    integers = from_bytes(made.lut_integers, torch.int8 if signed else torch.uint8, made.lut_shape)
    table_scale = from_bytes(made.lut_scale, dtype, made.lut_scale_shape)
    repeats = channels // integers.shape[output_axis]
    integers = integers.repeat_interleave(repeats, output_axis)
    table_scale = table_scale.repeat_interleave(repeats, output_axis)
    channel_scale = from_bytes(made.scale, dtype, made.scale_shape)[..., None, None]
    scale = (table_scale.float() * channel_scale.float()).to(dtype)
    # A product too small for the dtype would leave the converter dividing by zero.
    scale[scale == 0] = torch.finfo(dtype).smallest_normal

    fields = {"quantization_n_bits": torch.tensor(8), "quantization_scale": scale}
    offset = 0
    if made.lut_offset is not None:
        offset = int(made.lut_offset.reshape(-1)[0])
        fields["zero_point"] = torch.full(scale.shape, offset, dtype=torch.uint8)
    fields["lut"] = lut = ((integers.float() - offset) * scale.float()).to(dtype)

    # The table of an element: its place on the axes that are cut into groups.
    table = torch.zeros((), dtype=torch.int64)
    for axis, groups in enumerate(lut.shape[:-2]):
        place = torch.arange(dense.shape[axis]) // (dense.shape[axis] // groups)
        table = table * groups + place.reshape([-1 if a == axis else 1 for a in range(dense.dim())])
    entries, flat = lut.reshape(-1), dense.view(-1)
    for start, indices in _unpacked(made.indices, made.nbits, dense.numel()):
        end = start + len(indices)
        at = _part(table, dense.shape, start, end)
        flat[start:end] = entries[at * (1 << made.nbits) + torch.from_numpy(indices)]
    return fields


def _part(table: torch.Tensor, shape: torch.Size, start: int, end: int) -> torch.Tensor:
    """A run of the flattened `table.expand(shape)`, without the rest of it."""
    places = torch.arange(start, end)
    picked = torch.zeros_like(places)
    stride = 1
    for axis in reversed(range(len(shape))):
        if table.shape[axis] > 1:
            picked += (places // stride) % shape[axis] * table.stride(axis)
        stride *= shape[axis]
    return table.reshape(-1)[picked]


def _unpacked(packed: NDArray[np.uint8], nbits: int, count: int) -> Iterator["tuple[int, NDArray[np.int64]]"]:
    """The indices in runs: where each begins, and its numbers. They are packed least-significant bits first."""
    weights = 1 << np.arange(nbits)
    for start in range(0, count, _CHUNK):
        size = min(_CHUNK, count - start)
        first, last = start * nbits // 8, -(-(start + size) * nbits // 8)
        bits = np.unpackbits(packed[first:last], bitorder="little")[: size * nbits]
        yield start, bits.reshape(size, nbits).astype(np.int64) @ weights
