"""The modules that the torch benchmark compresses: real shapes in plain torch, random weights.

Only what is palettized is there, and in the right sizes: convolutions, linear layers and embeddings. No forward pass is
needed to compress, so the modules are lists of layers.
"""

import torch
import weights
from torch import nn


def resnet(blocks, bottleneck):
    """torchvision's ResNet-18 or -50: every convolution, and the classifier."""
    layers, deep = {"conv1": nn.Conv2d(3, 64, 7, bias=False)}, 64
    for stage, (count, mid) in enumerate(zip(blocks, (64, 128, 256, 512)), 1):
        out = mid * (4 if bottleneck else 1)
        for block in range(count):
            name = f"layer{stage}_{block}_"
            if bottleneck:
                layers[name + "conv1"] = nn.Conv2d(deep, mid, 1, bias=False)
                layers[name + "conv2"] = nn.Conv2d(mid, mid, 3, bias=False)
                layers[name + "conv3"] = nn.Conv2d(mid, out, 1, bias=False)
            else:
                layers[name + "conv1"] = nn.Conv2d(deep, mid, 3, bias=False)
                layers[name + "conv2"] = nn.Conv2d(mid, mid, 3, bias=False)
            if block == 0 and (stage > 1 or bottleneck):
                layers[name + "downsample"] = nn.Conv2d(deep, out, 1, bias=False)
            deep = out
    layers["fc"] = nn.Linear(deep, 1000)
    return nn.ModuleDict(layers)


def bert(width, inner, depth, vocabulary=30522, positions=512):
    """BERT's embeddings, attention and feed-forward layers, and its pooler."""
    layers = {"words": nn.Embedding(vocabulary, width), "positions": nn.Embedding(positions, width),
              "types": nn.Embedding(2, width), "pooler": nn.Linear(width, width)}
    for layer in range(depth):
        for part in ("query", "key", "value", "output"):
            layers[f"{layer}_{part}"] = nn.Linear(width, width)
        layers[f"{layer}_wide"], layers[f"{layer}_narrow"] = nn.Linear(width, inner), nn.Linear(inner, width)
    return nn.ModuleDict(layers)


MODELS = {  # name -> how it is made
    "resnet50": lambda: resnet((3, 4, 6, 3), bottleneck=True),
    "resnet18": lambda: resnet((2, 2, 2, 2), bottleneck=False),
    "bert-base": lambda: bert(768, 3072, 12),
    "bert-small": lambda: bert(512, 2048, 4),
    "linear": lambda: nn.ModuleDict({"linear": nn.Linear(768, 3072)}),
}


def make(name):
    """The module with its weights."""
    with torch.device("meta"):
        module = MODELS[name]()
    module = module.to_empty(device="cpu").requires_grad_(False)
    for key, parameter in module.named_parameters():
        parameter.copy_(torch.from_numpy(weights.draw(f"{name} {key}", tuple(parameter.shape))))
    return module


def sensitivities(name, module):
    """Parameter name -> made-up squared gradients: over several orders of magnitude, the largest 1."""
    found = {}
    for key, parameter in module.named_parameters():
        drawn = torch.from_numpy(weights.draw(f"{name} {key} gradients", tuple(parameter.shape))).square_()
        found[key] = (drawn / drawn.max()).clamp_(min=1e-12)
    return found
