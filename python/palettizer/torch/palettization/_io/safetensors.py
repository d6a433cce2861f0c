"""Reading and writing the safetensors format: a JSON header with names, dtypes, shapes and places, then the bytes.

Only what sensitivities and statistics need: they are tensors of floats on the CPU. A file is written beside its place and
then renamed.
"""

from __future__ import annotations

import json
import math
import os
import struct
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
import torch

from palettizer import _native

Path = str | os.PathLike[str]

_DTYPES = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
}
_LARGEST_HEADER = 100_000_000


class Entry(NamedTuple):
    """A tensor of a file: its dtype, its shape, and its bytes counted from the start of the file."""

    dtype: torch.dtype
    shape: tuple[int, ...]
    start: int
    end: int


def check_place(path: Path) -> None:
    """Refuses a path that no file can be written to, before the work for it is done.

    Raises:
        FileNotFoundError: there is no such folder.
        IsADirectoryError: it is a folder itself.
        OSError: nothing can be written there, or what is there is no file: a device, a pipe, a link that leads nowhere.
    """
    folder = os.path.dirname(os.path.abspath(path))
    if not os.path.isdir(folder):
        raise FileNotFoundError(f"there is no folder {folder} to write {os.fspath(path)} to")
    if os.path.isdir(path):
        raise IsADirectoryError(f"{os.fspath(path)} is a folder; give the name of a file")
    _native.StagedOutput(path, overwrite=True)


def save(tensors: Mapping[str, torch.Tensor], path: Path, strings: Mapping[str, str] | None = None) -> None:
    """Writes float32 tensors, and strings as the metadata. The file is complete or not there; one that is there is replaced.

    >>> import tempfile
    >>> folder = tempfile.mkdtemp()
    >>> save({"a": torch.ones(2, 3)}, os.path.join(folder, "a.safetensors"))
    >>> read(os.path.join(folder, "a.safetensors"), header(os.path.join(folder, "a.safetensors"))["a"]).sum()
    tensor(6.)
    """
    entries: dict[str, object] = {"__metadata__": dict(strings)} if strings else {}
    place = 0
    for name, tensor in tensors.items():
        size = tensor.numel() * 4
        entries[name] = {"dtype": "F32", "shape": list(tensor.shape), "data_offsets": [place, place + size]}
        place += size
    text = json.dumps(entries, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)
    with _native.StagedOutput(path, overwrite=True) as built, open(built, "xb") as file:
        file.write(struct.pack("<Q", len(text)))
        file.write(text)
        for tensor in tensors.values():
            data = tensor.detach().to("cpu", torch.float32).contiguous()
            data.reshape(-1).view(torch.uint8).numpy().tofile(file)
        file.flush()
        os.fsync(file.fileno())


def header(path: Path) -> dict[str, Entry]:
    """Name -> tensor of a file.

    Raises:
        ValueError: the file is no safetensors file, or contradicts itself.
    """
    return contents(path)[0]


def contents(path: Path) -> tuple[dict[str, Entry], dict[str, str]]:
    """Name -> tensor of a file, and the strings of its metadata. Errors are those of `header`."""
    total = os.path.getsize(path)
    with open(path, "rb") as file:
        first = file.read(8)
        length = struct.unpack("<Q", first)[0] if len(first) == 8 else total
        if length > min(total - 8, _LARGEST_HEADER):
            raise ValueError(f"{os.fspath(path)} is not a safetensors file: it has no header of a sensible length")
        try:
            listed = json.loads(file.read(length).decode())
        except ValueError as error:
            raise ValueError(f"{os.fspath(path)} is not a safetensors file: its header is not JSON") from error
    if not isinstance(listed, dict):
        raise ValueError(f"{os.fspath(path)} is not a safetensors file: its header is not a JSON object")
    strings = listed.pop("__metadata__", {})
    if not isinstance(strings, dict) or not all(isinstance(value, str) for value in strings.values()):
        raise ValueError(f"{os.fspath(path)} has metadata that is not strings by names")
    return {name: _entry(path, name, entry, 8 + length, total) for name, entry in listed.items()}, strings


def _entry(path: Path, name: str, listed: object, base: int, total: int) -> Entry:
    where = f"{name!r} in {os.fspath(path)}"
    try:
        dtype, shape, (start, end) = (listed[key] for key in ("dtype", "shape", "data_offsets"))  # type: ignore[index]
        numbers: list[int] = [*shape, start, end]
        sensible = all(type(number) is int and number >= 0 for number in numbers)
    except (TypeError, KeyError, ValueError):
        sensible = False
    if not sensible:
        raise ValueError(f"{where} has no sensible dtype, shape and data_offsets")
    if dtype not in _DTYPES:
        raise ValueError(f"{where} has dtype {dtype}; expected one of {', '.join(_DTYPES)}")
    if base + end > total or end - start != math.prod(shape) * _DTYPES[dtype].itemsize:
        raise ValueError(f"{where} does not have as many bytes as its shape {tuple(shape)} says; is the file whole?")
    return Entry(_DTYPES[dtype], tuple(shape), base + start, base + end)


def read(path: Path, entry: Entry) -> torch.Tensor:
    """One tensor of a file, in memory of its own."""
    if entry.end == entry.start:
        return torch.empty(entry.shape, dtype=entry.dtype)
    data = np.fromfile(path, np.uint8, entry.end - entry.start, offset=entry.start)
    return torch.from_numpy(data).view(entry.dtype).reshape(entry.shape)
