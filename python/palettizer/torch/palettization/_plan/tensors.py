"""Tensors as the native module takes and gives them: flat bytes on the CPU, in a dtype that it knows."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import torch
from numpy.typing import NDArray

from palettizer import _native

NAMES = {torch.float32: "f32", torch.float16: "f16", torch.bfloat16: "bf16"}
DTYPES = {name: dtype for dtype, name in NAMES.items()}


def to_native(tensor: torch.Tensor) -> torch.Tensor:
    """The tensor itself if the native module can read it, or a copy on the CPU. A float64 one is rounded to float32."""
    dtype = tensor.dtype if tensor.dtype in NAMES else torch.float32
    return tensor.detach().to("cpu", dtype).contiguous()


def as_bytes(tensor: torch.Tensor) -> NDArray[np.uint8]:
    """The memory of a contiguous tensor on the CPU."""
    array: NDArray[np.uint8] = tensor.detach().reshape(-1).view(torch.uint8).numpy()
    return array


def from_bytes(data: NDArray[np.uint8], dtype: torch.dtype, shape: Iterable[int] | None) -> torch.Tensor:
    """A tensor of its bytes; what is there has a shape."""
    tensor = torch.empty(tuple(shape or ()), dtype=dtype)
    if tensor.numel() > 0:
        as_bytes(tensor)[:] = data
    return tensor


def write_values(palette: _native.Palette, tensor: torch.Tensor) -> None:
    """Writes the weight that a palette stands for to a tensor; to its very memory where the native module can."""
    native = DTYPES[palette.dtype]
    in_place = tensor.dtype == native and tensor.device.type == "cpu" and tensor.is_contiguous()
    dense = tensor if in_place else torch.empty(tuple(palette.shape), dtype=native)
    palette.decompress_into(as_bytes(dense))
    if not in_place:
        tensor.copy_(dense)
