"""Soft k-means on NVIDIA GPUs: the steps of `TorchSoftKMeans`, with passes over the vectors that are kernels of Triton.

A pass reads each vector once and keeps the attention to it in registers. Beside its results it takes clusters ×
(cluster_dim + 1) numbers for each program, of which there are some thousands, or one for each group where those are more.

Importing this needs Triton, which comes with PyTorch on Linux and is no dependency: `kernels.kernel` looks for it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from palettizer.torch.palettization._soft import triton_kernels
from palettizer.torch.palettization._soft.blocks import Batch
from palettizer.torch.palettization._soft.k_means import TorchSoftKMeans
from palettizer.torch.palettization._soft.settings import SoftSettings, real_dtype

PROGRAMS = 4096
"""About how many programs there are of few groups. Each is a warp, and a large GPU holds some thousands."""
LONGEST = 2048
"""Most tiles of a program: each lane sums so many numbers in 32 bits, and longer sums would lose digits."""
LANE = 64
"""Bytes of a tile for each lane, about: the gradient has seven tiles in registers, and larger ones would be spilled."""
_TABLE = 8192
"""Most bytes of a table of which such tiles can be made."""
_DTYPES = {torch.float64: tl.float64, torch.float32: tl.float32, torch.float16: tl.float16, torch.bfloat16: tl.bfloat16}


class TritonBatch(Batch):
    """Some groups of a weight, gone through by kernels; the methods are those of `Batch`."""

    @staticmethod
    def together(groups: int, attentions: int) -> int:
        """All: their attention is never in memory."""
        return groups

    def put_nearest(
        self, out: Tensor, entries: Tensor, numbers: Tensor, factors: Tensor | None, dtype: torch.dtype
    ) -> None:
        """As `Batch` has it."""
        tensors = entries.contiguous(), numbers.contiguous(), factors, out
        self._launch(triton_kernels.nearest, tensors, PRUNE=self.of.prune_threshold, ROUNDED=_DTYPES[dtype])

    def means(self, c: Tensor, at: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """As `Batch` has it; the sum of distances is of float64."""
        sums, columns, inertia = self._partial(c), self._partial(c[..., 0]), self._partial(c[:, 0, 0])
        self._attend(triton_kernels.means, c, at, sums, columns, inertia)
        total, weights = _total(sums), _total(columns)
        found = torch.where(weights[..., None] == 0, c, total / weights[..., None])
        return found.to(c.dtype), weights.to(c.dtype), _total(inertia)

    def put_product(self, out: Tensor, c: Tensor, at: Tensor, after: Tensor) -> None:
        """As `Batch` has it."""
        self._attend(triton_kernels.product, c, at, after.contiguous(), out)

    def through_product(self, c: Tensor, at: Tensor, grad: Tensor) -> Tensor:
        """As `Batch` has it."""
        sums = self._partial(c)
        self._attend(triton_kernels.through_product, c, at, grad.contiguous(), sums)
        return _total(sums).to(c.dtype)

    def gradient(
        self,
        c: Tensor,
        at: Tensor,
        through: tuple[Tensor, Tensor],
        product: tuple[Tensor, Tensor] | None,
        out: Tensor | None,
    ) -> Tensor:
        """As `Batch` has it."""
        grad, after = (None, None) if product is None else (tensor.contiguous() for tensor in product)
        sums = self._partial(c)
        tables = (table.contiguous() for table in through)
        self._attend(triton_kernels.gradient, c, at, *tables, grad, after, out, sums)
        return _total(sums).to(c.dtype)

    def _attend(self, kernel: Any, c: Tensor, at: Tensor, *tensors: Tensor | None) -> None:
        """Launches a kernel that makes the attention to centroids."""
        temperature = self.temperature
        if not isinstance(temperature, Tensor):
            temperature = c.new_full((len(c),), temperature)
        table = c.clone(memory_format=torch.contiguous_format)  # Triton compiles once more for what is not aligned
        seeds = self.seeds(at) if self.of.mode == "gsm" else None
        self._launch(
            kernel, (table, temperature.reshape(-1), seeds, *tensors), HARD=self.of.mode == "hard", FLOOR=self.of.floor,
            PRUNE=self.of.prune_threshold, BARRED=self.of.barred,
        )  # fmt: skip

    def _launch(self, kernel: Any, tensors: tuple[Tensor | None, ...], **constants: Any) -> None:
        groups, vectors, dim = self.values.shape
        tile, warps = self._tile()
        programs = self._programs()
        scale = None if self.scale is None else self.scale.contiguous()
        with torch.cuda.device_of(self.values):  # type: ignore[no-untyped-call]
            kernel[(groups * programs,)](
                self.values.contiguous(), scale, *tensors, vectors, dim, self.of.cols, programs,
                K=self.of.clusters, D=triton.next_power_of_2(dim), B=tile, **constants,
                num_warps=warps, enable_fp_fusion=True,
            )  # fmt: skip

    def _tile(self) -> tuple[int, int]:
        """The vectors of a tile, and the warps of a program: one, where that has room, for one never waits for another."""
        table = _table(self.of.cluster_dim, self.of.clusters, self.of.real)
        vectors = max(2, 32 * LANE // table)
        return vectors, max(1, vectors * table // (32 * LANE))

    def _programs(self) -> int:
        """For each group. It follows from the shape alone, and so do the roundings of sums."""
        groups, vectors, _ = self.values.shape
        tiles = -(-vectors // self._tile()[0])
        return min(tiles, max(-(-PROGRAMS // groups), -(-tiles // LONGEST)))

    def _partial(self, like: Tensor) -> Tensor:
        """Room for what each program has of a table of each group."""
        return like.new_empty(len(like), self._programs(), *like.shape[1:])


def _total(partial: Tensor) -> Tensor:
    """The sum over the programs of each group, always in the same order."""
    return partial.sum(1, dtype=torch.float64)


def _table(dim: int, clusters: int, real: torch.dtype) -> int:
    """Bytes of a table in registers."""
    return int(triton.next_power_of_2(dim)) * clusters * real.itemsize


class TritonSoftKMeans(TorchSoftKMeans):
    """`TorchSoftKMeans` of a weight on an NVIDIA GPU, with kernels of Triton."""

    passes = TritonBatch

    @staticmethod
    def takes(dtype: torch.dtype, shape: Sequence[int], settings: SoftSettings) -> bool:
        """Whether such weights are for the kernels: their places must have 32 bits, and tables must not be too large."""
        table = _table(settings.cluster_dim, 2**settings.nbits, real_dtype(dtype))
        return math.prod(shape) <= 2**30 and table <= _TABLE


def try_out(nbits: int, cluster_dim: int, device: str = "cuda") -> None:
    """Makes a step of a small weight with all kernels, and compares it with torch operations on the CPU.

    The bits and the size of vectors are those that tiles and tables have, for which kernels are compiled.

    Raises:
        Exception: of any kind, if that fails. Triton needs a C compiler, and a driver that is not too old.
        AssertionError: if something else comes out.
    """
    clusters, shape = 2**nbits, (4 * cluster_dim, 16 * 2**nbits)
    weight = torch.linspace(-1, 1, math.prod(shape)).view(shape)
    # Unevenly spread, so that no vector is as near to one as to another.
    centroids = (torch.linspace(-0.93, 0.97, clusters) ** 3).view(1, clusters, 1).repeat(1, 1, cluster_dim)
    settings = SoftSettings(nbits, cluster_dim, temperature=0.1)
    theirs, ours = (
        _step(make(torch.float32, shape, **settings.arguments()), weight.to(on), centroids.to(on))
        for make, on in ((TorchSoftKMeans, "cpu"), (TritonSoftKMeans, device))
    )
    torch.testing.assert_close([tensor.cpu() for tensor in ours], theirs, rtol=1e-3, atol=1e-4)


def _step(kmeans: TorchSoftKMeans, weight: Tensor, centroids: Tensor) -> list[Tensor]:
    """The soft weight, the next centroids, a gradient, and the hard weight."""
    none = torch.empty(0, device=weight.device)
    out, following, saved = kmeans.forward(weight, centroids, None, none, 0)
    gradient = kmeans.backward(weight, None, none, 0, saved, weight)
    return [out, following, gradient, kmeans.assign(weight, centroids, None)]
