"""Activations as they are when they are stored as integers, in training: rounded, with the gradient of no rounding."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

AVERAGING = 0.01
"""The weight of a new batch in the moving average of the range."""


class FakeQuantize(nn.Module):
    """Rounds a tensor to integers of a range, by a scale and a zero point for the whole tensor, and back.

    The range is a moving average of the least and the greatest value of the batches seen in training; 0 is always in
    it. In evaluation the range stays. Before the first batch tensors pass as they are.

    Args:
        quant_min: the least integer.
        quant_max: the greatest.
        device: of the tensors.

    >>> quantize = FakeQuantize(0, 3)
    >>> quantize(torch.tensor([0.0, 0.9, 1.9, 3.0]))
    tensor([0., 1., 2., 3.])
    """

    min_val: Tensor
    max_val: Tensor

    def __init__(self, quant_min: int, quant_max: int, device: Any = None) -> None:
        super().__init__()
        self.quant_min, self.quant_max = quant_min, quant_max
        self.register_buffer("min_val", torch.full((), torch.nan, device=device))
        self.register_buffer("max_val", torch.full((), torch.nan, device=device))
        self._observed = False

    def forward(self, value: Tensor) -> Tensor:
        """The values that are left of them."""
        if self.training and value.numel() > 0 and not _recomputing():
            self._observe(value.detach().float())
        if not self._observed:
            return value
        least, most = self.min_val.clamp(max=0.0), self.max_val.clamp(min=0.0)
        scale = ((most - least) / (self.quant_max - self.quant_min)).clamp(min=torch.finfo(torch.float32).eps)
        zero = (self.quant_min - (least / scale).round()).clamp(self.quant_min, self.quant_max).to(torch.int32)
        made = torch.fake_quantize_per_tensor_affine(value.float(), scale, zero, self.quant_min, self.quant_max)
        return made.to(value.dtype)

    def _observe(self, value: Tensor) -> None:
        least, most = torch.aminmax(value)
        with torch.no_grad():
            for average, new in ((self.min_val, least), (self.max_val, most)):
                average.copy_(torch.where(average.isnan(), new, average + AVERAGING * (new - average)))
        self._observed = True

    def _load_from_state_dict(self, state_dict: Any, prefix: str, *args: Any) -> None:
        super()._load_from_state_dict(state_dict, prefix, *args)  # type: ignore[no-untyped-call,unused-ignore]
        self._observed = not bool(self.min_val.isnan())

    def extra_repr(self) -> str:
        """What is printed of it."""
        return f"quant_min={self.quant_min}, quant_max={self.quant_max}"


def _recomputing() -> bool:
    """Whether a backward pass runs, as when a checkpoint is recomputed: those values have been seen."""
    # A compiled graph keeps what it recomputes of.
    return not torch.compiler.is_compiling() and torch._C._current_graph_task_id() != -1
