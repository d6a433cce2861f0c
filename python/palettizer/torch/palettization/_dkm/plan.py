"""Which weights of a model are palettized while it is trained, how, and why the others are not.

As in post-training, the plan is made before anything changes, and every parameter is in it. A config speaks of a
layer, with all of its weights, or of each matrix of a recurrent one, or of a parameter that it names. A tensor that
several layers share is one weight, which all of them see palettized.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import Any

from torch import nn

from palettizer.torch.palettization._dkm.candidates import Layer, layers_of, named_parameters
from palettizer.torch.palettization._dkm.choice import configure, leave
from palettizer.torch.palettization._dkm.config import DKMPalettizerConfig
from palettizer.torch.palettization._dkm.kernel_settings import soft_settings
from palettizer.torch.palettization._dkm.layers import is_free
from palettizer.torch.palettization._plan.layers import BARE, kind_of
from palettizer.torch.palettization._plan.plan import Weight, warn_of_conversion
from palettizer.torch.palettization._plan.reasons import Named
from palettizer.torch.palettization._plan.walk import Memory, Owner, walk
from palettizer.torch.palettization._soft.settings import SoftSettings

_logger = logging.getLogger(__name__)


@dataclass
class SoftWeight(Weight):
    """A tensor that will be palettized, with all places in layers that hold it; the first config decides."""

    settings: SoftSettings

    @property
    def integers(self) -> bool:
        """Whether its table is of integers."""
        return self.settings.lut_dtype in ("int8", "uint8")


@dataclass
class DKMPlan:
    """What happens to each parameter.

    `weights` are by the identity of the tensor; `layers` are those with a weight among them, of a module there may be
    several; `reasons` says of the other parameters, by qualified name, why they are left alone.
    """

    owners: list[Owner]
    weights: dict[Any, SoftWeight]
    layers: list[Layer]
    reasons: dict[str, str]


def make_plan(model: nn.Module, config: DKMPalettizerConfig) -> DKMPlan:
    """Decides for every parameter of a model. Changes nothing.

    Logs a warning for what the user asked for and does not get, as post-training does.

    Raises:
        ValueError: settings that no weight can be palettized with, or a pattern that is no regular expression.
    """
    named = Named(model, config)
    owners = list(walk(model))
    layers = [*layers_of(owners), *named_parameters(model, owners, named)]
    claimed = {id(owner): layer for layer in layers for owner in layer.owners.values()}
    holders = {id(owner.module) for owner in owners if id(owner) in claimed}
    reasons = {owner.name: _no_weight(owner, id(owner.module) in holders) for owner in owners}
    found: dict[Any, SoftWeight] = {}
    for layer in layers:
        configs = named.config(next(iter(layer.owners.values()))) if layer.kind is BARE else None
        configs = config.get_module_config(layer.name, layer.module) if configs is None else configs
        for owner in configure(layer, configs, reasons):
            reason = _overlap(owner, found)
            if reason is not None:
                leave(owner, reason, reasons)
            elif owner.identity not in found:
                assert layer.config is not None
                settings = soft_settings(layer.config, layer.kind, owner.facts.shape)
                found[owner.identity] = SoftWeight([], layer.config, settings)  # owners follow, in their order
    for layer in layers:  # those of a tensor that another layer has palettized, too
        layer.owners = {
            place: owner
            for place, owner in layer.owners.items()
            if owner.identity in found and is_free(owner.module, owner.parameter)
        }
    inside = {id(owner) for layer in layers for owner in layer.owners.values()}
    for owner in owners:
        weight = found.get(owner.identity)
        if weight is not None and id(owner) in inside:
            weight.owners.append(owner)
            del reasons[owner.name]
    for owner in owners:
        if owner.identity in found and owner.name in reasons:
            first = found[owner.identity].owners[0].name
            reasons[owner.name] = f"shares its values with {first}, and is used in training as it is"
            _logger.warning("%s: %s", owner.name, reasons[owner.name])
    if config != DKMPalettizerConfig():  # the defaults name every type
        for missing in named.unmatched(owners, in_training=True):
            _logger.warning("%s", missing)
    for weight in found.values():
        warn_of_conversion(weight.owners[0], weight.settings.cluster_dim > 1, weight.integers)
    return DKMPlan(owners, found, [layer for layer in layers if layer.owners], reasons)


def _no_weight(owner: Owner, holder: bool) -> str:
    """Why a parameter is none of a layer's weights; a holder is a module that has some."""
    kind = type(owner.module).__name__
    if holder or kind_of(owner.module) is not None:
        return f"of a {kind}, only the weight is palettized"
    return f"{kind} is not a kind of module that is palettized"


def _overlap(owner: Owner, found: dict[Any, SoftWeight]) -> str | None:
    """Why a tensor that lies in the memory of another one cannot be palettized, or None."""
    memory = owner.identity
    for other in found:
        if isinstance(memory, Memory) and isinstance(other, Memory) and memory != other and memory.overlaps(other):
            return "lies in the memory of another weight that is palettized, but is not the same tensor"
    return None
