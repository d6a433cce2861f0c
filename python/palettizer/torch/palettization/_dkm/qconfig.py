"""The attribute `qconfig` that torch.ao.quantization gives all layers of a model in training.

coremltools prepares layers by it, and scripts read there which layers are palettized and how: for the others it is
None. Here nothing depends on it; it goes when the model is finalized.
"""

from __future__ import annotations

from torch import nn
from torch.ao.quantization import QConfig

from palettizer.torch.palettization._dkm.fake_palettize import FakePalettize
from palettizer.torch.palettization._dkm.layers import DKMLayer, held
from palettizer.torch.palettization._plan.layers import kind_of

_NAME = "qconfig"


class _Told(QConfig):
    """One of ours, by which it is known again."""


def tell(model: nn.Module) -> None:
    """Gives every layer of a prepared model that has no `qconfig` one."""
    for module in model.modules():
        if kind_of(module) is not None and _NAME not in vars(module):
            vars(module)[_NAME] = _of(module) if isinstance(module, DKMLayer) else None


def _of(layer: DKMLayer) -> QConfig:
    config = next(held(layer)).fake.config.as_dict()
    return _Told(activation=nn.Identity, weight=FakePalettize.with_args(**config))  # type: ignore[no-untyped-call]


def forget(model: nn.Module) -> None:
    """Takes `tell` back."""
    for module in model.modules():
        told = vars(module).get(_NAME)
        if isinstance(told, _Told) or (told is None and kind_of(module) is not None):
            vars(module).pop(_NAME, None)
