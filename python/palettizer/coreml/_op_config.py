"""How the weights of one op, of a type of op, or of all ops are palettized."""

from __future__ import annotations

import math
import operator
import sys
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from typing import Any

import numpy as np

from palettizer._peer import Counterpart
from palettizer._settings import Setting


class CompressionGranularity(Enum):
    """Which weights share a lookup table. A member equals the one of coremltools that has its name."""

    PER_TENSOR = 1
    PER_GROUPED_CHANNEL = 2
    PER_CHANNEL = 3
    PER_BLOCK = 4

    def __eq__(self, other: object) -> bool:
        same_enum = isinstance(other, Enum) and type(other).__name__ == "CompressionGranularity"
        return same_enum and other.name == self.name  # type: ignore[attr-defined]

    __hash__ = Enum.__hash__


def _mode(value: object, name: str, config: OpPalettizerConfig) -> str:
    modes = ("KMEANS", "UNIFORM", "UNIQUE", "CUSTOM")
    if not isinstance(value, str):
        raise TypeError(f"mode is {value!r}; expected a string")
    if value.upper() not in modes:
        raise ValueError(f'Only modes {modes} are supported for weight palettization. Got "mode": "{value}"')
    return value.upper()


def _nbits(value: object, name: str, config: OpPalettizerConfig) -> int | None:
    needed = config.mode in ("KMEANS", "UNIFORM")
    if value is None and needed:
        raise ValueError(f'"nbits" must be provided for {config.mode} mode: 1, 2, 3, 4, 6 or 8')
    if value is not None and not needed:
        raise ValueError(f'"nbits" must NOT be provided for {config.mode} mode; found {value!r}')
    if value is None:
        return None
    bits = _integer(value, name)
    if bits not in (1, 2, 3, 4, 6, 8):
        raise ValueError(
            f'Invalid value of "nbits" ({bits}) for palettization. Supported "nbits" are 1, 2, 3, 4, 6 and 8'
        )
    return bits


def _lut_function(value: object, name: str, config: OpPalettizerConfig) -> Callable[..., Any] | None:
    if value is None and config.mode == "CUSTOM":
        raise ValueError('"lut_function" can not be None, if "mode" is "custom".')
    if value is not None and config.mode != "CUSTOM":
        raise ValueError(f'"lut_function" must be None, if "mode" is not "custom". The mode is {config.mode}')
    if value is None or callable(value):
        return value
    raise ValueError(f'A function object must be provided as "lut_function". Got {value!r}')


def _granularity(value: object, name: str, config: OpPalettizerConfig) -> CompressionGranularity:
    allowed = (CompressionGranularity.PER_TENSOR, CompressionGranularity.PER_GROUPED_CHANNEL)
    for granularity in allowed:
        if granularity == value or (isinstance(value, str) and value.lower() == granularity.name.lower()):
            return granularity
    raise ValueError(
        f"\"granularity\" must be one of 'per_tensor' and 'per_grouped_channel', but got {value!r}"
    )


def _from(least: float, expected: str = "", optional: bool = False) -> Callable[[object, str, Any], Any]:
    """A rule for integers that are not too small."""

    def rule(value: object, name: str, config: OpPalettizerConfig) -> int | None:
        if value is None and optional:
            return None
        number = _integer(value, name)
        if number < least:
            raise ValueError(f"{name} is {number}; expected {expected}")
        return number

    return rule


def _flag(value: object, name: str, config: OpPalettizerConfig) -> bool:
    if not isinstance(value, bool):
        raise TypeError(f"{name} is {value!r}; expected True or False")
    return value


def _lut_dtype(value: object, name: str, config: OpPalettizerConfig) -> str | None:
    if value is None:
        return None
    dtype = _dtype_name(value)
    if dtype is None:
        raise TypeError(f"lut_dtype is {value!r}; expected None, a string or a type")
    if dtype in ("float", "int8", "uint8"):
        return dtype
    raise ValueError(f"lut_dtype is {value!r}; allowed: None, 'float', 'int8' and 'uint8'")


def _dtype_name(value: Any) -> str | None:
    """The name of a type of numpy, PyTorch or coremltools; `None` if it is none. Of a string, itself."""
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


def _integer(value: object, name: str) -> int:
    try:
        return operator.index(value)  # type: ignore[arg-type]
    except TypeError:
        raise TypeError(f"{name} is {value!r}; expected an integer") from None


@dataclass(eq=False)
class OpPalettizerConfig(Counterpart):
    """How a weight is palettized.

    Every field is checked when it is set, in the constructor and afterwards; a wrong type is a `TypeError`, a wrong
    value a `ValueError`.

    Args:
        mode: how the lookup table (LUT) is found: `"kmeans"` (the least squared error), `"uniform"` (evenly spaced from
            the smallest to the largest value), `"unique"` (the distinct values themselves, when there are at most 256)
            or `"custom"` (`lut_function`). Kept in capitals.
        nbits: bits per index: 1, 2, 3, 4, 6 or 8. Required by `kmeans` and `uniform`, refused by the others.
        lut_function: for `custom`: takes the values of one group as a numpy array (the channel axis first) and returns
            the table's entries and one index for each value, in the order of `array.flatten()`.
        granularity: `"per_tensor"`, or `"per_grouped_channel"`: a table for every `group_size` channels.
        group_size: channels that share a table, 0 for all of them; used by `per_grouped_channel` alone.
        channel_axis: the axis of the channels, negative from the end; `None`: the output channels of the op that uses
            the weight.
        cluster_dim: weights per index: vectors of so many consecutive channels when above 1.
        enable_per_channel_scale: whether each output channel is divided by its largest absolute value first.
        num_kmeans_workers: the number of threads, if it is above 1. See `palettizer.coreml.palettize_weights`.
        weight_threshold: only weights with more elements are palettized.
        lut_dtype: what the entries are stored as: `"int8"`, `"uint8"`, or `None` (or `"float"`) for the weight's own
            type. The types of numpy, PyTorch and coremltools that have these names are taken too, and kept as the name.

    >>> from palettizer.coreml import OpPalettizerConfig
    >>> config = OpPalettizerConfig(nbits=4, granularity="per_grouped_channel", group_size=16)
    >>> config.granularity
    <CompressionGranularity.PER_GROUPED_CHANNEL: 2>
    >>> config.nbits = 5
    Traceback (most recent call last):
        ...
    ValueError: Invalid value of "nbits" (5) for palettization. Supported "nbits" are 1, 2, 3, 4, 6 and 8
    """

    # The mode is the first: what nbits and lut_function may be depends on it.
    mode: Setting[str, str] = Setting("kmeans", _mode)
    nbits: Setting[int | None, int | None] = Setting(None, _nbits)
    lut_function: Setting[Callable[..., Any] | None, Callable[..., Any] | None] = Setting(None, _lut_function)
    granularity: Setting[CompressionGranularity, str | CompressionGranularity] = Setting(
        CompressionGranularity.PER_TENSOR, _granularity
    )
    group_size: Setting[int, int] = Setting(32, _from(0, "1 or more, or 0 for all channels"))
    channel_axis: Setting[int | None, int | None] = Setting(None, _from(-math.inf, optional=True))
    cluster_dim: Setting[int, int] = Setting(1, _from(1, "1 or more"))
    enable_per_channel_scale: Setting[bool, bool] = Setting(False, _flag)
    num_kmeans_workers: Setting[int, int] = Setting(1, _from(1, "1 or more"))
    weight_threshold: Setting[int | None, int | None] = Setting(2048, _from(0, "0 or more", optional=True))
    lut_dtype: Setting[str | None, Any] = Setting(None, _lut_dtype)

    def _validate_op_type(self, op_type: str) -> None:
        """Asked by coremltools: every op type will do."""

    @classmethod
    def _from_dict(cls, fields: dict[str, Any]) -> OpPalettizerConfig:
        if "lut_function" in fields:
            raise ValueError(
                "lut_function cannot come from a dictionary or a file; make the OpPalettizerConfig yourself"
            )
        unknown = [name for name in fields if name not in cls._settings]
        if unknown:
            raise ValueError(f"no field is called {unknown[0]!r}; there are {', '.join(cls._settings)}")
        return cls(**fields)
