"""Models as they come: paths, our own, and `coremltools.models.MLModel` objects.

coremltools is imported only if such an object is at hand.
"""

from __future__ import annotations

import functools
import os
import sys
import tempfile
from typing import TYPE_CHECKING, Any

from palettizer import _native
from palettizer.coreml._model import Model, load

if TYPE_CHECKING:
    from coremltools.models import MLModel

    from palettizer.coreml._report import Report


def is_mlmodel(model: object) -> bool:
    """Whether it is an MLModel. If coremltools was never imported, it is not."""
    models = sys.modules.get("coremltools.models")
    return models is not None and isinstance(model, models.MLModel)


def opened(model: Any, *, max_expansion: int | None = None) -> _native.Model:
    """What any of them holds; weights may unfold to `max_expansion` times the model's size.

    Of an MLModel it is the specification in memory, with what the user has changed there, and the weights on disk.
    """
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


def like(mlmodel: MLModel, package: str, report: Report | None) -> MLModel:
    """The package as an MLModel that runs where `mlmodel` does, loaded if that was."""
    said = {name: getattr(mlmodel, name, None) for name in ("optimization_hints", "function_name")}
    made = _result()(
        package,
        is_temp_package=True,
        skip_model_load=mlmodel.__proxy__ is None,
        compute_units=mlmodel.compute_unit,
        **{name: value for name, value in said.items() if value is not None},
    )
    made.report = report
    return made


@functools.cache
def _result() -> Any:
    """The class of our results, once coremltools is there to derive it from."""
    from coremltools.converters.mil.frontend.milproto import load as milproto
    from coremltools.models import MLModel

    class CompressedMLModel(MLModel):  # type: ignore[misc]
        """An MLModel with the report of its compression.

        Its MIL program, which the results of coremltools hold, is read from the package when it is first asked for.
        """

        report: Report | None = None
        _read: Any = None
        _saving = False

        @property
        def _mil_program(self) -> Any:
            if self._read is None and not self._saving and self._spec.WhichOneof("Type") == "mlProgram":
                self._read = milproto.load(
                    model_spec=self._spec,
                    specification_version=self._spec.specificationVersion,
                    file_weights_dir=self.weights_dir,
                )
            return self._read

        @_mil_program.setter
        def _mil_program(self, program: Any) -> None:
            self._read = program

        def save(self, *args: Any, **options: Any) -> None:
            # which asks for the program, for something that only a program from a converter has
            self._saving = True
            try:
                super().save(*args, **options)
            finally:
                self._saving = False

    CompressedMLModel.__qualname__ = "CompressedMLModel"
    return CompressedMLModel
