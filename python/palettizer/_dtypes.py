"""Names of types, however they are given: as strings, or as the type objects of numpy, PyTorch and coremltools."""

from __future__ import annotations

import sys
from typing import Any

import numpy as np


def dtype_name(value: Any) -> str | None:
    """The name of a type; `None` if it is none. Of a string, itself.

    >>> import numpy as np
    >>> dtype_name(np.int8), dtype_name(np.dtype("uint8")), dtype_name("int8"), dtype_name(8)
    ('int8', 'uint8', 'int8', None)
    """
    if isinstance(value, str):
        return value
    if isinstance(value, np.dtype) or (isinstance(value, type) and issubclass(value, np.generic)):
        return np.dtype(value).name
    torch = sys.modules.get("torch")
    if torch is not None and isinstance(value, torch.dtype):
        return str(value).removeprefix("torch.")
    types = sys.modules.get("coremltools.converters.mil.mil.types")
    if types is not None and isinstance(value, type) and types.is_builtin(value):
        return str(types.builtin_to_string(value))
    return None
