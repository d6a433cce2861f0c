"""Which weight of the plan a tensor is that a function is called with: the parameter itself, or some of its rows."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch

from palettizer.torch.palettization._layerwise.accumulator import Key
from palettizer.torch.palettization._plan.plan import Weight


class Part(NamedTuple):
    """Rows of a weight, from the first to the one behind the last."""

    weight: Weight
    start: int
    stop: int
    turned: bool
    """Whether the tensor is the weight transposed."""

    @property
    def key(self) -> Key:
        """What tells it from others."""
        return self.weight.name, self.start, self.stop


class Places:
    """Finds weights by where their elements lie."""

    def __init__(self, weights: Sequence[Weight]) -> None:
        self._in_storage: dict[int, list[tuple[Weight, torch.Tensor]]] = {}
        for weight in weights:
            for parameter in weight.parameters():
                storage = parameter.untyped_storage().data_ptr()
                self._in_storage.setdefault(storage, []).append((weight, parameter))

    def find(self, tensor: torch.Tensor) -> Part | None:
        """What of which weight a tensor is, or None."""
        if tensor.layout != torch.strided or tensor.dim() < 2 or tensor.is_meta:
            return None
        for weight, parameter in self._in_storage.get(tensor.untyped_storage().data_ptr(), ()):
            rows = _rows(tensor, parameter)
            if rows is not None:
                return Part(weight, *rows, False)
            rows = _rows(tensor.t(), parameter) if tensor.dim() == 2 else None
            if rows is not None:
                return Part(weight, *rows, True)
        return None


def _rows(tensor: torch.Tensor, parameter: torch.Tensor) -> tuple[int, int] | None:
    """The range of indices of the first axis that a tensor has of a parameter."""
    if tensor.dtype != parameter.dtype or tensor.shape[1:] != parameter.shape[1:]:
        return None
    if tensor.stride() != parameter.stride():
        return None
    start, rest = divmod(int(tensor.storage_offset()) - int(parameter.storage_offset()), max(1, parameter.stride(0)))
    stop = start + tensor.shape[0]
    return (start, stop) if rest == 0 and 0 <= start and stop <= parameter.shape[0] else None
