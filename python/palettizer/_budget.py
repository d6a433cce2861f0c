"""A size or a quality that bits are chosen for."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

_GOALS = ("target_size", "target_bpw", "target_ratio", "min_snr")
_KEYS = (*_GOALS, "choices", "curves")


@dataclass(frozen=True)
class Budget:
    """A size or a quality that bits are chosen for.

    The bits of each weight, and whether groups of its channels have tables of their own, are chosen so that least is lost, or
    fewest bytes are taken.

    One of the first four is given. What is chosen for are the weights that fall under the global configuration, whose bits and
    granularity then count for nothing; a weight with a configuration of its own keeps that.

    Args:
        target_size: bytes that the new model takes at most: a number, or a text such as `"20MB"` (millions) or `"20MiB"`.
        target_bpw: bits a weight on average, tables and all.
        target_ratio: how many times smaller it is to be.
        min_snr: the expected signal-to-noise ratio in dB that it is to have, as small as can be.
        choices: what there is to choose from: lists of values by option, such as
            `{"nbits": [2, 3, 4], "group_size": [None, 16]}`. Left out: all numbers of bits, and one table or groups of 32 or
            of 8 channels.
        curves: a JSON file that keeps what each form of each weight costs: another budget for the same model then takes no time.

    >>> from palettizer.coreml import Budget
    >>> Budget(target_size="20MB").goal
    'target_size'
    >>> Budget(target_size="20MB", target_ratio=5)
    Traceback (most recent call last):
    ValueError: a budget has one of target_size, target_bpw, target_ratio, min_snr; found target_size, target_ratio
    """

    target_size: int | str | None = None
    target_bpw: float | None = None
    target_ratio: float | None = None
    min_snr: float | None = None
    choices: Mapping[str, Sequence[Any]] | None = None
    curves: str | os.PathLike[str] | None = None

    def __post_init__(self) -> None:
        given = [name for name in _GOALS if getattr(self, name) is not None]
        if len(given) != 1:
            raise ValueError(f"a budget has one of {', '.join(_GOALS)}; found {', '.join(given) or 'none'}")
        number = getattr(self, given[0])
        allowed: tuple[type, ...] = (int, str) if given[0] == "target_size" else (int, float)
        if isinstance(number, bool) or not isinstance(number, allowed):
            raise TypeError(f"{given[0]} is {number!r}; expected a number{' or a text such as 20MB' * (str in allowed)}")
        if self.choices is not None:
            _texts(self.choices)

    @property
    def goal(self) -> str:
        """Which of the four it is."""
        return next(name for name in _GOALS if getattr(self, name) is not None)

    def as_dict(self) -> dict[str, Any]:
        """What was given, as `from_dict` takes it."""
        given = {name: getattr(self, name) for name in _KEYS}
        return {name: value for name, value in given.items() if value is not None}

    @classmethod
    def from_dict(cls, config_dict: Mapping[str, Any]) -> Budget:
        """A budget from a dictionary, as configurations have it under the key `budget`."""
        if not isinstance(config_dict, Mapping):
            raise TypeError(f"budget is {config_dict!r}; expected a dictionary")
        for key in config_dict:
            if key not in _KEYS:
                raise ValueError(f"Invalid key {key} to construct a Budget object. Supported keys are {_KEYS}.")
        return cls(**config_dict)

    def _native(self, inputs: Any) -> dict[str, Any]:
        """As the native module takes it."""
        return {
            "goal": self.goal,
            "number": str(getattr(self, self.goal)),
            "choices": _texts(self.choices or {}),
            "curves": None if self.curves is None else os.path.expanduser(self.curves),
            "inputs": inputs,
        }


def _texts(choices: Mapping[str, Sequence[Any]]) -> list[tuple[str, list[str]]]:
    if not isinstance(choices, Mapping):
        raise TypeError(f"choices are {choices!r}; expected a dictionary from options to lists of values")
    for key, values in choices.items():
        if isinstance(values, str) or not isinstance(values, Sequence):
            raise TypeError(f"choices[{key!r}] is {values!r}; expected a list of values")
    return [(key, [_text(value) for value in values]) for key, values in choices.items()]


def _text(value: Any) -> str:
    if value is None:
        return "none"
    return str(value).lower() if isinstance(value, bool) else str(value)
