"""What weights a model has, and which ops use them."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from palettizer import _native
from palettizer.coreml._mlmodel import opened

if TYPE_CHECKING:
    from coremltools.models import MLModel

    from palettizer.coreml._model import Model


@dataclass(frozen=True)
class CoreMLOpMetaData:
    """An op that uses a weight.

    Attributes:
        op_type: its type, such as `"conv"`.
        name: its name.
        params_name_mapping: its large constants: parameter -> name, such as `{"weight": "conv_1_weight"}`. A parameter
            is an attribute too.

    >>> from palettizer.coreml import CoreMLOpMetaData
    >>> op = CoreMLOpMetaData("conv", "conv_1", {"weight": "conv_1_weight"})
    >>> op.weight
    'conv_1_weight'
    >>> print(op)
    conv(name=conv_1, weight=conv_1_weight, ...)
    """

    op_type: str
    name: str
    params_name_mapping: dict[str, str]

    def __post_init__(self) -> None:
        _check(self, op_type=str, name=str, params_name_mapping=dict)

    def __getattr__(self, name: str) -> str:
        mapping = self.__dict__.get("params_name_mapping", {})
        if name in mapping:
            return str(mapping[name])
        raise AttributeError(f"{type(self).__name__} has no attribute {name!r}")

    def __str__(self) -> str:
        params = "".join(f", {param}={weight}" for param, weight in self.params_name_mapping.items())
        return f"{self.op_type}(name={self.name}{params}, ...)"


class CoreMLWeightMetaData:
    """A weight. Its attributes cannot be assigned.

    Attributes:
        val: the values; of a compressed weight, the dense ones. Read from the model when first asked for.
        sparsity: the fraction of values of a magnitude of at most 1e-12.
        unique_values: the number of distinct values.
        child_ops: the ops that use it.

    >>> import numpy as np
    >>> from palettizer.coreml import CoreMLWeightMetaData
    >>> weight = CoreMLWeightMetaData(np.array([[1.0, 0.0], [0.0, 6.0]], np.float32))
    >>> weight.sparsity, weight.unique_values
    (0.5, 3)
    """

    def __init__(
        self,
        val: NDArray[Any],
        sparsity: float | None = None,
        unique_values: int | None = None,
        child_ops: list[CoreMLOpMetaData] | None = None,
    ) -> None:
        self.__dict__.update(
            val=val,
            sparsity=float(np.mean(np.abs(val) <= 1e-12)) if sparsity is None else sparsity,
            unique_values=len(np.unique(val)) if unique_values is None else unique_values,
            child_ops=child_ops,
        )
        _check(self, val=np.ndarray, sparsity=float, unique_values=int)
        if child_ops is not None:
            _check(self, child_ops=list)

    sparsity: float
    unique_values: int
    child_ops: list[CoreMLOpMetaData] | None

    @classmethod
    def _of(cls, model: _native.Model, weight: dict[str, Any], listed: set[str]) -> CoreMLWeightMetaData:
        self = cls.__new__(cls)
        users = []
        for user in weight["consumers"]:
            params = {param: name for param, name in user["params"].items() if name in listed}
            users.append(CoreMLOpMetaData(user["op_type"], user["name"], params))
        self.__dict__.update(
            sparsity=weight["sparsity"],
            unique_values=weight["unique_values"],
            child_ops=users,
            _source=(model, weight["name"]),
        )
        return self

    @cached_property
    def val(self) -> NDArray[Any]:
        model, name = self.__dict__["_source"]
        return _array(*model.weight_values(name))

    def __setattr__(self, name: str, value: object) -> None:
        raise AttributeError(f"{name} of a weight's metadata cannot be assigned; change the model instead")

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.val, self.sparsity, self.unique_values, self.child_ops)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, CoreMLWeightMetaData):
            return NotImplemented
        mine, theirs = ((m.sparsity, m.unique_values, m.child_ops) for m in (self, other))
        return mine == theirs and np.array_equal(self.val, other.val)

    __hash__ = None  # type: ignore[assignment]

    def __str__(self) -> str:
        lines = [
            "[  ",
            f"  val: np.ndarray(shape={self.val.shape}, dtype={self.val.dtype})",
            f"  sparsity: {self.sparsity}",
            f"  unique_values: {self.unique_values}",
        ]
        if self.child_ops is not None:
            lines += ["  child_ops: [", *(f"    {op}" for op in self.child_ops), "  ]"]
        return "\n".join([*lines, "]"])

    def __repr__(self) -> str:
        return (
            f"CoreMLWeightMetaData(val={self.val!r}, sparsity={self.sparsity!r}, "
            f"unique_values={self.unique_values!r}, child_ops={self.child_ops!r})"
        )


class _Metadata(dict[str, CoreMLWeightMetaData]):
    """Prints as a list of weights."""

    def __str__(self) -> str:
        return "".join(f"{name}\n{weight}\n" for name, weight in self.items())


def get_weights_metadata(
    mlmodel: str | os.PathLike[str] | Model | MLModel, weight_threshold: int = 2048
) -> dict[str, CoreMLWeightMetaData]:
    """The weights of a model by name: values, sparsity, distinct values, and the ops that use each.

    Args:
        mlmodel: an ML Program.
        weight_threshold: only weights with at least so many elements.

    Returns:
        In the order of the program. A compressed weight is there under its own name with the values that it stands for.

    >>> import palettizer.coreml as cto
    >>> weights = cto.get_weights_metadata(cto.demo(), weight_threshold=30_000)
    >>> [(weight.val.shape, weight.child_ops[0].op_type) for weight in weights.values()]
    [((64, 64, 3, 3), 'conv')]
    """
    model = opened(mlmodel)
    # a scalar is a parameter, not a weight
    weights = [weight for weight in json.loads(model.weights(max(weight_threshold - 1, 0))) if weight["shape"]]
    listed = {weight["name"] for weight in weights}
    found = _Metadata()
    for weight in weights:
        found.setdefault(weight["name"], CoreMLWeightMetaData._of(model, weight, listed))
    return found


def _array(dtype: str, shape: tuple[int, ...], data: NDArray[np.uint8]) -> NDArray[Any]:
    """Little-endian bytes as numpy's nearest type: bfloat16 as float32, integers of less than a byte as bytes."""
    if dtype == "bf16":
        return (data.view("<u2").astype("<u4") << 16).view("<f4").reshape(shape)
    names = {"fp16": "<f2", "fp32": "<f4", "fp64": "<f8", "bool": "?"}
    bits = int(dtype.lstrip("uint") or 0) if "int" in dtype else 0
    if bits and bits < 8:
        count = int(np.prod(shape))
        each = np.unpackbits(data, bitorder="little")[: count * bits].reshape(count, bits)
        unsigned = np.packbits(each, axis=1, bitorder="little").reshape(shape)
        if dtype.startswith("u"):
            return unsigned
        return (unsigned.view(np.int8) << (8 - bits)) >> (8 - bits)  # the sign comes along
    return data.view(np.dtype(names.get(dtype, dtype)).newbyteorder("<")).reshape(shape)


def _check(instance: object, **kinds: type) -> None:
    for field, kind in kinds.items():
        value = instance.__dict__[field]
        if not isinstance(value, kind):
            raise TypeError(f"{field} is {value!r}; expected {kind.__name__}")
