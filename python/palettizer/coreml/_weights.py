"""Palettizing and decompressing whole models."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from enum import Enum
from typing import TYPE_CHECKING, Any

from palettizer._budget import Budget
from palettizer._progress import Bar
from palettizer.coreml import _counterparts, _lut_function, _mlmodel
from palettizer.coreml._model import Model
from palettizer.coreml._op_config import OpPalettizerConfig
from palettizer.coreml._optimization_config import OptimizationConfig
from palettizer.coreml._report import Report

if TYPE_CHECKING:
    from coremltools.models import MLModel

    Path = str | os.PathLike[str]

_DEFAULT_THRESHOLD = 2048


def palettize_weights(
    mlmodel: Path | Model | MLModel,
    config: OptimizationConfig | None = None,
    joint_compression: bool = False,
    *,
    budget: Budget | None = None,
    inputs: Iterable[Mapping[str, Any]] | None = None,
    minimum_deployment_target: Any = "iOS16",
    sensitivity: Path | None = None,
    sensitivity_default: str = "error",
    strict: bool = False,
    exact: bool = False,
    seed: int = 0,
    threads: int | None = None,
    progress: bool = True,
) -> Any:
    """Palettizes the weights of a model. The model that came in stays as it is.

    Args:
        mlmodel: an ML Program, multifunction models and pipelines among them.
        config: which weights, and how. With a budget it may be left out.
        joint_compression: palettize what is left of pruned weights, and the integers of quantized ones, too.
        budget: a size or a quality, for which the bits of each weight are chosen; in the place of the configuration's own.
        inputs: for a budget: samples, each with a value for every input by its name, as `palettizer.runtime.Session.predict`
            takes them. The choice then goes by what errors do to outputs, as it is measured on them; 8 to 32 are usual.
        minimum_deployment_target: the program is raised to the ops of this system (`"iOS16"`, `"iOS17"`, `"iOS18"`,
            `"iOS26"`, or what coremltools calls so, such as `coremltools.target.macOS15`) if it is written for an older
            one. Grouped tables, vectors, scales and 3 bits need `"iOS18"`.
        sensitivity: a safetensors file with a tensor for each weight, of its name and shape, that says what an error in
            each element costs, such as squared gradients. k-means then minimises what its errors cost.
        sensitivity_default: what becomes of a weight that is not in the file: `"error"`, or `"ones"`: all its elements
            count alike.
        strict: `ValueError` if a weight has to be skipped that was not to be.
        exact: cluster fp32 weights exactly too; takes about ten times as long.
        seed: where the random numbers of `cluster_dim` start.
        threads: threads to work on. `None`: the largest `num_kmeans_workers` of the configuration if that is above 1,
            and else one for each core. The result does not depend on it.
        progress: show a progress bar, if tqdm is installed.

    Returns:
        An MLModel gives an MLModel, with the same metadata, compute units and function, loaded if it was; all else
        gives a `Model`. Its `report` says what became of each weight. What could not be palettized as asked, and what
        the configuration names in vain, is logged as a warning under the logger `palettizer`.

    Raises:
        ValueError: if the configuration and the model do not fit together, or the model is damaged; the message says
            where.
        TypeError: if an argument is of another type, or the model no ML Program.
        OSError: if a file cannot be read or written.

    >>> import palettizer.coreml as cto
    >>> config = cto.OptimizationConfig(global_config=cto.OpPalettizerConfig(nbits=4))
    >>> config.set_op_type("linear", None)
    >>> small = cto.palettize_weights(cto.demo(), config, progress=False)
    >>> sum(row["status"] == "compressed" for row in small.report.values())
    2
    """
    if config is None and budget is not None:
        config = OptimizationConfig()
    config = _ours(config)
    fields = _fields(config, joint_compression)
    budget = config.budget if budget is None else budget
    if budget is not None and not isinstance(budget, Budget):
        raise TypeError(f"budget is {budget!r}; expected a palettizer.coreml.Budget")
    if budget is None and inputs is not None:
        raise ValueError("inputs are for a budget; give one, such as Budget(target_size='20MB'), or leave them out")
    fields.update(
        minimum_deployment_target=_target(minimum_deployment_target),
        sensitivity=None if sensitivity is None else os.path.expanduser(sensitivity),
        sensitivity_default=sensitivity_default,
        strict=strict,
        exact=exact,
        seed=seed,
    )
    options: dict[str, Any] = {"threads": _workers(config) if threads is None else threads}
    options["progress"] = Bar("Palettizing weights", progress)
    opened = _mlmodel.opened(mlmodel)
    if budget is not None:
        fields["budget"] = budget._native(None if inputs is None else _samples(opened, inputs))
    if _mlmodel.is_mlmodel(mlmodel):
        package = _mlmodel.temporary_package()
        report = _warned(opened.palettize_to(fields, package, overwrite=True, **options))
        return _mlmodel.like(mlmodel, package, report)
    native, text = opened.palettize(fields, **options)
    return Model(native, _warned(text))


def decompress_weights(
    mlmodel: Path | Model | MLModel,
    *,
    threads: int | None = None,
    progress: bool = True,
    max_expansion: int | None = None,
) -> Any:
    """Makes every compressed weight dense again, whether it was palettized, pruned or quantized.

    Args:
        mlmodel: an ML Program.
        threads: threads to work on; `None` for one on each core.
        progress: show a progress bar, if tqdm is installed.
        max_expansion: how many times the model's size its dense weights may come to; `None` for 512.

    Returns:
        Of the kind that came in, as with `palettize_weights`.

    >>> import palettizer.coreml as cto
    >>> config = cto.OptimizationConfig(global_config=cto.OpPalettizerConfig(nbits=2))
    >>> dense = cto.decompress_weights(cto.palettize_weights(cto.demo(), config))
    >>> all(weight["compression"] is None for weight in dense.weights())
    True
    """
    options: dict[str, Any] = {"threads": threads, "progress": Bar("Decompressing weights", progress)}
    opened = _mlmodel.opened(mlmodel, max_expansion=max_expansion)
    if _mlmodel.is_mlmodel(mlmodel):
        package = _mlmodel.temporary_package()
        opened.decompress_to(package, overwrite=True, **options)
        return _mlmodel.like(mlmodel, package, None)
    return Model(opened.decompress(**options))


def _samples(opened: Any, inputs: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Inputs as the native module takes them."""
    if isinstance(inputs, (str, bytes, Mapping)):
        raise TypeError(f"inputs are of type {type(inputs).__name__}; expected a list with a dictionary for each sample")
    from palettizer.runtime import Session  # it imports this package

    session = Session(Model(opened))
    samples = [session._all_given(one) for one in inputs]
    if not samples:
        raise ValueError("inputs are an empty list; expected a dictionary for each sample")
    return samples


def _warned(text: str) -> Report:
    report = Report(text)
    report.warn()
    return report


def _fields(config: OptimizationConfig, joint_compression: bool) -> dict[str, Any]:
    """The configuration as the native module takes it."""
    if not isinstance(joint_compression, bool):
        raise ValueError(f"joint_compression only supports bool, but got {joint_compression!r}")
    if "const" in config.op_type_configs:
        raise ValueError(
            "op_type_configs has 'const', but constants have no op type of their own; use set_global, or name a constant "
            "with set_op_name"
        )
    return {
        **_counterparts.each(config, _op_fields),
        "preset": config.preset,
        "joint_compression": joint_compression,
    }


def _ours(config: Any) -> OptimizationConfig:
    """A configuration, ours or coremltools', as ours that palettizes and nothing else."""
    if not (isinstance(config, OptimizationConfig) or _counterparts.is_peers_config(config)):
        raise ValueError(f"config must be of type OptimizationConfig. Got {type(config)}: {config!r}")
    ours = _counterparts.each(config, _counterparts.op_palettizer_config)
    # coremltools' own has neither
    return OptimizationConfig(**ours, preset=getattr(config, "preset", None), budget=getattr(config, "budget", None))


def _target(target: Any) -> str:
    """The name of a deployment target: `"iOS18"`, or a member of `coremltools.target`."""
    name = target.name if isinstance(target, Enum) else target
    if not isinstance(name, str):
        raise TypeError(f"minimum_deployment_target is {target!r}; expected a string or a coremltools.target")
    return name.rpartition(".")[2]


def _op_fields(config: OpPalettizerConfig | None, where: str) -> dict[str, Any] | None:
    if config is None:
        return None
    fields = {name: getattr(config, name) for name in config._settings}
    fields["mode"] = config.mode.lower()
    fields["granularity"] = config.granularity.name.lower()
    if config.lut_function is not None:
        fields["lut_function"] = _lut_function.native(config.lut_function)
    if config.weight_threshold is None:
        fields["weight_threshold"] = _DEFAULT_THRESHOLD
    return fields


def _workers(config: OptimizationConfig) -> int | None:
    configs = [config.global_config, *config.op_type_configs.values(), *config.op_name_configs.values()]
    most = max((one.num_kmeans_workers for one in configs if one is not None), default=1)
    return most if most > 1 else None
