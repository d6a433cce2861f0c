"""How long the file of a model is: as it is, and what stays in it when some weights are palettized."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from palettizer import _native
from palettizer.torch.palettization._io.store import Item, listed, recovered, strings, type_in_file
from palettizer.torch.palettization._plan import metadata
from palettizer.torch.palettization._plan.walk import Owner

MOST = 1 << 44
"""More bytes than any file has."""

_ROOM = 4
"""How many times larger a palettized model could be: a group of few elements has a table of its own."""


def lengths(model: torch.nn.Module, owners: Sequence[Owner], quantized: bool) -> tuple[int, int, int]:
    """Bytes of the file of a model now, and of what stays in it once the weights of owners are palettized.

    The former exactly, the latter at most: all that is no palette. And a number of bytes that the whole file has not then.
    `quantized` says that tables may be of integers, which a record has a number more for.

    >>> from palettizer.torch.palettization._plan.walk import walk
    >>> model = torch.nn.Linear(64, 64, bias=False)
    >>> before, other, most = lengths(model, list(walk(model)), False)
    >>> 64 * 64 * 4 < before < 64 * 64 * 4 + 100, other < 500
    (True, True)
    """
    items, shared = listed(model)
    taken = {owner.name for owner in owners}
    records = {_beside(owner, field) for owner in owners for field in (*metadata.PALETTE_FIELDS, "compression_type")}
    left = [item for item in items if item.name not in taken and item.name not in records]
    version = metadata.version_name()
    new = [(_beside(owner, "compression_type"), "I64", [1 + quantized + len(_types(owner))]) for owner in owners]
    if version not in {item.name for item in items}:
        new.append((version, "I64", []))
    before = _length(items, [], shared, None)
    most = before * _ROOM
    return before, _length(left, new, shared, most), most


def _length(items: Sequence[Item], new: Sequence[tuple[str, str, list[int]]], shared: dict[str, str], most: int | None) -> int:
    dense = [(item.name, type_in_file(item.name, item.value), list(item.value.shape)) for item in items if not item.palettized]
    palettes = [item for item in items if item.palettized]
    most = MOST if palettes and most is None else most
    total = _native.Checkpoint.len_of([*dense, *new], strings(shared), most)
    for item in palettes:
        total += recovered(item.module, item.inner, item.name, item.value).stored_len(item.name, MOST if most is None else most)
    return total


def _beside(owner: Owner, field: str) -> str:
    prefix = f"{owner.module_name}." if owner.module_name else ""
    return prefix + metadata.buffer_name(owner.module, owner.parameter, field)


def _types(owner: Owner) -> list[int]:
    return metadata.recorded(owner.module, owner.parameter)
