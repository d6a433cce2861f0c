"""Sensitivities of a model from a safetensors file, or a file of coremltools."""

from __future__ import annotations

import json
import math
import os
import zipfile
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from palettizer import _native
from palettizer.torch.palettization._io import safetensors
from palettizer.torch.palettization._plan.budget import Sensitivities
from palettizer.torch.palettization._plan.plan import Weight
from palettizer.torch.palettization._sensitivity import torch_file


_LARGEST = "palettizer.largest"
"""The key of what the largest sensitivities were before they were normalised, among the strings of a file."""


def strings(largest: Mapping[str, float]) -> dict[str, str]:
    """What the largest sensitivities were, as strings of a file."""
    return {_LARGEST: json.dumps(largest, sort_keys=True)}


def stored(path: str | os.PathLike[str], weights: Iterable[Weight]) -> Sensitivities:
    """Sensitivities in a file, read one at a time and normalised.

    What the largest was is known if the file says so, or if its values are not normalised.

    Raises:
        ValueError: some weights have none in the file, or of another shape (it is a file of another model); or values
            that are negative, infinite or NaN.
    """
    path = os.fspath(path)
    shapes, read, said = _opened(path)
    names: dict[str, str] = {}
    missing, different = [], []
    for weight in weights:
        name = next((owner.name for owner in weight.owners if owner.name in shapes), None)
        wanted = weight.owners[0].facts.shape
        if name is None:
            missing.append(weight.name)
        elif shapes[name] != wanted:
            different.append(f"{name} ({shapes[name]}, the weight is {wanted})")
        else:
            names[weight.name] = name
    if missing or different:
        found = [f"none for {_some(missing)}"] if missing else []
        found += [f"another shape for {_some(different)}"] if different else []
        raise ValueError(
            f"{path} does not hold the sensitivities of this model: it has {', and '.join(found)}; "
            "nothing was changed. Compute them again with compute_sensitivity"
        )
    most_of: dict[str, float] = {}
    for weight_name, name in names.items():
        least, most = (bound.item() for bound in torch.aminmax(read(name)))
        if not 0 <= least <= most < math.inf:
            raise ValueError(
                f"{name} in {path} has values from {least} to {most}; sensitivities are finite and not negative"
            )
        most_of[weight_name] = most

    def of(weight: Weight) -> NDArray[np.float32]:
        tensor = read(names[weight.name])
        values: NDArray[np.float32] = tensor.to(torch.float32).reshape(-1).numpy()
        _native.normalise_sensitivity(values)
        return values

    largest: dict[str, float] = {}
    if said:
        largest = {weight: most_of[weight] * said[name] for weight, name in names.items() if name in said}
    elif any(most != 1 for most in most_of.values()):
        largest = most_of
    return Sensitivities(of, lambda weight: largest.get(weight.name))


_Opened = tuple[Mapping[str, tuple[int, ...]], Callable[[str], torch.Tensor], Mapping[str, float]]


def _opened(path: str) -> _Opened:
    """The shapes of the tensors in a file by name, what reads one into memory of its own, and what the largest values were, if it is said."""
    if zipfile.is_zipfile(path):  # torch.save, as coremltools writes them
        return (*torch_file.opened(path), {})
    with open(path, "rb") as file:
        if file.read(2) == b"PK":
            raise ValueError(f"{path} begins like a file of torch.save and has not its end; copy it again, or compute it with compute_sensitivity")
    entries, said = safetensors.contents(path)
    shapes = {name: entry.shape for name, entry in entries.items()}
    return shapes, lambda name: safetensors.read(path, entries[name]), _largest(path, said.get(_LARGEST, "{}"))


def _largest(path: str, text: str) -> Mapping[str, float]:
    try:
        found: Any = json.loads(text)
        sound = all(0 <= float(value) < math.inf for value in found.values())
    except (AttributeError, TypeError, ValueError):
        sound = False
    if not sound:
        raise ValueError(f"{path} has {_LARGEST} {text[:80]!r}, which is not numbers by names; is it damaged?")
    return {name: float(value) for name, value in found.items()}


def _some(names: list[str]) -> str:
    shown = ", ".join(names[:8])
    return shown if len(names) <= 8 else f"{shown} and {len(names) - 8} more"
