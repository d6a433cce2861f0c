"""How the elements of a weight fall into its tables, and sums over those that have one index.

A weight is seen table by table: (tables, index positions of one, elements of an entry). What is made of indices is made
for some millions of them at a time, so that 64-bit indices of a whole weight never exist.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import numpy as np
import torch
from torch import Tensor

from palettizer import _native

_CHUNK = 1 << 22
"""Indices that are widened at a time, a multiple of 8."""


class Layout:
    """A weight of some shape, cut into equal blocks along its axes, one for each table.

    >>> layout = Layout((2, 4), (1, 2, 4, 1), None)
    >>> layout.by_table(torch.arange(8).reshape(2, 4)).squeeze(-1).tolist()
    [[0, 1, 4, 5], [2, 3, 6, 7]]
    """

    def __init__(self, shape: Sequence[int], lut_shape: Sequence[int], vector_axis: int | None) -> None:
        rank = len(shape)
        self.shape, self.lut_shape = tuple(shape), tuple(lut_shape)
        self.entries, self.dim = lut_shape[rank:]
        self.tables = math.prod(lut_shape[:rank])
        self._split: list[int] = []
        blocks, inside, within = [], [], []
        for axis, (size, count) in enumerate(zip(shape, lut_shape)):
            blocks.append(len(self._split))
            inside.append(len(self._split) + 1)
            self._split += [count, size // count]
            if self.dim > 1 and axis == vector_axis:
                within.append(len(self._split))
                self._split[-1:] = [size // count // self.dim, self.dim]
        self._order = [*blocks, *inside, *within]
        self._back = [self._order.index(axis) for axis in range(len(self._order))]

    def by_table(self, values: Tensor) -> Tensor:
        """A tensor of the weight's shape as (tables, index positions, elements of an entry)."""
        return values.reshape(self._split).permute(self._order).reshape(self.tables, -1, self.dim)

    def whole(self, values: Tensor) -> Tensor:
        """What `by_table` gives, in the weight's shape again."""
        return values.reshape([self._split[axis] for axis in self._order]).permute(self._back).reshape(self.shape)


def indices_of(palette: _native.Palette, layout: Layout) -> Tensor:
    """The indices of a palette as bytes, (tables, index positions)."""
    width, packed = palette.nbits, palette.indices
    found = np.empty(math.prod(palette.index_shape), np.uint8)
    for start in range(0, len(found), _CHUNK):
        count = min(_CHUNK, len(found) - start)
        data = packed[start * width // 8 :][: -(-count * width // 8)]
        bits = np.unpackbits(data, bitorder="little")[: count * width].reshape(count, width)
        found[start : start + count] = np.packbits(bits, axis=1, bitorder="little")[:, 0]
    positions = Layout(palette.index_shape, (*layout.lut_shape[:-1], 1), None)
    return positions.by_table(torch.from_numpy(found).reshape(palette.index_shape)).squeeze(-1)


def look_up(tables: Tensor, indices: Tensor) -> Tensor:
    """(tables, index positions, elements) of tables (tables, entries, elements)."""
    _, entries, dim = tables.shape
    flat, out = tables.reshape(-1, dim), tables.new_empty(indices.numel(), dim)
    for start, numbers in _numbers(indices, entries):
        torch.index_select(flat, 0, numbers, out=out[start : start + len(numbers)])
    return out.reshape(*indices.shape, dim)


def bucket_sums(values: Tensor, indices: Tensor, entries: int) -> Tensor:
    """For each entry of each table: the sum of the values (tables, index positions, elements) that have its index.

    In 64 bits where the device has them; the same for the same values: atomic additions, whose order is by chance, are not
    used.
    """
    if values.device.type != "cpu":
        return masked_sums(values, indices, entries)
    tables, _, dim = values.shape
    flat, sums = values.reshape(-1, dim), torch.zeros(tables * entries, dim, dtype=torch.float64)
    for start, numbers in _numbers(indices, entries):
        for element in range(dim):
            weights = flat[start : start + len(numbers), element].double()  # else the sums would be of 32 bits
            sums[:, element] += torch.bincount(numbers, weights=weights, minlength=tables * entries)
    return sums.reshape(tables, entries, dim)


def masked_sums(values: Tensor, indices: Tensor, entries: int) -> Tensor:
    """`bucket_sums` entry after entry, for devices on which that is quick."""
    zero, dtype = values.new_zeros(()), wide(values.device)
    masked = (torch.where((indices == entry).unsqueeze(-1), values, zero) for entry in range(entries))
    return torch.stack([values.sum(1, dtype=dtype) for values in masked], 1)


def wide(device: torch.device) -> torch.dtype:
    """The dtype of sums: Apple's GPUs have no 64-bit floats.

    >>> wide(torch.device("cpu")), wide(torch.device("mps"))
    (torch.float64, torch.float32)
    """
    return torch.float32 if device.type == "mps" else torch.float64


def _numbers(indices: Tensor, entries: int) -> Iterator[tuple[int, Tensor]]:
    """Some positions at a time: the first, and the number of each one's entry among those of all tables."""
    flat, length = indices.reshape(-1), indices.shape[1]
    for start in range(0, len(flat), _CHUNK):
        part = flat[start : start + _CHUNK].long()
        if len(indices) > 1:
            at = torch.arange(start, start + len(part), device=flat.device)
            part += at.div_(length, rounding_mode="floor").mul_(entries)
        yield start, part
