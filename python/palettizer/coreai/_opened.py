"""A program that is open: its weights described, read, palettized, listed and made dense."""

from __future__ import annotations

import copy
import os
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from palettizer import _native
from palettizer.coreai import _asset
from palettizer.coreai._chains import replace
from palettizer.coreai._constants import FLOATS, element, read, shape
from palettizer.coreai._fold import DENSE, chains, evaluate, fold, joint, parts, stored
from palettizer.coreai._weights import Weight, weights
from palettizer.coreai._wheel import AIModelAsset


class Opened:
    """A program and its weights. Operations do not keep their program alive: this does.

    Attributes:
        program: the `AIProgram` of coreai-core.
        metadata: of the asset that it comes from; None if it comes from none.
        before: bytes of the program in its file; of one without a file, those of its weights.
        overhead: bytes that the operations, types and names of a palette take at most in the file, beside its data.
    """

    overhead = 256

    def __init__(self, program: Any, metadata: Any = None, before: int | None = None) -> None:
        self.program, self.metadata = program, metadata
        self.weights: list[Weight] = weights(program)
        self.before = sum(stored(weight.op.results[0]) for weight in self.weights) if before is None else before

    @classmethod
    def at(cls, path: str | os.PathLike[str]) -> Opened:
        """Opens an `.aimodel` that is sound.

        Raises:
            FileNotFoundError: there is nothing.
            ValueError: it is no program, or damaged.
        """
        folder = _asset.check(os.path.expanduser(path))
        asset = AIModelAsset.load(folder)
        return cls(asset.program, asset.metadata, _asset.length(folder))

    def copied(self) -> Opened:
        """The same, to be changed."""
        return Opened(copy.deepcopy(self.program), self.metadata, self.before)

    def changed(self, stored_bytes: int | None = None) -> Opened:
        """The program after `put` or `decompress`, whose weights are others."""
        return Opened(self.program, self.metadata, stored_bytes)

    @property
    def described(self) -> list[dict[str, Any]]:
        """The weights, as `_native.palettize_program` takes them."""
        return [_described(weight) for weight in self.weights]

    def read(self, index: int) -> tuple[NDArray[np.uint8], NDArray[np.uint8] | None]:
        """The bytes of the values of a weight; of one that is pruned, the mask too, packed: zeros lie where it keeps none."""
        op = self.weights[index].op
        inner = joint(op)
        if inner is None or op.name != DENSE:
            return read(inner or op), None
        values = np.ascontiguousarray(evaluate(op.results[0]))
        return values.reshape(-1).view(np.uint8), read(op.operands[0].owner.operands[1].owner)

    def error(self, index: int, integers: NDArray[np.uint8]) -> tuple[float, float]:
        """Squared error and energy of a quantized weight whose integers are others."""
        op = self.weights[index].op
        inner = joint(op)
        before = evaluate(op.results[0]).astype(np.float64)
        after = evaluate(op.results[0], {inner: integers.view(evaluate(inner.results[0]).dtype)}).astype(np.float64)
        return float(np.sum((before - after) ** 2)), float(np.sum(before**2))

    def put(self, index: int, palette: _native.Palette) -> None:
        """Puts a palette in the place of a weight. It is not to be read any more."""
        replace(self.weights[index].op, palette)

    def decompress(self) -> int:
        """Makes every weight dense; gives how many were not."""
        found = list(chains(self.program))
        for op in found:
            fold(op)
        return len(found)

    def save(self, path: str | os.PathLike[str], overwrite: bool = False) -> int:
        """Writes the program, whole or not at all; gives its bytes."""
        return _asset.save(self.program, path, self.metadata, overwrite)

    def write(self, built: str) -> int:
        """Writes the program to where an output is built; gives its bytes."""
        return _asset.write(self.program, Path(built), self.metadata)

    def listed(self, threshold: int) -> list[dict[str, Any]]:
        """The weights of more elements, as `palettizer inspect` lists them."""
        return [_listed(weight) for weight in self.weights if np.prod(shape(weight.op.results[0])) > threshold]

    def values(self, name: str) -> NDArray[np.float32]:
        """The values of a weight, flat."""
        for weight in self.weights:
            if name in weight.names:
                found: NDArray[np.float32] = dense(weight).astype(np.float32).reshape(-1)
                return found
        raise ValueError(f'there is no weight "{name}"')


def dense(weight: Weight) -> NDArray[Any]:
    """The values of a weight, computed if it is compressed; those of bfloat16 as float32."""
    values: NDArray[Any] = evaluate(weight.op.results[0])
    return values.astype(np.float32) if values.dtype.kind == "V" else values


def _described(weight: Weight) -> dict[str, Any]:
    value = weight.op.results[0]
    return {
        "names": weight.names,
        "users": [(use.name, use.kind) for use in weight.uses],
        "shape": shape(value),
        "dtype": element(value),
        "output_axis": weight.axis,
        "role": weight.role,
        "bytes": stored(value),
        "problem": "already compressed; decompress_weights makes it dense" if weight.compressed else None,
        **_joint(weight.op),
    }


def _joint(op: Any) -> dict[str, Any]:
    """What can be palettized of a weight that is compressed: its type, whether a mask keeps it, the bytes of all else."""
    inner = joint(op)
    if inner is None:
        return {"joint": None, "masked": False, "beside": 0}
    return {
        "joint": element(inner.results[0]),
        "masked": op.name == DENSE,
        "beside": stored(op.results[0]) - stored(inner.results[0]),
    }


def _listed(weight: Weight) -> dict[str, Any]:
    value = weight.op.results[0]
    found = {
        "name": weight.names[0],
        "shape": shape(value),
        "dtype": _NAMES.get(element(value), element(value)),
        "bytes": stored(value),
        "users": [(use.name, use.kind, "weight") for use in weight.uses],
        **parts(value),
    }
    if element(value) not in FLOATS:
        return {**found, "sparsity": 0.0, "unique_values": 0}
    values = dense(weight)
    return {
        **found,
        "sparsity": float(np.mean(np.abs(values.astype(np.float32)) <= _ZERO)),
        "unique_values": len(np.unique(values)),
    }


_NAMES = {"f32": "fp32", "f16": "fp16", "bf16": "bf16"}
"""Of types, as reports call them."""

_ZERO = 1e-12
"""What is no larger counts as zero, as in coremltools."""
