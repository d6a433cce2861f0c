"""Statistics of all weights of a model, in stages: of some weights at a time, in memory that their sums need.

Where the sums of all weights fit, there is one stage, and the model runs once on each sample. Otherwise the first run
collects what lies outside of the blocks, and records what the blocks are called with; then each block runs by itself. If
the blocks cannot be run so, the whole model is run once for each of them.

What the sums are of is the model as it is: no weight changes before all are fitted.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field

import torch
from torch import nn

from palettizer._progress import shown
from palettizer.torch.palettization._layerwise.accumulator import Key, guided_runs, importance
from palettizer.torch.palettization._layerwise.blocks import Block, blocks
from palettizer.torch.palettization._layerwise.chain import Chain
from palettizer.torch.palettization._layerwise.operations import LookUp, Operation
from palettizer.torch.palettization._layerwise.places import Part
from palettizer.torch.palettization._layerwise.processes import add_up, gathered
from palettizer.torch.palettization._layerwise.samples import Samples, calibrating
from palettizer.torch.palettization._layerwise.spill import Spill
from palettizer.torch.palettization._layerwise.statistics import Collected, Statistics
from palettizer.torch.palettization._layerwise.watch import Watch
from palettizer.torch.palettization._plan.plan import Weight
from palettizer.torch.palettization._sensitivity.gradients import Sums

Stage = tuple[Sequence[Weight], Callable[[Weight], Statistics]]
"""Some weights, and what gives the statistics of each, once."""


@dataclass
class Memory:
    """How much of it calibration may take beyond one block at a time, and which blocks there are."""

    layers: list[str] | None
    bytes: int


@dataclass
class Collector:
    """Collects the statistics of some weights of a model."""

    model: nn.Module
    weights: Sequence[Weight]
    samples: Samples
    groups: int
    memory: Memory
    fisher: dict[str, torch.Tensor] = field(default_factory=dict)
    importances: dict[tuple[int, Key], list[torch.Tensor | None]] = field(default_factory=dict)
    """Of the outputs of each use of a weight within a block, by sample."""
    strange: dict[str, str] = field(default_factory=dict)

    def stages(self) -> Generator[Stage, None, None]:
        """The weights with their statistics. Each stage lets go of its own before the next."""
        found: list[Block] = []
        if self.memory.layers is not None or _bytes(self.weights, self.groups) > self.memory.bytes:
            found = blocks(self.model, self.weights, self.memory.layers)
        with ExitStack() as stack:
            stack.enter_context(calibrating(self.model))
            spill = stack.enter_context(Spill(self.memory.bytes))
            chain = Chain(found, spill)
            inside = {weight.name: index for index, block in enumerate(found) for weight in block.weights}
            rest = [weight for weight in self.weights if weight.name not in inside]
            collected = self._whole(chain, spill, inside)
            yield rest, self._of(collected, rest)
            ran = gathered((chain.problem, chain.order if chain.samples else None))
            problem = next((problem for problem, _ in ran if problem), "")
            order = next((order for _, order in ran if order is not None), chain.order)
            for place, index in shown(enumerate(order), self.samples.progress, "blocks", len(order)):
                weights = found[index].weights
                collected = self._block(weights, chain, None if problem else place, spill)
                yield weights, self._of(collected, weights)

    def _of(self, collected: Collected, weights: Sequence[Weight]) -> Callable[[Weight], Statistics]:
        add_up(collected, weights)
        for strange in gathered(self.strange):
            self.strange.update(strange)

        def of(weight: Weight) -> Statistics:
            found = collected.of(weight, self.strange)
            found.fisher = self.fisher.pop(weight.name, None)
            return found

        return of

    def _whole(self, chain: Chain, spill: Spill, inside: dict[str, int]) -> Collected:
        """Runs the model on all samples: statistics of what is outside of blocks, and what the others need."""
        collected = Collected()
        count = 0

        def seen(part: Part, used: Operation | LookUp, output: torch.Tensor) -> torch.Tensor | None:
            index = inside.get(part.weight.name)
            if index is not None and index != chain.inside:
                name = part.weight.name
                chain.problem = chain.problem or f"{name} is used outside of {chain.blocks[index].name}"
            if index is None and isinstance(used, LookUp):
                collected.look_up(part, used)
            elif isinstance(used, Operation) and index is None and not self.samples.guided:
                collected.add(part, used)
            elif isinstance(used, Operation) and self.samples.guided:
                return self._guided(part, used, output, None if index is None else count, collected)
            return None

        with ExitStack() as stack:
            gradients = stack.enter_context(Sums(self.model, self.weights)) if self.samples.guided else None
            stack.enter_context(chain)
            watch = Watch(self.weights, seen)
            for item in self.samples:
                if inside:
                    spill.put(("item", count), item)
                with watch:
                    self.samples.run(self.model, item)
                collected.end_sample()
                if inside:
                    chain.end_sample()
                count += 1
            self.strange.update(watch.strange)
            self.fisher = {} if gradients is None else dict(gradients.collect())
        for sample in range(count if not chain.problem else 0):
            spill.drop(("item", sample))
        return collected

    def _guided(
        self, part: Part, used: Operation, output: torch.Tensor, sample: int | None, collected: Collected
    ) -> torch.Tensor | None:
        """Waits for the gradient of an output; of what is in a block (of a sample), only importances are kept."""
        runs = guided_runs(used, part.stop - part.start, self.groups)
        kept = [] if sample is None else self.importances.setdefault((sample, part.key), [])
        place = len(kept)
        kept.append(None)
        if not torch.is_grad_enabled():
            return None
        instead = None if output.requires_grad else output.requires_grad_().clone()

        def add(gradient: torch.Tensor) -> None:
            found = importance(used, gradient, runs)
            if sample is None:
                collected.add(part, used, found)
            else:
                kept[place] = found

        (output if instead is None else instead).register_hook(add)  # type: ignore[no-untyped-call]
        return instead

    def _block(self, weights: Sequence[Weight], chain: Chain, place: int | None, spill: Spill) -> Collected:
        """Runs the block at a place in the chain, or without one the whole model, for the statistics of its weights."""
        collected, names = Collected(), {weight.name for weight in weights}
        kept: dict[Key, list[torch.Tensor | None]] = {}

        def seen(part: Part, used: Operation | LookUp, output: torch.Tensor) -> None:
            if isinstance(used, LookUp):
                collected.look_up(part, used)
            elif not self.samples.guided:
                collected.add(part, used)
            elif part.key in kept:
                importances = kept[part.key].pop(0)
                if importances is not None:
                    collected.add(part, used, importances)

        watch = Watch(weights, seen)
        for sample in range(self.samples.count):
            keys = [key for number, key in self.importances if number == sample and key[0] in names]
            kept = {key: self.importances.pop((sample, key)) for key in keys}
            with watch, torch.no_grad():
                if place is None:
                    self.samples.run_forward(self.model, spill.get(("item", sample)))
                else:
                    chain.run(place, sample)
            collected.end_sample()
        return collected


def _bytes(weights: Sequence[Weight], groups: int) -> int:
    """What the sums of all weights take at the most."""
    total = 0
    for weight in weights:
        shape, axis = weight.owners[0].facts.shape, weight.owners[0].axes[0]
        runs = max(groups, getattr(weight.owners[0].module, "groups", 1))
        total += 4 * runs * (weight.owners[0].facts.numel // shape[axis]) ** 2
    return total
