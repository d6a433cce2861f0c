"""The module that palettizes a weight in training, where scripts written for coremltools import it from."""

from palettizer.torch.palettization._dkm.fake_palettize import FakePalettize

__all__ = ["FakePalettize"]
