"""How one weight is palettized in training, as the kernels and the operators take it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import cache
from typing import Any

import torch

from palettizer import _native
from palettizer.torch.palettization._plan.tensors import NAMES

DEFAULTS = _native.dkm_defaults()
"""The defaults of differentiable k-means, which stand in Rust."""


@dataclass(frozen=True)
class SoftSettings:
    """How one weight is palettized: the arguments of the kernels, one for one, and a permutation of its axes before.

    None for `temperature`, `floor` or `prune_threshold` has it found. Many fields, because the kernels have as many.
    """

    nbits: int
    cluster_dim: int = DEFAULTS["cluster_dim"]
    group_size: int | None = DEFAULTS["group_size"]
    iterations: int = DEFAULTS["iterations"]
    temperature: float | None = DEFAULTS["temperature"]
    epsilon: float = DEFAULTS["epsilon"]
    floor: float | None = DEFAULTS["floor"]
    prune_threshold: float | None = DEFAULTS["prune_threshold"]
    enforce_zero: bool = DEFAULTS["enforce_zero"]
    mode: str = DEFAULTS["mode"]
    lut_dtype: str | None = None
    scale_scheme: str | None = None
    enabled: float = DEFAULTS["enabled"]
    cluster_tolerance: float = DEFAULTS["cluster_tolerance"]
    starts: int = DEFAULTS["starts"]
    seed: int = DEFAULTS["seed"]
    implicit: bool = DEFAULTS["implicit"]
    permutation: tuple[int, ...] | None = None

    def text(self) -> str:
        """The settings as the operators take them.

        >>> SoftSettings(2).text()[:24]
        '{"cluster_dim": 1, "clus'
        """
        return json.dumps(asdict(self), sort_keys=True)

    def arguments(self) -> dict[str, Any]:
        """What the kernels take."""
        arguments = asdict(self)
        del arguments["permutation"]
        return arguments

    def permuted(self, shape: Sequence[int]) -> tuple[int, ...]:
        """The shape that a weight of some shape has for the kernels."""
        return tuple(shape) if self.permutation is None else tuple(shape[axis] for axis in self.permutation)

    def back(self, values: torch.Tensor) -> torch.Tensor:
        """A tensor whose first axes are permuted ones, in the weight's own order; further axes stay."""
        if self.permutation is None:
            return values
        inverse = [self.permutation.index(axis) for axis in range(len(self.permutation))]
        return values.permute(*inverse, *range(len(inverse), values.dim())).contiguous()


@cache
def parsed(text: str) -> SoftSettings:
    """The settings of their text."""
    fields = json.loads(text)
    permutation = fields.pop("permutation")
    return SoftSettings(**fields, permutation=None if permutation is None else tuple(permutation))


NATIVE_NAMES = {**NAMES, torch.float64: "f64"}


def real_dtype(dtype: torch.dtype) -> torch.dtype:
    """What centroids and scales of a weight are held in: at least float32."""
    return torch.float64 if dtype == torch.float64 else torch.float32
