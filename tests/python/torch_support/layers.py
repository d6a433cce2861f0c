"""One small layer of every kind that is palettized: how to make it, and which dimension of its weights is what.

The peer palettizes `Linear`, `Embedding`, `Conv2d` and the in-projection of `MultiheadAttention`. For every other
weight its judgement is asked of an equal `Conv2d`: the output channels first, then the input channels, then the rest.
"""

import zlib
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn
from transformers.pytorch_utils import Conv1D

DTYPES = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}


@dataclass(frozen=True)
class Kind:
    """A kind of layer; `weights` are (module, parameter) within it."""

    make: callable
    input_shape: tuple
    weights: tuple = (("", "weight"),)
    output_dim: int = 0
    at_peer: bool = False  # the peer palettizes all its weights itself
    ways: tuple = ("traced", "exported")  # those in which the converter knows the layer, palettized

    @property
    def input_dim(self):
        return 1 - self.output_dim

    def dim(self, channel_axis):
        """The dimension that groups and vectors lie on."""
        return self.output_dim if channel_axis == 0 else self.input_dim


_RNN, _CELL = (("", "weight_ih_l0"), ("", "weight_hh_l0")), (("", "weight_ih"), ("", "weight_hh"))
_BOTH = tuple(("", f"{name}{way}") for way in ("", "_reverse") for _, name in _RNN)
_Q, _OUT = ("", "in_proj_weight"), ("out_proj", "weight")
_APART = tuple(("", f"{part}_proj_weight") for part in "qkv")

KINDS = {
    "linear": Kind(lambda: nn.Linear(48, 64), (2, 48), at_peer=True),
    "embedding": Kind(lambda: nn.Embedding(64, 48), None, at_peer=True),
    "conv1d": Kind(lambda: nn.Conv1d(16, 32, 5), (1, 16, 9)),
    "conv2d": Kind(lambda: nn.Conv2d(16, 32, 3), (1, 16, 6, 6), at_peer=True),
    "conv2d-grouped": Kind(lambda: nn.Conv2d(32, 32, 3, groups=2), (1, 32, 6, 6), at_peer=True),
    "conv3d": Kind(lambda: nn.Conv3d(16, 16, (3, 3, 2)), (1, 16, 4, 4, 4)),
    "conv_transpose1d": Kind(lambda: nn.ConvTranspose1d(16, 32, 5), (1, 16, 6), output_dim=1),
    "conv_transpose2d": Kind(lambda: nn.ConvTranspose2d(16, 32, 3), (1, 16, 5, 5), output_dim=1),
    "conv_transpose3d": Kind(lambda: nn.ConvTranspose3d(16, 16, (3, 3, 2)), (1, 16, 3, 3, 3), output_dim=1),
    "attention": Kind(lambda: nn.MultiheadAttention(32, 4, batch_first=True), (1, 5, 32), (_Q, _OUT), at_peer=True,
                      ways=("exported",)),
    "attention-apart": Kind(lambda: nn.MultiheadAttention(32, 4, kdim=48, vdim=16, batch_first=True), (1, 5, 32),
                            (*_APART, _OUT), ways=("exported",)),
    "gpt2-conv1d": Kind(lambda: Conv1D(64, 48), (1, 3, 48), output_dim=1),
    "rnn": Kind(lambda: nn.RNN(32, 48), (5, 1, 32), _RNN, ways=("traced",)),
    "rnn-cell": Kind(lambda: nn.RNNCell(32, 48), (2, 32), _CELL, ways=("traced",)),
    "lstm": Kind(lambda: nn.LSTM(48, 32, bidirectional=True), (5, 1, 48), _BOTH, ways=()),
    "lstm-projected": Kind(lambda: nn.LSTM(32, 32, proj_size=16), (5, 1, 32), (*_RNN, ("", "weight_hr_l0")), ways=()),
    "lstm-cell": Kind(lambda: nn.LSTMCell(32, 32), (2, 32), _CELL, ways=()),
    "gru": Kind(lambda: nn.GRU(32, 16, batch_first=True), (1, 5, 32), _RNN, ways=()),
    "gru-cell": Kind(lambda: nn.GRUCell(48, 32), (2, 48), _CELL, ways=()),
    "bilinear": Kind(lambda: nn.Bilinear(16, 32, 16), (2, 48), ways=()),
    "embedding-bag": Kind(lambda: nn.EmbeddingBag(64, 48), None, ways=()),
}


class Holder(nn.Module):
    """A model of one layer, so that the layer has a name."""

    def __init__(self, layer):
        super().__init__()
        self.layer = layer

    def forward(self, x):
        if isinstance(self.layer, nn.MultiheadAttention):
            if self.layer.kdim == self.layer.embed_dim:
                return self.layer(x, x, x, need_weights=False)[0]
            return self.layer(x, torch.cat([x, x[..., :16]], -1), x[..., :16], need_weights=False)[0]
        made = self.layer(x[..., :16], x[..., 16:]) if isinstance(self.layer, nn.Bilinear) else self.layer(x)
        return made[0] if isinstance(made, tuple) else made


def values(label, shape, tails=4):
    """Weights drawn for a label, heavy-tailed as trained ones are: the same in every run and on every machine."""
    rng = np.random.default_rng(zlib.crc32(label.encode()))
    return torch.from_numpy((rng.standard_t(tails, shape) * 0.05).astype(np.float32))


def model(kind, dtype="fp32", label="weights"):
    """A model of one layer with weights drawn for the label."""
    held = Holder(KINDS[kind].make()).to(DTYPES[dtype]).eval()
    with torch.no_grad():
        for name, parameter in held.named_parameters():
            parameter.copy_(values(f"{label} {kind} {name}", tuple(parameter.shape)))
    return held


def weights(kind, held):
    """(qualified name, module, parameter name) for every weight of the model that is palettized."""
    for module, parameter in KINDS[kind].weights:
        path = ".".join(part for part in ("layer", module) if part)
        yield f"{path}.{parameter}", held.get_submodule(path), parameter


def sensitivities(kind, held, label="sensitivity"):
    """Parameter name -> made-up sensitivities, over several orders of magnitude and with a few zeros' floor."""
    found = {}
    for name, module, parameter in weights(kind, held):
        weight = module.get_parameter(parameter)
        drawn = values(f"{label} {kind} {name}", tuple(weight.shape), tails=2).square()
        found[name] = (drawn / drawn.max()).clamp(min=1e-12)
    return found


def as_conv2d(kind, tensor):
    """The tensor in the order of a Conv2d's weight."""
    moved = tensor.movedim(KINDS[kind].output_dim, 0)
    return moved.reshape(moved.shape[0], moved.shape[1], -1, 1).contiguous()


def from_conv2d(kind, tensor, shape):
    """Back from the order of a Conv2d's weight to the shape of the kind's own."""
    output = KINDS[kind].output_dim
    moved = torch.Size([shape[output], *(size for dim, size in enumerate(shape) if dim != output)])
    return tensor.reshape(moved).movedim(0, output).contiguous()
