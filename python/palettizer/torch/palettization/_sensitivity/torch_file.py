"""Tensors of a file of `torch.save`, read one at a time.

Such a file is a zip archive that holds each storage as it is. PyTorch maps it; but what has been read of a mapping stays in memory,
so that in the end all of the file would. A mapping tells where each tensor lies, and tensors are read from there.
"""

from __future__ import annotations

import pickle
import struct
import zipfile
from collections.abc import Callable, Mapping
from typing import Any

import torch

from palettizer.torch.palettization._io.safetensors import Entry, read

_LOCAL_HEADER = struct.Struct("<26xHH")
"""The part of an archive before each file of it, of which the lengths of a name and of an extra field are wanted, which follow."""


def opened(path: str) -> tuple[Mapping[str, tuple[int, ...]], Callable[[str], torch.Tensor]]:
    """The shapes of the tensors in a file by name, and what reads one into memory of its own.

    Raises:
        ValueError: the file holds something else than a dict of tensors.
    """
    try:
        loaded: Any = torch.load(path, weights_only=True, map_location="cpu", mmap=True)
    except pickle.UnpicklingError as error:
        raise ValueError(f"{path} holds something else than tensors, which is not loaded: {error}") from error
    wrong: str | None = None
    if not isinstance(loaded, dict):
        wrong = f"a {type(loaded).__name__}"
    else:
        others = {name: value for name, value in loaded.items() if not isinstance(value, torch.Tensor)}
        wrong = next((f"a {type(value).__name__} for {name!r}" for name, value in others.items()), None)
    if wrong is not None:
        raise ValueError(f"{path} must hold a dict of tensors by name, found {wrong}")
    entries = _entries(path, loaded)
    shapes = {name: tuple(tensor.shape) for name, tensor in loaded.items()}
    if entries is None:
        return shapes, lambda name: loaded[name].detach().clone()
    return shapes, lambda name: read(path, entries[name])


def _entries(path: str, loaded: Mapping[str, torch.Tensor]) -> dict[str, Entry] | None:
    """Where the tensors of a mapped file lie in it; `None` if one is not in the file as it is, from its first element to its last."""
    records = _records(path)
    storages = {tensor.untyped_storage().data_ptr(): tensor.untyped_storage().nbytes() for tensor in loaded.values() if tensor.numel() > 0}
    if not records or not storages:
        return None
    # The first storage is the first record, and then each of the others must be one, too.
    base = min(storages) - min(records)
    if any(records.get(address - base) != nbytes for address, nbytes in storages.items()):
        return None
    entries = {}
    for name, tensor in loaded.items():
        if not tensor.is_contiguous() or tensor.is_conj() or tensor.is_neg():
            return None
        start = max(tensor.data_ptr() - base, 0)
        entries[name] = Entry(tensor.dtype, tuple(tensor.shape), start, start + tensor.nbytes)
    return entries


def _records(path: str) -> dict[int, int]:
    """The bytes of each storage in a file that is there as it is, by where it begins."""
    records = {}
    with zipfile.ZipFile(path) as archive, open(path, "rb") as file:
        for info in archive.infolist():
            if info.filename.rpartition("/")[0].endswith("data") and info.compress_type == zipfile.ZIP_STORED and info.file_size > 0:
                file.seek(info.header_offset)
                header = file.read(_LOCAL_HEADER.size)
                if len(header) == _LOCAL_HEADER.size:
                    records[file.tell() + sum(_LOCAL_HEADER.unpack(header))] = info.file_size
    return records
