"""Palettization weighted by how much the loss depends on each weight."""

from __future__ import annotations

from dataclasses import dataclass

from palettizer.torch._settings import setting
from palettizer.torch.optimization_config import OptimizationConfig
from palettizer.torch.palettization._config import ModulePalettizerConfig, weight_threshold_setting


@dataclass
class ModuleSKMPalettizerConfig(ModulePalettizerConfig):
    """How the weights of a module are palettized.

    The settings are those of `ModulePostTrainingPalettizerConfig` without `enable_fast_kmeans_mode` and
    `rounding_precision`; `n_bits` may not be None.

    >>> ModuleSKMPalettizerConfig(n_bits=None)
    Traceback (most recent call last):
    TypeError: n_bits of ModuleSKMPalettizerConfig must be int, found None (NoneType)
    """

    n_bits: int = setting(4, types=int, cast=int)
    enable_per_channel_scale: bool = setting(False, types=bool, optional=True, cast=bool)
    weight_threshold: int = weight_threshold_setting(0)


@dataclass
class SKMPalettizerConfig(OptimizationConfig):
    """Which modules are palettized how, and with how many samples. Without arguments: all, with the defaults.

    Args:
        global_config: for all modules that nothing below matches.
        module_type_configs: by class, or by its name in torch.nn.
        module_name_configs: by qualified name, or a regular expression that matches all of it.
        calibration_nsamples: how many items of the data loader the sensitivities are computed of.

    >>> SKMPalettizerConfig.from_dict({"calibration_nsamples": 16}).global_config.n_bits
    4
    """

    module_config = ModuleSKMPalettizerConfig

    calibration_nsamples: int = setting(128, types=int, cast=int)
