"""Palettization of PyTorch models, with the names of `coremltools.optimize.torch`.

>>> import torch
>>> from palettizer.torch.palettization import PostTrainingPalettizer
>>> model = PostTrainingPalettizer(torch.nn.Linear(8, 64)).compress(progress=False)
>>> len(model.weight.unique())
16
"""

from palettizer.torch import base_model_optimizer, optimization_config, palettization

__all__ = ["base_model_optimizer", "optimization_config", "palettization"]
