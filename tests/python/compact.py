"""What the compact form of a safetensors file stands for, read with numpy and torch alone."""

import json

import numpy as np
import torch
from safetensors import safe_open

DTYPES = {"F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}


def load(path):
    """(tensors as they are stored, the file's strings)."""
    with safe_open(path, "pt") as file:
        return {name: file.get_tensor(name) for name in file.keys()}, file.metadata() or {}


def dense(path):
    """Name -> dense tensor, of a palettized file."""
    tensors, strings = load(path)
    assert strings["palettizer.format"] == "1"
    found = {}
    for name, about in json.loads(strings["palettizer.weights"]).items():
        parts = {key.removeprefix(f"{name}.palette."): tensors.pop(key)
                 for key in list(tensors) if key.startswith(f"{name}.palette.")}
        found[name] = weight(parts, about)
    return {**tensors, **found}


def weight(parts, about):
    """One weight from its tensors and what the metadata say of it."""
    dtype, shape, index_shape = DTYPES[about["dtype"]], about["shape"], about["index_shape"]
    bits = np.unpackbits(parts.pop("indices").numpy(), bitorder="little")
    count = int(np.prod(index_shape))
    bits = bits[:count * about["nbits"]].reshape(count, about["nbits"])
    indices = (bits.astype(np.int64) << np.arange(about["nbits"])).sum(axis=1).reshape(index_shape)

    lut = parts.pop("lut")
    assert list(lut.shape[-2:-1]) == [1 << about["nbits"]] and lut.ndim == len(shape) + 2
    if lut.dtype in (torch.int8, torch.uint8):
        offset = parts.pop("lut_offset", torch.zeros(1))
        lut = rounded(parts.pop("lut_scale").double() * (lut.double() - offset.double()), dtype)
    assert lut.dtype == dtype
    blocks = [np.arange(dim) * groups // dim for dim, groups in zip(index_shape, lut.shape)]
    blocks = np.meshgrid(*blocks, indexing="ij")
    vectors = lut[tuple(map(torch.from_numpy, (*blocks, indices)))]
    axis = about["vector_axis"]
    if axis is None:
        values = vectors.squeeze(-1)
    else:
        values = vectors.movedim(-1, axis + 1).reshape(shape)
    if "scale" in parts:
        values = rounded(values.double() * parts.pop("scale").double(), dtype)
    assert not parts, parts.keys()
    assert list(values.shape) == shape
    return values


def rounded(values, dtype):
    """Products of two numbers of the type are exact in float64 and rounded once."""
    return values.to(dtype)
