"""Soft k-means and its exact gradient in torch operations, for tensors that live on any device.

Idea: a row of the attention A = softmax(−|x − c|²/τ) depends on one vector and the centroids alone. So A is made for
a block of vectors, used, and dropped. What is kept from a forward to its backward (`saved`) are the centroids
before the first step and, of each step, the means and the column sums of A. The backward walks the steps from the last
to the first and makes every A again. Nothing is as large as vectors × clusters: a tensor has at most `blocks.BLOCK`
numbers, or as many as the weight.

`_native.SoftKMeans` (`crates/palette/src/training`, `crates/kernels/src/soft`) does the same on the CPU, faster, and
explains the gradient; it also checks the settings and finds the first centroids. Products of matrices are written as
products and sums of elements here: vectors are short, and autocast or TF32 would round them.

Sources: Cho et al., arXiv 2108.12659 (DKM); Jaffe et al., arXiv 2312.07759 (the implicit gradient).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from palettizer import _native
from palettizer.torch.palettization._plan.tensors import as_bytes
from palettizer.torch.palettization._soft.blocks import Attention, Batch
from palettizer.torch.palettization._soft.settings import NATIVE_NAMES, SoftSettings, real_dtype
from palettizer.torch.palettization._soft.storage import Storage

_ROUNDS = 200
"""Most times that the implicit gradient is put into its own equation."""


class TorchSoftKMeans:
    """Soft k-means of one weight, with the settings of `_native.SoftKMeans`.

    Weights have `shape` and `dtype`. Centroids are `(groups, clusters, cluster_dim)`, a scale is `(rows,)`, and what is
    saved is flat; these are float64 for weights of float64, else float32, on the device of the weight. Autograd records
    nothing of it.

    Raises:
        ValueError: if a setting cannot be, or does not suit the shape or the dtype.

    Example:
        >>> kmeans = TorchSoftKMeans(torch.float32, (8, 4), nbits=1)
        >>> weight = torch.randn(8, 4)
        >>> centroids = kmeans.seed_centroids(weight, None)
        >>> temperatures = kmeans.temperatures(weight, centroids, None)
        >>> soft, centroids, saved = kmeans.forward(weight, centroids, None, temperatures, 0)
        >>> gradient = kmeans.backward(weight, None, temperatures, 0, saved, torch.ones_like(soft))
    """

    passes: type[Batch] = Batch
    """Who goes through the vectors of some groups."""

    def __init__(self, dtype: torch.dtype, shape: Sequence[int], **arguments: Any) -> None:
        self._native = _native.SoftKMeans(NATIVE_NAMES.get(dtype, str(dtype)), tuple(shape), **arguments)
        self.settings = settings = SoftSettings(**arguments)
        self.dtype, self.shape, self.real = dtype, tuple(shape), real_dtype(dtype)
        self.groups, self.clusters = self._native.groups, self._native.clusters
        self.cluster_dim = settings.cluster_dim
        self.rows, self.cols = shape[0], math.prod(shape[1:])
        self.vectors = self.rows // self.groups // self.cluster_dim * self.cols
        self.soft_groups = min(self.groups, max(1, int(settings.enabled * self.groups)))
        self.finds_temperature = self._native.finds_temperature
        self.floor, self.prune_threshold = self._native.floor, self._native.prune_threshold
        size, floor, barred = self.clusters * self.cluster_dim, self.floor, None
        self.saved_len = self.soft_groups * (
            1 + size + (0 if settings.implicit else settings.iterations) * (size + self.clusters)
        )
        # Where no other weights must become zero, those that are not are kept this far from the first centroid.
        if settings.enforce_zero and self.prune_threshold == 0:
            barred = min(1 / floor, 1e30) if floor > 0 else 1e30
        self.attention = Attention(
            self.clusters, self.cluster_dim, self.cols, self.real, "hard" if settings.mode == "ste" else settings.mode,
            floor if settings.mode == "dkm" else 0.0, self.prune_threshold, barred,
        )  # fmt: skip
        self.storage = Storage(dtype, settings.lut_dtype, settings.scale_scheme is not None, self.cluster_dim)

    @torch.no_grad()
    def channel_scale(self, weight: Tensor) -> Tensor | None:
        """What each row is divided by, or None without a `scale_scheme`."""
        if self.settings.scale_scheme is None:
            return None
        least, most = weight.reshape(self.rows, -1).to(self.real).aminmax(dim=1)
        exact = torch.maximum(most, -least) if self.settings.scale_scheme == "abs" else (most - least) / 2
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
    def temperatures(self, weight: Tensor, centroids: Tensor, scale: Tensor | None) -> Tensor:
        """The temperature of each group by its first centroids, float32; none where the settings have one or need none."""
        if not self.finds_temperature:
            return torch.empty(0, device=weight.device)
        found = torch.empty(self.groups)
        factors = None if scale is None else as_bytes(scale.cpu().contiguous())
        values, tables = (tensor.detach().cpu().contiguous() for tensor in (weight, centroids))
        self._native.temperatures(as_bytes(values), as_bytes(tables), factors, as_bytes(found))
        return found.to(weight.device)

    @torch.no_grad()
    def forward(
        self, weight: Tensor, centroids: Tensor, scale: Tensor | None, temperatures: Tensor, noise: int
    ) -> tuple[Tensor, Tensor, Tensor]:
        """The soft weight, the centroids to start the next step from, and what is saved for `backward`.

        `temperatures` are those of the method, `noise` is the seed of mode "gsm". Groups that are not enabled get their nearest centroids.
        """
        values, following = self._vectors(weight), centroids.clone()
        out, saved = torch.empty_like(values), centroids.new_zeros(self.saved_len)
        views = self._views(saved)
        for groups in self._batches(self.soft_groups):
            batch = self._batch(groups, values, scale, temperatures, noise)
            start = self._apart(centroids[groups].clone())
            if self.attention.barred is not None:
                start[:, 0] = 0
            steps, before, after = self._iterate(batch, start, views, groups)
            if self.settings.implicit:
                start = before = after
            views.steps[groups], views.start[groups], following[groups] = steps, start, after
            if self.settings.mode == "ste":
                batch.put_nearest(out[groups], after, after, batch.scale, self.real)
                continue
            batch.put_product(out[groups], before, steps - 1, after)
        for groups in self._batches(self.groups, self.soft_groups):
            batch, held = self._batch(groups, values, scale), centroids[groups]
            batch.put_nearest(out[groups], held, held, batch.scale, self.real)
        return self._weight(out), following, saved

    @torch.no_grad()
    def backward(
        self, weight: Tensor, scale: Tensor | None, temperatures: Tensor, noise: int, saved: Tensor, grad: Tensor
    ) -> Tensor:
        """The gradient for the weight, given that for the soft weight; start centroids and scale are constants."""
        if self.settings.mode == "ste":
            trained = torch.zeros_like(grad)
            rows = self.rows // self.groups * self.soft_groups
            trained[:rows] = grad[:rows]
            return trained
        values, grads = self._vectors(weight), self._vectors(grad)
        out, views = torch.zeros_like(values, dtype=self.real), self._views(saved)
        for groups in self._batches(self.soft_groups):
            batch = self._batch(groups, values, scale, temperatures, noise)
            steps, start = views.steps[groups].long(), views.start[groups]
            if self.settings.implicit:
                self._add_implicit(batch, start, steps - 1, grads[groups], out[groups])
                continue
            to_centroids = torch.zeros_like(start)
            for step in reversed(range(int(steps.max()))):
                means, columns = views.means[groups, step], views.columns[groups, step]
                before = start if step == 0 else self._rounded(views.means[groups, step - 1])
                # Groups may have stopped at different steps: to one that has not come so far, nothing flows yet.
                last = (steps == step + 1)[:, None, None]
                after = self._rounded(means) * last
                at = torch.full_like(steps, step)
                if bool(last.any()):
                    to_centroids = torch.where(last, batch.through_product(before, at, grads[groups]), to_centroids)
                to_centroids = batch.gradient(
                    before, at, self._through_means(to_centroids, means, columns), (grads[groups], after), out[groups]
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

    def _iterate(self, batch: Batch, start: Tensor, views: _Saved, groups: slice) -> tuple[Tensor, Tensor, Tensor]:
        """The steps that each group makes, and its centroids before and after the last of them."""
        steps = torch.zeros(len(start), dtype=torch.long, device=start.device)
        running = torch.ones_like(steps, dtype=torch.bool)
        before, after, previous = start, start, start.new_zeros(len(start))
        for step in range(self.settings.iterations):
            means, columns, inertia = batch.means(after, torch.full_like(steps, step))
            if not self.settings.implicit:
                views.means[groups, step], views.columns[groups, step] = means, columns
            steps += running
            before = torch.where(running[:, None, None], after, before)
            after = torch.where(running[:, None, None], self._rounded(means), after)
            if step + 1 == self.settings.iterations:
                break
            # As in coremltools, a sum of exactly zero does not count as one that was there before.
            running &= (previous == 0) | ~((previous - inertia).abs() <= self.settings.epsilon)
            previous = inertia
            if step > 0 and not bool(running.any()):
                break
        return steps, before, after

    def _add_implicit(self, batch: Batch, fixed: Tensor, at: Tensor, grad: Tensor, out: Tensor) -> None:
        """Adds the gradient at a fixed point C = F(X, C), with u = g + (∂F/∂C)ᵀu, put in until it stays."""
        means, columns, _ = batch.means(fixed, at)
        nothing = torch.zeros_like(fixed), torch.zeros_like(columns)
        direct = batch.through_product(fixed, at, grad) + batch.gradient(fixed, at, nothing, (grad, fixed), None)
        small = 1e-12 if self.real == torch.float64 else 1e-6
        to_centroids = best = direct
        least = torch.full_like(at, torch.inf, dtype=self.real)
        for _ in range(_ROUNDS):
            last, through = to_centroids, self._through_means(to_centroids, means, columns)
            to_centroids = direct + batch.gradient(fixed, at, through, None, None)
            change = (to_centroids - last).norm(dim=(1, 2))
            # Where the centroids are no fixed point and the terms grow, the series ends with its least term.
            best, least = torch.where((change < least)[:, None, None], to_centroids, best), torch.minimum(change, least)
            if bool(((change <= small * to_centroids.norm(dim=(1, 2))) | (change > 2 * least)).all()):
                break
        to_centroids = best
        batch.gradient(fixed, at, self._through_means(to_centroids, means, columns), (grad, fixed), out)

    def _through_means(self, to_centroids: Tensor, means: Tensor, columns: Tensor) -> tuple[Tensor, Tensor]:
        """From the gradient of the centroids to those of N = AᵀX and the column sums, of which the means are made."""
        passes = columns != 0
        if self.settings.enforce_zero:
            passes[:, 0] = False
        to_sums = torch.where(passes[..., None], to_centroids / columns[..., None], 0.0)
        return to_sums, -(to_sums * means).sum(-1)

    def _rounded(self, means: Tensor) -> Tensor:
        """Means to centroids; the gradient passes straight through, but for a zero that is held."""
        centroids = means.clone() if self.settings.lut_dtype is None else self.storage.entries(means)
        if self.settings.enforce_zero:
            centroids[:, 0] = 0
        return centroids

    def _apart(self, centroids: Tensor) -> Tensor:
        """Moves duplicate centroids halfway to their neighbour, in place."""
        candidates = (centroids[..., 0].sort(1).values.diff(dim=1) == 0).any(1)
        for group in candidates.nonzero().flatten().tolist():
            table = centroids[group].cpu()  # not every device can do the next step
            unique, place, counts = torch.unique(table, dim=0, return_inverse=True, return_counts=True)
            if len(unique) < self.clusters * (1 - self.settings.cluster_tolerance):
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

    def _views(self, saved: Tensor) -> _Saved:
        """Views of what was saved."""
        groups, size = self.soft_groups, self.clusters * self.cluster_dim
        rest = saved[groups * (1 + size) :].view(groups, -1, self.clusters, self.cluster_dim + 1)
        start = saved[groups : groups * (1 + size)].view(groups, self.clusters, self.cluster_dim)
        return _Saved(saved[:groups], start, rest[..., :-1], rest[..., -1])

    def _batches(self, end: int, start: int = 0) -> Iterator[slice]:
        """Groups to be worked on together."""
        together = max(1, self.passes.together(end - start, self.vectors * self.clusters))
        for first in range(start, end, together):
            yield slice(first, min(end, first + together))

    def _batch(
        self, groups: slice, values: Tensor, scale: Tensor | None, temperatures: Tensor | None = None, noise: int = 0
    ) -> Batch:
        rows = None if scale is None else scale.reshape(self.groups, -1, self.cluster_dim)[groups]
        temperature: Tensor | float = self.settings.temperature or 1.0
        if self.finds_temperature and temperatures is not None:
            temperature = temperatures[groups, None, None].to(self.real)
        return self.passes(self.attention, groups.start, values[groups], rows, temperature, noise)


class _Saved(NamedTuple):
    """What is saved of all groups.

    The number of steps, the centroids before the first (with `implicit` after the last), and for each step, the second
    dim, the means and the column sums.
    """

    steps: Tensor
    start: Tensor
    means: Tensor
    columns: Tensor
