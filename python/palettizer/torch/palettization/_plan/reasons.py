"""Why a parameter is left alone, and what in a config cannot be or matches nothing."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Any

from torch import nn

from palettizer.torch.optimization_config import OptimizationConfig
from palettizer.torch.palettization._plan.layers import class_kind
from palettizer.torch.palettization._plan.sharding import plain_name
from palettizer.torch.palettization._plan.walk import Owner

# The widths that Core ML has an index type for.
N_BITS = (1, 2, 3, 4, 6, 8)


FLAT = "has one dimension; a parameter that is no layer's weight needs two or more"


class Named:
    """What a config names. The patterns in module_name_configs that match the name of no module are for parameters.

    So a pattern that is for modules never takes in their other parameters, and a parameter that is no layer's weight,
    as a table of positions often is, can be palettized by its own name.

    Raises:
        ValueError: a pattern that is no regular expression.
    """

    def __init__(self, model: nn.Module, config: OptimizationConfig) -> None:
        self._all, self._modules = config, {plain_name(name): module for name, module in model.named_modules()}
        self._configs: dict[str, Any] = {}
        for pattern, module_config in config.module_name_configs.items():
            try:
                re.compile(pattern)
            except re.error as error:
                raise ValueError(
                    f"module_name_configs has the key {pattern!r}, which is not a regular expression: {error}"
                ) from error
            if not any(re.fullmatch(pattern, name) for name in self._modules):
                self._configs[pattern] = module_config

    def config(self, owner: Owner) -> Any:
        """The config of a parameter that is named, or None."""
        return next((found for key, found in self._configs.items() if re.fullmatch(key, owner.name)), None)

    def unmatched(self, owners: Sequence[Owner], in_training: bool = False) -> Iterator[str]:
        """A sentence for each name and type in the config that finds nothing to palettize."""
        modules, config = self._modules, self._all
        with_weights = {name for name, module in modules.items() if _palettized(type(module), in_training)}
        types = {key for module in modules.values() for key in (type(module), type(module).__name__)}
        for pattern in self._configs:
            if not any(re.fullmatch(pattern, owner.name) for owner in owners):
                yield f"module_name_configs has {pattern!r}, but no module and no parameter of the model has such a name"
        for pattern, module_config in config.module_name_configs.items():
            found = [name for name in modules if re.fullmatch(pattern, name)]
            if found and module_config is not None and not with_weights.intersection(found):
                inside = re.escape(found[0]) + r"\..*" if found[0] else ".*"
                yield (
                    f"module_name_configs has {pattern!r}, but {found[0] or 'the model'} holds no weight itself; "
                    f"the modules inside it are matched by {inside!r}"
                )
        for key, module_config in config.module_type_configs.items():
            name = key if isinstance(key, str) else getattr(key, "__name__", repr(key))
            if key not in types:
                yield f"module_type_configs has {name}, but no module of the model is of that type"
            elif module_config is not None and isinstance(key, type) and not _palettized(key, in_training):
                yield f"module_type_configs has {name}, which is not a kind of module that is palettized"


def reason_to_leave(owner: Owner, config: Any) -> tuple[str, bool] | None:
    """Why a parameter is not palettized with the config of its module, or with the one that names it; None if it is.

    And whether that is unexpected, and so worth a warning.
    """
    facts = owner.facts
    if not owner.supported and config is None:
        if owner.kind is None or owner.kind.in_training:
            return f"{type(owner.module).__name__} is not a kind of module that is palettized", False
        return f"of a {type(owner.module).__name__}, only the weight is palettized", False
    if config is None:
        return "no config asks for it", False
    if facts.problem is not None:
        return facts.problem, True
    if not owner.supported and len(facts.shape) < 2:
        return FLAT, True
    if len(facts.shape) <= max(owner.axes):
        kinds = f"that of a {type(owner.module).__name__} has at least {max(owner.axes) + 1} axes"
        return f"has shape {tuple(facts.shape)}, and {kinds}", True
    if facts.numel <= config.weight_threshold:
        return f"has {facts.numel} elements, not more than weight_threshold {config.weight_threshold}", False
    axis = owner.axes[config.channel_axis or 0]
    text = indivisible(facts.shape[axis], config, f" of axis {axis}")
    return None if text is None else (text, True)


def indivisible(channels: int, config: Any, where: str = "") -> str | None:
    """Why groups and vectors do not go into so many channels, or None if they do."""
    size, dim = config.group_size, config.cluster_dim or 1
    if size is not None and channels % size != 0:
        return f"group_size {size} does not divide the {channels} channels{where}"
    if size is not None and size % dim != 0:
        return f"cluster_dim {dim} does not divide a group of {size} channels{where}"
    if channels % dim != 0:
        return f"cluster_dim {dim} does not divide {channels} channels{where}"
    return None


def check_config(config: Any, name: str, scaled_vectors: bool = False) -> None:
    """Refuses settings that each may be assigned, but that no weight can be palettized with.

    With `scaled_vectors`, a per-channel scale may go with vectors too.

    Raises:
        TypeError: no number of bits.
        ValueError: anything else.
    """
    if config.n_bits is None:
        raise TypeError(f"the config of {name} has n_bits None; give one of {N_BITS}")
    size, dim, granularity = config.group_size, config.cluster_dim, config.granularity.value
    wrong = ""
    if config.n_bits not in N_BITS:
        wrong = f"n_bits {config.n_bits}; Core ML has indices of {N_BITS} bits"
    elif dim is not None and dim < 1:
        wrong = f"cluster_dim {dim}; it must be at least 1"
    elif (dim or 1) > 1 and config.enable_per_channel_scale and not scaled_vectors:
        wrong = f"cluster_dim {dim} and enable_per_channel_scale; a scale goes with scalars only"
    elif (granularity == "per_grouped_channel") != (size is not None):
        wrong = f"granularity {granularity} and group_size {size}; a group size goes with per_grouped_channel"
    elif size is not None and size < 1:
        wrong = f"group_size {size}; it must be at least 1"
    if wrong:
        raise ValueError(f"the config of {name} has {wrong}")


def _palettized(cls: type, in_training: bool) -> bool:
    kind = class_kind(cls)
    return kind is not None and (in_training or not kind.in_training)
