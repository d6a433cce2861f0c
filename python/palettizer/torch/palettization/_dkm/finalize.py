"""The end of training: hard weights and the buffers that a Core ML converter reads, for layers of their own classes.

All palettes are made before the first weight changes, and then Ctrl-C waits. A palette is small beside its weight. For parameters in shards,
all processes must come here together.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from palettizer import _native
from palettizer.torch.palettization._dkm.fake_palettize import FakePalettize
from palettizer.torch.palettization._dkm.layers import DKMLayer, held, is_pruned, remove, unpad
from palettizer.torch.palettization._dkm.pruned import commit
from palettizer.torch.palettization._dkm.qconfig import forget
from palettizer.torch.palettization._plan import metadata
from palettizer.torch.palettization._plan.palettize import check_values, undisturbed
from palettizer.torch.palettization._plan.plan import Weight
from palettizer.torch.palettization._plan.tensors import DTYPES, write_values
from palettizer.torch.palettization._plan.walk import walk


class Trained(NamedTuple):
    """A weight, all places that hold it, and what palettizes it."""

    weight: Weight
    fake: FakePalettize


def trained(model: nn.Module) -> list[Trained]:
    """The prepared weights of a model, in its order."""
    fakes = {(id(place.module), place.parameter): place.fake for place in held(model)}
    found: dict[int, Trained] = {}
    for owner in walk(model):
        fake = fakes.get((id(owner.module), owner.parameter))
        if fake is not None:
            found.setdefault(id(fake), Trained(Weight([], None), fake)).weight.owners.append(owner)
    return list(found.values())


def weight_errors(model: nn.Module) -> dict[str, float]:
    """The root of the mean squared error of each weight that is palettized now, by the name it was prepared under."""
    return {one.fake.name: _error(_palette(one)) for one in trained(model) if one.fake.enabled}


def finalize_weights(model: nn.Module) -> dict[str, float]:
    """Makes a prepared model an ordinary one, and returns the errors that `weight_errors` would have.

    Raises:
        ValueError: NaN or infinite weights. The model is as it was.
    """
    commit(model)
    done = [one for one in trained(model) if one.fake.enabled]
    check_values(one.weight for one in done)
    palettes = [_palette(one) for one in done]
    with undisturbed():
        for one, made in zip(done, palettes):
            _store(one, made)
        for layer in [module for module in model.modules() if isinstance(module, DKMLayer)]:
            remove(layer)
        unpad(model)
        forget(model)
        metadata.register_version(model.eval())
    return {one.fake.name: _error(made) for one, made in zip(done, palettes)}


def _palette(one: Trained) -> _native.Palette:
    module, parameter = one.weight.owners[0].module, one.weight.owners[0].parameter
    if is_pruned(module, parameter):
        with torch.no_grad():
            return one.fake.palette(getattr(module, f"{parameter}_orig") * getattr(module, f"{parameter}_mask"))
    with one.weight.owners[0].values() as tensor:
        return one.fake.palette(tensor)


def _error(made: _native.Palette) -> float:
    return math.sqrt(made.error["mse"])


def _store(one: Trained, made: _native.Palette) -> None:
    """Writes the hard weight to where it is held, and the record of it beside."""
    permutation = one.fake.settings.permutation
    hard = torch.empty(tuple(made.shape), dtype=DTYPES[made.dtype])
    write_values(made, hard)
    with torch.no_grad(), one.weight.owners[0].values(write=True) as tensor:
        tensor.copy_(_back(hard, permutation))
        stored = metadata.buffers(made, tensor.dtype)
    fields = {name: _unpermuted(name, value, permutation) for name, value in stored.items()}
    for owner in one.weight.owners:
        metadata.register(owner.module, owner.parameter, dict(fields), made.lut_integers is not None)


def _unpermuted(name: str, value: Tensor, permutation: Sequence[int] | None) -> Tensor:
    """A buffer of a permuted weight as one of the weight itself."""
    if permutation is None:
        return value
    if name == "vector_axis":
        return torch.tensor(permutation[int(value)])
    return value if value.dim() == 0 else _back(value, permutation)


def _back(value: Tensor, permutation: Sequence[int] | None) -> Tensor:
    """A tensor whose first axes are permuted ones, in the order before; further axes stay."""
    if permutation is None:
        return value
    inverse = [permutation.index(axis) for axis in range(len(permutation))]
    return value.permute(*inverse, *range(len(inverse), value.dim())).contiguous()
