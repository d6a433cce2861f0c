"""Modules through DKMPalettizer: a few steps from a fixed seed, the state in the middle and at the end."""

import itertools

import palettizer.torch.palettization as ctp
import torch
from torch import nn
from torch_support import converted, layers, trained

from outputs.calls.case import case, data, net, shown, store


def differentiable(make, steps=3, **options):
    def call(given, folder):
        config = ctp.DKMPalettizerConfig(global_config=ctp.ModuleDKMPalettizerConfig(**{"weight_threshold": 0, **options}))
        palettizer = ctp.DKMPalettizer(net(make), config)
        model, losses = palettizer.prepare(inplace=True).train(), []
        optimizer = torch.optim.SGD(model.parameters(), 0.05, momentum=0.9)
        for images, labels in data()[:steps]:
            optimizer.zero_grad()
            loss = nn.functional.cross_entropy(model(images), labels)
            loss.backward()
            optimizer.step()
            palettizer.step()
            losses.append(loss.item().hex())
        (folder / "losses.txt").write_text("\n".join(losses))
        store(folder, "training.bin", model.state_dict())
        store(folder, "done.bin", palettizer.finalize(inplace=True).state_dict())
        shown(folder, palettizer.report())
    return call


def one_layer(kind):
    def call(given, folder):
        config = ctp.DKMPalettizerConfig(global_config=ctp.ModuleDKMPalettizerConfig(n_bits=2, weight_threshold=0))
        palettizer = ctp.DKMPalettizer(layers.model(kind), config)
        model = palettizer.prepare(inplace=True)
        sample = converted.sample(kind)
        model(sample).float().square().mean().backward()
        store(folder, "gradients.bin", {name: parameter.grad for name, parameter in model.named_parameters() if parameter.grad is not None})
        store(folder, "done.bin", palettizer.finalize(inplace=True).state_dict())
    return call


DKM = [
    {}, {"n_bits": 1}, {"n_bits": 4}, {"granularity": "per_grouped_channel", "group_size": 2}, {"cluster_dim": 2},
    {"cluster_dim": 2, "n_bits": 3}, {"enable_per_channel_scale": True}, {"lut_dtype": "i8"}, {"lut_dtype": "u8", "n_bits": 3},
    {"lut_dtype": "f16"}, {"implicit": True}, {"palett_tau": 0.01, "kmeans_max_iter": 5}, {"milestone": 2}, {"palett_mode": "hard"},
    {"weight_threshold": 4096}, {"kmeans_init": "kmeans++", "cluster_dim": 2, "kmeans_n_init": 12}, {"quantize_activations": True},
    {"palett_tau": 1e-4, "prune_threshold": 1e-7, "zero_threshold": 1e-7}, {"palett_mode": "ste"},
]
for place, (options, (name, make)) in enumerate(zip(DKM, itertools.cycle(trained.NETS.items()))):
    case("Python, differentiable k-means", f"{place:02}-{name}", differentiable(make, **options))
for kind in layers.KINDS:
    case("Python, differentiable k-means", f"layer-{kind}", one_layer(kind))
