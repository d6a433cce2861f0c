"""Palettizers of models in training, where scripts written for coremltools import them from."""

from palettizer.torch.palettization.differentiable_k_means import DKMPalettizer, Palettizer

__all__ = ["DKMPalettizer", "Palettizer"]
