"""Values of samples, in memory up to a budget, and beyond that in a temporary folder, which is removed in the end."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Mapping
from typing import Any

import torch


class Spill:
    """Values by keys. What was put in first stays in memory."""

    def __init__(self, budget: int) -> None:
        self._left = budget
        self._kept: dict[object, tuple[Any, int]] = {}
        self._files: dict[object, str] = {}
        self._folder: tempfile.TemporaryDirectory[str] | None = None
        self._count = 0

    def __enter__(self) -> Spill:
        return self

    def __exit__(self, *error: object) -> None:
        self._kept.clear()
        self._files.clear()
        if self._folder is not None:
            self._folder.cleanup()
            self._folder = None

    def put(self, key: object, value: Any) -> None:
        """Keeps a value; an earlier one under that key is dropped."""
        self.drop(key)
        size = _bytes(value)
        if size <= self._left:
            self._left -= size
            self._kept[key] = value, size
            return
        if self._folder is None:
            self._folder = tempfile.TemporaryDirectory(prefix="palettizer-inputs-")
        self._count += 1
        path = os.path.join(self._folder.name, f"{self._count}.pt")
        torch.save(value, path)
        self._files[key] = path

    def get(self, key: object) -> Any:
        """The value under a key. One that was kept in memory is given itself."""
        if key in self._kept:
            return self._kept[key][0]
        # It is a file of our own, and may hold whatever a data loader gives.
        return torch.load(self._files[key], weights_only=False)

    def drop(self, key: object) -> None:
        """Forgets a value, if there is one."""
        if key in self._kept:
            self._left += self._kept.pop(key)[1]
        path = self._files.pop(key, None)
        if path is not None:
            os.remove(path)

    def take(self, key: object) -> Any:
        """The value under a key, which is forgotten."""
        value = self.get(key)
        self.drop(key)
        return value


def _bytes(value: Any) -> int:
    if isinstance(value, torch.Tensor):
        return value.numel() * value.element_size()
    if isinstance(value, Mapping):
        return sum(map(_bytes, value.values()))
    return sum(map(_bytes, value)) if isinstance(value, (tuple, list)) else 0
