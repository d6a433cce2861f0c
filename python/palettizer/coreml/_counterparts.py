"""Configurations of coremltools as ours, and ours as those of coremltools."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

from palettizer.coreml._op_config import OpPalettizerConfig

_FIELDS = tuple(name for name in OpPalettizerConfig._settings if name != "lut_dtype")


def peer() -> Any:
    """The module of coremltools' configurations; `None` while coremltools is not imported."""
    return sys.modules.get("coremltools.optimize.coreml._config")


def is_op_config(config: object) -> bool:
    """Whether it says how an op is compressed: ours, or any of coremltools'."""
    return isinstance(config, OpPalettizerConfig) or _is_peers(config, "OpCompressorConfig")


def is_peers_config(config: object) -> bool:
    """Whether it is an `OptimizationConfig` of coremltools."""
    return _is_peers(config, "OptimizationConfig")


def _is_peers(config: object, kind: str) -> bool:
    return isinstance(config, getattr(peer(), kind, ()))


def op_palettizer_config(config: Any, where: str) -> OpPalettizerConfig | None:
    """What is set there, as ours; a `ValueError` if it is not palettization."""
    if config is None or isinstance(config, OpPalettizerConfig):
        return config
    if _is_peers(config, "OpPalettizerConfig"):
        return OpPalettizerConfig(**{name: getattr(config, name) for name in _FIELDS})
    raise ValueError(
        f"palettize_weights only accept OpPalettizerConfig type config. Got {type(config).__name__} in {where}; "
        "prune_weights, linear_quantize_weights and linear_quantize_activations take the others"
    )


def each(config: Any, make: Callable[[Any, str], Any]) -> dict[str, Any]:
    """The fields of an `OptimizationConfig`, ours or coremltools', with what is made of each op's and where that is."""
    fields: dict[str, Any] = {"global_config": make(config.global_config, "global_config")}
    for field in ("op_type_configs", "op_name_configs"):
        fields[field] = {name: make(op, f"{field}[{name!r}]") for name, op in getattr(config, field).items()}
    return fields


def peers_config(config: Any) -> Any:
    """Our `OptimizationConfig` as that of coremltools. Only coremltools asks, so it is imported."""
    return peer().OptimizationConfig(**each(config, _peers_op_config))


def _peers_op_config(config: Any, where: str) -> Any:
    if not isinstance(config, OpPalettizerConfig):
        return config
    if config.lut_dtype not in (None, "float"):
        raise ValueError(
            f"lut_dtype is {config.lut_dtype!r}, which coremltools' own palettization does not have; "
            "use palettizer.coreml.palettize_weights, or leave lut_dtype out"
        )
    fields = {name: getattr(config, name) for name in _FIELDS}
    fields["granularity"] = peer().CompressionGranularity[config.granularity.name]
    return peer().OpPalettizerConfig(**fields)
