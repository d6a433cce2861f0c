"""Which parameters of a model are palettized, and why the others are not.

The plan is made before anything changes. Every parameter of the model is in it: as a weight to palettize, or with a
reason. A parameter that several modules share is one weight with several owners.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass, field
from typing import Any

from torch import nn

from palettizer.torch.optimization_config import OptimizationConfig
from palettizer.torch.palettization._plan.metadata import conversion
from palettizer.torch.palettization._plan.reasons import Named, check_config, reason_to_leave
from palettizer.torch.palettization._plan.walk import Memory, Owner, walk

_logger = logging.getLogger(__name__)


@dataclass
class Weight:
    """A parameter that will be palettized, seen by the first owner whose config asks for it."""

    owners: list[Owner]
    config: Any
    free: bool = field(default=False, kw_only=True)
    """Whether the config is that of all modules, in the place of which a budget may choose another."""

    @property
    def name(self) -> str:
        """The qualified name under the first owner."""
        return self.owners[0].name

    def parameters(self) -> list[nn.Parameter]:
        """The tensor as its owners hold it now: one parameter, or several that lie in the same memory."""
        held = (owner.module.get_parameter(owner.parameter) for owner in self.owners)
        return list({id(parameter): parameter for parameter in held}.values())


@dataclass
class Plan:
    """What happens to each parameter: `weights` are palettized, `reasons` says why others are not.

    `owners` are all places that hold a parameter, in the model's order.
    """

    owners: list[Owner]
    weights: list[Weight]
    reasons: dict[str, str]

    def others(self) -> list[Weight]:
        """The parameters that are left alone, as weights without a config."""
        taken = {id(parameter) for weight in self.weights for parameter in weight.parameters()}
        found: dict[int, Weight] = {}
        for owner in self.owners:
            if owner.facts.problem is None:
                parameter = owner.module.get_parameter(owner.parameter)
                if id(parameter) not in taken:
                    found.setdefault(id(parameter), Weight([], None)).owners.append(owner)
        return list(found.values())


def make_plan(model: nn.Module, config: OptimizationConfig) -> Plan:
    """Decides for every parameter of a model. Changes nothing.

    Logs a warning for what the user asked for and does not get: a group size that does not divide, a name in the
    config that no module has, and so on.

    Raises:
        ValueError: settings that no weight can be palettized with, or a pattern that is no regular expression.
        TypeError: a config without a number of bits.
    """
    named = Named(model, config)
    owners = list(walk(model))
    tied: dict[Any, list[Owner]] = {}
    for owner in owners:
        tied.setdefault(owner.identity, []).append(owner)

    weights: list[Weight] = []
    reasons: dict[str, str] = {}
    stored: dict[int, list[Weight]] = {}
    for sharing in tied.values():
        chosen = _choose(sharing, config, named, reasons)
        if chosen is None:
            continue
        memory = chosen.owners[0].identity
        if isinstance(memory, Memory):
            near = stored.setdefault(memory.storage, [])
            other = next((weight for weight in near if memory.overlaps(weight.owners[0].identity)), None)
            if other is not None:
                reason = f"lies in the memory of {other.name}, which is palettized, but is not the same tensor"
                reasons.update(dict.fromkeys((owner.name for owner in sharing), reason))
                _warn(chosen.name, reason)
                continue
            near.append(chosen)
        weights.append(chosen)
    for missing in named.unmatched(owners):
        _logger.warning("%s", missing)
    for weight in weights:
        warn_of_conversion(weight.owners[0], (weight.config.cluster_dim or 1) > 1, weight.config.lut_dtype is not None)
    return Plan(owners, weights, reasons)


def warn_of_conversion(owner: Owner, vectors: bool, quantized: bool) -> None:
    """Says of a weight that will be palettized what a converter will not do with it then."""
    note = conversion(owner.module, owner.parameter, vectors, quantized)
    if note:
        _logger.warning("%s: %s", owner.name, note)


def _choose(
    sharing: list[Owner], config: OptimizationConfig, named: Named, reasons: dict[str, str]
) -> Weight | None:
    """The weight that the owners of one tensor make together, or None with their reasons noted."""
    for first in sharing:
        module_config = (
            config.get_module_config(first.module_name, first.module) if first.supported else named.config(first)
        )
        free = first.supported and not config.names_module(first.module_name, first.module)
        if module_config is not None:
            check_config(module_config, first.name)
        reason = reason_to_leave(first, module_config)
        if reason is not None:
            reasons[first.name], unexpected = reason
            if unexpected:
                _warn(first.name, reasons[first.name])
            continue
        others = [owner for owner in sharing if owner is not first]
        for owner in others:
            reasons.pop(owner.name, None)
        # A module of another kind may hold the tensor too. Its values change with it, but a converter would not
        # look for a record there.
        for owner in others:
            if not owner.supported:
                reasons[owner.name] = f"shares its values with {first.name}, which is palettized"
        return Weight([first, *(owner for owner in others if owner.supported)], module_config, free=free)
    return None


def _warn(name: str, reason: str) -> None:
    _logger.warning("%s: %s; it is left as it is", name, reason)
