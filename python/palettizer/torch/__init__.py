"""Palettization of PyTorch models, with the names of `coremltools.optimize.torch`.

>>> import torch
>>> from palettizer.torch.palettization import PostTrainingPalettizer
>>> model = PostTrainingPalettizer(torch.nn.Linear(8, 64)).compress(progress=False)
>>> len(model.weight.unique())
16

Pruning, quantization and layer-wise compression are coremltools' own and come from there when they are first used.
"""

import importlib as _importlib
from typing import Any as _Any

try:
    import torch as _torch  # noqa: F401
except ImportError as error:
    raise ImportError("palettizer.torch needs the package torch: pip install torch") from error

from palettizer.torch import base_model_optimizer, optimization_config, palettization
from palettizer.torch.palettization import load_safetensors, save_safetensors

__all__ = ["base_model_optimizer", "load_safetensors", "optimization_config", "palettization", "save_safetensors"]

_PEER = ("layerwise_compression", "pruning", "quantization")


def __getattr__(name: str) -> _Any:
    if name in _PEER:
        return _importlib.import_module(f"palettizer.torch.{name}")
    raise AttributeError(f"module 'palettizer.torch' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *_PEER})
