"""The user's own way to find a lookup table, as the native module calls it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

_DTYPES = {"fp16": np.float16, "int8": np.int8, "uint8": np.uint8}

Native = Callable[[NDArray[np.float32], "int | None", str], "tuple[NDArray[np.float32], NDArray[np.uint8]]"]


def native(function: Callable[[NDArray[Any]], Any]) -> Native:
    """Wraps a function of one array: the channel axis first, in the weight's dtype where numpy has it.

    The function returns entries and indices, one index for each value of `array.flatten()`.
    """

    def call(
        values: NDArray[np.float32], channel_axis: int | None, dtype: str
    ) -> tuple[NDArray[np.float32], NDArray[np.uint8]]:
        axis = channel_axis or 0
        group = np.ascontiguousarray(np.swapaxes(values, 0, axis), dtype=_DTYPES.get(dtype, np.float32))
        found = function(group)
        if not (isinstance(found, (tuple, list)) and len(found) == 2):
            raise ValueError(f"lut_function returned {found!r}; expected (lut, indices)")
        lut = np.asarray(found[0], dtype=np.float32).reshape(-1)
        indices = np.asarray(found[1]).reshape(-1)
        if indices.size != values.size:
            raise ValueError(
                f"lut_function returned {indices.size} indices for a group of {values.size} values; expected one for each"
            )
        if not np.issubdtype(indices.dtype, np.integer):
            raise ValueError(f"lut_function returned indices of dtype {indices.dtype}; expected integers")
        if indices.size and not (0 <= indices.min() and indices.max() < lut.size <= 256):
            raise ValueError(
                f"lut_function returned {lut.size} entries and indices from {indices.min()} to {indices.max()}; expected "
                "at most 256 entries, and indices into them"
            )
        rows = indices.reshape(group.shape).swapaxes(0, axis)
        return lut, np.ascontiguousarray(rows, dtype=np.uint8).reshape(-1)

    return call
