"""The configs of differentiable k-means, where scripts written for coremltools import them from."""

from __future__ import annotations

from typing import Any

from torch import nn

from palettizer.torch.optimization_config import PalettizationGranularity
from palettizer.torch.palettization._dkm.config import DKMPalettizerConfig, ModuleDKMPalettizerConfig
from palettizer.torch.palettization._plan.layers import KINDS

_OPTIONS = ("quant_min", "quant_max", "dtype", "lut_dtype", "weight_threshold", "milestone", "quantize_activations",
            "enable_per_channel_scale", "granularity", "group_size")  # fmt: skip
_OTHERS = ("n_bits", "cluster_dim", "partition_size", "cluster_dtype", "implicit")
_DEFAULTS = ModuleDKMPalettizerConfig().as_dict()

DEFAULT_PALETTIZATION_OPTIONS: dict[str, Any] = {
    **{name: _DEFAULTS[name] for name in _OPTIONS},
    "granularity": _DEFAULTS["granularity"].value,
}
"""The settings that do not depend on the kind of layer, with their defaults."""

DEFAULT_PALETTIZATION_ADVANCED_OPTIONS: dict[str, Any] = {
    name: value for name, value in _DEFAULTS.items() if name not in (*_OPTIONS, *_OTHERS)
}
"""Those that few need to change, with their defaults."""

DEFAULT_PALETTIZATION_SCHEME: dict[type[nn.Module], dict[str, Any]] = {
    cls: {
        "n_bits": kind.n_bits,
        "cluster_dim": 1,
        **DEFAULT_PALETTIZATION_OPTIONS,
        **DEFAULT_PALETTIZATION_ADVANCED_OPTIONS,
    }
    for cls, kind in KINDS.items()
}
"""All settings of a kind of layers where none is given."""

SUPPORTED_PYTORCH_QAT_MODULES = (nn.Linear, nn.Conv2d, nn.Conv3d)
"""What coremltools trains by classes of torch.ao; here all kinds are trained alike."""

__all__ = [
    "DEFAULT_PALETTIZATION_ADVANCED_OPTIONS",
    "DEFAULT_PALETTIZATION_OPTIONS",
    "DEFAULT_PALETTIZATION_SCHEME",
    "DKMPalettizerConfig",
    "ModuleDKMPalettizerConfig",
    "PalettizationGranularity",
    "SUPPORTED_PYTORCH_QAT_MODULES",
]
