"""Fields of a config that are checked when they are constructed and when they are assigned.

A config is a dataclass whose defaults are `Setting` descriptors:

>>> from dataclasses import dataclass
>>> from typing import Optional
>>> @dataclass
... class Config(Settings):
...     width: Optional[int] = setting(4, types=int, optional=True, cast=or_none(int))
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
from dataclasses import is_dataclass
from typing import IO, Any, ClassVar, TypeVar

from palettizer import _yaml

S = TypeVar("S", bound="Settings")


class Setting:
    """A checked field. See `setting` for what the arguments mean."""

    def __init__(
        self,
        default: Any,
        types: tuple[type, ...],
        optional: bool,
        convert: Callable[[Any], Any] | None,
        cast: Callable[[Any], Any] | None,
        check: Callable[[Any, Any], None] | None,
        together: Callable[[Any, Any], None] | None,
    ) -> None:
        self.default = default
        self.types = types
        self.optional = optional
        self.convert = convert
        self.cast = cast
        self.check = check
        self.together = together
        self.name = ""

    def __set_name__(self, owner: type, name: str) -> None:
        self.name = name

    def __get__(self, config: Any, owner: type | None = None) -> Any:
        # Asked on the class, it is dataclass that wants to know the default.
        return self.default if config is None else config.__dict__[self.name]

    def __set__(self, config: Any, value: Any) -> None:
        if self.convert is not None:
            value = self.convert(value)
        where = f"{self.name} of {type(config).__name__}"
        if not (value is None and self.optional):
            if not isinstance(value, self.types):
                wanted = " or ".join(t.__name__ for t in self.types)
                wanted += " or None" if self.optional else ""
                raise TypeError(f"{where} must be {wanted}, found {value!r} ({type(value).__name__})")
            if self.check is not None:
                self.check(where, value)
        # While constructing, the settings that it goes together with may be missing: `Settings.__post_init__` checks.
        if self.together is not None and self.name in config.__dict__:
            self.together(config, value)
        config.__dict__[self.name] = value

    def structure(self, value: Any) -> Any:
        """The value of a plain dict, cast to what the setting holds."""
        return value if self.cast is None else self.cast(value)


def setting(
    default: Any,
    *,
    types: type | tuple[type, ...],
    optional: bool = False,
    convert: Callable[[Any], Any] | None = None,
    cast: Callable[[Any], Any] | None = None,
    check: Callable[[str, Any], None] | None = None,
    together: Callable[[Any, Any], None] | None = None,
) -> Any:
    """A field with a default and rules.

    `types` are the classes that a value may have (`TypeError`), `optional` lets None pass, `convert` is applied to
    every value, `cast` to values of `from_dict` alone, `check(where, value)` raises `ValueError`, and
    `together(config, value)` looks at the other settings once there are any. The result is Any, so that the
    annotation of the dataclass says the type.
    """
    kinds = types if isinstance(types, tuple) else (types,)
    return Setting(default, kinds, optional, convert, cast, check, together)


def or_none(cast: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """A cast that lets None pass."""
    return lambda value: None if value is None else cast(value)


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


class Settings:
    """Base of the configs: equality and repr come from dataclass; dicts and YAML from here."""

    _settings: ClassVar[Mapping[str, Setting]] = {}

    def __init_subclass__(cls) -> None:
        bases = [vars(base).items() for base in reversed(cls.__mro__)]
        cls._settings = {name: value for items in bases for name, value in items if isinstance(value, Setting)}

    def __post_init__(self) -> None:
        for name, field in self._settings.items():
            if field.together is not None:
                field.together(self, getattr(self, name))

    def __setattr__(self, name: str, value: Any) -> None:
        known = self._settings
        if name not in known:
            raise AttributeError(f"{type(self).__name__} has no setting {name}; it has: {', '.join(known)}")
        object.__setattr__(self, name, value)

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
        return cls(**{key: known[key].structure(value) for key, value in config_dict.items()})

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
    if isinstance(value, Settings) and is_dataclass(value):
        return value.as_dict()
    if isinstance(value, dict):
        return {key: _plain(inner) for key, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(inner) for inner in value]
    return value
