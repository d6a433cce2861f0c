"""Squared gradients of parameters that lie in shards on several processes.

The gradients of all processes are averaged on the way to the shards, but it is their squares that must be. So each
gradient is squared before that: at the whole weight, which the module holds during its forward pass alone. The shards
then receive the average of the squares, and add them up from sample to sample.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any

import torch
from torch import nn

from palettizer.torch.palettization._plan.plan import Weight
from palettizer.torch.palettization._plan.sharding import full_gradient, is_dtensor
from palettizer.torch.palettization._plan.walk import Owner

_MARK = "_palettizer_squares_gradient"


class ShardedSums:
    """The squared gradients of parameters in shards."""

    def __init__(self, model: nn.Module, weights: Sequence[Weight]) -> None:
        self.model = model
        self.weights = weights
        self.kept = {id(parameter) for weight in weights for parameter in weight.parameters()}
        self.handles: list[Any] = []
        self.marked: list[torch.Tensor] = []

    def __enter__(self) -> ShardedSums:
        held: dict[int, list[Owner]] = {}
        for weight in self.weights:
            for owner in weight.owners:
                held.setdefault(id(owner.module), []).append(owner)
        # A module may use the weights of those inside it without calling them, as MultiheadAttention does.
        for module in self.model.modules():
            inside = [owner for inner in module.modules() for owner in held.get(id(inner), [])]
            if inside:
                self.handles.append(module.register_forward_pre_hook(partial(self._square_gradients, inside)))
        return self

    def __exit__(self, *error: Any) -> None:
        for handle in self.handles:
            handle.remove()
        for tensor in self.marked:
            delattr(tensor, _MARK)

    def _square_gradients(self, owners: Sequence[Owner], _module: nn.Module, _inputs: Any) -> None:
        for owner in owners:
            whole = getattr(owner.module, owner.parameter)
            in_shards = is_dtensor(whole) if owner.wrapper is None else isinstance(whole, nn.Parameter)
            if in_shards or not whole.requires_grad or hasattr(whole, _MARK):
                continue
            setattr(whole, _MARK, True)
            handle = whole.register_hook(torch.square)
            # One wrapper makes a new view of its memory for each pass, the other keeps one tensor.
            if whole.is_leaf:
                self.handles.append(handle)
                self.marked.append(whole)

    def after_backward(self) -> None:
        """Frees the gradients that nobody asked for."""
        for parameter in self.model.parameters():
            if id(parameter) not in self.kept:
                parameter.grad = None

    def collect(self) -> Iterator[tuple[str, torch.Tensor]]:
        """(name, sum) of each weight that got a gradient, gathered one at a time."""
        for weight in self.weights:
            owner = weight.owners[0]
            total = full_gradient(owner.module, owner.parameter, owner.wrapper)
            if total is not None:
                yield weight.name, total
