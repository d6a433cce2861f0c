"""Where a layer-wise fit starts: exact weighted k-means of each table's values, by the native module on the CPU."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from palettizer import _native
from palettizer.torch.palettization._layerwise.fit_tile import Tile
from palettizer.torch.palettization._plan.tensors import from_bytes


def start_tables(
    tiles: Sequence[Tile], weights: Tensor, weighed: Tensor | None, per_table: int, nbits: int, threads: int | None
) -> Tensor:
    """The best tables for the values alone: exact weighted k-means, on the CPU."""
    scales = torch.cat([tile.scales for tile in tiles])
    values = (weights.double() / scales).float().cpu().numpy()
    if weighed is None:
        importance = torch.cat([tile.importance().expand(tile.weights.shape) for tile in tiles])
    else:
        importance = weighed.double()
    importance = importance * scales.square()
    tables = []
    whole = len(weights) // per_table * per_table
    for first, last, size in ((0, whole, per_table), (whole, len(weights), len(weights) - whole)):
        if first < last:
            own = importance[first:last].reshape((last - first) // size, -1)
            own = (own / own.amax(1, keepdim=True)).float().cpu()
            tables.append(_k_means(values[first:last], own.numpy(), size, nbits, threads))
    return torch.cat(tables).to(weights.device)


def _k_means(
    values: NDArray[np.float32], importance: NDArray[np.float32], per_table: int, nbits: int, threads: int | None
) -> Tensor:
    grouped = len(values) > per_table
    palette = _native.palettize(
        np.ascontiguousarray(values).reshape(-1).view(np.uint8), "f32", values.shape, nbits=nbits,
        granularity="per_grouped_channel" if grouped else "per_tensor", group_size=per_table if grouped else None,
        channel_axis=0, sensitivity=importance.reshape(-1), threads=threads,
    )  # fmt: skip
    k = 2**nbits
    entries = from_bytes(palette.entries(), torch.float32, (len(values) // per_table, k))
    # Where there are fewer values than entries, the last is there more than once.
    width, packed = nbits, np.unpackbits(palette.indices, bitorder="little")
    bits = packed[: values.size * width].reshape(len(entries), -1, width)
    last = torch.from_numpy(np.packbits(bits, axis=2, bitorder="little")[..., 0].max(1)).long().unsqueeze(1)
    return torch.where(torch.arange(k) <= last, entries, entries.gather(1, last)).double()
