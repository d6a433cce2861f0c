"""Parts of an unfinished output, kept on disk so that a run that was ended can go on.

The folder is OUT.parts. The name of a part is the fingerprint of all that it was made of, so what fits is used again and
what does not is not found.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
from contextlib import contextmanager
from pathlib import Path
from typing import Iterator, Optional, Union

from palettizer import __version__


class Fingerprint:
    """What a part is made of, as a name.

    >>> Fingerprint("a", b"b").name == Fingerprint("a", b"b").name != Fingerprint("ab", b"").name
    True
    """

    def __init__(self, *ingredients: Union[str, bytes, memoryview]) -> None:
        digest = hashlib.sha256()
        for ingredient in (__version__, *ingredients):
            data = ingredient.encode() if isinstance(ingredient, str) else ingredient
            digest.update(len(data).to_bytes(8, "little"))
            digest.update(data)
        self.name = digest.hexdigest()[:32] + ".safetensors"


@contextmanager
def parts_folder(out: Optional[Path]) -> Iterator[Path]:
    """The folder of the parts; it goes when the work is done, and stays when it is not. Without an output it goes always."""
    if out is None:
        with tempfile.TemporaryDirectory(prefix="palettizer-") as folder:
            yield Path(folder)
        return
    folder_beside = out.with_name(out.name + ".parts")
    folder_beside.mkdir(exist_ok=True)
    yield folder_beside
    shutil.rmtree(folder_beside)


def put(data: bytes, path: Path) -> None:
    """Writes a part: complete or not there."""
    handle, beside = tempfile.mkstemp(dir=path.parent, prefix=".part-")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
        os.replace(beside, path)
    except BaseException:
        os.unlink(beside)
        raise
