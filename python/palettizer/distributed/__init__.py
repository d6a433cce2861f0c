"""Palettization on many machines.

`palettizer.distributed.ray` spreads the weights of a checkpoint or of a PyTorch model over a Ray cluster. It needs the
package `ray`, which is imported when it is used.
"""

import importlib as _importlib
from types import ModuleType as _ModuleType

__all__ = ["ray"]


def __getattr__(name: str) -> _ModuleType:
    if name == "ray":
        return _importlib.import_module("palettizer.distributed.ray")
    raise AttributeError(f"module 'palettizer.distributed' has no attribute {name!r}")
