"""The attention of vectors to centroids, made block by block, and the gradient through it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

BLOCK = 2**22
"""Most numbers of a block of attention."""


@dataclass(frozen=True)
class Attention:
    """How vectors attend to centroids: row = softmax(−|x − c|²/τ), raised to the floor."""

    clusters: int
    cluster_dim: int
    cols: int
    """Vectors that share a row of the scale."""
    real: torch.dtype
    """What is computed in."""
    mode: str
    floor: float
    prune_threshold: float
    barred: float | None
    """How far what is not zero is kept from the first centroid, where no other weights may become zero."""


@dataclass(frozen=True)
class Batch:
    """Some groups of a weight, taken block of vectors by block of vectors.

    `c` is always their centroids, `at` the number of the step of each group, which the noise depends on.
    """

    of: Attention
    first: int
    values: Tensor
    scale: Tensor | None
    temperature: Tensor | float
    """A number for all groups, or one for each, (groups, 1, 1)."""
    noise: int

    @staticmethod
    def together(groups: int, attentions: int) -> int:
        """How many of some groups, each of so many attentions, are worked on at once: what fits into a block, or one."""
        return min(groups, max(1, BLOCK // attentions))

    def blocks(self) -> Iterator[slice]:
        groups, vectors, _ = self.values.shape
        size = max(1, BLOCK // (groups * self.of.clusters))
        for start in range(0, vectors, size):
            yield slice(start, min(vectors, start + size))

    def load(self, block: slice) -> Tensor:
        """A block of the vectors, divided by the scale of each row."""
        x = self.values[:, block].to(self.of.real)
        return x if self.scale is None else x / self._of_rows(self.scale, block)

    def scaled(self, block: slice, x: Tensor) -> Tensor:
        """A block of something else, multiplied by it."""
        x = x.to(self.of.real)
        return x if self.scale is None else x * self._of_rows(self.scale, block)

    def _of_rows(self, factors: Tensor, block: slice) -> Tensor:
        return factors[:, torch.arange(block.start, block.stop, device=factors.device) // self.of.cols]

    def put_nearest(
        self, out: Tensor, entries: Tensor, numbers: Tensor, factors: Tensor | None, dtype: torch.dtype
    ) -> None:
        """Writes the number for the nearest entry, times the factor of the row, rounded to `dtype`."""
        for block in self.blocks():
            nearest = self.distances(self.load(block), entries, zeros=False).argmin(-1)
            found = numbers.gather(1, nearest[..., None].expand(-1, -1, self.of.cluster_dim))
            out[:, block] = (found if factors is None else found * self._of_rows(factors, block)).to(dtype)

    def distances(self, x: Tensor, c: Tensor, zeros: bool = True) -> Tensor:
        """(groups, vectors, clusters) squared distances; the first cluster is favoured, or barred to keep `zeros`."""
        total = (x[..., 0, None] - c[:, None, :, 0]).square_()
        for e in range(1, self.of.cluster_dim):
            total += (x[..., e, None] - c[:, None, :, e]).square_()
        if self.of.prune_threshold > 0:
            total[..., 0] -= self.of.prune_threshold
        if zeros and self.of.barred is not None:
            total[..., 0].masked_fill_(x.any(-1), self.of.barred)
        return total

    def attend(self, block: slice, x: Tensor, c: Tensor, at: Tensor) -> tuple[Tensor, Tensor]:
        """The attention before it is raised to the floor, and the least distance of each vector."""
        distances = self.distances(x, c)
        least = distances.amin(-1)
        if self.of.mode == "hard":
            nearest = distances.argmin(-1, keepdim=True)
            return distances.zero_().scatter_(-1, nearest, 1.0), least
        logits = distances.div_(-self.temperature)
        if self.of.mode == "gsm":
            logits += self.gumbel(block, at)
        return logits.softmax(-1), least

    def gumbel(self, block: slice, at: Tensor) -> Tensor:
        """The noise of a block, a function of seed, step, vector and cluster: it is the same whenever it is made.

        The mix is SplitMix64's (Steele, Lea and Flood 2014).
        """
        vectors = torch.arange(block.start, block.stop, device=at.device)
        place = vectors[:, None] * 257 + torch.arange(self.of.clusters, device=at.device)
        digits = 53 if self.of.real == torch.float64 else 23  # so that no number is rounded to 1
        bits = _shifted(_mix((place * _ODD).bitwise_xor(self.seeds(at)[:, None, None])), 64 - digits)
        unit = bits.to(self.of.real).add_(0.5).mul_(2.0**-digits)
        return unit.log_().neg_().log_().neg_()

    def seeds(self, at: Tensor) -> Tensor:
        """(groups,): what the noise of a step of each group begins with."""
        groups = torch.arange(self.first, self.first + len(at), device=at.device)
        return _mix(_mix(_wrapped(self.noise) + groups * _ODD) + (at + 1) * _ODD)

    def means(self, c: Tensor, at: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The weighted means of the vectors, the column sums of A, and the sum of least distances."""
        sums, columns, inertia = torch.zeros_like(c), torch.zeros_like(c[..., 0]), torch.zeros_like(c[:, 0, 0])
        for block in self.blocks():
            x = self.load(block)
            attention, least = self.attend(block, x, c, at)
            attention.clamp_(min=self.of.floor)
            sums += columns_of(attention, x)
            columns += attention.sum(1)
            inertia += least.sum(1)
        # A cluster that nothing attends to keeps its centroid.
        return torch.where(columns[..., None] == 0, c, sums / columns[..., None]), columns, inertia

    def put_product(self, out: Tensor, c: Tensor, at: Tensor, after: Tensor) -> None:
        """Writes A·C, with the attention to `c` and the centroids `after`, times the scale: the soft weight."""
        for block in self.blocks():
            attention, _ = self.attend(block, self.load(block), c, at)
            out[:, block] = self.scaled(block, rows_of(attention.clamp_(min=self.of.floor), after))

    def through_product(self, c: Tensor, at: Tensor, grad: Tensor) -> Tensor:
        """AᵀG: the gradient of the centroids that A was multiplied with."""
        to_centroids = torch.zeros_like(c)
        for block in self.blocks():
            attention, _ = self.attend(block, self.load(block), c, at)
            to_centroids += columns_of(attention.clamp_(min=self.of.floor), self.scaled(block, grad[:, block]))
        return to_centroids

    def gradient(
        self,
        c: Tensor,
        at: Tensor,
        through: tuple[Tensor, Tensor],
        product: tuple[Tensor, Tensor] | None,
        out: Tensor | None,
    ) -> Tensor:
        """Gives the gradient of `c` by the attention to it, and adds that of the vectors to `out`.

        `through` are the gradients of N and the column sums; `product` that of A·C and its C, where there was one.
        """
        to_sums, to_columns = through
        to_centroids = torch.zeros_like(c)
        for block in self.blocks():
            x = self.load(block)
            attention, _ = self.attend(block, x, c, at)
            to_x = rows_of(attention.clamp(min=self.of.floor), to_sums)
            if self.of.mode != "hard":
                change = outer(x, to_sums) + to_columns[:, None]
                if product is not None:
                    change += outer(self.scaled(block, product[0][:, block]), product[1])
                change.masked_fill_(attention < self.of.floor, 0.0)
                change -= (attention * change).sum(-1, keepdim=True)
                change.mul_(attention).mul_(-2 / self.temperature)  # twice the gradient of the distances
                if self.of.barred is not None:
                    change[..., 0].masked_fill_(x.any(-1), 0.0)
                for e in range(self.of.cluster_dim):
                    way = (x[..., e, None] - c[:, None, :, e]).mul_(change)
                    to_x[..., e] += way.sum(-1)
                    to_centroids[..., e] -= way.sum(1)
            if out is not None:
                out[:, block] += to_x
        return to_centroids


def columns_of(attention: Tensor, x: Tensor) -> Tensor:
    """AᵀX."""
    return torch.stack([(attention * x[..., e, None]).sum(1) for e in range(x.shape[-1])], -1)


def rows_of(attention: Tensor, c: Tensor) -> Tensor:
    """A·C."""
    return torch.stack([(attention * c[:, None, :, e]).sum(-1) for e in range(c.shape[-1])], -1)


def outer(x: Tensor, c: Tensor) -> Tensor:
    """X·Cᵀ."""
    total = x[..., 0, None] * c[:, None, :, 0]
    for e in range(1, x.shape[-1]):
        total += x[..., e, None] * c[:, None, :, e]
    return total


def _wrapped(number: int) -> int:
    """64 bits as the signed integer that torch has for them."""
    return (number + 2**63) % 2**64 - 2**63


_ODD = _wrapped(0x9E3779B97F4A7C15)


def _shifted(z: Tensor, bits: int) -> Tensor:
    """Shifted right, with zeros coming in."""
    return z.bitwise_right_shift(bits).bitwise_and(2 ** (64 - bits) - 1)


def _mix(z: Tensor) -> Tensor:
    z = (z ^ _shifted(z, 30)) * _wrapped(0xBF58476D1CE4E5B9)
    z = (z ^ _shifted(z, 27)) * _wrapped(0x94D049BB133111EB)
    return z ^ _shifted(z, 31)
