"""Palettization of PyTorch models, with the names of `coremltools.optimize.torch`.

>>> import torch
>>> from palettizer.torch.palettization import PostTrainingPalettizer
>>> model = PostTrainingPalettizer(torch.nn.Linear(8, 64)).compress(progress=False)
>>> len(model.weight.unique())
16
"""

try:
    import torch as _torch  # noqa: F401
except ImportError as error:
    raise ImportError("palettizer.torch needs the package torch: pip install torch") from error

from palettizer.torch import base_model_optimizer, optimization_config, palettization
from palettizer.torch.palettization import load_safetensors, save_safetensors

__all__ = ["base_model_optimizer", "load_safetensors", "optimization_config", "palettization", "save_safetensors"]
