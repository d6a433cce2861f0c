"""Models as they come: paths, our own, and ``coremltools.models.MLModel`` objects.

coremltools is imported only if such an object is at hand.
"""

from __future__ import annotations

import os
import sys
import tempfile
from typing import TYPE_CHECKING, Any

from palettizer import _native
from palettizer.coreml._model import Model, load

if TYPE_CHECKING:
    from coremltools.models import MLModel


def is_mlmodel(model: object) -> bool:
    """Whether it is an MLModel. If coremltools was never imported, it is not."""
    models = sys.modules.get("coremltools.models")
    return models is not None and isinstance(model, models.MLModel)


def opened(model: Any, *, max_expansion: int | None = None) -> _native.Model:
    """What any of them holds. Of an MLModel: the specification in memory, with what the user has changed there, and the
    weights on disk. Weights may unfold to ``max_expansion`` times the model's size."""
    if isinstance(model, Model):
        return model._native if max_expansion is None else model._native.within(max_expansion)
    if isinstance(model, (str, os.PathLike)):
        return load(model, max_expansion=max_expansion)._native
    if is_mlmodel(model):
        spec = model._spec.SerializeToString()
        return _native.Model.open_parts(spec, model.weights_dir or "", max_expansion=max_expansion)
    raise TypeError(
        f"mlmodel is a {type(model).__name__}; expected a path, a palettizer.coreml.Model or a coremltools MLModel"
    )


def temporary_package() -> str:
    """A folder for a package that coremltools removes when the interpreter ends."""
    return tempfile.mkdtemp(suffix=".mlpackage")


def like(mlmodel: MLModel, package: str) -> MLModel:
    """The package as an MLModel that runs where ``mlmodel`` does, loaded if that was."""
    from coremltools.models import MLModel

    more: dict[str, Any] = {}
    if getattr(mlmodel, "optimization_hints", None) is not None:
        more["optimization_hints"] = mlmodel.optimization_hints
    if getattr(mlmodel, "function_name", None) is not None:
        more["function_name"] = mlmodel.function_name
    return MLModel(
        package,
        is_temp_package=True,
        skip_model_load=mlmodel.__proxy__ is None,
        compute_units=mlmodel.compute_unit,
        **more,
    )
