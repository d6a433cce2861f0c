"""Statistics of several processes become those of all of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.distributed as dist

from palettizer.torch.palettization._layerwise.accumulator import Accumulator, Key
from palettizer.torch.palettization._layerwise.statistics import Collected
from palettizer.torch.palettization._plan.plan import Weight
from palettizer.torch.palettization._plan.sharding import distributed


def gathered(value: Any) -> list[Any]:
    """What each process has."""
    if not distributed():
        return [value]
    values: list[Any] = [None] * dist.get_world_size()
    dist.all_gather_object(values, value)
    return values


def add_up(collected: Collected, weights: Sequence[Weight]) -> None:
    """Adds up the sums of all processes, which all then have. Weights share a sum if they do in all of them."""
    if not distributed():
        return
    devices = {weight.name: weight.parameters()[0].device for weight in weights}
    everywhere = gathered(_groups(collected))
    if len({tuple(sorted(groups)) for groups in everywhere if groups}) > 1:
        collected.separate()
        everywhere = gathered(_groups(collected))
    for group in sorted({group for groups in everywhere for group in groups}):
        shape = next(groups[group][0] for groups in everywhere if group in groups)
        total = collected.sums.get(group[0]) or Accumulator(shape, devices[group[0][0]])
        total.tokens = sum(groups[group][1] for groups in everywhere if group in groups)
        dist.all_reduce(total.total)
        collected.sums.update(dict.fromkeys(group, total))
    lengths: dict[str, int] = {}
    for counts in gathered({name: len(count) for name, count in collected.counts.items()}):
        lengths.update(counts)
    for name in sorted(lengths):
        count = collected.counts.get(name)
        count = torch.zeros(lengths[name], device=devices[name]) if count is None else count
        dist.all_reduce(count)
        collected.counts[name] = count


def _groups(collected: Collected) -> dict[tuple[Key, ...], tuple[tuple[int, ...], int]]:
    """The ranges of rows that share each sum, with its shape and number of inputs."""
    sums = {id(total): total for total in collected.sums.values()}
    return {tuple(sorted(s.members)): (tuple(s.total.shape), s.tokens) for s in sums.values()}
