"""Centroids as a finished palette holds them, so that training sees the entries that there will be."""

from __future__ import annotations

import torch
from torch import Tensor

_LUT_FLOATS = {"f16": torch.float16, "bf16": torch.bfloat16}


class Storage:
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
