"""Programs in folders: looked at before Apple's reader, which ends the process on what is damaged, and saved in one step."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import Any

from palettizer import _native
from palettizer.coreai._wheel import AIModelAsset

SUFFIX = ".aimodel"
_PROGRAM, _HASH, _ABOUT = "main.mlirb", "main.hash", "metadata.json"
_MAGIC = b"ML\xefR"


def check(path: str | os.PathLike[str]) -> Path:
    """Refuses a folder that Apple's reader would not survive.

    Raises:
        FileNotFoundError: there is nothing.
        ValueError: it is no program, or damaged.
    """
    folder = Path(path)
    if not folder.exists():
        raise FileNotFoundError(f"there is no {folder}")
    wrong = _wrong(folder)
    if wrong:
        raise ValueError(f"{folder} is no Core AI program, or it is damaged: {wrong}; make it again, or fetch it again")
    return folder


def _wrong(folder: Path) -> str:
    if not folder.is_dir():
        return f"expected a folder whose name ends in {SUFFIX}"
    program = folder / _PROGRAM
    if not program.is_file():
        return f"it has no {_PROGRAM}"
    digest = hashlib.sha256()
    with open(program, "rb") as file:
        start = file.read(len(_MAGIC))
        if start != _MAGIC:
            return f"{_PROGRAM} begins with {start.hex(' ')}, expected {_MAGIC.hex(' ')} (MLIR bytecode)"
        digest.update(start)
        while piece := file.read(1 << 20):
            digest.update(piece)
    for part in (_HASH, _ABOUT):
        if not (folder / part).is_file():
            return f"it has no {part}"
    said = folder / _HASH
    if said.read_bytes() != digest.digest():
        return f"{_HASH} is not the SHA-256 of {_PROGRAM}"
    try:
        summary = AIModelAsset.load(folder).summary(include_statistics=False)
    except Exception as error:  # of whatever type: it comes from the wheel
        return str(error)
    if summary is None or not summary.function_names:
        return f"{_PROGRAM} has no function that can be read"
    return ""


def length(folder: Path) -> int:
    """Bytes of the program in a folder."""
    return (folder / _PROGRAM).stat().st_size


def save(program: Any, path: str | os.PathLike[str], metadata: Any, overwrite: bool) -> int:
    """Saves beside the place and renames: what was there stays until the new one is whole. Gives the program's bytes.

    Raises:
        ValueError: a name that does not end in .aimodel.
        FileExistsError: there is something already that is not to be replaced.
        OSError: it cannot be replaced, or written.
    """
    out = Path(os.path.expanduser(path))
    if out.suffix != SUFFIX:
        raise ValueError(f"{out} must end in {SUFFIX}")
    with _native.StagedOutput.program(out, overwrite=overwrite) as built:
        return write(program, built, metadata)


def write(program: Any, built: Path, metadata: Any) -> int:
    """Writes a program to a place that has nothing, in a folder of its own, and looks at it. Gives its bytes."""
    made = built.with_name(f"made{SUFFIX}")  # the wheel looks at the name
    program.save_asset(made, **({} if metadata is None else {"metadata": metadata}))
    check(made)
    made.rename(built)
    return length(built)
