"""Soft k-means and its exact gradient in torch operations, for tensors that live on any device.

Idea: a row of the attention A = softmax(−|x − c|²/τ) depends on one vector and the centroids alone. So A is made for
a block of vectors, used, and dropped. What is kept from a forward to its backward (the *trail*) are the centroids
before the first step and, of each step, the means and the column sums of A. The backward walks the steps from the last
to the first and makes every A again. Nothing is as large as vectors × clusters: a tensor has at most `BLOCK` numbers,
or as many as the weight.

`_native.SoftKMeans` (`crates/palette/src/training`, `crates/kernels/src/soft`) does the same on the CPU, faster, and
explains the gradient; it also checks the settings and finds the first centroids. Products of matrices are written as
products and sums of elements here: vectors are short, and autocast or TF32 would round them.

Sources: Cho et al., arXiv 2108.12659 (DKM); Jaffe et al., arXiv 2312.07759 (the implicit gradient).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from palettizer import _native
from palettizer.torch.palettization._plan.palettize import NAMES, as_bytes

BLOCK = 2**22
"""Most numbers of a block of attention."""

_ROUNDS = 200
"""Most times that the implicit gradient is put into its own equation."""

_DTYPES = {**NAMES, torch.float64: "f64"}
_LUT_FLOATS = {"f16": torch.float16, "bf16": torch.bfloat16}


class TorchSoftKMeans:
    """Soft k-means of one weight, with the settings of `_native.SoftKMeans`.

    Weights have `shape` and `dtype`. Centroids are `(groups, clusters, cluster_dim)`, a scale is `(rows,)`,
    and a trail is flat; these are float64 for weights of float64, else float32, on the device of the weight. Autograd
    records nothing of it.

    Raises:
        ValueError: if a setting cannot be, or does not suit the shape or the dtype.

    Example:
        >>> kmeans = TorchSoftKMeans(torch.float32, (8, 4), nbits=1)
        >>> weight = torch.randn(8, 4)
        >>> centroids = kmeans.seed_centroids(weight, None)
        >>> soft, centroids, trail = kmeans.forward(weight, centroids, None, 0)
        >>> gradient = kmeans.backward(weight, None, 0, trail, torch.ones_like(soft))
    """

    def __init__(
        self,
        dtype: torch.dtype,
        shape: Sequence[int],
        *,
        nbits: int,
        cluster_dim: int = 1,
        group_size: int | None = None,
        iterations: int = 3,
        temperature: float = 1e-4,
        epsilon: float = 1e-4,
        floor: float = 1e-7,
        prune_threshold: float = 1e-7,
        enforce_zero: bool = False,
        mode: str = "dkm",
        lut_dtype: str | None = None,
        scale_scheme: str | None = None,
        enabled: float = 1.0,
        cluster_tolerance: float = 0.0,
        starts: int = 1,
        seed: int = 0,
        implicit: bool = False,
    ) -> None:
        self._native = _native.SoftKMeans(
            _DTYPES.get(dtype, str(dtype)), tuple(shape), nbits=nbits, cluster_dim=cluster_dim, group_size=group_size,
            iterations=iterations, temperature=temperature, epsilon=epsilon, floor=floor,
            prune_threshold=prune_threshold, enforce_zero=enforce_zero, mode=mode, lut_dtype=lut_dtype,
            scale_scheme=scale_scheme, enabled=enabled, cluster_tolerance=cluster_tolerance, starts=starts, seed=seed,
            implicit=implicit,
        )  # fmt: skip
        self.dtype, self.shape = dtype, tuple(shape)
        self.real = torch.float64 if dtype == torch.float64 else torch.float32
        self.groups, self.clusters, self.cluster_dim = self._native.groups, self._native.clusters, cluster_dim
        self.rows, self.cols = shape[0], math.prod(shape[1:])
        self.vectors = self.rows // self.groups // cluster_dim * self.cols
        self.soft_groups = min(self.groups, max(1, int(enabled * self.groups)))
        self.iterations, self.temperature, self.epsilon, self.implicit = iterations, temperature, epsilon, implicit
        self.mode, self.floor = mode, floor if mode == "dkm" else 0.0
        self.prune_threshold, self.enforce_zero = prune_threshold, enforce_zero
        # Where no other weights must become zero, those that are not are kept this far from the first centroid.
        self.barred = None
        if enforce_zero and prune_threshold == 0:
            self.barred = min(1 / floor, 1e30) if floor > 0 else 1e30
        self.cluster_tolerance, self.lut_dtype, self.scale_scheme = cluster_tolerance, lut_dtype, scale_scheme
        self.storage = _Storage(dtype, lut_dtype, scale_scheme is not None, cluster_dim)
        size = self.clusters * cluster_dim
        self.trail_len = self.soft_groups * (1 + size + (0 if implicit else iterations) * (size + self.clusters))

    @torch.no_grad()
    def channel_scale(self, weight: Tensor) -> Tensor | None:
        """What each row is divided by, or None without a `scale_scheme`."""
        if self.scale_scheme is None:
            return None
        least, most = weight.reshape(self.rows, -1).to(self.real).aminmax(dim=1)
        exact = torch.maximum(most, -least) if self.scale_scheme == "abs" else (most - least) / 2
        scale = self.storage.scale(exact.float().clamp(min=torch.finfo(self.storage.dtype).tiny))
        return torch.where(exact == 0, 1.0, scale).to(self.real)

    @torch.no_grad()
    def seed_centroids(self, weight: Tensor, scale: Tensor | None) -> Tensor:
        """The best centroids for the weight as it is; where it has fewer values than that, the last one repeats."""
        values = weight.detach().cpu().contiguous()
        factors = None if scale is None else as_bytes(scale.cpu().contiguous())
        centroids = torch.empty(self.groups, self.clusters, self.cluster_dim, dtype=self.real)
        self._native.seed_centroids(as_bytes(values), factors, as_bytes(centroids))
        return centroids.to(weight.device)

    @torch.no_grad()
    def forward(
        self, weight: Tensor, centroids: Tensor, scale: Tensor | None, noise: int
    ) -> tuple[Tensor, Tensor, Tensor]:
        """The soft weight, the centroids to start the next step from, and the trail for `backward`.

        `noise` is the seed of mode "gsm". Groups that are not enabled get their nearest centroids.
        """
        values, following = self._vectors(weight), centroids.clone()
        out, trail = torch.empty_like(values), centroids.new_zeros(self.trail_len)
        record = self._record(trail)
        for groups in self._batches(self.soft_groups):
            batch = self._batch(groups, values, scale, noise)
            start = self._apart(centroids[groups].clone())
            if self.barred is not None:
                start[:, 0] = 0
            steps, before, after = self._iterate(batch, start, record, groups)
            if self.implicit:
                start = before = after
            record.steps[groups], record.start[groups], following[groups] = steps, start, after
            for block in batch.blocks():
                attention, _ = batch.attend(block, batch.load(block), before, steps - 1)
                out[groups, block] = batch.scaled(block, _rows(attention.clamp_(min=self.floor), after))
        for groups in self._batches(self.groups, self.soft_groups):
            batch, held = self._batch(groups, values, scale), centroids[groups]
            batch.put_nearest(out[groups], held, held, batch.scale, self.real)
        return self._weight(out), following, trail

    @torch.no_grad()
    def backward(self, weight: Tensor, scale: Tensor | None, noise: int, trail: Tensor, grad: Tensor) -> Tensor:
        """The gradient for the weight, given that for the soft weight; start centroids and scale are constants."""
        values, grads = self._vectors(weight), self._vectors(grad)
        out, record = torch.zeros_like(values, dtype=self.real), self._record(trail)
        for groups in self._batches(self.soft_groups):
            batch = self._batch(groups, values, scale, noise)
            steps, start = record.steps[groups].long(), record.start[groups]
            if self.implicit:
                self._add_implicit(batch, start, steps - 1, grads[groups], out[groups])
                continue
            pull = torch.zeros_like(start)
            for step in reversed(range(int(steps.max()))):
                means, columns = record.means[groups, step], record.columns[groups, step]
                before = start if step == 0 else self._settled(record.means[groups, step - 1])
                # Groups may have stopped at different steps: to one that has not come so far, nothing flows yet.
                last = (steps == step + 1)[:, None, None]
                after = self._settled(means) * last
                at = torch.full_like(steps, step)
                if bool(last.any()):
                    pull = torch.where(last, batch.pulled(before, at, grads[groups]), pull)
                pull = batch.gradient(
                    before, at, self._through_means(pull, means, columns), (grads[groups], after), out[groups]
                )
        made = self._weight(out)
        if scale is not None:
            made = (made.view(self.rows, -1) / scale[:, None]).view(self.shape)
        return made.to(self.dtype)

    @torch.no_grad()
    def assign(self, weight: Tensor, centroids: Tensor, scale: Tensor | None) -> Tensor:
        """The hard weight: the nearest centroid everywhere, as it would be stored."""
        values = self._vectors(weight)
        out = torch.empty_like(values)
        for groups in self._batches(self.groups):
            batch = self._batch(groups, values, scale)
            entries = self.storage.entries(centroids[groups])
            numbers, factors = self.storage.products(centroids[groups], batch.scale)
            batch.put_nearest(out[groups], entries, numbers, factors, self.storage.dtype)
        return self._weight(out)

    def _iterate(self, batch: _Batch, start: Tensor, record: _Record, groups: slice) -> tuple[Tensor, Tensor, Tensor]:
        """The steps that each group makes, and its centroids before and after the last of them."""
        steps = torch.zeros(len(start), dtype=torch.long, device=start.device)
        running = torch.ones_like(steps, dtype=torch.bool)
        before, after, previous = start, start, start.new_zeros(len(start))
        for step in range(self.iterations):
            means, columns, inertia = batch.means(after, torch.full_like(steps, step))
            if not self.implicit:
                record.means[groups, step], record.columns[groups, step] = means, columns
            steps += running
            before = torch.where(running[:, None, None], after, before)
            after = torch.where(running[:, None, None], self._settled(means), after)
            if step + 1 == self.iterations:
                break
            # As in coremltools, a sum of exactly zero does not count as one that was there before.
            running &= (previous == 0) | ~((previous - inertia).abs() <= self.epsilon)
            previous = inertia
            if step > 0 and not bool(running.any()):
                break
        return steps, before, after

    def _add_implicit(self, batch: _Batch, fixed: Tensor, at: Tensor, grad: Tensor, out: Tensor) -> None:
        """Adds the gradient at a fixed point C = F(X, C), with u = g + (∂F/∂C)ᵀu, put in until it stays."""
        means, columns, _ = batch.means(fixed, at)
        nothing = torch.zeros_like(fixed), torch.zeros_like(columns)
        direct = batch.pulled(fixed, at, grad) + batch.gradient(fixed, at, nothing, (grad, fixed), None)
        small = 1e-12 if self.real == torch.float64 else 1e-6
        pull = best = direct
        least = torch.full_like(at, torch.inf, dtype=self.real)
        for _ in range(_ROUNDS):
            last, through = pull, self._through_means(pull, means, columns)
            pull = direct + batch.gradient(fixed, at, through, None, None)
            change = (pull - last).norm(dim=(1, 2))
            # Where the centroids are no fixed point and the terms grow, the series ends with its least term.
            best, least = torch.where((change < least)[:, None, None], pull, best), torch.minimum(change, least)
            if bool(((change <= small * pull.norm(dim=(1, 2))) | (change > 2 * least)).all()):
                break
        pull = best
        batch.gradient(fixed, at, self._through_means(pull, means, columns), (grad, fixed), out)

    def _through_means(self, pull: Tensor, means: Tensor, columns: Tensor) -> tuple[Tensor, Tensor]:
        """From the gradient of the centroids to those of N = AᵀX and the column sums, of which the means are made."""
        passes = columns != 0
        if self.enforce_zero:
            passes[:, 0] = False
        to_sums = torch.where(passes[..., None], pull / columns[..., None], 0.0)
        return to_sums, -(to_sums * means).sum(-1)

    def _settled(self, means: Tensor) -> Tensor:
        """Means to centroids; the gradient passes straight through, but for a zero that is held."""
        centroids = means.clone() if self.lut_dtype is None else self.storage.entries(means)
        if self.enforce_zero:
            centroids[:, 0] = 0
        return centroids

    def _apart(self, centroids: Tensor) -> Tensor:
        """Moves duplicate centroids halfway to their neighbour, in place."""
        candidates = (centroids[..., 0].sort(1).values.diff(dim=1) == 0).any(1)
        for group in candidates.nonzero().flatten().tolist():
            table = centroids[group].cpu()  # not every device can do the next step
            unique, place, counts = torch.unique(table, dim=0, return_inverse=True, return_counts=True)
            if len(unique) < self.clusters * (1 - self.cluster_tolerance):
                middle = (unique + unique.roll(-1, 0)) / 2
                for j in (counts > 1).nonzero().flatten().tolist():
                    table[int((place == j).nonzero()[0])] = middle[j]
                centroids[group] = table
        return centroids

    def _vectors(self, weight: Tensor) -> Tensor:
        """(groups, vectors, cluster_dim): a vector is consecutive rows at one place of the other dims."""
        blocks = weight.detach().reshape(self.groups, -1, self.cluster_dim, self.cols)
        return blocks.transpose(2, 3).reshape(self.groups, self.vectors, self.cluster_dim)

    def _weight(self, vectors: Tensor) -> Tensor:
        """The opposite."""
        return vectors.reshape(self.groups, -1, self.cols, self.cluster_dim).transpose(2, 3).reshape(self.shape)

    def _record(self, trail: Tensor) -> _Record:
        """Views of a trail."""
        groups, size = self.soft_groups, self.clusters * self.cluster_dim
        rest = trail[groups * (1 + size) :].view(groups, -1, self.clusters, self.cluster_dim + 1)
        start = trail[groups : groups * (1 + size)].view(groups, self.clusters, self.cluster_dim)
        return _Record(trail[:groups], start, rest[..., :-1], rest[..., -1])

    def _batches(self, end: int, start: int = 0) -> Iterator[slice]:
        """Groups to be worked on together: those that fit into one block, or else one."""
        together = max(1, BLOCK // (self.vectors * self.clusters))
        for first in range(start, end, together):
            yield slice(first, min(end, first + together))

    def _batch(self, groups: slice, values: Tensor, scale: Tensor | None, noise: int = 0) -> _Batch:
        rows = None if scale is None else scale.reshape(self.groups, -1, self.cluster_dim)[groups]
        return _Batch(self, groups.start, values[groups], rows, noise)


class _Record(NamedTuple):
    """What a trail holds of all groups.

    The number of steps, the centroids before the first (with `implicit` after the last), and for each step, the second
    dim, the means and the column sums.
    """

    steps: Tensor
    start: Tensor
    means: Tensor
    columns: Tensor


@dataclass(frozen=True)
class _Batch:
    """Some groups of a weight, taken block of vectors by block of vectors.

    `c` is always their centroids, `at` the number of the step of each group, which the noise depends on.
    """

    of: TorchSoftKMeans
    first: int
    values: Tensor
    scale: Tensor | None
    noise: int

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
        logits = distances.div_(-self.of.temperature)
        if self.of.mode == "gsm":
            logits += self.gumbel(block, at)
        return logits.softmax(-1), least

    def gumbel(self, block: slice, at: Tensor) -> Tensor:
        """The noise of a block, a function of seed, step, vector and cluster: it is the same whenever it is made.

        The mix is SplitMix64's (Steele, Lea and Flood 2014).
        """
        device, odd = at.device, _wrapped(0x9E3779B97F4A7C15)
        groups = torch.arange(self.first, self.first + len(at), device=device)
        seeds = _mix(_mix(_wrapped(self.noise) + groups * odd) + (at + 1) * odd)
        vectors = torch.arange(block.start, block.stop, device=device)
        place = vectors[:, None] * 257 + torch.arange(self.of.clusters, device=device)
        digits = 53 if self.of.real == torch.float64 else 23  # so that no number is rounded to 1
        bits = _shifted(_mix((place * odd).bitwise_xor(seeds[:, None, None])), 64 - digits)
        unit = bits.to(self.of.real).add_(0.5).mul_(2.0**-digits)
        return unit.log_().neg_().log_().neg_()

    def means(self, c: Tensor, at: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The weighted means of the vectors, the column sums of A, and the sum of least distances."""
        sums, columns, inertia = torch.zeros_like(c), torch.zeros_like(c[..., 0]), torch.zeros_like(c[:, 0, 0])
        for block in self.blocks():
            x = self.load(block)
            attention, least = self.attend(block, x, c, at)
            attention.clamp_(min=self.of.floor)
            sums += _columns(attention, x)
            columns += attention.sum(1)
            inertia += least.sum(1)
        # A cluster that nothing attends to keeps its centroid.
        return torch.where(columns[..., None] == 0, c, sums / columns[..., None]), columns, inertia

    def pulled(self, c: Tensor, at: Tensor, grad: Tensor) -> Tensor:
        """AᵀG: the gradient of the centroids that A was multiplied with."""
        pull = torch.zeros_like(c)
        for block in self.blocks():
            attention, _ = self.attend(block, self.load(block), c, at)
            pull += _columns(attention.clamp_(min=self.of.floor), self.scaled(block, grad[:, block]))
        return pull

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
        pull = torch.zeros_like(c)
        for block in self.blocks():
            x = self.load(block)
            attention, _ = self.attend(block, x, c, at)
            to_x = _rows(attention.clamp(min=self.of.floor), to_sums)
            if self.of.mode != "hard":
                change = _outer(x, to_sums) + to_columns[:, None]
                if product is not None:
                    change += _outer(self.scaled(block, product[0][:, block]), product[1])
                change.masked_fill_(attention < self.of.floor, 0.0)
                change -= (attention * change).sum(-1, keepdim=True)
                change.mul_(attention).mul_(-2 / self.of.temperature)  # twice the gradient of the distances
                if self.of.barred is not None:
                    change[..., 0].masked_fill_(x.any(-1), 0.0)
                for e in range(self.of.cluster_dim):
                    way = (x[..., e, None] - c[:, None, :, e]).mul_(change)
                    to_x[..., e] += way.sum(-1)
                    pull[..., e] -= way.sum(1)
            if out is not None:
                out[:, block] += to_x
        return pull


class _Storage:
    """How a finished palette holds entries and scales, as `crates/palette/src/encode/entries.rs` says."""

    def __init__(self, dtype: torch.dtype, lut_dtype: str | None, scaled: bool, cluster_dim: int) -> None:
        self.dtype = torch.float32 if dtype == torch.float64 else dtype
        self._halves = self.dtype == torch.float32
        self._integers = lut_dtype in ("int8", "uint8")
        self._folds = self._integers and scaled and cluster_dim == 1
        floats = torch.float16 if self._halves and scaled else self.dtype
        # A table is stored in the weight's dtype, which must hold its entries.
        self._entry_dtype = _LUT_FLOATS.get(str(lut_dtype), floats) if self._halves else self.dtype

    def scale(self, scale: Tensor) -> Tensor:
        """A scale that nothing else goes into."""
        return _half_above(scale) if self._halves and not self._folds else scale

    def entries(self, centroids: Tensor) -> Tensor:
        """Entries for centroids (groups, clusters, cluster_dim)."""
        if not self._integers:
            return centroids.to(self._entry_dtype).to(centroids.dtype)
        integers, scale = self._quantized(centroids)
        return (integers * scale).to(self.dtype).to(centroids.dtype)

    def products(self, centroids: Tensor, scale: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """The numbers and the factors of each row whose product is the finished weight."""
        if scale is None or not self._folds:
            return self.entries(centroids), None if scale is None else scale.to(self.dtype).to(scale.dtype)
        integers, own = self._quantized(centroids)
        return integers, _half_above(own * scale) if self._halves else _above(own * scale, self.dtype)

    def _quantized(self, centroids: Tensor) -> tuple[Tensor, Tensor]:
        """Integers from −127 to 127, and the scale of each group."""
        scale = (centroids.abs().amax((1, 2), keepdim=True) / 127).to(self.dtype).float()
        scale = torch.where(scale == 0, 1.0, self.scale(scale)).to(centroids.dtype)
        return (centroids / scale).round().clamp(-127, 127), scale


def _above(scale: Tensor, dtype: torch.dtype) -> Tensor:
    """The least numbers of a dtype of 16 bits that are not below positive ones."""
    near = scale.to(dtype)
    above = (near.view(torch.int16) + 1).view(dtype)
    return torch.where(near.to(scale.dtype) < scale, above, near).to(scale.dtype)


def _half_above(scale: Tensor) -> Tensor:
    """The same of float16; the numbers themselves where it ends."""
    halves = (scale >= 2.0**-24) & (scale <= torch.finfo(torch.float16).max)
    return torch.where(halves, _above(scale, torch.float16), scale)


def _columns(attention: Tensor, x: Tensor) -> Tensor:
    """AᵀX."""
    return torch.stack([(attention * x[..., e, None]).sum(1) for e in range(x.shape[-1])], -1)


def _rows(attention: Tensor, c: Tensor) -> Tensor:
    """A·C."""
    return torch.stack([(attention * c[:, None, :, e]).sum(-1) for e in range(c.shape[-1])], -1)


def _outer(x: Tensor, c: Tensor) -> Tensor:
    """X·Cᵀ."""
    total = x[..., 0, None] * c[:, None, :, 0]
    for e in range(1, x.shape[-1]):
        total += x[..., e, None] * c[:, None, :, e]
    return total


def _wrapped(number: int) -> int:
    """64 bits as the signed integer that torch has for them."""
    return (number + 2**63) % 2**64 - 2**63


def _shifted(z: Tensor, bits: int) -> Tensor:
    """Shifted right, with zeros coming in."""
    return z.bitwise_right_shift(bits).bitwise_and(2 ** (64 - bits) - 1)


def _mix(z: Tensor) -> Tensor:
    z = (z ^ _shifted(z, 30)) * _wrapped(0xBF58476D1CE4E5B9)
    z = (z ^ _shifted(z, 27)) * _wrapped(0x94D049BB133111EB)
    return z ^ _shifted(z, 31)
