"""The settings of palettization that the tests combine: factors, rules, and the words that a config takes."""

from dataclasses import dataclass

import pairwise
import torch
from torch_support import layers

FACTORS = {
    "kind": tuple(layers.KINDS),
    "n_bits": (1, 2, 3, 4, 6, 8),
    "group_size": (None, 1, 2, 8, 16),  # None: per_tensor
    "channel_axis": (0, 1),
    "cluster_dim": (None, 2, 4),
    "scale": (False, True),
    "lut_dtype": (None, "int8", "uint8"),
    "dtype": tuple(layers.DTYPES),
}

RULES = [
    (("cluster_dim", "scale"), lambda dim, scale: not (dim and scale)),
    (("group_size", "cluster_dim"), lambda size, dim: size is None or dim is None or size % dim == 0),
]


@dataclass(frozen=True)
class Setting:
    """One combination; channel counts of all kinds are multiples of 16, so that everything divides."""

    kind: str = "linear"
    n_bits: int = 4
    group_size: int = None
    channel_axis: int = 0
    cluster_dim: int = None
    scale: bool = False
    lut_dtype: str = None
    dtype: str = "fp32"

    def __str__(self):
        words = [self.kind, f"{self.n_bits}bits", self.dtype]
        words += [f"groups{self.group_size}"] if self.group_size else []
        words += [f"axis{self.channel_axis}"] if self.channel_axis else []
        words += [f"dim{self.cluster_dim}"] if self.cluster_dim else []
        words += ["scale"] if self.scale else []
        words += [self.lut_dtype] if self.lut_dtype else []
        return "-".join(words)

    @property
    def options(self):
        """Keyword arguments of a module config."""
        grouped = {"granularity": "per_grouped_channel", "group_size": self.group_size} if self.group_size else {}
        return {
            "n_bits": self.n_bits, "channel_axis": self.channel_axis, "cluster_dim": self.cluster_dim,
            "enable_per_channel_scale": self.scale, "lut_dtype": self.torch_lut_dtype, **grouped,
        }

    @property
    def torch_lut_dtype(self):
        return {None: None, "int8": torch.int8, "uint8": torch.uint8}[self.lut_dtype]

    @property
    def vector(self):
        return self.cluster_dim or 1


def cover(**fixed):
    """Settings in which every pair of values that can occur does."""
    rows, _ = pairwise.rows(FACTORS, RULES, fixed)
    return [Setting(**row) for row in rows]
