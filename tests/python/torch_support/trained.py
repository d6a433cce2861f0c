"""Small networks that are trained where the tests run: on scikit-learn's digits, and on Fashion-MNIST."""

import gzip
import struct

import numpy as np
import torch
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from torch import nn
from torch.nn import functional


def digits():
    """(training images, labels, 360 test images, labels): 8×8 pixels from 0 to 1; one test image is 0.28 points."""
    images, labels = load_digits(return_X_y=True)
    split = train_test_split((images / 16).astype(np.float32), labels, test_size=360, random_state=0, stratify=labels)
    train, test, train_labels, test_labels = map(torch.from_numpy, split)
    return train.reshape(-1, 1, 8, 8), train_labels, test.reshape(-1, 1, 8, 8), test_labels


def fashion(root, train=12000):
    """The same of Fashion-MNIST's idx files: some of the training images, and all 10,000 for testing."""
    def read(name):
        data = gzip.decompress((root / f"{name}.gz").read_bytes())
        rank = data[3]
        shape = struct.unpack(f">{rank}I", data[4:4 + 4 * rank])
        return torch.from_numpy(np.frombuffer(data, np.uint8, offset=4 + 4 * rank).reshape(shape).copy())

    images, labels, test, test_labels = (read(name) for name in (
        "train-images-idx3-ubyte", "train-labels-idx1-ubyte", "t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte"))
    scaled = lambda images: (images.float() / 255).unsqueeze(1)
    return scaled(images[:train]), labels[:train].long(), scaled(test), test_labels.long()


class Cnn(nn.Module):
    """Two convolutions and a linear layer; 21,000 weights for 8×8 pixels."""

    def __init__(self, side=8, channels=32):
        super().__init__()
        self.conv1 = nn.Conv2d(1, channels, 3, padding=1)
        self.conv2 = nn.Conv2d(channels, 2 * channels, 3, padding=1)
        self.classifier = nn.Linear(2 * channels * (side // 4) ** 2, 10)

    def forward(self, x):
        x = functional.max_pool2d(functional.relu(self.conv1(x)), 2, 2)
        x = functional.max_pool2d(functional.relu(self.conv2(x)), 2, 2)
        return self.classifier(x.flatten(1))


class Mlp(nn.Module):
    """Three linear layers; 26,000 weights."""

    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(nn.Flatten(), nn.Linear(64, 128), nn.ReLU(), nn.Linear(128, 128), nn.ReLU(),
                                    nn.Linear(128, 10))

    def forward(self, x):
        return self.layers(x)


class Transformer(nn.Module):
    """The rows of an image as eight tokens, one pre-norm block; 35,000 weights."""

    def __init__(self, width=64):
        super().__init__()
        self.embed = nn.Linear(8, width)
        self.position = nn.Parameter(torch.randn(8, width) * 0.02)
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.attention = nn.MultiheadAttention(width, 4, batch_first=True)
        self.wide, self.narrow = nn.Linear(width, 2 * width), nn.Linear(2 * width, width)
        self.classifier = nn.Linear(width, 10)

    def forward(self, x):
        x = self.embed(x.squeeze(1)) + self.position
        y = self.norm1(x)
        x = x + self.attention(y, y, y, need_weights=False)[0]
        x = x + self.narrow(functional.gelu(self.wide(self.norm2(x))))
        return self.classifier(x.mean(dim=1))


NETS = {"cnn": Cnn, "mlp": Mlp, "transformer": Transformer}


def train(make, data, seed, epochs, batch=64, rate=2e-3, step=lambda: None):
    """A net trained with Adam and a falling rate, in evaluation mode; the same one for the same seed.

    `step` is called after each one of the optimizer.
    """
    torch.manual_seed(seed)
    images, labels = data[:2]
    model = make()
    steps = epochs * (len(images) // batch)
    optimizer = torch.optim.Adam(model.parameters(), rate)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    for _ in range(epochs):
        order = torch.randperm(len(images))
        for index in order[:len(order) // batch * batch].split(batch):
            optimizer.zero_grad()
            functional.cross_entropy(model(images[index]), labels[index]).backward()
            optimizer.step()
            schedule.step()
            step()
    return model.eval()


def fine_tuned(side, model, data, seed, epochs=10, rate=1e-3, **options):
    """A copy of a trained net, trained on with differentiable k-means, in evaluation mode: `train` with two lines more.

    It is not finalized, which the peer cannot do with attention; its weights are those of the nearest centroids anyway.
    """
    config = side.DKMPalettizerConfig(global_config=side.ModuleDKMPalettizerConfig(**options))
    palettizer = side.DKMPalettizer(model, config)
    return train(palettizer.prepare, data, seed, epochs, rate=rate, step=palettizer.step)


@torch.no_grad()
def accuracy(model, data):
    """Correct answers on the test images, in percent."""
    images, labels = data[2:]
    right = sum(int((model(x).argmax(1) == y).sum()) for x, y in zip(images.split(2000), labels.split(2000)))
    return 100 * right / len(labels)


def loss(model, batch):
    """What sensitivities are of: the cross entropy of one batch."""
    images, labels = batch
    return functional.cross_entropy(model(images), labels)


def batches(data, count, size=16):
    """The first training images as calibration batches."""
    images, labels = data[:2]
    return list(zip(images[:count * size].split(size), labels[:count * size].split(size)))
