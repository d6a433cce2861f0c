"""Everything of Apple's wheel `coreai-core` that is used here, its private names among it.

The wheel calls `coreai.authoring` its supported surface. It has no public way to look into a program or to change it, so
that some names beneath are used as well; a version of which that is not known is refused.
"""

from __future__ import annotations

import importlib
from importlib import metadata
from types import ModuleType
from typing import Any

VERSION = "1.0.0b3"
PACKAGE = "coreai-core"
_ADVICE = f"pip install 'palettizer[coreai]' (it brings {PACKAGE}=={VERSION})"

_NAMES = {
    "coreai.authoring": ("AIModelAsset", "AIProgram"),
    "coreai._compiler.ir": (
        "BF16Type", "DenseElementsAttr", "DenseResourceElementsAttr", "F16Type", "F32Type", "FloatAttr", "InsertionPoint",
        "IntegerAttr", "IntegerType", "RankedTensorType", "WalkResult",
    ),
    "coreai._compiler.dialects.coreai": ("ConstantOp", "blockwise_shift_scale", "lut_to_dense"),
    "coreai._compiler._mlir_libs._coreaiIR._bindings.compiler": ("copy_constant_value_to_array",),
}  # fmt: skip
"""In the order in which they have to be imported."""


def _found() -> str:
    try:
        return metadata.version(PACKAGE)
    except metadata.PackageNotFoundError:
        raise ImportError(f"palettizer.coreai needs {PACKAGE}, which is not installed: {_ADVICE}") from None


def _loaded() -> dict[str, ModuleType]:
    found = _found()
    modules: dict[str, ModuleType] = {}
    missing: list[str] = []
    for name, wanted in _NAMES.items():
        try:
            modules[name] = importlib.import_module(name)
        except ImportError as error:
            missing.append(f"{name} ({error})")
            continue
        missing += [f"{name}.{one}" for one in wanted if not hasattr(modules[name], one)]
    if not missing and not hasattr(modules["coreai.authoring"].AIProgram, "_from_mlir_module"):
        missing.append("coreai.authoring.AIProgram._from_mlir_module")
    if missing:
        raise ImportError(
            f"{PACKAGE} {found} does not have {', '.join(missing)}; palettizer.coreai works with {VERSION}: {_ADVICE}"
        )
    return modules


_modules = _loaded()

AIModelAsset: Any = _modules["coreai.authoring"].AIModelAsset
AIProgram: Any = _modules["coreai.authoring"].AIProgram
ir: Any = _modules["coreai._compiler.ir"]
ops: Any = _modules["coreai._compiler.dialects.coreai"]
_compiler: Any = _modules["coreai._compiler._mlir_libs._coreaiIR._bindings.compiler"]


def mlir(program: Any) -> Any:
    """The MLIR module of a program."""
    return program._module._mlir_module


def copy_constant(op: Any, destination: Any) -> None:
    """Writes the bytes of a constant's value, packed, to an array of bytes."""
    _compiler.copy_constant_value_to_array(constant_op=op, destination=destination)
