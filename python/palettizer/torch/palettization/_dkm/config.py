"""The settings of differentiable k-means: of a module, and which module gets which.

The names, the order, the defaults and the errors are coremltools'; those defaults that the kernel has, too, come from
it. Three kinds of settings need a word here:

- Some have no effect, since what they guard against does not happen: nothing as large as an attention matrix is kept,
  and seeding is exact. They are accepted, and each says why.
- `cluster_dtype` is the older name of `lut_dtype`. It is not kept: giving it sets `lut_dtype`.
- Three may be "auto", and are where nothing is given: coremltools' numbers suit weights of one scale alone.
- `n_bits` and `cluster_dim` may be None until it is known what kind of module they are for: `resolved` fills them in.
"""

from __future__ import annotations

import copy
import sys
import warnings
from dataclasses import dataclass
from typing import Any

import torch

from palettizer._settings import as_given
from palettizer.torch._settings import above, at_least, one_of, setting
from palettizer.torch.optimization_config import (
    ModuleOptimizationConfig,
    ModuleType,
    OptimizationConfig,
    PalettizationGranularity,
    check_group_size,
    granularity_setting,
    resolve_type,
)
from palettizer.torch.palettization._plan.config import dtype_name
from palettizer.torch.palettization._plan.layers import KINDS, NAMED, NAMES, Kind, class_kind
from palettizer.torch.palettization._soft.settings import DEFAULTS

AUTO = "auto"
"""The value of a setting that is found by the weight."""
FOUND = ("palett_tau", "prune_threshold", "zero_threshold")
"""The settings that may be so. With coremltools each is a number with the unit of a weight, or harms as one."""

_LUT_DTYPES: dict[str, str | None] = {
    **dict.fromkeys(("f32", "fp32", "float32")),
    **dict.fromkeys(("f16", "fp16", "float16"), "f16"),
    **dict.fromkeys(("bf16", "b16", "bfloat16"), "bf16"),
    **dict.fromkeys(("i8", "int8"), "int8"),
    **dict.fromkeys(("u8", "uint8"), "uint8"),
}
"""Names of types of table entries, and what the kernel calls them; None for entries as precise as the weights."""

_ACTIVATION_DTYPES = {
    "qint8": torch.qint8,
    "quint8": torch.quint8,
    "float32": torch.float32,
    # PyTorch has no narrower integers; coremltools takes these names for the 8-bit types.
    "qint4": torch.qint8,
    "quint4": torch.quint8,
}


def _default(name: str) -> Any:
    """What the kernel has where nothing is given, by the name that it has there."""
    return AUTO if DEFAULTS[name] is None else DEFAULTS[name]


def _to_lut_dtype(value: Any) -> Any:
    """The name of a dtype; names stay."""
    return dtype_name(value) or value


def _check_lut_dtype(where: str, value: str) -> None:
    if value.lower() not in _LUT_DTYPES:
        raise ValueError(f"{where} must be one of {', '.join(_LUT_DTYPES)}, found {value!r}")


def _to_activation_dtype(value: Any) -> Any:
    """A dtype by its name. What is neither a name nor a dtype is a `ValueError`."""
    if isinstance(value, torch.dtype):
        return value
    if isinstance(value, str) and value.lower() in _ACTIVATION_DTYPES:
        return _ACTIVATION_DTYPES[value.lower()]
    known = ", ".join(_ACTIVATION_DTYPES)
    raise ValueError(f"dtype must be a torch.dtype or one of the names {known}, found {value!r}")


def _check_range(config: Any, least: int, most: int) -> None:
    if not least < most:
        raise ValueError(f"quant_min of {type(config).__name__} must be below quant_max, found {least} and {most}")


def _check_permutation(where: str, value: tuple[Any, ...]) -> None:
    if not all(isinstance(axis, int) for axis in value) or sorted(value) != list(range(len(value))):
        raise ValueError(f"{where} must hold each axis from 0 once, as in (1, 0) for a matrix, found {value!r}")


def _check_init(where: str, value: str) -> None:
    # coremltools looks for "kmeans++", "cpu" and "minibatch" anywhere in the text.
    if value not in ("auto", "opt1d") and "kmeans++" not in value:
        raise ValueError(f"{where} must be one of auto, opt1d, kmeans++ and cpu.kmeans++, found {value!r}")


def _refuse_partition_size(value: Any) -> Any:
    if value is not None:
        raise DeprecationWarning(f"partition_size is gone, found {value!r}: give group_size instead")
    return value


@dataclass
class ModuleDKMPalettizerConfig(ModuleOptimizationConfig):
    """How the weights of a module are palettized while it is trained.

    Most users need `n_bits`, `weight_threshold` and `milestone`. The many others are those of coremltools' configuration.

    Args:
        n_bits: bits of an index, one of 1, 2, 3, 4, 6 and 8; a lookup table has 2^n_bits entries. None: 4 for Linear,
            2 for other modules.
        weight_threshold: a module is palettized if each of its weights has more elements than this.
        granularity: "per_tensor" for one table, "per_grouped_channel" for one for each `group_size` output channels.
        group_size: channels in a group. Needed with "per_grouped_channel", otherwise None.
        channel_axis: 0, the output channels.
        enable_per_channel_scale: divide every output channel by a scale first, and multiply after.
        milestone: calls of `step()` before the one with which palettization begins; 0 begins at once.
        cluster_dim: number of consecutive channels that share an index, as a vector; None means 1.
        quant_min, quant_max: the range of quantized activations.
        dtype: of quantized activations: `torch.qint8`, `torch.quint8` or `torch.float32`, or a name.
        lut_dtype: type of the table's entries: "f32" (as precise as the weights), "f16", "bf16", "i8" or "u8"; also
            PyTorch's dtypes and their names.
        quantize_activations: quantize the module's output, too.
        cluster_permute: a permutation of the weight's axes that comes before grouping and is undone after.
        palett_max_mem: without effect: the memory needed does not depend on the attention.
        kmeans_max_iter: most steps of k-means in a forward pass.
        prune_threshold: what the squared distance to the first entry is lowered by; with `enforce_zero`, more weights
            become 0, and with a number of 0 none but those that are. "auto": no entry is favoured.
        kmeans_init: "auto", "opt1d", "kmeans++" or "cpu.kmeans++". Without effect: seeding is optimal for scalars, and
            there is one way for vectors.
        kmeans_opt1d_threshold: without effect, as `kmeans_init`.
        enforce_zero: keep one entry at zero.
        palett_mode: "dkm" for attention by softmax, "gsm" by Gumbel softmax, "hard" for the nearest entry alone, "ste"
            for the nearest entry and the gradient as if it were the weight.
        palett_tau: temperature of the softmax, a squared distance. "auto": for each table, half of the mean squared error of
            the k-means that it starts from, found once when palettization begins; of the scaled weight where there is a
            per-channel scale.
        palett_epsilon: stop when the sum of the squared distances to the nearest entries changes by this or less.
        palett_lambda: without effect, here as in coremltools.
        add_extra_centroid: without effect: a table has 2^n_bits entries. In coremltools one more cannot be stored.
        palett_cluster_tol: share of the entries that may be equal before equal ones are moved apart.
        palett_min_tsize, palett_unique, palett_shard, palett_batch_mode, palett_dist: without effect: they pack, share
            or spread an attention matrix that is not kept here.
        per_channel_scaling_factor_scheme: "min_max" for (max − min) / 2, "abs" for the largest magnitude.
        percentage_palett_enable: share of the groups, from the first, that are trained softly; the others keep the
            entries that they started with.
        kmeans_batch_threshold: without effect, as `kmeans_init`.
        kmeans_n_init: for vectors: each 10 are one search for the entries to start with. Scalars need one.
        zero_threshold: the least attention. "auto": 1e-9.
        kmeans_error_bnd: without effect: coremltools never comes to use it.
        partition_size: gone; any value but None raises `DeprecationWarning`.
        cluster_dtype: the older name of `lut_dtype`. A value warns, sets `lut_dtype`, and is not kept.
        implicit: take the last entries as a fixed point and differentiate that once, as in
            `IDKM <https://arxiv.org/abs/2312.07759>`_, which needs no more memory for more steps. coremltools has no
            such field.

    Raises:
        TypeError: a value of the wrong type; an int is no float.
        ValueError: a value that cannot be.
        AssertionError: a group size without its granularity.

    >>> config = ModuleDKMPalettizerConfig(n_bits=2, weight_threshold=1000, lut_dtype="i8")
    >>> config.native_lut_dtype
    'int8'
    >>> config.palett_tau = 1
    Traceback (most recent call last):
    TypeError: palett_tau of ModuleDKMPalettizerConfig must be float or 'auto', found 1 (int)
    """

    n_bits: int | None = setting(None, int, optional=True)
    weight_threshold: int = setting(2048, int, at_least(0))
    granularity: PalettizationGranularity = granularity_setting()
    group_size: int | None = setting(None, int, optional=True, together=check_group_size)
    channel_axis: int | None = setting(0, int, one_of(0), optional=True, cast=int)
    enable_per_channel_scale: bool = setting(False, bool)
    milestone: int = setting(0, int, at_least(0))
    cluster_dim: int | None = setting(None, int, optional=True)
    quant_min: int = setting(-128, int, together=lambda config, least: _check_range(config, least, config.quant_max))
    quant_max: int = setting(127, int, together=lambda config, most: _check_range(config, config.quant_min, most))
    dtype: torch.dtype = setting(
        torch.qint8, torch.dtype, one_of(torch.qint8, torch.quint8, torch.float32), convert=_to_activation_dtype
    )
    lut_dtype: str = setting("f32", str, _check_lut_dtype, convert=_to_lut_dtype, cast=as_given)
    quantize_activations: bool = setting(False, bool)
    cluster_permute: tuple[int, ...] | None = setting(None, tuple, _check_permutation, optional=True)
    palett_max_mem: float = setting(1.0, float)
    kmeans_max_iter: int = setting(DEFAULTS["iterations"], int, at_least(1))
    prune_threshold: float | str = setting(_default("prune_threshold"), float, at_least(0), also=AUTO)
    kmeans_init: str = setting("auto", str, _check_init)
    kmeans_opt1d_threshold: int = setting(1024, int)
    enforce_zero: bool = setting(DEFAULTS["enforce_zero"], bool)
    palett_mode: str = setting(DEFAULTS["mode"], str, one_of("dkm", "gsm", "hard", "ste"))
    palett_tau: float | str = setting(_default("temperature"), float, above(0), also=AUTO)
    palett_epsilon: float = setting(DEFAULTS["epsilon"], float, at_least(0))
    palett_lambda: float = setting(0.0, float)
    add_extra_centroid: bool = setting(False, bool)
    palett_cluster_tol: float = setting(DEFAULTS["cluster_tolerance"], float, at_least(0))
    palett_min_tsize: int = setting(64 * 1024, int)
    palett_unique: bool = setting(False, bool)
    palett_shard: bool = setting(False, bool)
    palett_batch_mode: bool = setting(False, bool)
    palett_dist: bool = setting(False, bool)
    per_channel_scaling_factor_scheme: str = setting("min_max", str, one_of("min_max", "abs"))
    percentage_palett_enable: float = setting(DEFAULTS["enabled"], float, above(0, most=1))
    kmeans_batch_threshold: int = setting(4, int)
    kmeans_n_init: int = setting(10, int, at_least(1))
    zero_threshold: float | str = setting(_default("floor"), float, at_least(0), also=AUTO)
    kmeans_error_bnd: float = setting(0.0, float)
    partition_size: int | None = setting(None, int, optional=True, convert=_refuse_partition_size)
    cluster_dtype: str | None = setting(None, str, optional=True, cast=as_given)
    implicit: bool = setting(DEFAULTS["implicit"], bool)

    def __setattr__(self, name: str, value: Any) -> None:
        if name == "cluster_dtype" and value is not None:
            self._take_older_name(value)
            value = None
        super().__setattr__(name, value)

    def _take_older_name(self, value: Any) -> None:
        message = "cluster_dtype is the older name of lut_dtype; give lut_dtype instead"
        warnings.warn(message, DeprecationWarning, stacklevel=_frames_of_ours())
        before, constructed = self.lut_dtype, "cluster_dtype" in self.__dict__
        self.lut_dtype = value
        # An assignment replaces what was there, but two values given at once must agree.
        if not constructed and before != "f32" and _LUT_DTYPES[before.lower()] != self.native_lut_dtype:
            raise ValueError(
                f"{type(self).__name__} got lut_dtype {before!r} and cluster_dtype {value!r}, "
                "which is its older name; give lut_dtype alone"
            )

    @property
    def native_lut_dtype(self) -> str | None:
        """What the kernel calls `lut_dtype`: None (as precise as the weights), "f16", "bf16", "int8" or "uint8"."""
        return _LUT_DTYPES[self.lut_dtype.lower()]

    @property
    def starts(self) -> int:
        """How often vectors are clustered to start with; the best result is taken.

        >>> ModuleDKMPalettizerConfig().starts, ModuleDKMPalettizerConfig(kmeans_n_init=35).starts
        (1, 3)
        """
        return max(1, self.kmeans_n_init // 10)

    def resolved(self, kind: Kind) -> ModuleDKMPalettizerConfig:
        """A copy for a kind of layers, in which `n_bits` and `cluster_dim` are numbers.

        >>> linear, convolution = (ModuleDKMPalettizerConfig().resolved(KINDS[cls]) for cls in (torch.nn.Linear, torch.nn.Conv2d))
        >>> linear.n_bits, convolution.n_bits, convolution.cluster_dim
        (4, 2, 1)
        """
        config = copy.copy(self)
        if config.n_bits is None:
            config.n_bits = kind.n_bits
        if config.cluster_dim is None:
            config.cluster_dim = DEFAULTS["cluster_dim"]
        return config


def _frames_of_ours() -> int:
    """The `stacklevel` at which the caller's warning points at the code that uses this package."""
    level, frame = 1, sys._getframe(1)
    while frame.f_back is not None and frame.f_globals.get("__name__", "").startswith("palettizer."):
        level, frame = level + 1, frame.f_back
    return level


ModuleConfigs = ModuleDKMPalettizerConfig | list[ModuleDKMPalettizerConfig]
"""One config for modules of any size, or several with a `weight_threshold` each."""


@dataclass
class DKMPalettizerConfig(OptimizationConfig):
    """Which modules are palettized how. Without arguments: all kinds, with the defaults of each.

    Args:
        global_config: for all modules that nothing below matches.
        module_type_configs: by class, or by its name: those of torch.nn that are palettized, and Conv1D of
            transformers. Subclasses count.
        module_name_configs: by qualified name, or a regular expression that matches all of it; also of a parameter of
            two or more dimensions that is no layer's weight.

    A value of None leaves the modules alone. A list has a config for each size: of those whose `weight_threshold` a
    module exceeds, the one with the highest. Names go before types, types before the global config.

    Raises:
        TypeError: a value of the wrong type.
        ValueError: a key of from_dict that is no setting; a value in a module's config that cannot be.
        AssertionError: a type that is not palettized.

    >>> config = DKMPalettizerConfig.from_dict({
    ...     "module_type_configs": {
    ...         "Linear": {"n_bits": 4},
    ...         "Conv2d": [{"n_bits": 2, "weight_threshold": 1000}, {"n_bits": 4, "weight_threshold": 300}],
    ...     },
    ...     "module_name_configs": {"head": None},
    ... })
    >>> [one.n_bits for one in config.get_module_config("stem", torch.nn.Conv2d(3, 16, 3))]
    [4, 2]
    """

    module_config = ModuleDKMPalettizerConfig
    _subclasses_count = True

    def __post_init__(self) -> None:
        super().__post_init__()
        self.global_config = ascending(self.global_config)
        self.module_type_configs = {key: ascending(value) for key, value in self.module_type_configs.items()}
        self.module_name_configs = {key: ascending(value) for key, value in self.module_name_configs.items()}

    def set_module_type(self, object_type: ModuleType, opt_config: Any) -> DKMPalettizerConfig:
        """Sets the config of a class of modules, replacing an earlier one. Returns the config itself."""
        return super().set_module_type(resolve_type(object_type), opt_config)

    def _take_defaults(self) -> None:
        kinds: list[tuple[ModuleType, Kind]] = [*KINDS.items(), *NAMED.items()]
        self.module_type_configs = {key: ModuleDKMPalettizerConfig().resolved(kind) for key, kind in kinds}

    def _check_type(self, where: str, key: ModuleType) -> None:
        resolved = resolve_type(key)
        if class_kind(resolved) is None and resolved not in NAMES:
            raise AssertionError(f"a key in {where} must be one of {', '.join(NAMES)} or its name, found {key!r}")

    def _check_module(self, where: str, config: Any) -> None:
        if not isinstance(config, list):
            super()._check_module(where, config)
            return
        for member in config:
            if member is None:
                raise TypeError(f"{where} has None in its list; to leave modules alone, give None instead of a list")
            super()._check_module(f"a member of the list of {where}", member)

    @classmethod
    def _structure_module(cls, value: Any, error: type[Exception]) -> Any:
        if isinstance(value, list):
            return [super(DKMPalettizerConfig, cls)._structure_module(member, TypeError) for member in value]
        return super()._structure_module(value, TypeError)


def ascending(configs: ModuleConfigs | None) -> ModuleConfigs | None:
    """A list by `weight_threshold`; what is no list stays."""
    return sorted(configs, key=lambda config: config.weight_threshold) if isinstance(configs, list) else configs
