"""Core AI programs palettized."""

from __future__ import annotations

import copy
import math
import os
from typing import Any

import numpy as np
from numpy.typing import NDArray

from palettizer import _native
from palettizer._budget import Budget
from palettizer._progress import Bar
from palettizer.coreai import _asset
from palettizer.coreai._chains import replace
from palettizer.coreai._constants import FLOATS, element, read, shape, stored
from palettizer.coreai._fold import chains, evaluate, fold
from palettizer.coreai._weights import Weight, weights
from palettizer.coreai._wheel import AIModelAsset, AIProgram
from palettizer.coreml import CoreMLOpMetaData, CoreMLWeightMetaData, OptimizationConfig, Report
from palettizer.coreml._metadata import _Metadata
from palettizer.coreml._weights import _fields, _ours, _warned, _workers

Path = str | os.PathLike[str]

_OVERHEAD = 1024
"""More bytes than the operations, types and names of a palette take in the file, beside its data."""


class Program:
    """A Core AI program, with what belongs to it.

    Attributes:
        program: the `AIProgram` of coreai-core.
        report: what palettizing did; None for a program that was loaded.
    """

    def __init__(self, program: Any, metadata: Any, bytes_stored: int, report: Report | None = None) -> None:
        self.program, self.report = program, report
        self._metadata, self._bytes = metadata, bytes_stored

    def save(self, path: Path, *, overwrite: bool = False) -> None:
        """Writes a folder whose name ends in `.aimodel`. It is whole, or what was there before.

        Raises:
            FileExistsError: there is something at that place, and `overwrite` is False, or it is no program.
        """
        _asset.save(self.program, path, self._metadata, overwrite)


def load(path: Path) -> Program:
    """Opens an `.aimodel` that is sound.

    Raises:
        FileNotFoundError: there is nothing.
        ValueError: it is no program, or damaged.
    """
    folder = _asset.check(os.path.expanduser(path))
    asset = AIModelAsset.load(folder)
    return Program(asset.program, asset.metadata, _asset.length(folder))


def palettize_weights(
    program: Any,
    config: OptimizationConfig | None = None,
    *,
    budget: Budget | None = None,
    sensitivity: Path | None = None,
    sensitivity_default: str | None = None,
    strict: bool = False,
    exact: bool = False,
    seed: int = 0,
    threads: int | None = None,
    progress: bool = True,
) -> Any:
    """Palettizes the weights of a program, which stays as it is."""
    opened = _opened(program)
    ours = _ours(OptimizationConfig() if config is None and budget is not None else config)
    fields = _fields(ours, False)
    chosen = ours.budget if budget is None else budget
    fields.update(
        minimum_deployment_target=None, sensitivity=None if sensitivity is None else os.path.expanduser(sensitivity),
        sensitivity_default=sensitivity_default, strict=strict, exact=exact, seed=seed,
    )  # fmt: skip
    if chosen is not None:
        fields["budget"] = chosen._native(None)
    made = copy.deepcopy(opened.program)
    found = weights(made)
    palettes: dict[int, _native.Palette] = {}
    text = _native.palettize_program(
        [_described(weight) for weight in found],
        lambda index: _values(found[index]),
        palettes.__setitem__,
        fields,
        before=opened._bytes,
        overhead=_OVERHEAD,
        threads=_workers(ours) if threads is None else threads,
        progress=Bar("Palettizing weights", progress),
    )
    for index, palette in palettes.items():
        replace(found[index].op, palette)
    report = _warned(text)
    if isinstance(program, AIProgram):
        return made
    return Program(made, opened._metadata, report.bytes_after, report)


def _opened(program: Any) -> Program:
    if isinstance(program, Program):
        return program
    if isinstance(program, AIProgram):
        return Program(program, None, sum(stored(weight.op.results[0]) for weight in weights(program)))
    return load(program)


def _values(weight: Weight) -> NDArray[np.uint8]:
    return read(weight.op)


def _described(weight: Weight) -> dict[str, Any]:
    value = weight.op.results[0]
    return {
        "names": weight.names,
        "users": [(use.name, use.kind) for use in weight.uses],
        "shape": shape(value),
        "dtype": element(value),
        "output_axis": weight.axis,
        "bytes": stored(value),
        "problem": "already compressed; decompress_weights makes it dense" if weight.compressed else None,
    }


def decompress_weights(program: Any) -> Any:
    """Makes every weight dense that is palettized, quantized or sparse, of a program, which stays as it is.

    Returns:
        Of the kind that came in: a path gives a `Program`.
    """
    opened = _opened(program)
    made = copy.deepcopy(opened.program)
    for op in chains(made):
        fold(op)
    if isinstance(program, AIProgram):
        return made
    return Program(made, opened._metadata, sum(stored(weight.op.results[0]) for weight in weights(made)))


def get_weights_metadata(program: Any, weight_threshold: int = 2048) -> dict[str, CoreMLWeightMetaData]:
    """The weights of a program by name: values, sparsity, distinct values, and what uses each.

    Args:
        program: a path, a `Program`, or an `AIProgram` of coreai-core.
        weight_threshold: only weights with at least so many elements.

    Returns:
        In the order of the program. A compressed weight is there with the values that it stands for.
    """
    found = _Metadata()
    opened = _opened(program)  # operations do not keep their program alive
    for weight in weights(opened.program):
        value = weight.op.results[0]
        if math.prod(shape(value)) >= weight_threshold and element(value) in FLOATS:
            users = [CoreMLOpMetaData(use.kind, use.name, {"weight": weight.names[0]}) for use in weight.uses]
            dense = evaluate(value)
            found[weight.names[0]] = CoreMLWeightMetaData(dense.astype(np.float32) if dense.dtype.kind == "V" else dense, child_ops=users)
    return found
