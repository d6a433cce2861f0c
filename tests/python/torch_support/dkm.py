"""Differentiable k-means on both sides by the same words: small nets, a loop, and the peer's state set to ours."""

import copy

import torch
from torch import nn
from torch.nn import functional

import palettizer.torch.palettization as ours


THE_PEERS_NUMBERS = {"palett_tau": 1e-4, "prune_threshold": 1e-7, "zero_threshold": 1e-7}
"""The peer's defaults for what is found by the weight here, where nothing is given: for both to do the same sums."""


def config(side, **options):
    """One config for all layers, whatever their size."""
    return side.DKMPalettizerConfig(global_config=side.ModuleDKMPalettizerConfig(**{"weight_threshold": 0, **options}))


def prepared(model, side=ours, **options):
    """The palettizer and its prepared copy of a model."""
    palettizer = side.DKMPalettizer(copy.deepcopy(model), config(side, **options))
    return palettizer, palettizer.prepare(inplace=True)


def mlp(seed=0, dtype=torch.float32):
    """Three linear layers with biases."""
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(16, 32), nn.Tanh(), nn.Linear(32, 32), nn.Tanh(), nn.Linear(32, 10)).to(dtype)


def batches(count, size=8, width=16, dtype=torch.float32):
    """The same batches in every call."""
    generator = torch.Generator().manual_seed(count)
    draw = lambda: (torch.randn(size, width, generator=generator).to(dtype),
                    torch.randint(0, 10, (size,), generator=generator))
    return [draw() for _ in range(count)]


def train(model, steps, *, palettizer=None, call=None, optimizer=None, parts=1):
    """The loss of each step; each batch in `parts` that give one gradient together."""
    optimizer = optimizer or torch.optim.SGD(model.parameters(), 0.05, momentum=0.9)
    losses = []
    for inputs, labels in steps:
        optimizer.zero_grad()
        total = 0.0
        for some, wanted in zip(inputs.chunk(parts), labels.chunk(parts)):
            loss = functional.cross_entropy((model if call is None else call)(some).double(), wanted) / parts
            loss.backward()
            total += loss.item()
        optimizer.step()
        if palettizer is not None:
            palettizer.step()
        losses.append(total)
    return losses


def fakes(model):
    """Name -> each FakePalettize of a model, of either side."""
    return {name: module for name, module in model.named_modules() if type(module).__name__ == "FakePalettize"}


def same_start(ours, theirs):
    """Gives the peer's prepared model the centroids that ours was seeded with, and ours the peer's scale.

    Ours must have run once.
    """
    others = fakes(theirs)
    for name, fake in fakes(ours).items():
        other = others[name]
        owner, _, child = name.rpartition(".")
        weight = theirs.get_submodule(owner).get_parameter(child.removesuffix("_fake_quant"))
        weight = weight.detach()
        if other.cluster_permute:
            weight = weight.permute(other.cluster_permute)
        other.create_partitions(weight)
        other.centroids = [centroids.clone() for centroids in fake.start]
        if fake.scale is not None:
            other.per_channel_scaling_factor = fake.scale.reshape(-1, 1).clone()
