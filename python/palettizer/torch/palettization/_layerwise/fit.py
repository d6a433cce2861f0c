"""The layer-wise fit in torch operations, for weights that lie on a GPU.

What is minimized, the stages and their order are those of the native kernel, where they are explained
(crates/kernels/src/layerwise); so are the tolerances. Here all rows of a tile take a step together: columns one after the other
in blocks of 64, between which there are matrix products; tables by products with the zeros and ones that indices are. All of
it is in 64 bits, as there. The start is the native module's exact k-means, on the CPU.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor

from palettizer import _native
from palettizer.torch.palettization._layerwise.fit_curvature import LOST, Curvature
from palettizer.torch.palettization._layerwise.fit_start import start_tables
from palettizer.torch.palettization._layerwise.fit_tile import Tables, Tile, pieces

_RIDGE, _TRIES = 1e-6, 4
"""What is added to the diagonal where tables are solved for, as a part of its mean, and how often it is raised."""


class Fitted(NamedTuple):
    """Tables and indices, as `_native.assemble` takes them but for the order of indices: they are row by row."""

    luts: Tensor
    """(tables, entries), float32, each ascending."""
    indices: Tensor
    """(rows, columns), uint8."""
    scales: Tensor | None
    """(rows,), float32, where they were asked for."""
    objective: list[float]
    """At the start, after feedback, after each round, and after the last tables; it never rises."""
    damping: list[float]
    """Of each matrix of second moments."""


class Settings(NamedTuple):
    """How far to go, and how."""

    nbits: int
    rows_per_table: int
    row_scale: bool = False
    algorithm: Literal["lnq", "gptq"] = "lnq"
    rounds: int = 2
    sweeps: int = 2
    damping: float = 0.1
    threads: int | None = None
    numbers: int = 1 << 26
    """Most numbers of 64 bits in one intermediate result: it bounds the memory beside the matrices."""


def fit_on_device(
    weights: Tensor, second_moments: Tensor, settings: Settings, start_weights: Tensor | None = None
) -> Fitted:
    """Fits tables and indices to second moments, where the tensors are.

    Args:
        weights: (rows, columns).
        second_moments: [row_runs, blocks, n, n] on the same device, with columns = blocks · n; each of the runs of rows has matrices
            of its own.
        settings: how.
        start_weights: how much each weight counts in the k-means that is the start; without, as the diagonal of H says.

    Raises:
        Refusal: a ValueError: shapes that contradict each other, numbers that are not finite, or second moments that are not positive
            definite, however much they are damped.

    >>> moments = torch.tensor([[1.0, 0.99], [0.99, 1.0]])[None, None]  # inputs that are nearly the same
    >>> found = fit_on_device(torch.tensor([[0.0, 0.4], [1.0, 0.6]]), moments, Settings(nbits=1, rows_per_table=2))
    >>> found.luts.shape, found.indices.shape, found.objective == sorted(found.objective, reverse=True)
    (torch.Size([1, 2]), torch.Size([2, 2]), True)
    """
    _check(weights, second_moments, settings, start_weights)
    with torch.no_grad():
        rows, columns = weights.shape
        runs, blocks = second_moments.shape[:2]
        weights = weights.float()
        if blocks == 1:
            return _fit_rows(weights, second_moments[:, 0], settings, start_weights)
        # A row for each block of a row: first those of the first run of rows and the first block.
        per_table = min(settings.rows_per_table, rows)
        parts = []
        for first in range(0, rows, per_table):
            cut = slice(first, first + per_table)
            own = settings._replace(rows_per_table=per_table * blocks)
            start = None if start_weights is None else _apart(start_weights[cut], runs, blocks)
            part = _fit_rows(_apart(weights[cut], runs, blocks), second_moments.flatten(0, 1), own, start)
            indices = part.indices.reshape(runs, blocks, -1, columns // blocks).transpose(1, 2).reshape(-1, columns)
            parts.append(part._replace(indices=indices))
        return _joined(parts)


def palette_on_device(
    values: Tensor,
    second_moments: Tensor,
    arguments: Mapping[str, Any],
    *,
    algorithm: Literal["lnq", "gptq"],
    rounds: int,
    damping: float,
    fisher: Tensor | None = None,
    threads: int | None = None,
) -> _native.Palette:
    """The palette of a weight that lies on a GPU: fitted there, then rounded and measured by the native module.

    Args:
        values: the weight, on the device.
        second_moments: [row_runs, blocks, n, n], anywhere.
        arguments: what `_native.palettize` takes for the weight, with its values on the CPU.
        algorithm: "lnq" or "gptq".
        rounds: of tables and descent.
        damping: what is added to the diagonal of H, as a part of its mean.
        fisher: how much each element counts in the k-means that is the start.
        threads: of the native module.
    """
    axis, shape = arguments["output_axis"], tuple(values.shape)
    groups = shape[axis] // arguments["group_size"] if arguments["granularity"] == "per_grouped_channel" else 1
    settings = Settings(
        arguments["nbits"], shape[axis] // groups, arguments["enable_per_channel_scale"], algorithm, rounds, damping=damping,
        threads=threads,
    )  # fmt: skip

    def matrix(tensor: Tensor) -> Tensor:
        return tensor.detach().to(values.device, torch.float32).movedim(axis, 0).flatten(1)

    start = None
    if fisher is not None:
        own = fisher.detach().to("cpu", torch.float32).reshape(-1).numpy().copy()
        _native.normalise_sensitivity(own)
        start = matrix(torch.from_numpy(own).reshape(shape))
    found = fit_on_device(matrix(values), second_moments.to(values.device), settings, start)
    rest = (*shape[:axis], *shape[axis + 1 :])
    indices = found.indices.reshape(shape[axis], *rest).movedim(0, axis).contiguous()
    wanted = {name: value for name, value in arguments.items() if name not in ("mode", "cluster_dim", "sensitivity")}
    return _native.assemble(
        **wanted, luts=found.luts.cpu().numpy().reshape(-1), indices=indices.cpu().numpy().reshape(-1),
        scales=None if found.scales is None else found.scales.cpu().numpy(), damping=damping, threads=threads,
        second_moments=np.ascontiguousarray(second_moments.detach().to("cpu", torch.float32).numpy()),
    )  # fmt: skip


def _apart(values: Tensor, runs: int, blocks: int) -> Tensor:
    """(run, row, block · column) as (run · block · row, column)."""
    rows, columns = values.shape
    return values.reshape(runs, rows // runs, blocks, columns // blocks).transpose(1, 2).reshape(-1, columns // blocks)


def _joined(parts: Sequence[Fitted]) -> Fitted:
    scales = [part.scales for part in parts if part.scales is not None]
    return Fitted(
        torch.cat([part.luts for part in parts]), torch.cat([part.indices for part in parts]),
        torch.cat(scales) if scales else None,
        [math.fsum(sums) for sums in zip(*(part.objective for part in parts))],
        [damping for part in parts for damping in part.damping],
    )  # fmt: skip


def _check(weights: Tensor, second_moments: Tensor, settings: Settings, start_weights: Tensor | None) -> None:
    if weights.dim() != 2 or weights.numel() == 0:
        raise _native.Refusal(
            f"weights have shape {tuple(weights.shape)}; expected rows and columns, at least one of each"
        )
    rows, columns = weights.shape
    shape = tuple(second_moments.shape)
    if len(shape) != 4 or shape[2] != shape[3] or shape[1] * shape[2] != columns:
        raise _native.Refusal(
            f"second moments have shape {shape}; expected [row_runs, blocks, n, n] with blocks · n = {columns}"
        )
    if not 1 <= shape[0] <= rows or -(-rows // -(-rows // shape[0])) != shape[0]:
        raise _native.Refusal(f"second moments for {shape[0]} runs of rows, of which there are {rows}")
    if shape[1] > 1:
        per_table = min(settings.rows_per_table, rows)
        if settings.row_scale or rows % per_table or rows % shape[0] or (shape[0] > 1 and per_table < rows):
            raise _native.Refusal(f"{shape[1]} blocks need equal runs of rows, equal groups, and no scales of rows")
    if start_weights is not None and start_weights.shape != weights.shape:
        raise _native.Refusal(f"start weights have shape {tuple(start_weights.shape)}; expected {tuple(weights.shape)}")
    if not (torch.isfinite(weights).all() and torch.isfinite(second_moments).all()):
        raise _native.Refusal("weights and second moments must be finite; found NaN or infinite values")


def _fit_rows(weights: Tensor, moments: Tensor, settings: Settings, start_weights: Tensor | None) -> Fitted:
    """Fits rows of which equal runs have one matrix each, one part after the other that shares nothing with others."""
    rows, columns = weights.shape
    same, per_table = -(-rows // len(moments)), min(settings.rows_per_table, rows)
    k = 2**settings.nbits
    tile = max(1, settings.numbers // (k * max(columns, k)))
    tile = tile // per_table * per_table or tile
    borders = [end for end in range(same, rows, same) if end % per_table == 0]
    parts = []
    for start, end in zip([0, *borders], [*borders, rows]):
        of = range(start // same, -(-end // same))
        curvatures = {at: Curvature(moments[at], settings.damping, at) for at in of}
        together = per_table * max(1, tile // per_table)
        fitted = []
        for first in range(start, end, together):
            cut = slice(first, min(first + together, end))
            own = [(row, min(row + tile, (row // same + 1) * same, cut.stop)) for row in _tile_starts(cut, tile, same)]
            tiles = [
                Tile(weights[a:b], curvatures[a // same], a - first, settings.sweeps, settings.row_scale)
                for a, b in own
            ]
            initial = None if start_weights is None else start_weights[cut]
            fitted.append(_Fit(tiles, settings, per_table, weights[cut], initial).run())
        parts.append(_joined(fitted)._replace(damping=[curvature.damping for curvature in curvatures.values()]))
    return _joined(parts)


def _tile_starts(rows: slice, tile: int, same: int) -> Iterator[int]:
    """Tiles end where other second moments begin."""
    at = rows.start
    while at < rows.stop:
        yield at
        at = min(at + tile, (at // same + 1) * same, rows.stop)


class _Fit:
    """Rows with tables that no others share, in the making."""

    def __init__(
        self, tiles: list[Tile], settings: Settings, per_table: int, weights: Tensor, start_weights: Tensor | None
    ) -> None:
        self.tiles, self.settings = tiles, settings
        self.objective: list[float] = []
        self.tables = Tables(
            start_tables(tiles, weights, start_weights, per_table, settings.nbits, settings.threads), per_table
        )

    def run(self) -> Fitted:
        """All stages."""
        self._each(Tile.start)
        self._each(Tile.feed_back)
        if self.settings.algorithm == "lnq":
            for _ in range(self.settings.rounds):
                self._improve_tables()
                self._reseat()
                self._each(Tile.descend)
        self._note(self._improve_tables())
        return self._finished()

    def _each(self, stage: Callable[[Tile, Tables], None]) -> None:
        for tile in self.tiles:
            stage(tile, self.tables)
        self._note(0.0)

    def _note(self, change: float) -> None:
        """Notes the objective: the sum of the energies and what has come to them since."""
        energy = math.fsum(float(tile.energies.sum()) for tile in self.tiles)
        self.objective.append(min([max(energy + change, 0.0), *self.objective[-1:]]))

    def _improve_tables(self) -> float:
        """The best tables for the indices; what they add to the objective, beside what scales changed in energies."""
        tables, k = self.tables.entries.shape
        a, z = self.tables.entries.new_zeros(tables, k, k), self.tables.entries.new_zeros(tables, k)
        for tile in self.tiles:
            tile.gather(self.tables, a, z)
        step = _solved(a, -z)
        new = (self.tables.entries + step).float().double()
        d = new - self.tables.entries
        change = 2 * (d * z).sum(1) + (d.unsqueeze(1) @ a @ d.unsqueeze(2))[:, 0, 0]
        better = (change < 0) & change.isfinite()
        self.tables.set(torch.where(better.unsqueeze(1), new, self.tables.entries))
        return float(torch.where(better, change, 0.0).sum())

    def _reseat(self) -> None:
        """Moves each unused entry to the weight that is farthest from all entries, as its column counts."""
        entries = self.tables.entries.clone()
        used = torch.zeros_like(entries, dtype=torch.bool)
        for tile in self.tiles:
            of = self.tables.of(tile)
            used[of.unsqueeze(1).expand(tile.codes.shape), tile.codes.long()] = True
        if bool(used.all()):
            return
        seats = [tile.farthest(self.tables) for tile in self.tiles]
        unused = ~used
        while bool(unused.any()):
            value, cost = self._worst(seats)
            moved = unused.any(1) & (cost > 0)
            if not bool(moved.any()):
                break
            at = unused.int().argmax(1)
            entries[moved, at[moved]] = value[moved]
            unused[moved, at[moved]] = False
            unused[~moved] = False
            for tile, (_, costs) in zip(self.tiles, seats):
                of = self.tables.of(tile)
                torch.minimum(costs, torch.where(moved[of, None], tile.cost(value[of, None]), costs), out=costs)
        self.tables.set(entries)

    def _worst(self, seats: list[tuple[Tensor, Tensor]]) -> tuple[Tensor, Tensor]:
        """For each table, the weight of the largest cost, the first of them, rounded to 32 bits, and its cost."""
        entries = self.tables.entries
        value, most = entries.new_zeros(len(entries)), entries.new_zeros(len(entries))
        for tile, (values, costs) in zip(self.tiles, seats):
            cost, column = costs.max(1)
            own = values.gather(1, column.unsqueeze(1))[:, 0].float().double()
            for tables, rows in pieces(len(own), tile.first, self.tables.rows_per_table):
                best = cost[rows].reshape(len(most[tables]), -1).max(1, keepdim=True)
                more = best.values[:, 0] > most[tables]
                chosen = own[rows].reshape(len(best.values), -1).gather(1, best.indices)[:, 0]
                most[tables] = torch.where(more, best.values[:, 0], most[tables])
                value[tables] = torch.where(more, chosen, value[tables])
        return value, most

    def _finished(self) -> Fitted:
        entries, ranks = self.tables.values, self.tables.codes.argsort(1)
        indices = []
        for tile in self.tiles:
            own = ranks[self.tables.of(tile)].gather(1, tile.codes.long()).to(torch.uint8)
            indices.append(torch.empty_like(own).index_copy_(1, tile.curvature.order, own))
        scales = torch.cat([tile.scales[:, 0] for tile in self.tiles]).float() if self.settings.row_scale else None
        return Fitted(entries.float(), torch.cat(indices), scales, self.objective, [])


def _solved(a: Tensor, right: Tensor) -> Tensor:
    """Solves A x = right for each table, with as little added to the diagonal as makes A positive definite; else zero."""
    mean = a.diagonal(dim1=1, dim2=2).mean(1)
    found, missing = torch.zeros_like(right), torch.arange(len(a), device=a.device)
    for power in range(_TRIES):
        matrix = a[missing].clone()
        matrix.diagonal(dim1=1, dim2=2).add_(_RIDGE * 100.0**power * mean[missing, None])
        factor, failed = torch.linalg.cholesky_ex(matrix)
        pivots, diagonal = factor.diagonal(dim1=1, dim2=2).square(), matrix.diagonal(dim1=1, dim2=2)
        good = (failed == 0) & (pivots > LOST * diagonal).all(1)
        found[missing[good]] = torch.cholesky_solve(right[missing[good]].unsqueeze(2), factor[good]).squeeze(2)
        missing = missing[~good]
        if len(missing) == 0:
            break
    return found
