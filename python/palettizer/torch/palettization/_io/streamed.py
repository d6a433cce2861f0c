"""A safetensors file that is written tensor by tensor, so that never more than one of them is in memory.

Names and places come first in such a file, and are known last: so there is room left for them, which spaces fill up.
"""

from __future__ import annotations

import json
import os
import struct
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import IO, Any

import torch

from palettizer import _native
from palettizer.torch.palettization._io.safetensors import Path

_ENTRY = 160
"""More than what an entry takes beside its name: dtype, a shape of eight axes, two places."""


class Streamed:
    """An open file."""

    def __init__(self, file: IO[bytes], room: int) -> None:
        self._file, self._room, self._place = file, room, 0
        self._entries: dict[str, Any] = {}
        file.write(struct.pack("<Q", room))
        file.seek(8 + room)

    def add(self, name: str, tensor: torch.Tensor) -> None:
        """Writes a tensor, as float32."""
        data = tensor.detach().to("cpu", torch.float32).contiguous()
        data.reshape(-1).view(torch.uint8).numpy().tofile(self._file)
        end = self._place + data.numel() * 4
        self._entries[name] = {"dtype": "F32", "shape": list(tensor.shape), "data_offsets": [self._place, end]}
        self._place = end

    def finish(self, strings: Mapping[str, str]) -> None:
        """Writes names, places and metadata."""
        listed = {"__metadata__": dict(strings), **self._entries}
        text = json.dumps(listed, separators=(",", ":"), ensure_ascii=False).encode()
        assert len(text) <= self._room, (len(text), self._room)
        self._file.seek(8)
        self._file.write(text + b" " * (self._room - len(text)))


@contextmanager
def streamed(path: Path, names: Iterable[str], strings: Mapping[str, str]) -> Iterator[Streamed]:
    """Writes a file with some of these tensors, and metadata that may be changed until the end.

    The file is complete or not there; one that is there is replaced.

    >>> import tempfile
    >>> from palettizer.torch.palettization._io import safetensors
    >>> path = os.path.join(tempfile.mkdtemp(), "a.safetensors")
    >>> with streamed(path, ["a", "b"], {}) as file:
    ...     file.add("b", torch.ones(2, 3))
    >>> safetensors.read(path, safetensors.header(path)["b"]).sum()
    tensor(6.)
    """
    room = sum(_ENTRY + 2 * len(json.dumps(name)) for name in names) + 4096
    with _native.StagedOutput(path, overwrite=True) as built, open(built, "xb") as file:
        output = Streamed(file, room + -room % 8)
        yield output
        output.finish(strings)
        file.flush()
        os.fsync(file.fileno())
