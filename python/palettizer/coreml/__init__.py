"""Palettization of Core ML models, under the names of `coremltools.optimize.coreml`.

A model comes as the path of an `.mlpackage`, as a `Model` of `load`, or as a
`coremltools.models.MLModel`; what comes back is of the kind that came in (a path gives a `Model`).

>>> import palettizer.coreml as cto
>>> config = cto.OptimizationConfig(global_config=cto.OpPalettizerConfig(nbits=4))
>>> small = cto.palettize_weights(cto.demo(), config)  # or of a path, or of an MLModel
>>> small.report.bytes_after < small.report.bytes_before
True

Pruning and linear quantization (`prune_weights`, `OpLinearQuantizerConfig` and the others) are coremltools' own and
come from there when they are first used; they take the configurations and the models of this module, and the other way
round.
"""

import importlib as _importlib
from typing import Any as _Any

from palettizer import _peer
from palettizer._budget import Budget
from palettizer.coreml._metadata import CoreMLOpMetaData, CoreMLWeightMetaData, get_weights_metadata
from palettizer.coreml._model import Model, demo, load
from palettizer.coreml._op_config import CompressionGranularity, OpPalettizerConfig
from palettizer.coreml._optimization_config import OptimizationConfig
from palettizer.coreml._report import Report
from palettizer.coreml._weights import decompress_weights, palettize_weights

__all__ = [
    "Budget",
    "CompressionGranularity",
    "CoreMLOpMetaData",
    "CoreMLWeightMetaData",
    "Model",
    "OpPalettizerConfig",
    "OptimizationConfig",
    "Report",
    "decompress_weights",
    "demo",
    "get_weights_metadata",
    "load",
    "palettize_weights",
]

# what coremltools has and we have not
_PEER = (
    "OpLinearQuantizerConfig",
    "OpMagnitudePrunerConfig",
    "OpThresholdPrunerConfig",
    "linear_quantize_activations",
    "linear_quantize_weights",
    "prune_weights",
)


def __getattr__(name: str) -> _Any:
    if name in _PEER:
        globals()[name] = _peer.attribute(__name__, "coremltools.optimize.coreml", name)
        return globals()[name]
    if name == "experimental":
        return _importlib.import_module("palettizer.coreml.experimental")
    raise AttributeError(f"module 'palettizer.coreml' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *_PEER, "experimental"})
