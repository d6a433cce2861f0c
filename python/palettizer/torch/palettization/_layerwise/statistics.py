"""What is collected of each weight: second moments of its inputs, or how often each of its rows is looked up.

Weights that have the very same input, as query, key and value have, share one sum as long as they do.
"""

from __future__ import annotations

import math
import weakref
from dataclasses import dataclass, field

import torch

from palettizer.torch.palettization._layerwise.accumulator import Accumulator, Key, shape_of
from palettizer.torch.palettization._layerwise.operations import LookUp, Operation
from palettizer.torch.palettization._layerwise.places import Part
from palettizer.torch.palettization._plan.plan import Weight


@dataclass
class Statistics:
    """Of one weight: what its palette is fitted to."""

    moments: torch.Tensor | None = None
    """float32 [row runs, blocks, columns, columns]."""
    fisher: torch.Tensor | None = None
    """Sums of squared gradients, of the weight's shape."""
    frequency: torch.Tensor | None = None
    """How often each row was looked up."""
    why_not: str = ""
    """Why there are no moments."""


@dataclass
class _Addition:
    """An input that was added to a sum which several weights may share."""

    input: weakref.ref[torch.Tensor]
    sum: Accumulator
    used: Operation | None
    taken: set[Key]


@dataclass
class Collected:
    """The sums of some weights."""

    sums: dict[Key, Accumulator] = field(default_factory=dict)
    counts: dict[str, torch.Tensor] = field(default_factory=dict)
    _additions: dict[object, list[_Addition]] = field(default_factory=dict)
    _alone: set[Key] = field(default_factory=set)

    def look_up(self, part: Part, used: LookUp) -> None:
        """Counts the rows that are looked up."""
        rows = part.weight.owners[0].facts.shape[0]
        counted = torch.bincount(used.indices.detach().reshape(-1) + part.start, minlength=rows).float()
        name = part.weight.name
        self.counts[name] = counted if name not in self.counts else self.counts[name].to(counted.device) + counted

    def add(self, part: Part, used: Operation, importances: torch.Tensor | None = None) -> None:
        """Adds the inputs of an operation."""
        key = part.key
        if importances is not None or key in self._alone:
            self._sum(key, part, used, 1 if importances is None else len(importances)).add(used, importances)
            return
        same = (id(used.input), _version(used.input), used.unfolding)
        mine = self.sums.get(key)
        for addition in self._additions.get(same, ()):
            joins = mine is None and addition.sum.additions == 1
            if addition.input() is used.input and key not in addition.taken and (joins or mine is addition.sum):
                self.sums[key] = addition.sum
                addition.sum.members.add(key)
                addition.taken.add(key)
                if addition.taken == addition.sum.members:
                    addition.used = None
                return
        mine = self._sum(key, part, used, 1)
        mine.add(used)
        keep = used if len(mine.members) > 1 else None
        addition = _Addition(weakref.ref(used.input), mine, keep, {key})
        self._additions.setdefault(same, []).append(addition)

    def _sum(self, key: Key, part: Part, used: Operation, runs: int) -> Accumulator:
        if key not in self.sums:
            facts, axis = part.weight.owners[0].facts, part.weight.owners[0].axes[0]
            shape = shape_of(used, facts.shape[axis], facts.numel, runs)
            self.sums[key] = Accumulator(shape, used.input.device)
            self.sums[key].members.add(key)
        return self.sums[key]

    def end_sample(self) -> None:
        """Ends what belongs to one run of the model. Weights that had different inputs in it share no sum any more."""
        waiting = [addition for additions in self._additions.values() for addition in additions if addition.used]
        self._additions.clear()
        for shared in {id(addition.sum): addition.sum for addition in waiting}.values():
            for key in sorted(shared.members):
                own = self.sums[key] = shared.separate()
                own.members.add(key)
                self._alone.add(key)
                for addition in waiting:
                    if addition.sum is shared and key not in addition.taken:
                        assert addition.used is not None
                        own.add(addition.used, sign=-1)

    def separate(self) -> None:
        """Gives each weight a sum of its own."""
        for key, total in list(self.sums.items()):
            if len(total.members) > 1:
                self.sums[key] = total.separate()
                self.sums[key].members.add(key)

    def of(self, weight: Weight, strange: dict[str, str]) -> Statistics:
        """The statistics of one weight, and an end to its sums.

        Raises:
            ValueError: the inputs were NaN or infinite.
        """
        parts = {key: self.sums.pop(key) for key in [key for key in self.sums if key[0] == weight.name]}
        frequency = self.counts.pop(weight.name, None)
        frequency = None if frequency is None else frequency.float().cpu()
        tokens = max((part.tokens for part in parts.values()), default=0)
        if weight.name in strange:
            return Statistics(why_not=strange[weight.name])
        if not tokens:
            why = "" if frequency is not None else "no linear layer, convolution or embedding was seen to use it"
            return Statistics(frequency=frequency, why_not=why)
        rows = weight.owners[0].facts.shape[weight.owners[0].axes[0]]
        for part in parts.values():
            part.mirror()
        moments = _together({key[1:]: part.total for key, part in parts.items()}, rows)
        if moments is None:
            return Statistics(why_not="only some of its rows were seen in use")
        moments = moments / tokens
        diagonal = moments.diagonal(dim1=2, dim2=3)
        if not bool(torch.isfinite(diagonal).all()):
            raise ValueError(
                f"the inputs of {weight.name}, or the gradients of its outputs, are NaN or infinite; "
                "are the samples and the loss finite?"
            )
        if not bool((diagonal > 0).any()):
            return Statistics(why_not="its inputs were zero in all samples, or the loss does not depend on its outputs")
        return Statistics(moments)


def _together(parts: dict[tuple[int, int], torch.Tensor], rows: int) -> torch.Tensor | None:
    """The moments of all rows of those of ranges of rows, each in equal runs; None where some are missing."""
    if list(parts) == [(0, rows)]:
        return parts[0, rows]
    step = rows
    for (start, stop), moments in parts.items():
        step = math.gcd(step, start, (stop - start) // len(moments))
    found: list[torch.Tensor | None] = [None] * (rows // step)
    for (start, stop), moments in parts.items():
        size = (stop - start) // len(moments)
        for run in range(start // step, stop // step):
            more = moments[(run * step - start) // size]
            before = found[run]
            found[run] = more if before is None else before + more
    whole = [moments for moments in found if moments is not None]
    return torch.stack(whole) if len(whole) == len(found) else None


def _version(tensor: torch.Tensor) -> int:
    """How often a tensor was changed in place; tensors of inference mode do not tell."""
    return -1 if tensor.is_inference() else tensor._version
