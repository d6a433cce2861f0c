"""Core AI programs to test with, made from torch modules; and a child process that runs them, which Apple's runtime sometimes
aborts at its end."""

import json
import subprocess
import sys
from pathlib import Path

import coreai_torch
import numpy as np
import torch
from coreai_torch import TorchConverter
from torch import nn
from torch.nn import functional

RUN = """
import asyncio, json, os, sys
import numpy as np, ml_dtypes
from coreai.authoring import AIModelAsset
from coreai.runtime import NDArray

async def run(path, entry, halves, inputs, out):
    async with AIModelAsset.load(path).executable() as model:
        function = model.load_function(entry)
        arrays = np.load(inputs)
        given = {name: NDArray(arrays[name].astype(ml_dtypes.bfloat16) if name in halves else arrays[name]) for name in arrays}
        state = {name: given.pop(name) for name in list(given) if name.startswith("b_")}
        found = await function(given, state)
        found.update(state)
        np.savez(out, **{name: np.asarray(value.numpy()).astype(np.float32) for name, value in found.items()})

for task in json.load(sys.stdin):
    asyncio.run(run(*task))
print("done", flush=True)
os._exit(0)
"""


def run(folder, *tasks):
    """The outputs of programs and what their buffers (`b_…`) hold then, in float32: a task is (path, tensors) or (path, tensors, entry point). One child process runs them."""
    asked = []
    for number, (path, tensors, *entry) in enumerate(tasks):
        given, out = Path(folder) / f"run{number}.in.npz", Path(folder) / f"run{number}.out.npz"
        halves = [name for name, tensor in tensors.items() if tensor.dtype == torch.bfloat16]  # numpy's files have none
        plain = {torch.bfloat16: torch.float32, torch.int64: torch.int32}  # programs take no int64
        np.savez(given, **{name: tensor.to(plain.get(tensor.dtype, tensor.dtype)).numpy() for name, tensor in tensors.items()})
        asked.append((str(path), entry[0] if entry else "main", halves, str(given), str(out)))
    child = subprocess.run([sys.executable, "-c", RUN], input=json.dumps(asked), capture_output=True, text=True, timeout=300)
    assert child.returncode == 0 and child.stdout.endswith("done\n"), child.stdout + child.stderr
    return [dict(np.load(task[4])) for task in asked]


def program(module, *inputs, names=("x",), entry="main", mode=None, dynamic=None, more=()):
    """An `AIProgram` of a module; `more` are (module, inputs, names, entry) of other entry points."""
    converter = TorchConverter(mode=mode or TorchConverter.Mode.RELEASE)
    for one, example, called, name, shapes in [(module, inputs, names, entry, dynamic), *(part + (None,) for part in more)]:
        exported = torch.export.export(one.eval(), tuple(example), dynamic_shapes=shapes)
        exported = exported.run_decompositions(coreai_torch.get_decomp_table())
        converter.add_exported_program(exported, input_names=list(called), output_names=["y"], entrypoint_name=name)
    return converter.to_coreai()


def cnn(folder):
    """The folder of a program of a small network."""
    program(Cnn(), torch.randn(1, 3, 8, 8)).save_asset(folder / "m.aimodel")
    return folder / "m.aimodel"


class Cnn(nn.Module):
    """Every kind of convolution that has a weight, and a linear layer."""

    def __init__(self):
        super().__init__()
        self.stem, self.norm = nn.Conv2d(3, 16, 3, padding=1), nn.BatchNorm2d(16)
        self.deep = nn.Conv2d(16, 16, 3, groups=16, padding=1)
        self.up = nn.ConvTranspose2d(16, 8, 2, stride=2)
        self.line = nn.Conv1d(8, 12, 3)
        self.cube = nn.Conv3d(4, 8, 3, padding=1)
        self.head = nn.Linear(12 * 254, 10)

    def forward(self, x):
        x = functional.relu(self.norm(self.stem(x)))
        x = functional.relu(self.up(self.deep(x)))
        x = self.line(x.flatten(2))
        cube = self.cube(x[:, :8, :144].reshape(-1, 4, 2, 12, 12)).sum()
        return self.head(x.flatten(1)) + cube


class Block(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.first, self.second = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.up, self.down = nn.Linear(width, 2 * width), nn.Linear(2 * width, width)

    def forward(self, x):
        q, k, v = (part.unflatten(-1, (2, -1)).transpose(1, 2) for part in self.qkv(self.first(x)).chunk(3, -1))
        mixed = functional.scaled_dot_product_attention(q, k, v, is_causal=True)
        x = x + self.out(mixed.transpose(1, 2).flatten(2))
        return x + self.down(functional.gelu(self.up(self.second(x))))


class Transformer(nn.Module):
    """A tied embedding, a table of positions, a causal mask."""

    def __init__(self, width=32, words=64, tied=True):
        super().__init__()
        self.words, self.positions = nn.Embedding(words, width), nn.Parameter(torch.randn(8, width))
        self.blocks = nn.ModuleList([Block(width), Block(width)])
        self.head = nn.Linear(width, words, bias=False)
        if tied:
            self.head.weight = self.words.weight

    def forward(self, tokens):
        x = self.words(tokens) + self.positions
        for block in self.blocks:
            x = block(x)
        return self.head(x)


class Cached(nn.Module):
    """Attention over what came before, which two buffers hold."""

    def __init__(self, width=32, length=8):
        super().__init__()
        self.query, self.key, self.value, self.out = (nn.Linear(width, width) for _ in range(4))
        self.register_buffer("keys", torch.zeros(1, length, width))
        self.register_buffer("values", torch.zeros(1, length, width))

    def forward(self, x, at):
        here = torch.arange(self.keys.shape[1])[None, :, None] == at
        self.keys.copy_(torch.where(here, self.key(x), self.keys))
        self.values.copy_(torch.where(here, self.value(x), self.values))
        weights = torch.softmax(self.query(x) @ self.keys.transpose(1, 2) / 6, -1)
        return self.out(weights @ self.values)


class Many(nn.Module):
    """As many products of one input as there are weights, one below the other."""

    def __init__(self, count, rows=16, columns=24):
        super().__init__()
        self.parts = nn.ModuleList(nn.Linear(columns, rows, bias=False) for _ in range(count))

    def forward(self, x):
        return torch.stack([part(x) for part in self.parts])
