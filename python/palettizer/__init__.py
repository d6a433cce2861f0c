"""Palettization (weight clustering) of Core ML and PyTorch models: exact, fast, on any machine.

A script that uses ``coremltools.optimize`` runs with the import changed:

    import palettizer as cto      # was: import coremltools.optimize as cto

    config = cto.coreml.OptimizationConfig(
        global_config=cto.coreml.OpPalettizerConfig(nbits=4)
    )

``palettizer.coreml`` needs numpy alone; ``palettizer.torch`` needs torch; both are imported when they are first used.

>>> import palettizer
>>> palettizer.coreml.OpPalettizerConfig(nbits=4).mode
'KMEANS'
"""

import importlib as _importlib
from types import ModuleType as _ModuleType

from palettizer._native import __version__

__all__ = ["__version__", "coreml", "distributed", "torch"]

_SUBMODULES = ("coreml", "distributed", "torch")


def __getattr__(name: str) -> _ModuleType:
    if name in _SUBMODULES:
        return _importlib.import_module(f"palettizer.{name}")
    raise AttributeError(f"module 'palettizer' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *_SUBMODULES})
