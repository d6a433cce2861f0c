"""Parts of an unfinished output, kept on disk so that a run that was ended can go on.

The folder is OUT.parts. The name of a part is the fingerprint of all that it was made of, so what fits is used again and
what does not is not found.
"""

from __future__ import annotations

import hashlib
import os
import re
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from palettizer import __version__, _native

_PART = r"[0-9a-f]{32}\.safetensors"
_LONGEST_NAME = 255


def part_name(*ingredients: str | bytes | memoryview) -> str:
    """The fingerprint of what a part is made of.

    >>> part_name("a", b"b") == part_name("a", b"b") != part_name("ab", b"")
    True
    """
    digest = hashlib.sha256()
    for ingredient in (__version__, *ingredients):
        data = ingredient.encode() if isinstance(ingredient, str) else ingredient
        digest.update(len(data).to_bytes(8, "little"))
        digest.update(data)
    return digest.hexdigest()[:32] + ".safetensors"


@contextmanager
def parts_folder(out: Path | None) -> Iterator[Path]:
    """The folder of the parts; they go when the work is done, and stay when it is not. Without an output they go always."""
    if out is None:
        with tempfile.TemporaryDirectory(prefix="palettizer-") as folder:
            yield Path(folder)
        return
    folder_beside = out.with_name(_parts_name(out.name))
    folder_beside.mkdir(exist_ok=True)
    yield folder_beside
    for part in folder_beside.iterdir():
        if re.fullmatch(_PART, part.name):
            part.unlink(missing_ok=True)
    # It stays if something is in it that is not of ours.
    with suppress(OSError):
        folder_beside.rmdir()


def _parts_name(out: str) -> str:
    """OUT.parts, or shorter: file systems take names of 255 bytes.

    >>> _parts_name("a.safetensors"), len(_parts_name(250 * "a"))
    ('a.safetensors.parts', 38)
    """
    name = out + ".parts"
    if len(os.fsencode(name)) > _LONGEST_NAME:
        name = part_name(os.fsencode(out))[:32] + ".parts"
    return name


def put(data: bytes, path: Path) -> None:
    """Writes a part: complete or not there."""
    with _native.StagedOutput(path, overwrite=True) as built, open(built, "xb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
