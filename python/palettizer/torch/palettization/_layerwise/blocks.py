"""The repeated blocks of a model, which are worked on one at a time."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from torch import nn

from palettizer.torch.palettization._plan.plan import Weight
from palettizer.torch.palettization._plan.sharding import plain_name


@dataclass(frozen=True)
class Block:
    """A module, and the weights that it alone holds."""

    name: str
    module: nn.Module
    weights: tuple[Weight, ...]


def blocks(model: nn.Module, weights: Sequence[Weight], layers: Sequence[str] | None) -> list[Block]:
    """The blocks of a model that hold weights: those that are named, or else those found.

    Raises:
        ValueError: a name that is no regular expression or matches no module, or a block within another.
    """
    names = _repeated(model) if layers is None else _named(model, layers)
    modules = {plain_name(name): module for name, module in model.named_modules()}
    held: dict[str, list[Weight]] = {name: [] for name in names}
    for weight in weights:
        homes = {_home(owner.module_name, held) for owner in weight.owners}
        home = homes.pop()
        if home is not None and not homes:
            held[home].append(weight)
    return [Block(name, modules[name], tuple(inside)) for name, inside in held.items() if inside]


def _home(module_name: str, names: dict[str, list[Weight]]) -> str | None:
    """The block that a module is in."""
    parts = module_name.split(".")
    return next((name for end in range(len(parts), 0, -1) if (name := ".".join(parts[:end])) in names), None)


def _named(model: nn.Module, layers: Sequence[str]) -> list[str]:
    found: dict[str, None] = {}
    names = [plain_name(name) for name, _ in model.named_modules() if name]
    for pattern in layers:
        try:
            matching = [name for name in names if re.fullmatch(pattern, name)]
        except re.error as error:
            raise ValueError(f"layers has {pattern!r}, which is not a regular expression: {error}") from error
        if not matching:
            raise ValueError(f"layers has {pattern!r}, but no module of the model has such a name")
        found.update(dict.fromkeys(matching))
    for name in found:
        outer = next((other for other in found if name.startswith(f"{other}.")), None)
        if outer is not None:
            raise ValueError(f"layers names {outer} and {name}, which is within it; name blocks that do not overlap")
    return [name for name in names if name in found]


def _repeated(model: nn.Module) -> list[str]:
    """The elements of the outermost lists of modules that are alike, and made of other modules."""
    found: list[str] = []
    for long_name, module in model.named_modules():
        name = plain_name(long_name)
        if any(name.startswith(f"{other}.") for other in found):
            continue
        children = list(module.named_children())
        if not isinstance(module, (nn.ModuleList, nn.Sequential)) or len(children) < 2:
            continue
        alike = len({type(child) for _, child in children}) == 1
        if alike and all(any(child.children()) for _, child in children):
            found += [f"{name}.{child}" if name else child for child, _ in children]
    return found
