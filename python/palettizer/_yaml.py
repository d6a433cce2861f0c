"""YAML as the command reads it: one document, within limits, with the line and the column of what is wrong."""

from __future__ import annotations

import json
import os
from typing import IO, Any

from palettizer import _native

# Longer text is refused; there is no need to read more of a stream to know that.
_MOST = 1 << 20


def load(yml: str | os.PathLike[str] | IO[str] | IO[bytes]) -> Any:
    """The document of a file, given by its path, or of an open stream. `None` for an empty one.

    Raises:
        ValueError: what is no YAML, or more of it than a configuration can have.
        OSError: a file that cannot be read, or is no regular file.
    """
    if isinstance(yml, (str, os.PathLike)):
        return json.loads(_native.yaml_file(yml))
    text = yml.read(_MOST + 1)
    if isinstance(text, bytes):
        text = text.decode("utf-8-sig")
    return json.loads(_native.yaml_text(text))
