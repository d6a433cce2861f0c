"""The networks that are run in bench/runtime.py: torch modules with random weights, and what coremltools makes of them."""

import os
import subprocess
from pathlib import Path

import coremltools as ct
import numpy as np
import torch
import torchvision
import transformers
from torch import nn

VERSION = 1  # in the cache's file names: raise it when a network changes


class Crepe(nn.Module):
    """CREPE's full model of pitch: 22 million weights, six convolutions along one axis.

    Kim et al., 2018, arXiv 1802.06182: 1024 samples to 360 bins; each convolution is followed by ReLU, batch norm and a
    max-pooling of two.
    """

    def __init__(self):
        super().__init__()
        layers, deep = [], 1
        for wide, kernel, stride in [(1024, 512, 4), (128, 64, 1), (128, 64, 1), (128, 64, 1), (256, 64, 1), (512, 64, 1)]:
            before = (kernel - stride) // 2
            layers += [nn.ConstantPad2d((0, 0, before, kernel - stride - before), 0), nn.Conv2d(deep, wide, (kernel, 1), (stride, 1)),
                       nn.ReLU(), nn.BatchNorm2d(wide), nn.MaxPool2d((2, 1))]
            deep = wide
        self.layers, self.head = nn.Sequential(*layers), nn.Linear(2048, 360)

    def forward(self, x):
        x = self.layers(x[:, None, :, None])
        return torch.sigmoid(self.head(x.permute(0, 2, 3, 1).flatten(1)))


class Logits(nn.Module):
    """GPT-2 of 124 million parameters, tokens to logits; with a mask of its own, which coremltools can convert."""

    def __init__(self, length):
        super().__init__()
        self.model = transformers.GPT2LMHeadModel(transformers.GPT2Config(attn_implementation="eager", use_cache=False))
        seen = torch.ones(length, length).tril().bool()
        self.register_buffer("mask", torch.zeros(1, 1, length, length).masked_fill(~seen, -1e4))
        self.register_buffer("positions", torch.arange(length)[None])

    def forward(self, tokens):
        return self.model(input_ids=tokens, attention_mask=self.mask, position_ids=self.positions, return_dict=False)[0]


class Classifier(nn.Module):
    """ViT-B/16 with 1000 classes, pixels to logits."""

    def __init__(self):
        super().__init__()
        self.model = transformers.ViTForImageClassification(transformers.ViTConfig(num_labels=1000))

    def forward(self, pixels):
        return self.model(pixel_values=pixels, return_dict=False)[0]


def image(count):
    return torch.randn(count, 3, 224, 224)


NETWORKS = {  # name -> a function that makes the module and its input
    "resnet50-1": lambda: (torchvision.models.resnet50(), image(1)),
    "resnet50-8": lambda: (torchvision.models.resnet50(), image(8)),
    "vit-b-16": lambda: (Classifier(), image(1)),
    "gpt2-64": lambda: (Logits(64), torch.randint(50257, (1, 64))),
    "crepe-full": lambda: (Crepe(), torch.randn(1, 1024)),
}


def network(name):
    """The module, in evaluation mode, and its input; always the same."""
    torch.manual_seed(0)
    module, x = NETWORKS[name]()
    norms = [one for one in module.modules() if isinstance(one, nn.BatchNorm2d)]
    with torch.no_grad():
        for norm in norms:  # statistics as after training: those of a new network give next to nothing
            norm.momentum = 1.0
        if norms:
            module.train()(torch.cat([x, torch.randn(3, *x.shape[1:])]))
    return module.eval(), x


BASIC_PITCH = "basic-pitch/basic_pitch/saved_models/icassp_2022"


def twin():
    """Basic Pitch in Core ML and in ONNX, as its authors converted it, and its input: two seconds of sound."""
    root = Path(os.environ["PALETTIZER_MODELS"]) / BASIC_PITCH
    return root / "nmp.mlpackage", root / "nmp.onnx", np.random.default_rng(0).normal(0, 0.1, (1, 43844, 1)).astype(np.float32)


def array(x):
    """What both sides are given."""
    return x.numpy().astype(np.int32) if x.dtype == torch.long else x.numpy()


def package(name, cache, command, bits=None):
    """The model that coremltools makes of a network in fp32, its input beside it, or that model with palettized weights."""
    if name == "basic-pitch" and not bits:
        return twin()[0]
    path = Path(cache) / f"runtime-{name}{f'-{bits}bit' if bits else ''}-v{VERSION}.mlpackage"
    if path.exists():
        return path
    if bits:
        source = package(name, cache, command)
        subprocess.run([command, "compress", source, "-o", path, "--nbits", str(bits), "--minimum-deployment-target", "iOS18", "--quiet"], check=True)
        return path
    module, x = network(name)
    with torch.no_grad():
        traced = torch.jit.trace(module, x, strict=False)
    given = ct.TensorType("x", x.shape, dtype=array(x).dtype)
    made = ct.convert(traced, inputs=[given], outputs=[ct.TensorType("y", dtype=np.float32)], convert_to="mlprogram",
                      skip_model_load=True, minimum_deployment_target=ct.target.iOS18, compute_precision=ct.precision.FLOAT32)
    np.save(path.with_suffix(".npy"), array(x))
    made.save(str(path))
    return path
