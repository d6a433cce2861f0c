"""What configs of all PyTorch algorithms share: one config for each module, chosen by name, by type, or for all.

>>> from palettizer.torch.optimization_config import PalettizationGranularity
>>> PalettizationGranularity("per_tensor")
<PalettizationGranularity.per_tensor: 'per_tensor'>
"""

from __future__ import annotations

import importlib
import re
from collections import OrderedDict
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import Enum
from typing import Any, ClassVar, TypeVar

import torch

from palettizer._settings import as_given
from palettizer.torch._settings import Settings, setting

C = TypeVar("C", bound="OptimizationConfig")

ModuleType = Callable[..., Any] | str


class PalettizationGranularity(Enum):
    """Which weights share a lookup table: all of a tensor, or those of a group of channels."""

    per_tensor = "per_tensor"
    per_grouped_channel = "per_grouped_channel"


def granularity_setting() -> Any:
    """The field `granularity`, which also takes a name."""

    def named(value: Any) -> Any:
        try:
            return PalettizationGranularity(value)
        except ValueError:
            names = " or ".join(repr(member.value) for member in PalettizationGranularity)
            raise ValueError(f"granularity must be {names}, found {value!r}") from None

    return setting(PalettizationGranularity.per_tensor, PalettizationGranularity, convert=named)


def check_group_size(config: Any, group_size: int | None) -> None:
    """A group size and the granularity go together. As in coremltools, that they do not is an `AssertionError`."""
    where = f"group_size of {type(config).__name__}"
    if config.granularity == PalettizationGranularity.per_grouped_channel:
        if group_size is None:
            raise AssertionError(f"{where} must be given when granularity is per_grouped_channel")
        if group_size <= 0:
            raise AssertionError(f"{where} must be greater than zero, found {group_size}")
    elif group_size is not None:
        raise AssertionError(f"{where} must be None when granularity is per_tensor, found {group_size}")


class ModuleOptimizationConfig(Settings):
    """Base of the configs of one module."""


class _Empty:
    """Stands for "no dict given", so that None stays an error."""

    def __repr__(self) -> str:
        return "{}"


_EMPTY = _Empty()


def _check_types(container: OptimizationConfig, value: dict[Any, Any]) -> None:
    for key, config in value.items():
        where = f"module_type_configs of {type(container).__name__}"
        if not isinstance(key, str) and not callable(key):
            raise TypeError(f"a key in {where} must be a class or its name, found {key!r} ({type(key).__name__})")
        container._check_type(where, key)
        container._check_module(f"{key!r} in {where}", config)


def _check_names(container: OptimizationConfig, value: dict[Any, Any]) -> None:
    for key, config in value.items():
        where = f"module_name_configs of {type(container).__name__}"
        if not isinstance(key, str):
            raise TypeError(f"a key in {where} must be a str, found {key!r} ({type(key).__name__})")
        container._check_module(f"{key!r} in {where}", config)


def _dict_or_empty(value: Any) -> Any:
    return OrderedDict() if value is _EMPTY else value


@dataclass
class OptimizationConfig(Settings):
    """Base of the containers: which module gets which config.

    The first name pattern that matches a module's whole qualified name decides, then its exact type, then the name
    of its class, then the global config. A value of None leaves the module alone.
    """

    module_config: ClassVar[type[ModuleOptimizationConfig]] = ModuleOptimizationConfig
    _subclasses_count: ClassVar[bool] = False

    global_config: Any = setting(
        None, object, optional=True,
        together=lambda config, value: config._check_module(f"global_config of {type(config).__name__}", value),
    )  # fmt: skip
    module_type_configs: dict[ModuleType, Any] = setting(_EMPTY, dict, convert=_dict_or_empty, together=_check_types)
    module_name_configs: dict[str, Any] = setting(_EMPTY, dict, convert=_dict_or_empty, together=_check_names)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.global_config is None and not self.module_type_configs and not self.module_name_configs:
            self._take_defaults()
        self.module_type_configs = {
            resolve_type(key): config for key, config in self.module_type_configs.items()
        }

    def _take_defaults(self) -> None:
        """What a container that says nothing asks for."""
        self.global_config = self.module_config()

    def _check_type(self, where: str, key: ModuleType) -> None:
        """Refuses types that can never be palettized; here, all may be named."""

    def _check_module(self, where: str, config: Any) -> None:
        """Refuses what is neither a module's config nor None."""
        wanted = self.module_config
        if config is not None and not isinstance(config, wanted):
            raise TypeError(f"{where} must be a {wanted.__name__} or None, found {config!r} ({type(config).__name__})")

    def set_global(self: C, global_config: Any) -> C:
        """Sets the config of the modules that no name and no type matches. Returns the config itself."""
        self.global_config = global_config
        return self

    def set_module_type(self: C, object_type: ModuleType, opt_config: Any) -> C:
        """Sets the config of a class of modules, replacing an earlier one. Returns the config itself."""
        _check_types(self, {object_type: opt_config})
        self.module_type_configs[object_type] = opt_config
        return self

    def set_module_name(self: C, module_name: str, opt_config: Any) -> C:
        """Sets the config of the modules whose whole name a regular expression matches. Returns the config itself.

        An earlier one of the same text is replaced.
        """
        _check_names(self, {module_name: opt_config})
        self.module_name_configs[module_name] = opt_config
        return self

    def get_module_config(self, name: str, module: torch.nn.Module) -> Any:
        """The config of a module, or None when it is to be left alone."""
        return next(self._own_configs(name, module), self.global_config)

    def names_module(self, name: str, module: torch.nn.Module) -> bool:
        """Whether the name or the type of a module has a config of its own, or None."""
        return any(True for _ in self._own_configs(name, module))

    def _own_configs(self, name: str, module: torch.nn.Module) -> Iterator[Any]:
        for pattern, config in self.module_name_configs.items():
            if re.fullmatch(pattern, name):
                yield config
        for cls in type(module).__mro__ if self._subclasses_count else (type(module),):
            for key in (cls, cls.__name__):
                if key in self.module_type_configs:
                    yield self.module_type_configs[key]

    @classmethod
    def from_dict(cls: type[C], config_dict: dict[str, Any]) -> C:
        """Makes a config of nested dicts that mirror the names of the settings.

        A key that is no setting, here or in a module's config, is a `ValueError`.
        """
        if not isinstance(config_dict, dict):
            raise TypeError(f"{cls.__name__}.from_dict takes a dict, found {type(config_dict).__name__}")
        read = dict(config_dict)
        if "global_config" in read:
            read["global_config"] = cls._structure_module(read["global_config"], TypeError)
        for name, as_key, error in (
            ("module_type_configs", as_given, AssertionError),
            ("module_name_configs", str, TypeError),
        ):
            if isinstance(read.get(name), dict):
                read[name] = {as_key(key): cls._structure_module(value, error) for key, value in read[name].items()}
        return super().from_dict(read)

    @classmethod
    def _structure_module(cls, value: Any, error: type[Exception]) -> Any:
        """A module's config of a dict; what cannot be one is the error that coremltools raises there."""
        if value is None or isinstance(value, cls.module_config):
            return value
        if isinstance(value, dict):
            return cls.module_config.from_dict(value)
        wanted = cls.module_config.__name__
        raise error(f"a module's config must be a dict, a {wanted} or None, found {value!r} ({type(value).__name__})")


def resolve_type(key: ModuleType) -> ModuleType:
    """A class by its name in torch.nn, then torch.nn.functional; other names stay and match by class name."""
    if isinstance(key, str):
        for home in (torch.nn, torch.nn.functional):
            if hasattr(home, key):
                resolved: ModuleType = getattr(home, key)
                return resolved
    return key


__all__ = ["ModuleOptimizationConfig", "OptimizationConfig", "PalettizationGranularity"]

_PEER = "QuantizationGranularity"
"""What is coremltools' own, and comes from there when it is first used."""


def __getattr__(name: str) -> Any:
    if name != _PEER:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    try:
        peer: Any = importlib.import_module("coremltools.optimize.torch.optimization_config")
    except ImportError as error:
        raise ImportError(f"{name} is of coremltools: pip install coremltools") from error
    return vars(peer)[name]


def __dir__() -> list[str]:
    return [*__all__, _PEER]
