"""What tables are trained on: a loss of the user's, or the distance from the outputs of a float model."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Literal

import torch
from torch import Tensor, nn

from palettizer.torch.palettization._layerwise.samples import ForwardFunction
from palettizer.torch.palettization._sensitivity.gradients import LossFunction

Distance = Literal["kl", "mse"]


def main_output(outputs: Any) -> Tensor:
    """The logits of a model's outputs, or else the first tensor.

    >>> main_output({"loss": torch.zeros(()), "logits": torch.ones(2)})
    tensor([1., 1.])

    Raises:
        TypeError: there is none.
    """
    if isinstance(outputs, Tensor):
        return outputs
    logits = outputs.get("logits") if isinstance(outputs, Mapping) else getattr(outputs, "logits", None)
    if isinstance(logits, Tensor):
        return logits
    parts = list(outputs.values()) if isinstance(outputs, Mapping) else outputs
    if isinstance(parts, (tuple, list)):
        for part in parts:
            if isinstance(part, Tensor):
                return part
    raise TypeError(
        f"the model's output is a {type(outputs).__name__} without a tensor; forward_fn(model, item) may choose one"
    )


def distance_from(reference: nn.Module, distance: Distance, run: ForwardFunction) -> LossFunction:
    """The loss that is the distance of a model's outputs from those of a float model."""

    def loss(model: nn.Module, data: Any) -> Tensor:
        with torch.no_grad():
            wanted = main_output(run(reference, data)).detach()
        found = main_output(run(model, data))
        if wanted.shape != found.shape:
            raise ValueError(
                f"reference has outputs of shape {tuple(wanted.shape)}, the model of {tuple(found.shape)}; "
                "give the float model that was palettized"
            )
        wanted = wanted.to(found.device)
        per_row = _divergence(wanted, found) if distance == "kl" else (found.float() - wanted.float()).square()
        mask = data.get("attention_mask") if isinstance(data, Mapping) else None
        if isinstance(mask, Tensor) and mask.shape == found.shape[:-1]:
            # What padding computes is of no use.
            mask = mask.to(found.device) != 0
            return per_row[mask].mean()
        return per_row.mean()

    return loss


def _divergence(wanted: Tensor, found: Tensor) -> Tensor:
    """Kullback and Leibler's, of the softmax along the last axis."""
    p, q = wanted.float().log_softmax(-1), found.float().log_softmax(-1)
    return (p.exp() * (p - q)).sum(-1)


@contextmanager
def quiet(model: nn.Module) -> Iterator[None]:
    """Evaluation mode for a while: no dropout, and the statistics of batch norms as they are."""
    modes = [(module, module.training) for module in model.modules()]
    recurrent = [(module, module.dropout) for module in model.modules() if isinstance(module, nn.RNNBase)]
    model.eval()
    for network, _ in recurrent:
        # Their kernels on a GPU have no gradients in evaluation mode.
        network.training, network.dropout = True, 0.0
    try:
        yield
    finally:
        for module, mode in modes:
            module.training = mode
        for network, dropout in recurrent:
            network.dropout = dropout
