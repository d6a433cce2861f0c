"""Squared gradients of parameters that lie in shards on several processes.

The gradients of all processes are averaged on the way to the shards, but it is their squares that must be. So each
gradient is squared before that: at the whole weight, which the module holds during its forward pass alone. The shards
then receive the average of the squares, and add them up from sample to sample.
"""

from __future__ import annotations

from typing import Any, Iterator, List, Sequence

import torch
from torch import nn

from palettizer.torch.palettization._plan import Weight
from palettizer.torch.palettization._sharding import full_gradient

_MARK = "_palettizer_squares_gradient"


class ShardedSums:
    """The squared gradients of parameters in shards."""

    def __init__(self, weights: Sequence[Weight]) -> None:
        self.weights = weights
        self.kept = {id(o.module.get_parameter(o.parameter)) for weight in weights for o in weight.owners}
        self.handles: List[Any] = []
        self.marked: List[torch.Tensor] = []

    def asks(self, weight: Weight) -> bool:
        """Whether a weight can get a gradient."""
        return any(owner.module.get_parameter(owner.parameter).requires_grad for owner in weight.owners)

    def __enter__(self) -> "ShardedSums":
        for weight in self.weights:
            for owner in weight.owners:
                hook = self._squarer(owner.parameter)
                self.handles.append(owner.module.register_forward_pre_hook(hook))
        return self

    def __exit__(self, *error: Any) -> None:
        for handle in self.handles:
            handle.remove()
        for tensor in self.marked:
            delattr(tensor, _MARK)

    def _squarer(self, name: str) -> Any:
        def before_forward(module: nn.Module, _inputs: Any) -> None:
            whole = getattr(module, name)
            # One wrapper makes a new view of its memory for each pass, the other keeps one tensor.
            if whole.requires_grad and not hasattr(whole, _MARK):
                setattr(whole, _MARK, True)
                handle = whole.register_hook(torch.square)
                if whole.is_leaf:
                    self.handles.append(handle)
                    self.marked.append(whole)

        return before_forward

    def after_backward(self, model: nn.Module) -> None:
        """Frees the gradients that nobody asked for."""
        for parameter in model.parameters():
            if id(parameter) not in self.kept:
                parameter.grad = None

    def collect(self) -> Iterator[Any]:
        """(name, sum) of each weight that got a gradient, gathered one at a time."""
        for weight in self.weights:
            owner = weight.owners[0]
            total = full_gradient(owner.module, owner.parameter, owner.wrapper)
            if total is not None:
                yield weight.name, total
