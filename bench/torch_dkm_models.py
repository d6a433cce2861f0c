"""The networks that the benchmark of differentiable k-means trains, with their inputs: real shapes, random weights.

Unlike those of `torch_models`, they run: a training step needs a forward pass.
"""

import torch
import weights
from torch import nn
from torch.nn import functional

VOCABULARY, LENGTH = 32000, 32


class Block(nn.Module):
    """Two convolutions of ResNet-18, around which the input passes."""

    def __init__(self, deep, wide, stride):
        super().__init__()
        self.conv1 = nn.Conv2d(deep, wide, 3, stride, 1, bias=False)
        self.conv2 = nn.Conv2d(wide, wide, 3, 1, 1, bias=False)
        self.bn1, self.bn2 = nn.BatchNorm2d(wide), nn.BatchNorm2d(wide)
        self.downsample = None
        if deep != wide:
            self.downsample = nn.Sequential(nn.Conv2d(deep, wide, 1, stride, bias=False), nn.BatchNorm2d(wide))

    def forward(self, x):
        around = x if self.downsample is None else self.downsample(x)
        x = functional.relu(self.bn1(self.conv1(x)))
        return functional.relu(self.bn2(self.conv2(x)) + around)


def resnet18():
    """torchvision's ResNet-18."""
    layers = [nn.Conv2d(3, 64, 7, 2, 3, bias=False), nn.BatchNorm2d(64), nn.ReLU(), nn.MaxPool2d(3, 2, 1)]
    deep = 64
    for wide in (64, 128, 256, 512):
        layers += [Block(deep, wide, 1 if deep == wide else 2), Block(wide, wide, 1)]
        deep = wide
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(512, 1000))


class DecoderLayer(nn.Module):
    """Causal attention and two linear layers, each after a norm and with the input passing around it."""

    def __init__(self, width, heads):
        super().__init__()
        self.heads = heads
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.query, self.key, self.value, self.out = (nn.Linear(width, width) for _ in range(4))
        self.wide, self.narrow = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

    def forward(self, x):
        y = self.norm1(x)
        parts = (part(y).unflatten(-1, (self.heads, -1)).transpose(1, 2) for part in (self.query, self.key, self.value))
        y = functional.scaled_dot_product_attention(*parts, is_causal=True)
        x = x + self.out(y.transpose(1, 2).flatten(2))
        return x + self.narrow(functional.gelu(self.wide(self.norm2(x))))


class Decoder(nn.Module):
    """A decoder-only transformer; its embedding serves as the classifier, too."""

    def __init__(self, depth, width, heads):
        super().__init__()
        self.words, self.positions = nn.Embedding(VOCABULARY, width), nn.Embedding(LENGTH, width)
        self.layers = nn.Sequential(*(DecoderLayer(width, heads) for _ in range(depth)))
        self.norm = nn.LayerNorm(width)
        self.classifier = nn.Linear(width, VOCABULARY, bias=False)
        self.classifier.weight = self.words.weight

    def forward(self, tokens):
        x = self.words(tokens) + self.positions.weight[:tokens.shape[1]]
        return self.classifier(self.norm(self.layers(x))).flatten(0, 1)


def images():
    return torch.randn(8, 3, 64, 64), torch.randint(1000, (8,))


def vectors(width, classes):
    return torch.randn(16, width), torch.randint(classes, (16,))


def tokens():
    return torch.randint(VOCABULARY, (1, LENGTH)), torch.randint(VOCABULARY, (LENGTH,))


CASES = {  # name -> (how the model is made, how an input and its labels are)
    "linear-4096": (lambda: nn.Sequential(nn.Linear(4096, 4096)), lambda: vectors(4096, 4096)),
    "linear-768": (lambda: nn.Sequential(nn.Linear(768, 3072)), lambda: vectors(768, 3072)),
    "resnet18": (resnet18, images),
    "half-billion": (lambda: Decoder(24, 1280, 20), tokens),
}


def make(name):
    """(the model in training mode, an input, its labels): the same ones for the same name."""
    torch.manual_seed(0)
    build, data = CASES[name]
    model = build().train()
    with torch.no_grad():
        for key, parameter in model.named_parameters():
            if parameter.dim() > 1:
                parameter.copy_(torch.from_numpy(weights.draw(f"{name} {key}", tuple(parameter.shape))))
    return model, *data()
