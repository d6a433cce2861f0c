"""Runs the blocks of a model by themselves: what each was called with is recorded once, while the whole model runs.

The output of a block that the next one takes is not recorded: it comes out again when the block is run. What else a block
is called with, as masks and positions, is kept for each sample, once if several blocks share it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch.utils import _pytree as pytree

from palettizer.torch.palettization._layerwise.blocks import Block
from palettizer.torch.palettization._layerwise.spill import Spill

_CONSTANTS = (type(None), bool, int, float, complex, str, torch.dtype, torch.device, torch.Size)


@dataclass
class _FromTable:
    index: int


class _FromBlock:
    """What the block before gives."""


@dataclass
class _Call:
    """How a block is called: its arguments as the leaves of a tree, and which leaf of the last output is one of them."""

    block: int
    spec: Any
    leaves: list[Any]
    output: int | None


@dataclass
class _Now:
    """The run of the model that is recorded."""

    calls: list[_Call] = field(default_factory=list)
    table: list[torch.Tensor] = field(default_factory=list)
    seen: dict[tuple[int, int], int] = field(default_factory=dict)
    alive: list[torch.Tensor] = field(default_factory=list)
    outputs: list[tuple[int, int] | None] = field(default_factory=list)
    given: list[torch.Tensor | None] = field(default_factory=list)
    """What the last block gave, and in `outputs` the ids of that."""


class Chain:
    """Records calls of blocks, one sample after the other, and makes them again, one block after the other."""

    def __init__(self, blocks: Sequence[Block], spill: Spill) -> None:
        self.blocks, self._spill = blocks, spill
        self.problem = ""
        """Why the blocks cannot be run by themselves, if they cannot."""
        self.inside: int | None = None
        """The block that is running."""
        self.samples: list[list[_Call]] = []
        self._now = _Now()
        self._handles: list[Any] = []

    def __enter__(self) -> Chain:
        for index, block in enumerate(self.blocks):
            before = lambda module, args, kwargs, index=index: self._before(index, args, kwargs)
            after = lambda module, args, kwargs, output, index=index: self._after(index, output)
            self._handles.append(block.module.register_forward_pre_hook(before, with_kwargs=True))
            self._handles.append(block.module.register_forward_hook(after, with_kwargs=True))
        return self

    def __exit__(self, *error: object) -> None:
        for handle in self._handles:
            handle.remove()

    @property
    def order(self) -> list[int]:
        """The blocks in the order in which they are called."""
        return [call.block for call in self.samples[0]] if self.samples else list(range(len(self.blocks)))

    def end_sample(self) -> None:
        """Keeps what was recorded of one run of the model."""
        calls, self._now, table, self.inside = self._now.calls, _Now(), self._now.table, None
        if self.problem:
            return
        if len(calls) != len(self.blocks):
            missing = {block.name for block in self.blocks} - {self.blocks[call.block].name for call in calls}
            self.problem = f"{min(missing)} was not called"
        elif self.samples and self.order != [call.block for call in calls]:
            self.problem = "the blocks are called in different orders"
        elif 2 * sum(call.output is None for call in calls) > len(calls):
            self.problem = "most blocks do not take what the block before gives"
        else:
            self._spill.put(("table", len(self.samples)), table)
            self.samples.append(calls)

    def _before(self, index: int, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        name, now = self.blocks[index].name, self._now
        if self.inside is not None or any(call.block == index for call in now.calls):
            self.problem = self.problem or f"{name} is called more than once, or by another block"
        if _autocast():
            self.problem = self.problem or f"{name} is called with autocast"
        self.inside = index
        if self.problem:
            return
        leaves, spec = pytree.tree_flatten((args, kwargs))
        output, found = None, []
        for leaf in leaves:
            if not isinstance(leaf, torch.Tensor):
                if not isinstance(leaf, _CONSTANTS):
                    self.problem = f"{name} is called with a {type(leaf).__name__}"
                found.append(leaf)
                continue
            same = id(leaf), _version(leaf)
            given = now.outputs.index(same) if same in now.outputs and same not in now.seen else None
            if given is not None and output in (None, given):
                output = given
                found.append(_FromBlock())
            else:
                found.append(_FromTable(self._kept(leaf, same)))
        now.calls.append(_Call(index, spec, found, output))

    def _kept(self, tensor: torch.Tensor, same: tuple[int, int]) -> int:
        now = self._now
        if same not in now.seen:
            now.seen[same] = len(now.table)
            now.table.append(tensor.detach().clone())
            now.alive.append(tensor)  # so that no other tensor gets its id
        return now.seen[same]

    def _after(self, index: int, output: Any) -> None:
        self.inside = None
        if self.problem:
            return
        leaves = pytree.tree_flatten(output)[0]
        tensors = [leaf if isinstance(leaf, torch.Tensor) else None for leaf in leaves]
        self._now.outputs = [None if tensor is None else (id(tensor), _version(tensor)) for tensor in tensors]
        self._now.given = tensors

    def run(self, place: int, sample: int) -> None:
        """Calls the block at a place in the order as it was called for a sample. Those before it must have been run."""
        calls = self.samples[sample]
        call, block = calls[place], self.blocks[calls[place].block]
        table = self._spill.get(("table", sample))
        given = self._spill.take(("output", sample)) if call.output is not None else None
        leaves = [self._leaf(leaf, table, given) for leaf in call.leaves]
        del table, given
        args, kwargs = pytree.tree_unflatten(leaves, call.spec)
        del leaves
        output = block.module(*args, **kwargs)
        if place + 1 == len(calls):
            self._spill.drop(("table", sample))
        elif (leaf := calls[place + 1].output) is not None:
            wanted = pytree.tree_flatten(output)[0][leaf]
            self._spill.put(("output", sample), _compact(wanted.detach()))

    @staticmethod
    def _leaf(leaf: Any, table: list[torch.Tensor], given: torch.Tensor | None) -> Any:
        if isinstance(leaf, _FromTable):
            return table[leaf.index].clone()  # a block may change it in place
        return given if isinstance(leaf, _FromBlock) else leaf


def _version(tensor: torch.Tensor) -> int:
    return -1 if tensor.is_inference() else tensor._version


def _compact(tensor: torch.Tensor) -> torch.Tensor:
    """The tensor without the rest of a memory that it is a part of."""
    whole = tensor.untyped_storage().nbytes() == tensor.numel() * tensor.element_size()
    return tensor if whole else tensor.clone()


def _autocast() -> bool:
    try:
        return torch.is_autocast_enabled("cpu") or torch.is_autocast_enabled()
    except TypeError:  # torch before 2.4
        return torch.is_autocast_cpu_enabled() or torch.is_autocast_enabled()
