"""What the module configs of all palettizers share."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch

from palettizer._budget import Budget
from palettizer.torch._settings import one_of, setting
from palettizer.torch.optimization_config import (
    ModuleOptimizationConfig,
    OptimizationConfig,
    PalettizationGranularity,
    check_group_size,
    granularity_setting,
)

_DTYPES = {
    "int8": torch.int8,
    "uint8": torch.uint8,
    # PyTorch has no narrower integers; coremltools takes these names for the 8-bit types.
    "int4": torch.int8,
    "int3": torch.int8,
    "uint4": torch.uint8,
    "uint3": torch.uint8,
}
_OTHER_DTYPES = (
    "qint8", "quint8", "qint4", "quint4", "float16", "float32", "fp8_e4m3fn", "fp8_e5m2",
)  # fmt: skip


def to_lut_dtype(value: Any) -> Any:
    """A dtype of torch by itself, one of numpy, or its name. Anything else is a `ValueError`.

    >>> to_lut_dtype("UINT8"), to_lut_dtype(np.int8), to_lut_dtype(np.dtype("uint8"))
    (torch.uint8, torch.int8, torch.uint8)
    """
    if isinstance(value, torch.dtype) or (not isinstance(value, type) and not value):
        return value
    known = ", ".join([*_DTYPES, *_OTHER_DTYPES])
    name = dtype_name(value).lower()
    if name in _DTYPES:
        return _DTYPES[name]
    raise ValueError(f"lut_dtype must be torch.int8, torch.uint8 or their names, found {value!r} (known names: {known})")


def dtype_name(value: Any) -> str:
    """The name of a dtype of torch or numpy, or a name, without the package.

    >>> dtype_name(torch.int8), dtype_name(np.int8), dtype_name("torch.int8"), dtype_name(8)
    ('int8', 'int8', 'int8', '')
    """
    if isinstance(value, type) and issubclass(value, np.generic):
        value = np.dtype(value)
    if isinstance(value, (torch.dtype, np.dtype)):
        value = str(value)
    return value.rpartition(".")[2] if isinstance(value, str) else ""


def check_cluster_dim(config: Any, cluster_dim: int | None) -> None:
    """Vectors and a per-channel scale do not go together. As in coremltools, that is an `AssertionError`."""
    if cluster_dim and cluster_dim > 1 and config.enable_per_channel_scale:
        raise AssertionError(
            f"cluster_dim of {type(config).__name__} is {cluster_dim}; with enable_per_channel_scale it must be 1"
        )


@dataclass
class ModulePalettizerConfig(ModuleOptimizationConfig):
    """The settings that post-training and sensitive k-means have in common, in coremltools' order."""

    n_bits: int | None = setting(4, int, optional=True)
    lut_dtype: torch.dtype | None = setting(
        None, torch.dtype, one_of(torch.int8, torch.uint8), optional=True, convert=to_lut_dtype
    )
    granularity: PalettizationGranularity = granularity_setting()
    group_size: int | None = setting(None, int, optional=True, together=check_group_size)
    channel_axis: int | None = setting(0, int, one_of(0, 1), optional=True, cast=int)
    cluster_dim: int | None = setting(None, int, optional=True, together=check_cluster_dim)
    enable_per_channel_scale: bool | None = setting(False, bool, optional=True)


@dataclass
class BudgetedConfig(OptimizationConfig):
    """What the containers of post-training, sensitive and layer-wise palettization have in common."""

    budget: Budget | None = setting(
        None, Budget, optional=True, cast=lambda value: value if value is None else Budget.from_dict(value)
    )

    def as_dict(self) -> dict[str, Any]:
        """The settings as a dict: those of coremltools, and the budget if there is one."""
        return {name: value for name, value in super().as_dict().items() if name != "budget" or value is not None}

    def for_budget(self) -> BudgetedConfig:
        """The same, with a config for all that leaves whatever is to be chosen to the budget."""
        base: Any = self.module_config() if self.global_config is None else self.global_config
        free = replace(base, n_bits=8, granularity=PalettizationGranularity.per_tensor, group_size=None)
        return replace(self, global_config=free)
