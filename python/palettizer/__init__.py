"""Palettization (weight clustering) of Core ML and PyTorch models: exact, fast, on any machine.

A script that uses `coremltools.optimize` runs with the import changed:

    import palettizer as cto      # was: import coremltools.optimize as cto

    config = cto.coreml.OptimizationConfig(
        global_config=cto.coreml.OpPalettizerConfig(nbits=4)
    )

`palettizer.coreml` and `palettizer.runtime` need numpy alone; `palettizer.torch` and `estimate_memory` need torch; each is imported when it
is first used.

>>> import palettizer
>>> palettizer.coreml.OpPalettizerConfig(nbits=4).mode
'KMEANS'
"""

import importlib as _importlib
from typing import TYPE_CHECKING as _TYPE_CHECKING
from typing import Any as _Any

from palettizer._native import __version__

if _TYPE_CHECKING:
    from palettizer.torch.palettization._dkm.estimate import estimate_memory

__all__ = ["__version__", "coreml", "distributed", "estimate_memory", "runtime", "torch"]

_SUBMODULES = ("coreml", "distributed", "runtime", "torch")


def __getattr__(name: str) -> _Any:
    if name in _SUBMODULES:
        return _importlib.import_module(f"palettizer.{name}")
    if name == "estimate_memory":
        return _importlib.import_module("palettizer.torch.palettization._dkm.estimate").estimate_memory
    raise AttributeError(f"module 'palettizer' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *_SUBMODULES, "estimate_memory"})
