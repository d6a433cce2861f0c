"""A PyTorch model on a cluster: each task gets one weight and gives back its palette; the model is changed here."""

from __future__ import annotations

import json
import tempfile
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from palettizer import _native
from palettizer._progress import shown
from palettizer.distributed._cluster import cluster, spread
from palettizer.distributed._parts import part_name, parts_folder, put
from palettizer.torch.palettization import (
    PostTrainingPalettizer,
    SKMPalettizer,
    SKMPalettizerConfig,
    save_safetensors,
)
from palettizer.torch.palettization._io.safetensors import check_place
from palettizer.torch.palettization._plan.palettize import Made, SensitivityOf, make_palette, native_arguments
from palettizer.torch.palettization._plan.plan import Weight
from palettizer.torch.palettization._plan.tensors import to_native
from palettizer.torch.palettization._sensitivity.source import stored

def compress_module(
    model: torch.nn.Module,
    config: Any,
    out: Path | None,
    sensitivity_path: str | None,
    inplace: bool,
    cpus: int,
    address: str | None,
    progress: bool,
) -> torch.nn.Module:
    """Palettizes a model; with `out` its parts are kept until it is stored there."""
    if out is not None:
        check_place(out)
    with cluster(address) as ray:
        palettizer: Any
        if isinstance(config, SKMPalettizerConfig):
            if sensitivity_path is None:
                raise TypeError("an SKMPalettizerConfig needs sensitivity_path, a file of SKMPalettizer.compute_sensitivity")
            palettizer = SKMPalettizer(model, config)
        else:
            palettizer = PostTrainingPalettizer(model, config)
        if palettizer._budget(None) is not None:
            raise ValueError(
                "the config has a budget, which is kept over the whole model: choose on one machine, with compress(budget=...), or "
                "give the bits that its report names"
            )
        plan = palettizer._plan(inplace, None)
        of = None if sensitivity_path is None else stored(sensitivity_path, plan.weights).of
        with parts_folder(None if out is None else out.resolve()) as folder:
            parts = {weight.name: folder / _part_name(weight, of) for weight in plan.weights}
            missing = [weight for weight in plan.weights if not parts[weight.name].exists()]
            tasks = ((weight.name, (_arguments(weight, of), cpus)) for weight in missing)
            results = spread(ray, _make_part, tasks, cpus)
            for name, data in shown(results, progress, "palettizing", len(missing)):
                put(data, parts[name])
            palettes = [make_palette(weight, partial(_take, parts)) for weight in plan.weights]
            done: torch.nn.Module = palettizer._put(plan, palettes, inplace, {}, None)
            if out is not None:
                save_safetensors(done, out)
        return done


def _take(parts: dict[str, Path], weight: Weight, _dense: torch.Tensor) -> Made:
    """The palette of a weight that its part holds, and its error."""
    part = _native.Checkpoint.open(parts[weight.name])
    palette = part.get("weight")
    assert isinstance(palette, _native.Palette)
    return palette, float.fromhex(part.metadata()["mse"])


def _arguments(weight: Weight, of: SensitivityOf | None) -> dict[str, Any]:
    with weight.owners[0].values() as tensor:
        return native_arguments(weight, to_native(tensor), of)


def _part_name(weight: Weight, of: SensitivityOf | None) -> str:
    arguments = _arguments(weight, of)
    values, sensitivity = arguments.pop("values"), arguments.pop("sensitivity")
    numbers = b"" if sensitivity is None else sensitivity.view(np.uint8).data
    return part_name(json.dumps(arguments, sort_keys=True), values.data, numbers)


def _make_part(arguments: dict[str, Any], threads: int) -> bytes:
    """One weight's palette, as the bytes of a file."""
    palette = _native.palettize(**arguments, threads=threads)
    with tempfile.TemporaryDirectory(prefix="palettizer-") as folder:
        part = Path(folder) / "part.safetensors"
        _native.Checkpoint.write(part, [("weight", palette)], {"mse": palette.error["mse"].hex()})
        return part.read_bytes()
