"""The end of training: hard weights and the buffers that a Core ML converter reads, for layers of their own classes.

All palettes are made before the first weight changes, and then Ctrl-C waits. A palette is small beside its weight. For parameters in shards,
all processes must come here together.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from palettizer import _native
from palettizer.torch.palettization._dkm.fake_palettize import FakePalettize
from palettizer.torch.palettization._dkm.layers import DKMLayer, held, is_pruned, remove, unpad
from palettizer.torch.palettization._dkm.pruned import commit
from palettizer.torch.palettization._dkm.qconfig import forget
from palettizer.torch.palettization._plan import metadata
from palettizer.torch.palettization._plan.palettize import check_values, undisturbed
from palettizer.torch.palettization._plan.tensors import DTYPES, write_values
from palettizer.torch.palettization._plan.walk import Owner, walk
from palettizer.torch.palettization._soft.settings import SoftSettings


def _trained(model: nn.Module) -> dict[FakePalettize, list[Owner]]:
    """What palettizes weights of a model now, in its order, and all places that hold the weight of each."""
    fakes = {(id(place.module), place.parameter): place.fake for place in held(model)}
    found: dict[FakePalettize, list[Owner]] = {}
    for owner in walk(model):
        fake = fakes.get((id(owner.module), owner.parameter))
        if fake is not None and fake.enabled:
            found.setdefault(fake, []).append(owner)
    return found


def weight_errors(model: nn.Module) -> dict[str, float]:
    """The root of the mean squared error of each weight that is palettized now, by the name it was prepared under."""
    return {fake.name: _error(_palette(fake, owners[0])) for fake, owners in _trained(model).items()}


def finalize_weights(model: nn.Module) -> dict[str, float]:
    """Makes a prepared model an ordinary one, and returns the errors that `weight_errors` would have.

    Raises:
        ValueError: NaN or infinite weights. The model is as it was.
    """
    commit(model)
    done = _trained(model)
    check_values(owners[0] for owners in done.values())
    palettes = [_palette(fake, owners[0]) for fake, owners in done.items()]
    with undisturbed():
        for (fake, owners), made in zip(done.items(), palettes):
            _store(owners, made, fake.settings)
        for layer in [module for module in model.modules() if isinstance(module, DKMLayer)]:
            remove(layer)
        unpad(model)
        forget(model)
        metadata.register_version(model.eval())
    return {fake.name: _error(made) for fake, made in zip(done, palettes)}


def _palette(fake: FakePalettize, owner: Owner) -> _native.Palette:
    module, parameter = owner.module, owner.parameter
    if is_pruned(module, parameter):
        with torch.no_grad():
            return fake.palette(getattr(module, f"{parameter}_orig") * getattr(module, f"{parameter}_mask"))
    with owner.values() as tensor:
        return fake.palette(tensor)


def _error(made: _native.Palette) -> float:
    return math.sqrt(made.error["mse"])


def _store(owners: list[Owner], made: _native.Palette, settings: SoftSettings) -> None:
    """Writes the hard weight to where it is held, and the record of it beside."""
    hard = torch.empty(tuple(made.shape), dtype=DTYPES[made.dtype])
    write_values(made, hard)
    with torch.no_grad(), owners[0].values(write=True) as tensor:
        tensor.copy_(settings.back(hard))
        stored = metadata.buffers(made, tensor.dtype)
    fields = {name: _unpermuted(name, value, settings) for name, value in stored.items()}
    for owner in owners:
        metadata.register(owner.module, owner.parameter, dict(fields), made.lut_integers is not None)


def _unpermuted(name: str, value: Tensor, settings: SoftSettings) -> Tensor:
    """A buffer of a permuted weight as one of the weight itself."""
    if name == "vector_axis" and settings.permutation is not None:
        return torch.tensor(settings.permutation[int(value)])
    return value if value.dim() == 0 else settings.back(value)
