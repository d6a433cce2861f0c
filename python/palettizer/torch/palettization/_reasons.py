"""Why a parameter is left alone, and what in a config cannot be or matches nothing."""

from __future__ import annotations

import re
from typing import Any, Iterator, NamedTuple, Optional, Sequence, Tuple, Type

from torch import nn

from palettizer.torch.optimization_config import OptimizationConfig
from palettizer.torch.palettization._sharding import plain_name
from palettizer.torch.palettization._walk import KINDS, Owner

# The widths that Core ML has an index type for.
N_BITS = (1, 2, 3, 4, 6, 8)


class Reason(NamedTuple):
    """Why a parameter is left alone; an unexpected one is worth a warning."""

    text: str
    unexpected: bool


def reason_to_leave(owner: Owner, config: Optional[Any]) -> Optional[Reason]:
    """Why a parameter is not palettized with the config of its module, or None if it is."""
    kind, facts = owner.kind, owner.facts
    if kind is None:
        return Reason(f"{type(owner.module).__name__} is not a kind of module that is palettized", False)
    if owner.parameter not in kind.parameters:
        return Reason(f"of a {type(owner.module).__name__}, only the weight is palettized", False)
    if config is None:
        return Reason("no config asks for it", False)
    if facts.problem is not None:
        return Reason(facts.problem, True)
    if facts.numel <= config.weight_threshold:
        return Reason(f"has {facts.numel} elements, not more than weight_threshold {config.weight_threshold}", False)
    text = _indivisible(owner, config)
    return None if text is None else Reason(text, True)


def _indivisible(owner: Owner, config: Any) -> Optional[str]:
    axis = owner.axes[config.channel_axis or 0]
    channels, cluster_dim = owner.facts.shape[axis], config.cluster_dim or 1
    if config.group_size is not None:
        if channels % config.group_size != 0:
            return f"group_size {config.group_size} does not divide the {channels} channels of axis {axis}"
        channels = config.group_size
    if channels % cluster_dim != 0:
        group = "a group of " if config.group_size is not None else ""
        return f"cluster_dim {cluster_dim} does not divide {group}{channels} channels of axis {axis}"
    return None


def check_config(config: Any, name: str) -> None:
    """Refuses settings that each may be assigned, but that no weight can be palettized with.

    Raises:
        TypeError: no number of bits.
        ValueError: anything else.
    """
    if config.n_bits is None:
        raise TypeError(f"the config of {name} has n_bits None; give one of {N_BITS}")
    if config.n_bits not in N_BITS:
        raise ValueError(f"the config of {name} has n_bits {config.n_bits}; Core ML has indices of {N_BITS} bits")
    if config.cluster_dim is not None and config.cluster_dim < 1:
        raise ValueError(f"the config of {name} has cluster_dim {config.cluster_dim}; it must be at least 1")
    if (config.cluster_dim or 1) > 1 and config.enable_per_channel_scale:
        raise ValueError(
            f"the config of {name} has cluster_dim {config.cluster_dim} and enable_per_channel_scale; "
            "a scale goes with scalars only"
        )
    if (config.granularity.value == "per_grouped_channel") != (config.group_size is not None):
        raise ValueError(
            f"the config of {name} has granularity {config.granularity.value} and group_size {config.group_size}; "
            "a group size goes with per_grouped_channel"
        )
    if config.group_size is not None and config.group_size < 1:
        raise ValueError(f"the config of {name} has group_size {config.group_size}; it must be at least 1")


def check_patterns(config: OptimizationConfig) -> None:
    """Refuses module names that are no regular expressions.

    Raises:
        ValueError: naming the pattern and what is wrong with it.
    """
    for pattern in config.module_name_configs:
        try:
            re.compile(pattern)
        except re.error as error:
            raise ValueError(
                f"module_name_configs has the key {pattern!r}, which is not a regular expression: {error}"
            ) from error


def unmatched(
    model: nn.Module,
    owners: Sequence[Owner],
    config: OptimizationConfig,
    kinds: Tuple[Type[nn.Module], ...] = tuple(KINDS),
) -> Iterator[str]:
    """A sentence for each name and type in the config that finds nothing to palettize among modules of some kinds."""
    modules = {plain_name(name): module for name, module in model.named_modules()}
    with_weights = {owner.module_name for owner in owners if isinstance(owner.module, kinds)}
    types = {key for module in modules.values() for key in (type(module), type(module).__name__)}
    for pattern, module_config in config.module_name_configs.items():
        found = [name for name in modules if re.fullmatch(pattern, name)]
        if not found:
            yield f"module_name_configs has {pattern!r}, but no module of the model has such a name"
        elif module_config is not None and not with_weights.intersection(found):
            inside = re.escape(found[0]) + r"\..*" if found[0] else ".*"
            yield (
                f"module_name_configs has {pattern!r}, but {found[0] or 'the model'} holds no weight itself; "
                f"the modules inside it are matched by {inside!r}"
            )
    for key, module_config in config.module_type_configs.items():
        name = key if isinstance(key, str) else getattr(key, "__name__", repr(key))
        if key not in types:
            yield f"module_type_configs has {name}, but no module of the model is of that type"
        elif module_config is not None and isinstance(key, type) and not issubclass(key, kinds):
            yield f"module_type_configs has {name}, which is not a kind of module that is palettized"
