"""The config that a layer is palettized with, of those that are given for it, or why it is left alone."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Sequence

from palettizer.torch.palettization._dkm.candidates import Layer, is_weight
from palettizer.torch.palettization._dkm.config import ModuleConfigs, ModuleDKMPalettizerConfig, ascending
from palettizer.torch.palettization._dkm.kernel_settings import permutation_of
from palettizer.torch.palettization._dkm.layers import is_free
from palettizer.torch.palettization._plan.layers import Kind
from palettizer.torch.palettization._plan.reasons import FLAT, check_config, indivisible
from palettizer.torch.palettization._plan.walk import Owner

_logger = logging.getLogger(__name__)


def leave(owner: Owner, reason: str, reasons: dict[str, str]) -> None:
    reasons[owner.name] = reason
    _logger.warning("%s: %s; it is left as it is", owner.name, reason)


def configure(layer: Layer, configs: ModuleConfigs | None, reasons: dict[str, str]) -> list[Owner]:
    """Finds the config that a layer is palettized with, and returns those of its owners that are.

    Of the others it says why they are not.
    """
    owners = list(layer.owners.values())
    numels = [owner.facts.numel for owner in owners]
    misfit: str | None = None

    def fits(candidate: ModuleDKMPalettizerConfig) -> bool:
        nonlocal misfit
        resolved = candidate.resolved(layer.kind)
        check_config(resolved, layer.name or type(layer.module).__name__, scaled_vectors=True)
        found = next(filter(None, (_misfit(resolved, layer.kind, owner.facts.shape) for owner in owners)), None)
        if found is not None:
            misfit = found
            _warn(layer, found)
        return found is None

    problem = next(filter(None, map(_problem, owners)), None)
    if configs is None:
        problem = "no config asks for it"
    elif problem is not None:
        _warn(layer, problem)
    chosen = choose(configs, numels, fits) if problem is None else None
    if chosen is None:
        thresholds = [config.weight_threshold for config in (configs if isinstance(configs, list) else [configs]) if config]
        of = "has" if len(owners) == 1 else "one of the layer's weights has"
        small = f"{of} {min(numels)} elements, not more than weight_threshold {min(thresholds, default=0)}"
        reasons.update((owner.name, problem or misfit or small) for owner in owners)
        return []
    layer.config = chosen.resolved(layer.kind)
    few = {owner.name: _too_few(layer.config, layer.kind, owner.facts.shape) for owner in owners}
    for owner in owners:
        if (reason := few[owner.name]) is not None:
            leave(owner, reason, reasons)
    return [owner for owner in owners if few[owner.name] is None]


def _warn(layer: Layer, reason: str) -> None:
    first = next(iter(layer.owners.values()))
    what = "the layer" if len(layer.owners) > 1 else "it"
    _logger.warning("%s: %s; %s is left as it is", first.name, reason, what)


def _problem(owner: Owner) -> str | None:
    """Why a parameter cannot be palettized with any config, or None."""
    if owner.facts.problem is None and not is_free(owner.module, owner.parameter):
        return "is prepared for quantization already; finalize that first"
    if owner.facts.problem is None and len(owner.facts.shape) < 2 and not is_weight(owner):
        return FLAT
    return owner.facts.problem


def _misfit(config: ModuleDKMPalettizerConfig, kind: Kind, shape: Sequence[int]) -> str | None:
    """Why a layer with such a weight cannot be palettized with a config, or None."""
    permutation = permutation_of(config, kind, len(shape))
    if permutation is not None and len(permutation) != len(shape):
        return f"cluster_permute {permutation} is not of the {len(shape)} axes of the weight"
    return indivisible(shape[0 if permutation is None else permutation[0]], config)


def _too_few(config: ModuleDKMPalettizerConfig, kind: Kind, shape: Sequence[int]) -> str | None:
    """Why a weight alone cannot be palettized with a config that fits its layer, or None."""
    assert config.n_bits is not None and config.cluster_dim is not None
    permutation = permutation_of(config, kind, len(shape))
    rows = shape[0 if permutation is None else permutation[0]]
    elements, needed = math.prod(shape) // rows * (config.group_size or rows), 2**config.n_bits * config.cluster_dim
    if elements < needed:
        return f"has {elements} elements in a group, fewer than the {needed} of 2^n_bits centroids"
    return None


def choose(
    configs: ModuleConfigs | None,
    numels: Sequence[int],
    fits: Callable[[ModuleDKMPalettizerConfig], bool] = lambda config: True,
) -> ModuleDKMPalettizerConfig | None:
    """The config for a module whose weights have so many elements, or None when it is to be left alone.

    Of a list, it is the one with the highest `weight_threshold` that all weights exceed; of equal ones, the last.
    `fits` says which of them the weights can be palettized with at all, such as those whose group size divides the
    channels.

    >>> configs = [ModuleDKMPalettizerConfig(weight_threshold=1000), ModuleDKMPalettizerConfig(weight_threshold=100)]
    >>> [getattr(choose(configs, [numel]), "weight_threshold", None) for numel in (100, 1000, 1001)]
    [None, 100, 1000]
    """
    wanted = ascending(configs if isinstance(configs, list) else [configs] if configs is not None else [])
    assert isinstance(wanted, list)
    exceeded = (config for config in reversed(wanted) if all(numel > config.weight_threshold for numel in numels))
    return next((config for config in exceeded if fits(config)), None)
