"""Some rows of a layer-wise fit, and what is done with all of them at once."""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
from torch import Tensor

from palettizer.torch.palettization._layerwise.fit_curvature import Curvature

BLOCK = 64
"""Columns that are taken one after the other before the next matrix product."""


class Tables:
    """Tables, and the nearest entries of them."""

    def __init__(self, entries: Tensor, rows_per_table: int) -> None:
        self.rows_per_table = rows_per_table
        self.set(entries)

    def set(self, entries: Tensor) -> None:
        """Other entries, (tables, entries) of 32 bits."""
        self.entries = entries.float().double()
        self.values, self.codes = self.entries.sort(dim=1, stable=True)
        self.borders = (self.values[:, :-1] + self.values[:, 1:]) / 2

    def of(self, tile: Tile) -> Tensor:
        """The table of each row of a tile."""
        return (
            torch.arange(tile.first, tile.first + len(tile.weights), device=tile.weights.device) // self.rows_per_table
        )


class Nearest:
    """The nearest entries for rows, the lower of two."""

    def __init__(self, tables: Tables, of: Tensor) -> None:
        self.borders, self.values, self.codes = tables.borders[of].contiguous(), tables.values[of], tables.codes[of]

    def find(self, values: Tensor) -> tuple[Tensor, Tensor]:
        """Codes and entries for (rows, some) values."""
        at = torch.searchsorted(self.borders, values)
        return self.codes.gather(1, at), self.values.gather(1, at)


class Tile:
    """Some rows with the same second moments. Columns are in the order of the curvature."""

    def __init__(self, weights: Tensor, curvature: Curvature, first: int, sweeps: int, row_scale: bool) -> None:
        self.curvature, self.first, self.sweeps, self.row_scale = curvature, first, sweeps, row_scale
        self.weights = weights[:, curvature.order]
        self.codes = torch.zeros_like(self.weights, dtype=torch.uint8)
        self.scales = row_scales(weights) if row_scale else weights.new_ones(len(weights), 1).double()
        self.energies = weights.new_full((len(weights),), math.inf, dtype=torch.float64)

    def errors(self, tables: Tables) -> Tensor:
        """What the indices stand for, less the weights."""
        entries = tables.entries[tables.of(self)].gather(1, self.codes.long())
        return entries.mul_(self.scales).sub_(self.weights)

    def start(self, tables: Tables) -> None:
        """The nearest entry for each weight."""
        codes, _ = Nearest(tables, tables.of(self)).find(self.weights.double() / self.scales)
        self.codes = codes.to(torch.uint8)
        self.energies = (self.errors(tables) @ self.curvature.factor).square_().sum(1)

    def feed_back(self, tables: Tables) -> None:
        """Chooses the indices anew, each making up for the errors of those before it, where that is better for a row."""
        nearest, factor = Nearest(tables, tables.of(self)), self.curvature.factor
        errors, codes = self.weights.double(), torch.empty_like(self.codes)
        energies = torch.zeros_like(self.energies)
        for at in range(0, errors.shape[1], BLOCK):
            corner = factor[at : at + BLOCK, at : at + BLOCK]
            sums = errors[:, :at] @ factor[:at, at : at + BLOCK]
            for c in range(len(corner)):
                w = errors[:, at + c : at + c + 1].clone()
                chosen, value = nearest.find((w - sums[:, c : c + 1] / corner[c, c]) / self.scales)
                codes[:, at + c] = chosen[:, 0].to(torch.uint8)
                error = self.scales * value - w
                errors[:, at + c] = error[:, 0]
                sums[:, c:] += error * corner[c, c:]
            energies += sums.square_().sum(1)
        better = energies < self.energies
        self.codes[better] = codes[better]
        self.energies = torch.where(better, energies, self.energies)

    def descend(self, tables: Tables) -> None:
        """Sweeps over the columns: each weight takes the entry that is best while all others stay."""
        errors = self.errors(tables)
        gradients = errors @ self.curvature.matrix
        nearest = Nearest(tables, tables.of(self))
        for _ in range(self.sweeps):
            if not self._sweep(nearest, tables, errors, gradients):
                break
        self.energies = (errors * gradients).sum(1)

    def _sweep(self, nearest: Nearest, tables: Tables, errors: Tensor, gradients: Tensor) -> bool:
        """One sweep; whether anything changed."""
        matrix, entries = self.curvature.matrix, tables.entries[tables.of(self)]
        changed = torch.zeros((), dtype=torch.bool, device=errors.device)
        for at in range(0, errors.shape[1], BLOCK):
            block = slice(at, min(at + BLOCK, errors.shape[1]))
            steps = torch.zeros_like(errors[:, block])
            corner, inside = matrix[block, block], gradients[:, block].clone()
            for c in range(len(corner)):
                code, gradient, second = self.codes[:, at + c : at + c + 1].long(), inside[:, c : c + 1], corner[c, c]
                value = entries.gather(1, code)
                chosen, best = nearest.find(value - gradient / (second * self.scales))
                step = self.scales * (best - value)
                step = torch.where((chosen != code) & (2 * step * gradient + step * step * second < 0), step, 0.0)
                moves = step != 0
                self.codes[:, at + c] = torch.where(moves, chosen, code)[:, 0].to(torch.uint8)
                steps[:, c] = step[:, 0]
                inside += step * corner[c]
                changed |= moves.any()
            errors[:, block] += steps
            gradients += steps @ matrix[block]
        return bool(changed)

    def gather(self, tables: Tables, a: Tensor, z: Tensor) -> None:
        """Improves the scales of rows, if they have any, and adds to A and z of their tables."""
        of, k = tables.of(self), tables.entries.shape[1]
        errors = self.errors(tables)
        gradients = errors @ self.curvature.matrix
        ones = self.codes.unsqueeze(1) == torch.arange(k, device=self.codes.device).unsqueeze(1)
        ones = ones.double()
        own_a = (ones @ self.curvature.matrix) @ ones.mT
        own_z = (ones @ gradients.unsqueeze(2)).squeeze(2)
        if self.row_scale:
            entries = tables.entries[of]
            product = (own_a @ entries.unsqueeze(2)).squeeze(2)
            gradient, second = (entries * own_z).sum(1), (entries * product).sum(1)
            new = (self.scales[:, 0] - gradient / second).float().double()
            d = new - self.scales[:, 0]
            change = 2 * d * gradient + d * d * second
            good = (new > 0) & new.isfinite() & (change < 0)
            d = torch.where(good, d, 0.0)
            self.energies += torch.where(good, change, 0.0)
            self.scales[:, 0] = torch.where(good, new, self.scales[:, 0])
            own_z += d.unsqueeze(1) * product
        _add_by_table(a, own_a.mul_(self.scales.square().unsqueeze(2)), self, tables)
        _add_by_table(z, own_z.mul_(self.scales), self, tables)

    def importance(self) -> Tensor:
        """How much each column counts, in the order of the layer."""
        return torch.empty_like(self.curvature.diagonal).index_copy_(0, self.curvature.order, self.curvature.diagonal)

    def farthest(self, tables: Tables) -> tuple[Tensor, Tensor]:
        """The weights without their scales, and the errors of the nearest entries, as their columns count."""
        values = self.weights.double() / self.scales
        _, nearest = Nearest(tables, tables.of(self)).find(values)
        return values, self.cost(nearest)

    def cost(self, values: Tensor) -> Tensor:
        """What the errors of some values count, each by itself."""
        return (self.weights - self.scales * values).square_().mul_(self.curvature.diagonal)


def pieces(count: int, first: int, per_table: int) -> Iterator[tuple[slice, slice]]:
    """The tables of consecutive rows, of which the number of the first is given: as many as have all of their rows, or one."""
    at = 0
    while at < count:
        table, inside = divmod(first + at, per_table)
        whole = 0 if inside else (count - at) // per_table
        end = at + whole * per_table if whole else min(at + per_table - inside, count)
        yield slice(table, table + max(whole, 1)), slice(at, end)
        at = end


def _add_by_table(to: Tensor, values: Tensor, tile: Tile, tables: Tables) -> None:
    """Adds the sums over the rows of each table."""
    for own, rows in pieces(len(values), tile.first, tables.rows_per_table):
        to[own] += values[rows].reshape(len(to[own]), -1, *values.shape[1:]).sum(1)


def row_scales(weights: Tensor) -> Tensor:
    """The scale that each row starts with: its standard deviation, or of a constant row its constant."""
    values = weights.double()
    mean = values.mean(1, keepdim=True)
    deviation, constant = (values - mean).square().mean(1, keepdim=True).sqrt().float(), mean.abs().float()
    least = torch.finfo(torch.float32).tiny
    scale = torch.ones_like(deviation)
    for candidate in (constant, deviation):
        scale = torch.where((candidate > 1e-6 * constant) & (candidate >= least), candidate, scale)
    return scale.double()
