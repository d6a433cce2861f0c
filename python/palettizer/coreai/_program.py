"""Core AI programs palettized."""

from __future__ import annotations

import math
import os
from typing import Any

from palettizer import _native
from palettizer._budget import Budget
from palettizer._progress import Bar
from palettizer.coreai._constants import FLOATS, element, shape
from palettizer.coreai._opened import Opened, dense
from palettizer.coreai._wheel import AIProgram
from palettizer.coreml import CoreMLOpMetaData, CoreMLWeightMetaData, OptimizationConfig, Report
from palettizer.coreml._metadata import _Metadata
from palettizer.coreml._weights import _fields, _ours, _warned, _workers

Path = str | os.PathLike[str]

class Program:
    """A Core AI program, with what belongs to it.

    Attributes:
        report: what palettizing did; None for a program that was loaded.
    """

    def __init__(self, opened: Opened, report: Report | None = None) -> None:
        self._opened, self.report = opened, report

    @property
    def program(self) -> Any:
        """The `AIProgram` of coreai-core."""
        return self._opened.program

    def save(self, path: Path, *, overwrite: bool = False) -> None:
        """Writes a folder whose name ends in `.aimodel`. It is whole, or what was there before.

        Raises:
            FileExistsError: there is something at that place, and `overwrite` is False.
            OSError: what is there is no program, or nothing can be written there.
        """
        self._opened.save(path, overwrite)


def load(path: Path) -> Program:
    """Opens an `.aimodel` that is sound.

    Raises:
        FileNotFoundError: there is nothing.
        ValueError: it is no program, or damaged.
    """
    return Program(Opened.at(path))


def palettize_weights(
    program: Any,
    config: OptimizationConfig | None = None,
    joint_compression: bool = False,
    *,
    budget: Budget | None = None,
    sensitivity: Path | None = None,
    sensitivity_default: str = "error",
    strict: bool = False,
    exact: bool = False,
    seed: int = 0,
    threads: int | None = None,
    progress: bool = True,
) -> Any:
    """Palettizes the weights of a program, which stays as it is.

    Args:
        program: a path, a `Program`, or an `AIProgram` of coreai-core.
        config: of all weights, by type and by name, as of `palettizer.coreml`. Types are those that `docs/coreai.md` lists;
            names are as in `get_weights_metadata`. With a budget it may be left out.
        joint_compression: also palettize the integers of quantized weights, and the values that pruned ones keep.
        budget: a size or a quality; the form of each weight is chosen.
        sensitivity: a safetensors file with a tensor for each weight, by its name, that says what an error there costs.
        sensitivity_default: what weights get that the file does not have: `"error"`, or `"ones"`.
        strict: fail if a weight is skipped that was not to be.
        exact: cluster fp32 weights exactly, too.
        seed: where random numbers start, with vectors.
        threads: one for each core unless given.
        progress: show a progress bar on a terminal.

    Returns:
        Of the kind that came in; a path gives a `Program`, whose `report` says what became of each weight.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the program is damaged, the configuration cannot be, a budget cannot be met, or `strict` found something.

    >>> import torch
    >>> import palettizer.coreai as coreai
    >>> from palettizer.torch.palettization import PostTrainingPalettizer
    >>> model = PostTrainingPalettizer(torch.nn.Linear(128, 64)).compress(progress=False)
    >>> program = coreai.decompress_weights(coreai.convert(model, torch.rand(1, 128), progress=False))
    >>> config = coreai.OptimizationConfig(global_config=coreai.OpPalettizerConfig(nbits=2))
    >>> small = coreai.palettize_weights(program, config, progress=False)
    >>> [(name, row["nbits"]) for name, row in small.report.items()]
    [('main.Linear_1.linear_0', 2)]
    >>> [weight.unique_values for weight in coreai.get_weights_metadata(small).values()]
    [4]
    """
    opened = _opened(program)
    ours = _ours(OptimizationConfig() if config is None and budget is not None else config)
    fields = _fields(ours, joint_compression)
    chosen = ours.budget if budget is None else budget
    fields.update(
        minimum_deployment_target=None, sensitivity=None if sensitivity is None else os.path.expanduser(sensitivity),
        sensitivity_default=sensitivity_default, strict=strict, exact=exact, seed=seed,
    )  # fmt: skip
    if chosen is not None:
        fields["budget"] = chosen._native(None)
    made = opened.copied()
    text = _native.palettize_program(
        made, fields, threads=_workers(ours) if threads is None else threads, progress=Bar("Palettizing weights", progress)
    )
    return _as_given(program, made, _warned(text))


def _opened(program: Any) -> Opened:
    if isinstance(program, Program):
        return program._opened
    return Opened(program) if isinstance(program, AIProgram) else Opened.at(program)


def _as_given(program: Any, made: Opened, report: Report | None = None) -> Any:
    """What comes in as an `AIProgram` comes out as one."""
    if isinstance(program, AIProgram):
        return made.program
    return Program(made.changed(None if report is None else report.bytes_after), report)


def decompress_weights(program: Any) -> Any:
    """Makes every weight dense that is palettized, quantized or sparse, of a program, which stays as it is.

    Returns:
        Of the kind that came in: a path gives a `Program`.
    """
    made = _opened(program).copied()
    made.decompress()
    return _as_given(program, made)


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
    for weight in opened.weights:
        value = weight.op.results[0]
        if math.prod(shape(value)) >= weight_threshold and element(value) in FLOATS:
            users = [CoreMLOpMetaData(use.kind, use.name, {"weight": weight.names[0]}) for use in weight.uses]
            found[weight.names[0]] = CoreMLWeightMetaData(dense(weight), child_ops=users)
    return found
