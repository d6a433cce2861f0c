"""What a config of differentiable k-means speaks of: layers with their weights, and parameters that it names."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from torch import nn

from palettizer.torch.palettization._dkm.config import ModuleDKMPalettizerConfig
from palettizer.torch.palettization._plan.layers import BARE, Kind, Place, kind_of, weights
from palettizer.torch.palettization._plan.reasons import Named
from palettizer.torch.palettization._plan.sharding import plain_name
from palettizer.torch.palettization._plan.walk import Owner


@dataclass
class Layer:
    """Weights of a module that a config speaks of together, and what it says of them."""

    name: str
    module: nn.Module
    kind: Kind
    owners: dict[Place, Owner]
    config: ModuleDKMPalettizerConfig | None = None


def layers_of(owners: Sequence[Owner]) -> list[Layer]:
    """The modules that can be prepared, in the model's order, with those of their weights that there are."""
    holding: dict[tuple[int, str], Owner] = {(id(owner.module), owner.parameter): owner for owner in owners}
    modules = {id(owner.module): (owner.module_name, owner.module) for owner in owners}
    places = {key: weights(module) for key, (_, module) in modules.items()}
    used = {id(place.module(modules[key][1])) for key, found in places.items() for place in found if place.within}
    layers = []
    for key, (name, module) in modules.items():
        kind = kind_of(module)
        if kind is None or key in used:
            continue
        there = {place: holding.get((id(place.module(module)), place.parameter)) for place in places[key]}
        found = {place: owner for place, owner in there.items() if owner is not None}
        for part in [{place: owner} for place, owner in found.items()] if kind.apart else [found] if found else []:
            layers.append(Layer(name, module, kind, part))
    return layers


def named_parameters(model: nn.Module, owners: Sequence[Owner], named: Named) -> Iterator[Layer]:
    """The parameters that are no layer's weights and that the config names, each in the module whose forward reads it."""
    modules = {plain_name(name): module for name, module in model.named_modules()}
    for owner in owners:
        if not is_weight(owner) and named.config(owner) is not None:
            names = owner.module_name.split(".") if owner.module_name else []
            own = len(names)
            # A list or dict of parameters is read by the module around it.
            while own > 0 and type(modules[".".join(names[:own])]).forward is nn.Module.forward:
                own -= 1
            name = ".".join(names[:own])
            place = Place(".".join(names[own:]), owner.parameter)
            yield Layer(name, modules[name], BARE, {place: owner})


def is_weight(owner: Owner) -> bool:
    return owner.kind is not None and owner.kind.has(owner.parameter)
