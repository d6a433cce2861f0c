"""What to do with a whole model: global, by op type, by op name."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import IO, Any

from palettizer import _peer, _yaml
from palettizer._budget import Budget
from palettizer._settings import Setting
from palettizer.coreml import _counterparts
from palettizer.coreml._op_config import OpPalettizerConfig

# of coremltools; that of palettization is ours
_PEER_TYPES = ("OpLinearQuantizerConfig", "OpMagnitudePrunerConfig", "OpThresholdPrunerConfig")

# what the passes of coremltools ask of a configuration
_ASKED = ("_get_const_op_config", "_get_op_config", "_is_deprecated", "_op_selector")

_KEYS = ("config_type", "global_config", "op_type_configs", "op_name_configs", "preset", "budget")


def _check(config: Any, op_type: str | None = None) -> None:
    if config is None:
        return
    if not _counterparts.is_op_config(config):
        raise ValueError(f"config must be type of OpCompressorConfig. Got {type(config)}: {config!r}")
    if op_type is not None:
        config._validate_op_type(op_type)


def _for_all(value: Any, name: str, config: OptimizationConfig) -> Any:
    _check(value)
    return value


def _by_name(value: Any, name: str, config: OptimizationConfig) -> dict[str, Any]:
    if value is None and name not in config.__dict__:
        return {}  # none is given to the constructor
    if not isinstance(value, Mapping):
        raise TypeError(f"{name} is {value!r}; expected a dictionary from names to OpPalettizerConfig")
    for key, one in value.items():
        _check(one, key if name == "op_type_configs" else None)
    return value  # type: ignore[return-value]  # it may be any mapping


def _preset(value: Any, name: str, config: OptimizationConfig) -> str | None:
    if value is not None and not isinstance(value, str):
        raise TypeError(f"preset is {value!r}; expected a name such as 'llm', or None")
    return value


def _budget(value: Any, name: str, config: OptimizationConfig) -> Budget | None:
    if value is not None and not isinstance(value, Budget):
        raise TypeError(f"budget is {value!r}; expected a Budget, or None")
    return value


@dataclass(eq=False)
class OptimizationConfig(_peer.Counterpart):
    """Which weights are palettized, and how.

    For a weight, the first of these that is set decides: the name of the constant, the name of the op that uses it, the
    first pattern of names that fits either, the type of that op, the first pattern of types that fits it, the global
    configuration. `None` leaves the weight alone. A pattern is a regular expression that matches the whole name, as in
    configurations of PyTorch modules (but without look-around and back-references); a name in the model is never taken
    for one.

    The configurations of pruning and linear quantization may stand in the place of an `OpPalettizerConfig`, for the
    functions that prune and quantize; and those of coremltools take an `OptimizationConfig` of either kind.

    Args:
        global_config: for every op without a configuration of its own.
        op_type_configs: for the ops of a type, such as `"conv"`.
        op_name_configs: for one op or one constant, or for all that a pattern such as `".*norm.*"` fits.
            `palettizer.coreml.get_weights_metadata` has the names.
        preset: what suits a kind of model, before the global configuration. `"llm"` gives embeddings and heads 8 bits
            and leaves rotary tables and masks as they are.
        budget: a size or a quality that bits are chosen for: see `Budget`. The bits and the granularity of `global_config`
            then count for nothing, and it may be left out.

    >>> from palettizer.coreml import OpPalettizerConfig, OptimizationConfig
    >>> config = OptimizationConfig(
    ...     global_config=OpPalettizerConfig(nbits=8),
    ...     op_type_configs={"conv": OpPalettizerConfig(nbits=4), "linear": None},
    ... )
    >>> config.set_op_name("conv_1", OpPalettizerConfig(mode="unique"))
    >>> sorted(config.op_name_configs)
    ['conv_1']
    """

    global_config: Setting[Any, Any] = Setting(None, _for_all)
    op_type_configs: Setting[dict[str, Any], dict[str, Any] | None] = Setting(None, _by_name)
    op_name_configs: Setting[dict[str, Any], dict[str, Any] | None] = Setting(None, _by_name)
    preset: Setting[str | None, str | None] = Setting(None, _preset)
    budget: Setting[Budget | None, Budget | None] = Setting(None, _budget)

    def __getattr__(self, name: str) -> Any:
        if name in _ASKED and _counterparts.peer() is not None:
            return getattr(_counterparts.peers_config(self), name)
        raise AttributeError(f"'OptimizationConfig' object has no attribute {name!r}")

    def set_global(self, op_config: Any) -> None:
        """Sets the configuration of every op without one of its own."""
        self.global_config = op_config

    def set_op_type(self, op_type: str, op_config: Any) -> None:
        """Sets the configuration of the ops of a type, or of the types that a pattern fits; `None` leaves their weights alone."""
        _check(op_config, op_type)
        self.op_type_configs[op_type] = op_config

    def set_op_name(self, op_name: str, op_config: Any) -> None:
        """Sets the configuration of an op, constant or tensor, or of all that a pattern fits; `None` leaves them alone."""
        _check(op_config)
        self.op_name_configs[op_name] = op_config

    @classmethod
    def from_dict(cls, config_dict: dict[str, Any]) -> OptimizationConfig:
        """A configuration from nested dictionaries.

        Args:
            config_dict: `config_type` (`"OpPalettizerConfig"`, or the name of a configuration of coremltools) and any
                of `global_config`, `op_type_configs`, `op_name_configs`, `preset` and `budget`, with the fields in place of
                the objects; those of ops may have a `config_type` of their own.

        Raises:
            ValueError: an unknown key, or a value that a field cannot have; the message says where it is.
            TypeError: a value of the wrong type, likewise.

        >>> from palettizer.coreml import OptimizationConfig
        >>> config = OptimizationConfig.from_dict({
        ...     "config_type": "OpPalettizerConfig",
        ...     "global_config": {"mode": "kmeans", "nbits": 4},
        ...     "op_type_configs": {"conv": {"mode": "uniform", "nbits": 6}, "linear": None},
        ... })
        >>> config.op_type_configs["conv"].nbits, config.op_type_configs["linear"]
        (6, None)
        """
        if not isinstance(config_dict, Mapping):
            raise TypeError(f"the configuration is {config_dict!r}; expected a dictionary")
        for key in config_dict:
            if key not in _KEYS:
                raise ValueError(
                    f"Invalid key {key} to construct an OptimizationConfig object. Supported keys are {_KEYS}."
                )
        config_type = _type(config_dict.get("config_type"), "config_type")
        config = cls()
        config.global_config = _one(config_dict.get("global_config"), config_type, "global_config")
        config.preset = config_dict.get("preset")
        if config_dict.get("budget") is not None:
            config.budget = Budget.from_dict(config_dict["budget"])
        for key in ("op_type_configs", "op_name_configs"):
            named = config_dict.get(key)
            if named is None:
                continue
            if not isinstance(named, Mapping):
                raise ValueError(f"{key} must be type of dict. Got {type(named)}: {named!r}")
            ones = {name: _one(fields, config_type, f"{key}[{name!r}]") for name, fields in named.items()}
            setattr(config, key, ones)
        return config

    @classmethod
    def from_yaml(cls, yml: str | os.PathLike[str] | IO[str] | IO[bytes]) -> OptimizationConfig:
        r"""A configuration from a YAML file, laid out as `from_dict` has it.

        Args:
            yml: the file, or its path.

        >>> import io
        >>> from palettizer.coreml import OptimizationConfig
        >>> text = "config_type: OpPalettizerConfig\nglobal_config: {nbits: 4}"
        >>> OptimizationConfig.from_yaml(io.StringIO(text)).global_config.nbits
        4
        """
        return cls.from_dict(_yaml.load(yml))


def _type(found: Any, where: str) -> Any:
    """The class of that name."""
    if not isinstance(found, str):
        raise ValueError(f"config_type must be provided with type of string; {where} is {found!r}")
    if found == "OpPalettizerConfig":
        return OpPalettizerConfig
    if found in _PEER_TYPES:
        return _peer.attribute("palettizer.coreml", "coremltools.optimize.coreml", found)
    raise ValueError(f"{where} is {found!r}; expected one of {', '.join(('OpPalettizerConfig', *_PEER_TYPES))}")


def _one(fields: object, config_type: Any, where: str) -> Any:
    if fields is None:
        return None
    if not isinstance(fields, Mapping):
        raise ValueError(f"{where} is {fields!r}; expected a dictionary of fields, or None")
    fields = dict(fields)
    if "config_type" in fields:
        config_type = _type(fields.pop("config_type"), f"{where}: config_type")
    try:
        return config_type._from_dict(fields)
    except (TypeError, ValueError) as error:
        raise type(error)(f"{where}: {error}") from None
