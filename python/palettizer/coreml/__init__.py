"""Palettization of Core ML models, under the names of ``coremltools.optimize.coreml``.

A model comes as the path of an ``.mlpackage``, as a :class:`Model` of :func:`load`, or as a
``coremltools.models.MLModel``; what comes back is of the kind that came in (a path gives a :class:`Model`).

>>> import palettizer.coreml as cto
>>> config = cto.OptimizationConfig(global_config=cto.OpPalettizerConfig(nbits=4))
>>> small = cto.palettize_weights(cto.demo(), config)  # or of a path, or of an MLModel
>>> small.report.bytes_after < small.report.bytes_before
True
"""

from typing import NoReturn

from palettizer.coreml._metadata import CoreMLOpMetaData, CoreMLWeightMetaData, get_weights_metadata
from palettizer.coreml._model import Model, demo, load
from palettizer.coreml._op_config import CompressionGranularity, OpPalettizerConfig
from palettizer.coreml._optimization_config import OptimizationConfig
from palettizer.coreml._report import Report
from palettizer.coreml._weights import decompress_weights, palettize_weights

__all__ = [
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

_ELSEWHERE = (
    "OpLinearQuantizerConfig",
    "OpMagnitudePrunerConfig",
    "OpThresholdPrunerConfig",
    "experimental",
    "linear_quantize_activations",
    "linear_quantize_weights",
    "prune_weights",
)


def __getattr__(name: str) -> NoReturn:
    if name in _ELSEWHERE:
        raise AttributeError(
            f"palettizer.coreml has no {name}: palettizer palettizes. It is coremltools.optimize.coreml.{name}, "
            "and takes and gives the same MLModel objects"
        )
    raise AttributeError(f"module 'palettizer.coreml' has no attribute {name!r}")
