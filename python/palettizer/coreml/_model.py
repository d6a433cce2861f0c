"""A Core ML model without coremltools."""

from __future__ import annotations

import json
import os
from typing import Any

from palettizer import _native
from palettizer.coreml._report import Report


class Model:
    """A Core ML model: its program, and its weights, which stay in their file until they are needed: keep it until then.

    Made by `load` and `demo`, and by `palettizer.coreml.palettize_weights` and
    `palettizer.coreml.decompress_weights` of a path or of another `Model`.

    Attributes:
        report: what became of every weight, if this is the result of `palettize_weights`.
    """

    __slots__ = ("_native", "report")

    report: Report | None

    def __init__(self, native: _native.Model, report: Report | None = None) -> None:
        self._native = native
        self.report = report

    def save(self, path: str | os.PathLike[str], *, overwrite: bool = True) -> None:
        """Writes the model to the package `path`, whose name ends in `.mlpackage`.

        Args:
            path: a model that is there is replaced, as `MLModel.save` does, once the new one is whole.
            overwrite: `False`: `FileExistsError` if there is something.
        """
        self._native.save(os.path.expanduser(path), overwrite=overwrite)

    def weights(self, threshold: int = 2048) -> list[dict[str, Any]]:
        """Every constant with more than `threshold` elements, in the order of the program, compressed ones included.

        Each is a dictionary with `name`, `shape`, `dtype`, `elements`, `bytes`, `sparsity`,
        `unique_values`, `consumers` and `compression`.

        >>> import palettizer.coreml as cto
        >>> [weight["elements"] for weight in cto.demo().weights(20_000)]
        [36864, 24576]
        """
        found: list[dict[str, Any]] = json.loads(self._native.weights(threshold))
        return found

    def __repr__(self) -> str:
        return f"<palettizer.coreml.Model of {len(self.weights())} weights>"


def demo() -> Model:
    """A small model that is part of the package: a convolutional network that reads handwritten digits.

    >>> import palettizer.coreml as cto
    >>> len(cto.demo().weights())
    3
    """
    return Model(_native.Model.demo())


def load(path: str | os.PathLike[str], *, max_expansion: int | None = None) -> Model:
    """Opens an `.mlpackage` folder or an `.mlmodel` file.

    Args:
        path: the package or the file.
        max_expansion: how many times its own size the model's weights may unfold to; `None` for 512. Forged files of a
            few kilobytes unfold to many gigabytes.

    Raises:
        OSError: if it cannot be read.
        TypeError: if it is no ML Program.
        ValueError: if it is damaged; the message says where.

    >>> import tempfile
    >>> import palettizer.coreml as cto
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     cto.demo().save(f"{folder}/Digits.mlpackage")
    ...     model = cto.load(f"{folder}/Digits.mlpackage")
    """
    return Model(_native.Model.open(os.path.expanduser(path), max_expansion=max_expansion))
