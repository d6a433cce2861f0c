"""Which weights of a model are palettized while it is trained, how, and why the others are not.

As in post-training, the plan is made before anything changes, and every parameter is in it. A config speaks of a
layer, with all of its weights; a tensor that several layers share is one weight, which all of them see palettized.
"""

from __future__ import annotations

import logging
import math
from dataclasses import dataclass
from typing import Any, Dict, List, Optional, Sequence, Tuple

from torch import nn

from palettizer.torch._report import Report
from palettizer.torch.palettization._dkm_config import (
    DKMPalettizerConfig,
    ModuleDKMPalettizerConfig,
    check_dkm_config,
    choose,
)
from palettizer.torch.palettization._dkm_layers import LAYERS, TRANSPOSED, Place, weights
from palettizer.torch.palettization._plan import Weight
from palettizer.torch.palettization._reasons import check_patterns, unmatched
from palettizer.torch.palettization._soft_kernels import SoftSettings
from palettizer.torch.palettization._walk import Memory, Owner, walk

_logger = logging.getLogger(__name__)


@dataclass
class SoftWeight(Weight):
    """A tensor that will be palettized, with all places in layers that hold it; the first config decides."""

    settings: SoftSettings


@dataclass
class Layer:
    """A module of a class in `LAYERS`, its weights, and what the config says of it."""

    name: str
    module: nn.Module
    owners: Dict[Place, Owner]
    config: Optional[ModuleDKMPalettizerConfig] = None


@dataclass
class DKMPlan:
    """What happens to each parameter.

    `weights` are by the identity of the tensor; `layers` are those with a weight among them; `reasons` says of the
    other parameters, by qualified name, why they are left alone.
    """

    owners: List[Owner]
    weights: Dict[Any, SoftWeight]
    layers: List[Layer]
    reasons: Dict[str, str]


def make_plan(model: nn.Module, config: DKMPalettizerConfig) -> DKMPlan:
    """Decides for every parameter of a model. Changes nothing.

    Logs a warning for what the user asked for and does not get, as post-training does.

    Raises:
        ValueError: settings that no weight can be palettized with, or a pattern that is no regular expression.
    """
    check_patterns(config)
    owners = list(walk(model))
    layers = _layers(owners)
    holders = {id(place.module(layer.module)) for layer in layers for place in layer.owners}
    reasons = {owner.name: _no_weight(owner, id(owner.module) in holders) for owner in owners}
    for owner in owners:
        of_a_layer = isinstance(owner.module, tuple(LAYERS)) and id(owner.module) not in holders
        if owner.facts.problem is not None and of_a_layer:
            if config.get_module_config(owner.module_name, owner.module) is not None:
                _logger.warning("%s: %s; it is left as it is", owner.name, owner.facts.problem)
    found: Dict[Any, SoftWeight] = {}
    for layer in layers:
        refusals: List[str] = []
        _configure(layer, config, refusals)
        if layer.config is None:
            reasons.update({owner.name: refusals[0] for owner in layer.owners.values()})
            continue
        for owner in layer.owners.values():
            reason = _overlap(owner, found)
            if reason is not None:
                reasons[owner.name] = reason
                _logger.warning("%s: %s; it is left as it is", owner.name, reason)
            elif owner.identity not in found:
                settings = soft_settings(layer.config, layer.module, owner.facts.shape)
                found[owner.identity] = SoftWeight([], layer.config, settings)  # owners follow, in their order
    used = [layer for layer in layers if any(owner.identity in found for owner in layer.owners.values())]
    inside = {id(owner) for layer in used for owner in layer.owners.values()}
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
        for missing in unmatched(model, owners, config, tuple(LAYERS)):
            _logger.warning("%s", missing)
    return DKMPlan(owners, found, used, reasons)


def _layers(owners: Sequence[Owner]) -> List[Layer]:
    """The modules that can be prepared, in the model's order, with those of their weights that there are."""
    holding: Dict[Tuple[int, str], Owner] = {(id(owner.module), owner.parameter): owner for owner in owners}
    layers = []
    for name, module in {id(owner.module): (owner.module_name, owner.module) for owner in owners}.values():
        if type(module) in LAYERS:
            found = {place: holding.get((id(place.module(module)), place.parameter)) for place in weights(module)}
            layers.append(Layer(name, module, {place: owner for place, owner in found.items() if owner is not None}))
    return [layer for layer in layers if layer.owners]


def _configure(layer: Layer, config: DKMPalettizerConfig, refusals: List[str]) -> None:
    """Finds the config that a layer is palettized with, or says in `refusals` why there is none."""
    owners = layer.owners.values()
    configs = config.get_module_config(layer.name, layer.module)
    if configs is None:
        refusals.append("no config asks for it")
        return
    for owner in owners:
        if owner.facts.problem is not None:
            refusals.append(owner.facts.problem)
            _logger.warning("%s: %s; the layer is left as it is", owner.name, refusals[0])
            return

    def fits(candidate: ModuleDKMPalettizerConfig) -> bool:
        resolved = candidate.resolved(type(layer.module))
        check_dkm_config(resolved, layer.name or type(layer.module).__name__)
        for owner in owners:
            reason = _misfit(resolved, layer.module, owner.facts.shape)
            if reason is not None:
                refusals.append(reason)
                _logger.warning("%s: %s; the layer is left as it is", owner.name, reason)
                return False
        return True

    chosen = choose(configs, [owner.facts.numel for owner in owners], fits)
    if chosen is not None:
        layer.config = chosen.resolved(type(layer.module))
    elif not refusals:
        thresholds = [c.weight_threshold for c in (configs if isinstance(configs, list) else [configs])]
        least = min(owner.facts.numel for owner in owners)
        of = "has" if len(layer.owners) == 1 else "one of the layer's weights has"
        refusals.append(f"{of} {least} elements, not more than weight_threshold {min(thresholds, default=0)}")


def soft_settings(config: ModuleDKMPalettizerConfig, module: nn.Module, shape: Sequence[int]) -> SoftSettings:
    """A resolved config as the kernels take it, for a weight of a layer."""
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
        permutation=_permutation(config, module, len(shape)),
    )


def _permutation(config: ModuleDKMPalettizerConfig, module: nn.Module, rank: int) -> Optional[Tuple[int, ...]]:
    if config.cluster_permute is not None:
        return config.cluster_permute
    return (1, 0, *range(2, rank)) if isinstance(module, TRANSPOSED) else None


def _misfit(config: ModuleDKMPalettizerConfig, module: nn.Module, shape: Sequence[int]) -> Optional[str]:
    """Why a weight cannot be palettized with a config, or None."""
    permutation = _permutation(config, module, len(shape))
    if permutation is not None and len(permutation) != len(shape):
        return f"cluster_permute {permutation} is not of the {len(shape)} axes of the weight"
    rows = shape[0] if permutation is None else shape[permutation[0]]
    assert config.n_bits is not None and config.cluster_dim is not None
    group = rows if config.group_size is None else config.group_size
    if rows % group != 0:
        return f"group_size {group} does not divide the {rows} channels"
    if group % config.cluster_dim != 0:
        of = "" if config.group_size is None else "a group of "
        return f"cluster_dim {config.cluster_dim} does not divide {of}{group} channels"
    elements, needed = math.prod(shape) // rows * group, 2**config.n_bits * config.cluster_dim
    if elements < needed:
        return f"has {elements} elements in a group, fewer than the {needed} of 2^n_bits centroids"
    return None


def _no_weight(owner: Owner, holder: bool) -> str:
    """Why a parameter is none of a layer's weights; a holder is a module that has some."""
    kind = type(owner.module).__name__
    if holder:
        return f"of a {kind}, only the weight is palettized"
    if not isinstance(owner.module, tuple(LAYERS)):
        return f"{kind} is not a kind of module that is palettized"
    return owner.facts.problem or f"{kind} is a class of its own; only those of torch.nn can be prepared"


def _overlap(owner: Owner, found: Dict[Any, SoftWeight]) -> Optional[str]:
    """Why a tensor that lies in the memory of another one cannot be palettized, or None."""
    memory = owner.identity
    for other in found:
        if isinstance(memory, Memory) and isinstance(other, Memory) and memory != other and memory.overlaps(other):
            return "lies in the memory of another weight that is palettized, but is not the same tensor"
    return None


def plan_report(plan: DKMPlan, errors: Dict[str, float]) -> Report:
    """A row for each parameter of a plan, with the errors of those that are palettized by now."""
    report = Report()
    of = {id(owner): weight for weight in plan.weights.values() for owner in weight.owners}
    for owner in plan.owners:
        weight = of.get(id(owner))
        row: Dict[str, Any] = {"device": -1, "error": 0.0, "#params": owner.facts.numel, "#dtype": -1}
        if weight is None:
            report[owner.name] = {**row, "reason": plan.reasons[owner.name]}
            continue
        settings, reason = weight.settings, ""
        row["error"] = errors.get(weight.name, 0.0)
        if weight.name not in errors:
            reason = f"is palettized from milestone {weight.config.milestone} on"
        elif owner is not weight.owners[0]:
            reason = f"is {weight.name}"
        row["device"] = owner.module.get_parameter(owner.parameter).device
        kind = (weight.config.lut_dtype, settings.permutation)
        row["#dtype"] = f":num_clusters: {2**settings.nbits} <{kind}> dim={settings.cluster_dim}"
        key = owner.module_name if owner.parameter == "weight" and owner.module_name else owner.name
        report[key] = {**row, "reason": reason}
    return report
