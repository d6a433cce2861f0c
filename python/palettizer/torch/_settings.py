"""Fields of a config that are checked when they are constructed and when they are assigned.

A config is a dataclass whose defaults are `Setting` descriptors:

>>> from dataclasses import dataclass
>>> from typing import Optional
>>> @dataclass
... class Config(Settings):
...     width: Optional[int] = setting(4, int, optional=True)
>>> Config(width=None)
Config(width=None)
>>> Config.from_dict({"width": "8"}).width
8
>>> Config(width="8")
Traceback (most recent call last):
TypeError: width of Config must be int or None, found '8' (str)
>>> Config().widht = 3
Traceback (most recent call last):
AttributeError: Config has no setting widht; it has: width
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Mapping
from typing import IO, Any, TypeVar

from palettizer import _yaml
from palettizer._budget import Budget
from palettizer._settings import Fields, Setting

S = TypeVar("S", bound="Settings")


def setting(
    default: Any,
    kind: type,
    check: Callable[[str, Any], None] | None = None,
    *,
    optional: bool = False,
    also: str | None = None,
    convert: Callable[[Any], Any] | None = None,
    cast: Callable[[Any], Any] | None = None,
    together: Callable[[Any, Any], None] | None = None,
) -> Any:
    """A field with a default and rules, whose errors are those of coremltools.

    `kind` is the class that a value must have (`TypeError`), `check(where, value)` raises `ValueError`, `optional` lets
    None pass, `also` one text, `convert` is applied to every value, `cast` to values of `from_dict` alone (without one, numbers, texts
    and tuples are made of what is given), and `together(config, value)` looks at the other settings once there are any.
    The result is Any, so that the annotation of the dataclass says the type.
    """
    plain = kind in (bool, int, float, str, tuple)

    def rule(value: Any, name: str, config: Any) -> Any:
        value = value if convert is None else convert(value)
        if (value is None and optional) or (isinstance(value, str) and value == also):
            return value
        where = f"{name} of {type(config).__name__}"
        if not isinstance(value, kind):
            others = (["None"] if optional else []) + ([repr(also)] if also is not None else [])
            wanted = " or ".join([kind.__name__, *others])
            raise TypeError(f"{where} must be {wanted}, found {value!r} ({type(value).__name__})")
        if check is not None:
            check(where, value)
        return value

    def made(value: Any) -> Any:
        return value if not plain or (value is None and optional) or (also is not None and value == also) else kind(value)

    return Setting[Any, Any](default, rule, made if cast is None else cast, together)


def one_of(*allowed: Any) -> Callable[[str, Any], None]:
    """A check that a value is among some."""

    def check(where: str, value: Any) -> None:
        if value not in allowed:
            names = ", ".join(str(a) for a in allowed)
            raise ValueError(f"{where} must be one of {names}, found {value!r}")

    return check


def at_least(least: float) -> Callable[[str, Any], None]:
    """A check that a number is not too small, and not NaN."""

    def check(where: str, value: Any) -> None:
        if not value >= least:
            raise ValueError(f"{where} must be at least {least}, found {value!r}")

    return check


def above(bound: float, most: float = math.inf) -> Callable[[str, Any], None]:
    """A check that a number is finite, greater than a bound, and `most` at the most."""

    def check(where: str, value: Any) -> None:
        if not bound < value <= most or math.isinf(value):
            limit = "" if math.isinf(most) else f" and at most {most}"
            raise ValueError(f"{where} must be finite, above {bound}{limit}, found {value!r}")

    return check


class Settings(Fields):
    """Base of the configs: equality and repr come from dataclass; dicts and YAML from here."""

    def __post_init__(self) -> None:
        for name, field in self._settings.items():
            if field.together is not None:
                field.together(self, getattr(self, name))

    def _unknown(self, name: str) -> str:
        return f"{type(self).__name__} has no setting {name}; it has: {', '.join(self._settings)}"

    @classmethod
    def from_dict(cls: type[S], config_dict: dict[str, Any]) -> S:
        """Makes a config of a dict whose keys are the names of the settings; numbers and enums may be text.

        A key that is no setting is a `ValueError`.
        """
        if not isinstance(config_dict, Mapping):
            raise TypeError(f"{cls.__name__}.from_dict takes a dict, found {type(config_dict).__name__}")
        known = cls._settings
        strange = [key for key in config_dict if key not in known]
        if strange:
            raise ValueError(
                f"{cls.__name__} has no setting {', '.join(map(repr, strange))}; it has: {', '.join(known)}"
            )
        return cls(**{key: known[key].cast(value) for key, value in config_dict.items()})

    @classmethod
    def from_yaml(cls: type[S], yml: IO[Any] | str | os.PathLike[str]) -> S:
        """Makes a config of YAML: the path of a file, or an open stream. An empty document is an empty dict."""
        loaded = _yaml.load(yml)
        if loaded is None:
            loaded = {}
        if not isinstance(loaded, dict):
            raise AssertionError(f"the YAML of a {cls.__name__} must be a mapping, found a {type(loaded).__name__}")
        return cls.from_dict(loaded)

    def as_dict(self) -> dict[str, Any]:
        """The settings as a dict, nested configs included; `from_dict` takes it back."""
        return {name: _plain(getattr(self, name)) for name in self._settings}


def _plain(value: Any) -> Any:
    if isinstance(value, (Settings, Budget)):
        return value.as_dict()
    if isinstance(value, dict):
        return {key: _plain(inner) for key, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(inner) for inner in value]
    return value
