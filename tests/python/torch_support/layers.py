"""One small layer of every kind that is palettized: how to make it, and which dimension of its weights is what.

The peer palettizes `Linear`, `Embedding`, `Conv2d` and the in-projection of `MultiheadAttention`. For every other
weight its judgement is asked of an equal `Conv2d`: the output channels first, then the input channels, then the rest.
"""

import zlib
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

DTYPES = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}


@dataclass(frozen=True)
class Kind:
    """A kind of layer; `weights` are (module, parameter) within it."""

    make: callable
    input_shape: tuple
    weights: tuple = (("", "weight"),)
    output_dim: int = 0
    at_peer: bool = False  # the peer palettizes all its weights itself

    @property
    def input_dim(self):
        return 1 - self.output_dim

    def dim(self, channel_axis):
        """The dimension that groups and vectors lie on."""
        return self.output_dim if channel_axis == 0 else self.input_dim


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
    "attention": Kind(lambda: nn.MultiheadAttention(32, 4, batch_first=True), (1, 5, 32), (_Q, _OUT), at_peer=True),
    "attention-apart": Kind(lambda: nn.MultiheadAttention(32, 4, kdim=48, vdim=16, batch_first=True), (1, 5, 32),
                            (*_APART, _OUT)),
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
        return self.layer(x)


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
