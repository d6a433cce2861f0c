"""Which weights of a model are palettized while it is trained, how, and why the others are not.

As in post-training, the plan is made before anything changes, and every parameter is in it. A config speaks of a
layer, with all of its weights, or of each matrix of a recurrent one, or of a parameter that it names. A tensor that
several layers share is one weight, which all of them see palettized.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from torch import nn

from palettizer.torch._report import Report
from palettizer.torch.palettization._dkm.config import (
    DKMPalettizerConfig,
    ModuleConfigs,
    ModuleDKMPalettizerConfig,
    check_dkm_config,
    choose,
)
from palettizer.torch.palettization._dkm.layers import is_free
from palettizer.torch.palettization._plan.layers import BARE, Kind, Place, kind_of, weights
from palettizer.torch.palettization._plan.metadata import conversion
from palettizer.torch.palettization._plan.plan import Weight, warn_of_conversion
from palettizer.torch.palettization._plan.reasons import FLAT, Named, check_patterns, unmatched
from palettizer.torch.palettization._plan.sharding import plain_name
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
class Layer:
    """Weights of a module that a config speaks of together, and what it says of them."""

    name: str
    module: nn.Module
    kind: Kind
    owners: dict[Place, Owner]
    config: ModuleDKMPalettizerConfig | None = None


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
    check_patterns(config)
    owners = list(walk(model))
    named = Named(model, config)
    layers = [*_layers(owners), *_bare(model, owners, named)]
    claimed = {id(owner): layer for layer in layers for owner in layer.owners.values()}
    holders = {id(owner.module) for owner in owners if id(owner) in claimed}
    reasons = {owner.name: _no_weight(owner, id(owner.module) in holders) for owner in owners}
    found: dict[Any, SoftWeight] = {}
    for layer in layers:
        configs = named.config(next(iter(layer.owners.values()))) if layer.kind is BARE else None
        configs = config.get_module_config(layer.name, layer.module) if configs is None else configs
        for owner in _configure(layer, configs, reasons):
            reason = _overlap(owner, found)
            if reason is not None:
                _leave(owner, reason, reasons)
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
        for missing in unmatched(model, owners, config, in_training=True):
            _logger.warning("%s", missing)
    for weight in found.values():
        warn_of_conversion(weight.owners[0], weight.settings.cluster_dim > 1, weight.integers)
    return DKMPlan(owners, found, [layer for layer in layers if layer.owners], reasons)


def _layers(owners: Sequence[Owner]) -> list[Layer]:
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


def _bare(model: nn.Module, owners: Sequence[Owner], named: Named) -> Iterator[Layer]:
    """The parameters that are no layer's weights and that the config names, each in the module whose forward reads it."""
    modules = {plain_name(name): module for name, module in model.named_modules()}
    for owner in owners:
        if not _is_weight(owner) and named.config(owner) is not None:
            names = owner.module_name.split(".") if owner.module_name else []
            own = len(names)
            # A list or dict of parameters is read by the module around it.
            while own > 0 and type(modules[".".join(names[:own])]).forward is nn.Module.forward:
                own -= 1
            name = ".".join(names[:own])
            place = Place(".".join(names[own:]), owner.parameter)
            yield Layer(name, modules[name], BARE, {place: owner})


def _is_weight(owner: Owner) -> bool:
    return owner.kind is not None and owner.kind.has(owner.parameter)


def _leave(owner: Owner, reason: str, reasons: dict[str, str]) -> None:
    reasons[owner.name] = reason
    _logger.warning("%s: %s; it is left as it is", owner.name, reason)


def _configure(layer: Layer, configs: ModuleConfigs | None, reasons: dict[str, str]) -> list[Owner]:
    """Finds the config that a layer is palettized with, and returns those of its owners that are.

    Of the others it says why they are not.
    """
    owners = list(layer.owners.values())
    refusals: dict[str, str] = {}
    if configs is None:
        refusals.update((owner.name, "no config asks for it") for owner in owners)
    problem = next((found for found in map(_problem, owners) if found is not None), None)
    if problem is not None and configs is not None:
        refusals.update((owner.name, problem) for owner in owners)
        _leave_all(layer, problem)

    def fits(candidate: ModuleDKMPalettizerConfig) -> bool:
        resolved = candidate.resolved(layer.kind)
        check_dkm_config(resolved, layer.name or type(layer.module).__name__)
        for owner in owners:
            reason = _misfit(resolved, layer.kind, owner.facts.shape)
            if reason is not None:
                refusals.update((one.name, reason) for one in owners)
                _leave_all(layer, reason)
                return False
        return True

    chosen = None if refusals else choose(configs, [owner.facts.numel for owner in owners], fits)
    if chosen is not None:
        refusals.clear()
        layer.config = chosen.resolved(layer.kind)
        for owner in owners:
            few = _too_few(layer.config, layer.kind, owner.facts.shape)
            if few is not None:
                refusals[owner.name] = few
                _leave(owner, few, refusals)
    elif not refusals:
        thresholds = [c.weight_threshold for c in (configs if isinstance(configs, list) else [configs]) if c is not None]
        least = min(owner.facts.numel for owner in owners)
        of = "has" if len(owners) == 1 else "one of the layer's weights has"
        text = f"{of} {least} elements, not more than weight_threshold {min(thresholds, default=0)}"
        refusals.update((owner.name, text) for owner in owners)
    reasons.update(refusals)
    return [owner for owner in owners if owner.name not in refusals]


def _leave_all(layer: Layer, reason: str) -> None:
    first = next(iter(layer.owners.values()))
    what = "the layer" if len(layer.owners) > 1 else "it"
    _logger.warning("%s: %s; %s is left as it is", first.name, reason, what)


def _problem(owner: Owner) -> str | None:
    """Why a parameter cannot be palettized with any config, or None."""
    if owner.facts.problem is None and not is_free(owner.module, owner.parameter):
        return "is prepared for quantization already; finalize that first"
    if owner.facts.problem is None and len(owner.facts.shape) < 2 and not _is_weight(owner):
        return FLAT
    return owner.facts.problem


def soft_settings(config: ModuleDKMPalettizerConfig, kind: Kind, shape: Sequence[int]) -> SoftSettings:
    """A resolved config as the kernels take it, for a weight of a kind of layers."""
    assert config.n_bits is not None and config.cluster_dim is not None
    scheme = config.per_channel_scaling_factor_scheme if config.enable_per_channel_scale else None
    return SoftSettings(
        nbits=config.n_bits,
        cluster_dim=config.cluster_dim,
        group_size=config.group_size,
        iterations=config.kmeans_max_iter,
        temperature=config.palett_tau,
        epsilon=config.palett_epsilon,
        floor=config.zero_threshold,
        prune_threshold=config.prune_threshold,
        enforce_zero=config.enforce_zero,
        mode=config.palett_mode,
        lut_dtype=config.native_lut_dtype,
        scale_scheme=scheme,
        enabled=config.percentage_palett_enable,
        cluster_tolerance=config.palett_cluster_tol,
        starts=config.starts,
        implicit=config.implicit,
        permutation=_permutation(config, kind, len(shape)),
    )


def _permutation(config: ModuleDKMPalettizerConfig, kind: Kind, rank: int) -> tuple[int, ...] | None:
    if config.cluster_permute is not None:
        return config.cluster_permute
    return (1, 0, *range(2, rank)) if kind.axes == (1, 0) else None


def _rows(config: ModuleDKMPalettizerConfig, kind: Kind, shape: Sequence[int]) -> tuple[int, int]:
    """How many channels there are along the axis of groups, and in a group."""
    permutation = _permutation(config, kind, len(shape))
    rows = shape[0] if permutation is None else shape[permutation[0]]
    return rows, rows if config.group_size is None else config.group_size


def _misfit(config: ModuleDKMPalettizerConfig, kind: Kind, shape: Sequence[int]) -> str | None:
    """Why a layer with such a weight cannot be palettized with a config, or None."""
    permutation = _permutation(config, kind, len(shape))
    if permutation is not None and len(permutation) != len(shape):
        return f"cluster_permute {permutation} is not of the {len(shape)} axes of the weight"
    rows, group = _rows(config, kind, shape)
    assert config.cluster_dim is not None
    if rows % group != 0:
        return f"group_size {group} does not divide the {rows} channels"
    if group % config.cluster_dim != 0:
        of = "" if config.group_size is None else "a group of "
        return f"cluster_dim {config.cluster_dim} does not divide {of}{group} channels"
    return None


def _too_few(config: ModuleDKMPalettizerConfig, kind: Kind, shape: Sequence[int]) -> str | None:
    """Why a weight alone cannot be palettized with a config that fits its layer, or None."""
    assert config.n_bits is not None and config.cluster_dim is not None
    rows, group = _rows(config, kind, shape)
    elements, needed = math.prod(shape) // rows * group, 2**config.n_bits * config.cluster_dim
    if elements < needed:
        return f"has {elements} elements in a group, fewer than the {needed} of 2^n_bits centroids"
    return None


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


def plan_report(plan: DKMPlan, errors: dict[str, float]) -> Report:
    """A row for each parameter of a plan, with the errors of those that are palettized by now."""
    report = Report()
    of = {id(owner): weight for weight in plan.weights.values() for owner in weight.owners}
    for owner in plan.owners:
        weight = of.get(id(owner))
        row: dict[str, Any] = {"device": -1, "error": 0.0, "#params": owner.facts.numel, "#dtype": -1}
        if weight is None:
            report[owner.name] = {**row, "reason": plan.reasons[owner.name]}
            continue
        settings, reason = weight.settings, ""
        row["error"] = errors.get(weight.name, 0.0)
        if weight.name not in errors:
            reason = f"is palettized from milestone {weight.config.milestone} on"
        elif owner is not weight.owners[0]:
            reason = f"is {weight.name}"
        row["device"] = getattr(owner.module, owner.parameter).device
        kind = (weight.config.lut_dtype, settings.permutation)
        row["#dtype"] = f":num_clusters: {2**settings.nbits} <{kind}> dim={settings.cluster_dim}"
        key = owner.module_name if owner.parameter == "weight" and owner.module_name else owner.name
        report[key] = {**row, "reason": reason}
        note = conversion(owner.module, owner.parameter, settings.cluster_dim > 1, weight.integers)
        if note:
            report[key]["conversion"] = note
    return report.aligned()
