"""Configurations of coreai_opt's `KMeansPalettizer`, read: as one of programs, or as one of PyTorch modules.

They are Apple's, and coreai_opt itself is not needed. What a key there asks for is done, or it is an error that names the
key: nothing is left out in silence.
"""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import IO, TYPE_CHECKING, Any

from palettizer import _yaml
from palettizer.coreml import OpPalettizerConfig, OptimizationConfig

if TYPE_CHECKING:
    import torch

    from palettizer.torch.palettization import PostTrainingPalettizerConfig

_logger = logging.getLogger(__name__)

Source = str | os.PathLike[str] | Mapping[str, Any] | IO[str] | IO[bytes]

KEY, SPECS = "kmeans_palettization_config", "palettization_spec"
STATES = ("weight", "in_proj_weight")
"""The tensors that are palettized where a configuration says nothing."""

_ATTENTION = "multi_head_attention_forward"
OPERATIONS: dict[str, tuple[str, str]] = {
    "linear": ("Linear", "linear"),
    "conv1d": ("Conv1d", "conv"),
    "conv2d": ("Conv2d", "conv"),
    "conv3d": ("Conv3d", "conv"),
    "conv_transpose1d": ("ConvTranspose1d", "conv_transpose"),
    "conv_transpose2d": ("ConvTranspose2d", "conv_transpose"),
    "conv_transpose3d": ("ConvTranspose3d", "conv_transpose"),
    _ATTENTION: ("MultiheadAttention", "linear"),
}
"""The operations that coreai_opt palettizes, by its names: the class of the layer, and the name in programs."""

_LAYERS = (*(layer for layer, _ in OPERATIONS.values()), "Embedding")


@dataclass(frozen=True)
class Spec:
    """How a tensor is palettized."""

    n_bits: int = 4
    lut_dtype: str | None = None
    group_size: int | None = None
    axis: int | None = None
    """Of the groups, in the tensor itself; None for the output channels."""
    cluster_dim: int = 1
    scale: bool = False


States = Mapping[str, Spec | None]


@dataclass(frozen=True)
class Module:
    """What is said of a module: of its operations, of some of them by type, and of its own tensors."""

    states: States
    by_type: Mapping[str, States]
    own: States

    def used_by(self, operation: str) -> States:
        """How tensors are palettized that an operation uses."""
        return self.by_type.get(operation, self.states)


_NOTHING = Module({}, {}, {})


@dataclass(frozen=True)
class Config:
    """A whole configuration: global, by types of modules, by names of modules."""

    everywhere: Module
    types: dict[str, Module]
    names: dict[str, Module]


def program_config(config: Source) -> OptimizationConfig:
    """The configuration of `palettize_weights` that a configuration of coreai_opt asks for.

    What it says of operations holds for those of a program; what it says of a class of torch.nn, for the operations that
    such layers become. As in coreai_opt, embeddings are palettized only if `module_state_spec` of their class asks for it.

    Args:
        config: a preset (`"w4"`, `"w6"` or `"w8"`), a YAML file or its path, a dictionary, or a `KMeansPalettizerConfig`.

    Raises:
        ValueError: a key that is not known, or that means nothing for a program; the message says which.

    >>> from palettizer.coreai import program_config
    >>> config = program_config("w4")
    >>> config.global_config.nbits, config.global_config.group_size, config.op_type_configs["gather"]
    (4, 16, None)
    """
    read = read_config(config)
    if read.names:
        raise ValueError(
            f"{KEY}.module_name_configs names modules ({next(iter(read.names))!r}), which a program has no more: palettize the "
            "PyTorch module with module_config and convert it, or name operations in op_name_configs of an OptimizationConfig"
        )
    for name in read.types:
        if not name.startswith("torch.nn.") or name.rpartition(".")[2] not in _LAYERS:
            raise ValueError(
                f"{KEY}.module_type_configs has {name!r}, which a program does not tell from others; there are "
                f"{', '.join(_LAYERS)} of torch.nn. Palettize the PyTorch module with module_config and convert it"
            )
    kinds = {kind: _of_kind(read, kind) for kind in ("conv", "conv_transpose", "linear", "gather")}
    everywhere = _of_program(KEY, _last(read.everywhere.states, "weight"))
    return OptimizationConfig(global_config=everywhere, op_type_configs={**kinds, "matmul": None})


def module_config(config: Source, model: torch.nn.Module) -> PostTrainingPalettizerConfig:
    """The configuration of `PostTrainingPalettizer` that a configuration of coreai_opt asks for, of a model.

    It names every module of the model that is palettized: what coreai_opt says of a module holds for the modules within,
    of several patterns the last that fits decides, and an axis is that of the weight.

    Args:
        config: a preset (`"w4"`, `"w6"` or `"w8"`), a YAML file or its path, a dictionary, or a `KMeansPalettizerConfig`.
        model: the model that is to be palettized.

    Raises:
        ValueError: a key that is not known, or something that `PostTrainingPalettizer` does not do; the message says which.

    >>> import torch
    >>> from palettizer.coreai import module_config
    >>> from palettizer.torch.palettization import PostTrainingPalettizer
    >>> model = torch.nn.Sequential(torch.nn.Linear(32, 32), torch.nn.Embedding(32, 32))
    >>> PostTrainingPalettizer(model, module_config("w4", model)).compress(progress=False)[0].weight[:16].unique().numel()
    16
    """
    from palettizer.torch.palettization import ModulePostTrainingPalettizerConfig, PostTrainingPalettizerConfig
    from palettizer.torch.palettization._plan.layers import kind_of

    read = read_config(config)
    found: dict[str, Any] = {}
    for name, layer in model.named_modules():
        kind = kind_of(layer)
        specs = dict(_specs(read, model, name, layer))
        weights = {key: spec for key, spec in specs.items() if kind is not None and kind.has(key) and not kind.in_training}
        if len(set(weights.values())) > 1:
            raise ValueError(
                f"{KEY} palettizes {' and '.join(weights)} of {name or 'the model'} ({type(layer).__name__}) in different "
                "ways; PostTrainingPalettizer has one for all weights of a layer"
            )
        axes = (0, 1) if kind is None else kind.axes
        for key, spec in specs.items():
            if spec is not None or key in weights:
                whole = name if key in weights else f"{name}.{key}".lstrip(".")
                where = f"{KEY} for {whole or 'the model'}"
                options = None if spec is None else _of_module(where, spec, axes if key in weights else (0, 1))
                found[re.escape(whole)] = None if options is None else _made(where, ModulePostTrainingPalettizerConfig, options)
    _warn_of_missing(read, model)
    # what is named by nothing stays as it is; a configuration that says nothing at all would mean the defaults
    return PostTrainingPalettizerConfig(global_config=None, module_name_configs=found or {"(?!)": None})


def read_config(source: Source) -> Config:
    """What a configuration says."""
    given = _document(source)
    for key in given:
        if key not in (KEY, SPECS):
            raise ValueError(f"the configuration has the key {key!r}; there are {KEY} and {SPECS}")
    if KEY not in given:
        raise ValueError(f"the configuration has no {KEY}, which is what coreai_opt's KMeansPalettizer reads")
    top = _keys(given[KEY], KEY, ("global_config", "module_type_configs", "module_name_configs"))
    everywhere = _module(top.get("global_config", {}), f"{KEY}.global_config")
    if everywhere.own:
        raise ValueError(f"{KEY}.global_config.module_state_spec: tensors of modules are named for a type or a name of them")
    types = {}
    for key, value in _mapping(top.get("module_type_configs"), f"{KEY}.module_type_configs").items():
        name = f"{key.__module__}.{key.__qualname__}" if isinstance(key, type) else key
        if not isinstance(name, str) or "." not in name:
            raise ValueError(
                f"{KEY}.module_type_configs has {key!r}; expected the whole name of a class, such as torch.nn.modules.linear.Linear"
            )
        types[name] = _module(value, f"{KEY}.module_type_configs[{name!r}]")
    names = {}
    for key, value in _mapping(top.get("module_name_configs"), f"{KEY}.module_name_configs").items():
        where = f"{KEY}.module_name_configs[{key!r}]"
        try:
            re.compile(key)
        except (re.error, TypeError) as error:
            raise ValueError(f"{where}: the name is not a regular expression: {error}") from None
        names[key] = _module(value, where)
    return Config(everywhere, types, names)


def _document(source: Any) -> Mapping[str, Any]:
    if isinstance(source, str) and source in _PRESETS:
        spec = _PRESETS[source]
        return {KEY: {"global_config": {"op_state_spec": dict.fromkeys(STATES, spec)}}}
    if hasattr(source, "to_dict") and not isinstance(source, Mapping):
        source = source.to_dict()  # a configuration of coreai_opt itself
    if not isinstance(source, Mapping):
        if isinstance(source, str) and not os.path.exists(os.path.expanduser(source)) and not os.path.splitext(source)[1]:
            raise ValueError(f"there is no preset and no file {source!r}; presets are {', '.join(_PRESETS)}")
        source = _yaml.load(os.path.expanduser(source) if isinstance(source, (str, os.PathLike)) else source)
    if not isinstance(source, Mapping):
        raise ValueError(f"the configuration is {source!r}; expected a dictionary with {KEY}")
    return source


def _grouped(n_bits: int) -> dict[str, Any]:
    return {"n_bits": n_bits, "granularity": {"type": "per_grouped_channel", "axis": 0, "group_size": 16}}


_PRESETS: dict[str, dict[str, Any]] = {"w4": _grouped(4), "w6": _grouped(6), "w8": {"n_bits": 8}}

_INPUTS = ("op_input_spec", "op_output_spec", "module_input_spec", "module_output_spec")
_SEARCH = ("enable_fast_kmeans_mode", "rounding_precision", "vector_kmeans_config")
"""How coreai_opt searches. It is not asked for anything else, and there is nothing to gain from it here."""


def _module(value: Any, where: str) -> Module:
    if value is None:
        return _NOTHING
    known = ("op_state_spec", "op_type_config", "op_name_config", "module_state_spec", "pat_schedule", *_INPUTS, *_SEARCH)
    given = _keys(value, where, known)
    states = _operation(given, where)
    if _mapping(given.get("op_name_config"), f"{where}.op_name_config"):
        raise ValueError(
            f"{where}.op_name_config: operations have other names here; name modules in module_name_configs, or types of "
            "operations in op_type_config"
        )
    if given.get("pat_schedule") is not None:
        raise ValueError(f"{where}.pat_schedule is of training, which DKMPalettizer of palettizer.torch.palettization does")
    types = {}
    for key, one in _mapping(given.get("op_type_config"), f"{where}.op_type_config").items():
        if key not in OPERATIONS:
            raise ValueError(f"{where}.op_type_config has {key!r}; there are {', '.join(OPERATIONS)}")
        inner = f"{where}.op_type_config[{key!r}]"
        types[key] = {} if one is None else _operation(_keys(one, inner, ("op_state_spec", *_INPUTS[:2])), inner)
    own = _states(given.get("module_state_spec") or {}, f"{where}.module_state_spec")
    return Module(states, types, own)


def _operation(given: Mapping[str, Any], where: str) -> States:
    for key in _INPUTS:
        specs = given.get(key) or {}
        if not isinstance(specs, Mapping) or any(spec is not None for spec in specs.values()):
            raise ValueError(f"{where}.{key} is {specs!r}; palettization is of weights, so that it is null or left out")
    if "op_state_spec" not in given:
        return dict.fromkeys(STATES, Spec())
    return _states(given["op_state_spec"] or {}, f"{where}.op_state_spec")


def _states(value: Any, where: str) -> States:
    return {
        name: None if spec is None else _spec(spec, f"{where}[{name!r}]") for name, spec in _mapping(value, where).items()
    }


def _spec(value: Any, where: str) -> Spec:
    given = _keys(
        value, where,
        ("n_bits", "lut_qspec", "granularity", "cluster_dim", "enable_per_channel_scale", "training_strategy_spec",
         "sparsity_detection_threshold"),
    )  # fmt: skip
    n_bits, dim = given.get("n_bits", 4), given.get("cluster_dim", 1)
    scale = given.get("enable_per_channel_scale", False)
    if isinstance(n_bits, bool) or n_bits not in (1, 2, 3, 4, 6, 8):
        raise ValueError(f"{where}.n_bits is {n_bits!r}; expected 1, 2, 3, 4, 6 or 8")
    if isinstance(dim, bool) or not isinstance(dim, int) or dim < 1:
        raise ValueError(f"{where}.cluster_dim is {dim!r}; expected an integer of 1 or more")
    if not isinstance(scale, bool):
        raise ValueError(f"{where}.enable_per_channel_scale is {scale!r}; expected true or false")
    if scale and dim > 1:
        raise ValueError(f"{where}: enable_per_channel_scale goes with a cluster_dim of 1 only, found {dim}")
    strategy = given.get("training_strategy_spec")
    if strategy is not None and (not isinstance(strategy, Mapping) or dict(strategy) != {"type": "default"}):
        raise ValueError(
            f"{where}.training_strategy_spec is {strategy!r}; there is the default, and for training DKMPalettizer of "
            "palettizer.torch.palettization"
        )
    sparse = given.get("sparsity_detection_threshold")
    if sparse is not None:
        raise ValueError(f"{where}.sparsity_detection_threshold is {sparse!r}; weights with zeros have no form of their own here")
    group_size, axis = _granularity(given.get("granularity"), f"{where}.granularity")
    lut = given.get("lut_qspec")
    return Spec(n_bits, None if lut is None else _integers(lut, f"{where}.lut_qspec"), group_size, axis, dim, scale)


def _granularity(value: Any, where: str) -> tuple[int | None, int | None]:
    if value is None:
        return None, None
    given = _keys(value, where, ("type", "axis", "group_size"))
    kind, axis, size = given.get("type"), given.get("axis"), given.get("group_size")
    if kind == "per_tensor" and axis is None and size is None:
        return None, None
    if kind != "per_grouped_channel":
        raise ValueError(f"{where} is {dict(given)!r}; expected the type per_tensor, or per_grouped_channel with a group_size")
    if isinstance(size, bool) or not isinstance(size, int) or size < 1:
        raise ValueError(f"{where}.group_size is {size!r}; expected an integer of 1 or more")
    if axis is not None and (isinstance(axis, bool) or axis not in (0, 1)):
        raise ValueError(f"{where}.axis is {axis!r}; expected 0, 1 or null")
    return size, axis


_LUT: dict[str, tuple[str, ...]] = {
    "dtype": ("int8", "uint8"),
    "qscheme": ("symmetric", "symmetric_with_clipping"),
    "qformulation": ("zp",),
    "scale_dtype": ("None",),
    "fake_quantize_cls": ("default", "_DefaultFakeQuantizeImpl"),
    "qparam_calculator_cls": ("default", "_DefaultQParamsCalculator", "static", "StaticQParamsCalculator"),
    "range_calculator_cls": ("minmax", "MinMaxRangeCalculator"),
    "float_range": ("[None, None]", "(None, None)"),
}
"""What the entries of a table can be made integers by."""

_SAID_TWICE = ("n_bits", "target_dtype", "_quant_range", "quant_min", "quant_max")
"""What coreai_opt writes beside it, which follows from the rest."""


def _integers(value: Any, where: str) -> str:
    given = _keys(value, where, (*_LUT, "granularity", *_SAID_TWICE))
    for key, possible in _LUT.items():
        found = _word(given[key]) if key in given else possible[0]
        if found not in possible:
            raise ValueError(f"{where}.{key} is {found}; expected {' or '.join(possible)}")
    if _granularity(given.get("granularity"), f"{where}.granularity")[0] is not None:
        raise ValueError(f"{where}.granularity: the entries of a table have one scale, per_tensor")
    return _word(given.get("dtype", "int8"))


def _word(value: Any) -> str:
    """The name of a dtype, a class or a member of an enumeration; of anything else, what it prints as."""
    if isinstance(value, type):
        return value.__name__
    text = str(getattr(value, "value", value))
    return text.removeprefix("torch.")


def _mapping(value: Any, where: str) -> Mapping[Any, Any]:
    if value is None:
        return {}
    if not isinstance(value, Mapping):
        raise ValueError(f"{where} is {value!r}; expected a dictionary")
    return value


def _keys(value: Any, where: str, known: tuple[str, ...]) -> Mapping[str, Any]:
    """A dictionary that has no other keys."""
    if not isinstance(value, Mapping):
        raise ValueError(f"{where} is {value!r}; expected a dictionary")
    for key in value:
        if key not in known:
            raise ValueError(f"{where} has the key {key!r}; there are {', '.join(one for one in known if one[0] != '_')}")
    return value


def _last(states: States, name: str) -> Spec | None:
    """How a tensor is palettized: by its name, else by the star."""
    return states[name] if name in states else states.get("*")


# Of a program


def _of_kind(config: Config, kind: str) -> OpPalettizerConfig | None:
    """How the weights of a kind of operations are palettized: as something says that names one of them, else as all are."""
    said = [*_of_layers(config, kind)]
    chosen = [one for one in said if one[0]] or said
    for _, where, spec in chosen[1:]:
        if spec != chosen[0][2]:
            raise ValueError(
                f"{where} is not palettized as {chosen[0][1]} is, but both are the operation {kind} of a program: say the same "
                "of both, or palettize the PyTorch module with module_config and convert it"
            )
    return _of_program(chosen[0][1], chosen[0][2], 1 if kind == "conv_transpose" else 0)


def _of_layers(config: Config, kind: str) -> Iterator[tuple[bool, str, Spec | None]]:
    """What is said of each layer that becomes such an operation; first, whether something names it."""
    layers = {operation: layer for operation, (layer, becomes) in OPERATIONS.items() if becomes == kind}
    for operation, layer in layers.items() if layers else (("", "Embedding"),):
        where, module, named = f"{KEY}.global_config", config.everywhere, False
        for name, other in config.types.items():
            if name.rpartition(".")[2] == layer:
                where, module, named = f"{KEY}.module_type_configs[{name!r}]", other, True
        for tensor in STATES if layer == "MultiheadAttention" else ("weight",):
            own = tensor in module.own or "*" in module.own
            states = module.own if own else module.used_by(operation) if operation else {}
            # in a program, what goes into attention is linear like the rest
            if tensor == "weight" or tensor in states:
                explicit = named or operation in module.by_type
                yield explicit, f"{tensor} of {layer} ({where})", _last(states, tensor)


def _of_program(where: str, spec: Spec | None, output: int = 0) -> OpPalettizerConfig | None:
    if spec is None:
        return None
    _check_vectors(where, spec, output)
    options: dict[str, Any] = {
        "nbits": spec.n_bits, "lut_dtype": spec.lut_dtype, "cluster_dim": spec.cluster_dim, "channel_axis": spec.axis,
        "enable_per_channel_scale": spec.scale, "weight_threshold": 0,
    }  # fmt: skip
    if spec.group_size is not None:
        options.update(granularity="per_grouped_channel", group_size=spec.group_size)
    made: OpPalettizerConfig = _made(where, OpPalettizerConfig, options)
    return made


def _check_vectors(where: str, spec: Spec, output: int) -> None:
    if spec.cluster_dim > 1 and spec.axis not in (None, output):
        raise ValueError(f"{where}: with a cluster_dim of {spec.cluster_dim}, groups lie along the output channels, axis {output}")


def _made(where: str, kind: Callable[..., Any], options: dict[str, Any]) -> Any:
    try:
        return kind(**options)
    except (AssertionError, TypeError, ValueError) as error:
        raise ValueError(f"{where}: {error}") from None


# Of a module


def _specs(config: Config, model: Any, name: str, layer: Any) -> Iterator[tuple[str, Spec | None]]:
    """The parameters of a module that have two axes or more, by their names in it."""
    operation, (used, named) = _operation_of(layer), _said(config, model, name)
    own = used.own if named else {}
    outer, _, last = name.rpartition(".")
    if last == "out_proj" and _operation_of(model.get_submodule(outer)) == _ATTENTION:
        # attention uses it without calling it
        operation, used = _ATTENTION, _said(config, model, outer)[0]
    for key, value in layer._parameters.items():
        if value is not None:
            states = own if key in own or "*" in own else used.used_by(operation) if operation else {}
            spec = _last(states, key)
            if value.dim() > 1:
                yield key, spec
            elif spec is not None and key in states:
                raise ValueError(f"{KEY} palettizes {key} of {name or 'the model'}, which has one dimension; only weights are")


def _operation_of(layer: Any) -> str | None:
    """What coreai_opt calls the operation of a layer, or None if it does not palettize it."""
    from torch import nn

    found = (operation for operation, (name, _) in OPERATIONS.items() if isinstance(layer, getattr(nn, name)))
    return next(found, None)


def _said(config: Config, model: Any, name: str) -> tuple[Module, bool]:
    """What is said of a module or of one that it lies in, and whether of the module itself.

    Names go before types, and what comes later before the rest.
    """
    parts = name.split(".") if name else []
    lines = ["", *(".".join(parts[: end + 1]) for end in range(len(parts)))]
    for pattern, module in reversed(config.names.items()):
        if any(re.fullmatch(pattern, line) for line in lines):
            return module, re.fullmatch(pattern, name) is not None
    classes = [_class_name(model.get_submodule(line)) for line in lines]
    for kind, module in reversed(config.types.items()):
        if kind in classes:
            return module, kind == classes[-1]
    return config.everywhere, True


def _class_name(layer: Any) -> str:
    return f"{type(layer).__module__}.{type(layer).__qualname__}"


def _of_module(where: str, spec: Spec, axes: tuple[int, int]) -> dict[str, Any]:
    _check_vectors(where, spec, axes[0])
    channel = 0 if spec.axis is None else axes.index(spec.axis)
    options: dict[str, Any] = {
        "n_bits": spec.n_bits, "lut_dtype": spec.lut_dtype, "cluster_dim": spec.cluster_dim, "channel_axis": channel,
        "enable_per_channel_scale": spec.scale,
    }  # fmt: skip
    if spec.group_size is not None:
        options.update(granularity="per_grouped_channel", group_size=spec.group_size)
    return options


def _warn_of_missing(config: Config, model: Any) -> None:
    names, types = zip(*((name, _class_name(module)) for name, module in model.named_modules()))
    for pattern in config.names:
        if not any(re.fullmatch(pattern, name) for name in names):
            _logger.warning("%s.module_name_configs has %r, but no module of the model has such a name", KEY, pattern)
    for kind in config.types:
        if kind not in types:
            _logger.warning("%s.module_type_configs has %r, but no module of the model is of that type", KEY, kind)
