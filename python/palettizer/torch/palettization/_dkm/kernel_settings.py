"""Configs of differentiable k-means as the kernels take them, and the other way round."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from palettizer.torch.optimization_config import PalettizationGranularity
from palettizer.torch.palettization._dkm.config import AUTO, FOUND, ModuleDKMPalettizerConfig
from palettizer.torch.palettization._plan.layers import Kind
from palettizer.torch.palettization._soft.settings import SoftSettings

_SAME = {
    "nbits": "n_bits",
    "cluster_dim": "cluster_dim",
    "group_size": "group_size",
    "iterations": "kmeans_max_iter",
    "temperature": "palett_tau",
    "epsilon": "palett_epsilon",
    "floor": "zero_threshold",
    "prune_threshold": "prune_threshold",
    "enforce_zero": "enforce_zero",
    "mode": "palett_mode",
    "enabled": "percentage_palett_enable",
    "cluster_tolerance": "palett_cluster_tol",
    "implicit": "implicit",
}
"""What the kernels call a setting, and its name in a config. What is "auto" there is None here."""


def soft_settings(config: ModuleDKMPalettizerConfig, kind: Kind, shape: Sequence[int]) -> SoftSettings:
    """A resolved config as the kernels take it, for a weight of a kind of layers."""
    given = {ours: getattr(config, theirs) for ours, theirs in _SAME.items()}
    same: dict[str, Any] = {ours: None if value == AUTO else value for ours, value in given.items()}
    return SoftSettings(
        **same,
        lut_dtype=config.native_lut_dtype,
        scale_scheme=config.per_channel_scaling_factor_scheme if config.enable_per_channel_scale else None,
        starts=config.starts,
        permutation=permutation_of(config, kind, len(shape)),
    )


def config_of(settings: SoftSettings) -> ModuleDKMPalettizerConfig:
    """A config that would lead to some settings, as far as there is one."""
    same = {theirs: getattr(settings, ours) for ours, theirs in _SAME.items()}
    same.update({theirs: AUTO for theirs in FOUND if same[theirs] is None})
    return ModuleDKMPalettizerConfig(
        **{**same, "kmeans_max_iter": max(1, settings.iterations)},
        granularity=PalettizationGranularity("per_tensor" if settings.group_size is None else "per_grouped_channel"),
        enable_per_channel_scale=settings.scale_scheme is not None,
        per_channel_scaling_factor_scheme=settings.scale_scheme or "min_max",
        lut_dtype=settings.lut_dtype or "f32",
    )


def permutation_of(config: ModuleDKMPalettizerConfig, kind: Kind, rank: int) -> tuple[int, ...] | None:
    """The order of axes that a weight of some rank is brought to, or None if it is the one that it has."""
    if config.cluster_permute is not None:
        return config.cluster_permute
    return (1, 0, *range(2, rank)) if kind.axes == (1, 0) else None
