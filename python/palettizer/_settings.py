"""Fields of a configuration, each declared once, and checked when it is constructed and when it is assigned.

A configuration is a dataclass whose defaults are `Setting` descriptors:

>>> from dataclasses import dataclass
>>> def even(value: int, name: str, config: Fields) -> int:
...     if value % 2:
...         raise ValueError(f"{name} is {value}; expected an even number")
...     return value
>>> @dataclass
... class Config(Fields):
...     width: Setting[int, int] = Setting(4, even)
>>> Config().width
4
>>> Config(width=3)
Traceback (most recent call last):
ValueError: width is 3; expected an even number
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, ClassVar, Generic, TypeVar, overload

Held = TypeVar("Held")
Given = TypeVar("Given")


def as_given(value: Any) -> Any:
    """The value itself."""
    return value


class Setting(Generic[Held, Given]):
    """A checked field, which takes values of one type and holds values of another.

    Args:
        default: what is given where nothing is.
        rule: takes a value, the name of the field and the configuration, and returns what is held or raises.
        cast: makes of a value of a plain dictionary what may be given.
        together: takes the configuration and what is to be held, and raises where other fields forbid it. They may be
            missing while the configuration is constructed, so it must be called once more at the end of that.
    """

    def __init__(
        self,
        default: Any,
        rule: Callable[[Any, str, Any], Held],
        cast: Callable[[Any], Any] = as_given,
        together: Callable[[Any, Any], None] | None = None,
    ) -> None:
        self.default, self.rule, self.cast, self.together = default, rule, cast, together

    def __set_name__(self, owner: type, name: str) -> None:
        self.name = name

    @overload
    def __get__(self, config: None, owner: type) -> Any: ...
    @overload
    def __get__(self, config: object, owner: type) -> Held: ...
    def __get__(self, config: object, owner: type) -> Any:
        # Asked on the class, it is dataclass that wants to know the default.
        return self.default if config is None else config.__dict__[self.name]

    def __set__(self, config: object, value: Given) -> None:
        held = self.rule(value, self.name, config)
        if self.together is not None and self.name in config.__dict__:
            self.together(config, held)
        config.__dict__[self.name] = held


class Fields:
    """Base of the configurations: there are no attributes but the settings."""

    _settings: ClassVar[Mapping[str, Setting[Any, Any]]] = {}

    def __init_subclass__(cls) -> None:
        bases = [vars(base).items() for base in reversed(cls.__mro__)]
        cls._settings = {name: value for items in bases for name, value in items if isinstance(value, Setting)}

    def __setattr__(self, name: str, value: Any) -> None:
        if name not in self._settings:
            raise AttributeError(self._unknown(name))
        object.__setattr__(self, name, value)

    def _unknown(self, name: str) -> str:
        """What is said of an attribute that is no setting."""
        return f"{type(self).__name__!r} object has no attribute {name!r}"
