"""The plan applied: each weight goes to the native module, and its values and buffers come back.

All tables are found before the first weight changes, and then all weights are changed without heed of Ctrl-C: whatever
ends the work, a model is whole or untouched. Weights that are contiguous in the memory of the CPU are read and written where
they are; the indices of such a weight are found just before it is written, where its tables tell them. So hardly more is held
than tables.
"""

from __future__ import annotations

import math
import signal
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from palettizer import _native
from palettizer.torch.palettization._plan import metadata
from palettizer.torch.palettization._plan.plan import Weight
from palettizer.torch.palettization._plan.tensors import NAMES, as_bytes, to_native, write_values
from palettizer.torch.palettization._plan.walk import Memory, Owner

SensitivityOf = Callable[[Weight], NDArray[np.float32]]
"""Gives one number for each element of a weight, row-major."""


def check_values(owners: Iterable[Owner]) -> None:
    """Looks for NaN and infinite values, which no mean can be taken of.

    Raises:
        ValueError: naming the weights that have some.
    """
    bad = []
    for owner in owners:
        with owner.values() as tensor, torch.no_grad():
            least, most = torch.aminmax(tensor)
            if not math.isfinite(least.item()) or not math.isfinite(most.item()):
                count = tensor.numel() - int(torch.isfinite(tensor).sum())
                bad.append(f"{owner.name} ({count} of {tensor.numel()})")
            elif max(abs(least.item()), abs(most.item())) > torch.finfo(torch.float32).max:
                bad.append(f"{owner.name} (beyond float32)")
    if bad:
        raise ValueError(
            f"NaN or infinite values in {', '.join(bad)}; nothing was changed. "
            "Repair the weights, or give their modules None in the config to leave them alone"
        )


Made = tuple["_native.Palette | _native.DeferredPalette", float | None]
"""A palette, and its mean squared error if that is not what it says itself."""

MakePalette = Callable[[Weight, torch.Tensor], Made]
"""Makes the palette of a weight's values, as the native module can read them."""


def maker(threads: int, sensitivity: SensitivityOf | None = None) -> MakePalette:
    """Palettizes here, on some threads."""

    def make(weight: Weight, dense: torch.Tensor) -> Made:
        arguments = native_arguments(weight, dense, sensitivity)
        if _read_in_place(weight.owners[0], dense):
            return _native.palettize(**arguments, deferred=True, threads=threads), None
        return _native.palettize(**arguments, deferred=False, threads=threads), None

    return make


def _read_in_place(owner: Owner, dense: torch.Tensor) -> bool:
    """Whether the native module reads the values where the model has them, so that they are there later without a copy."""
    whole = owner.wrapper is None and isinstance(owner.identity, Memory)
    return whole and dense.data_ptr() == owner.module.get_parameter(owner.parameter).data_ptr()


def make_palette(weight: Weight, make: MakePalette) -> Made:
    """The palette of one weight, which stays as it is."""
    with torch.no_grad(), weight.owners[0].values() as tensor:
        return make(weight, to_native(tensor))


@contextmanager
def undisturbed() -> Iterator[None]:
    """Lets Ctrl-C wait until the end."""
    before = signal.getsignal(signal.SIGINT)
    # Signals are handled on the main thread alone; and a handler that is not Python's could not be put back.
    if threading.current_thread() is not threading.main_thread() or before is None:
        yield
        return
    came: list[Any] = []
    signal.signal(signal.SIGINT, lambda *signal_and_frame: came.append(signal_and_frame))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
        if came and callable(before):
            before(*came[0])


def put(made: Made, owner: Owner, targets: Sequence[Owner]) -> dict[str, Any]:
    """Writes one palettized weight to `targets`, and returns its row of the report.

    The targets are the weight's owners, of which `owner` is the first, or those in a copy of the model.
    """
    (palette, mse), target = made, targets[0]
    with torch.no_grad(), target.values(write=True) as tensor:
        if isinstance(palette, _native.DeferredPalette):
            if target is not owner:
                with owner.values() as values:
                    tensor.copy_(values)
            palette = palette.replace(as_bytes(tensor))
        else:
            write_values(palette, tensor)
        for other in targets[1:]:
            parameter = other.module.get_parameter(other.parameter)
            # Parameters that lie in one memory do not in a copy.
            if target is not owner and parameter.data_ptr() != tensor.data_ptr():
                parameter.copy_(tensor)
        fields = metadata.buffers(palette, tensor.dtype)
    quantized = palette.lut_integers is not None
    note = metadata.conversion(owner.module, owner.parameter, "vector_axis" in fields, quantized)
    for target in targets:
        metadata.register(target.module, target.parameter, fields, quantized)
    row: dict[str, Any] = {"error": math.sqrt(palette.error["mse"] if mse is None else mse), "#params": owner.facts.numel}
    if metadata.QUANTIZATION in metadata.recorded(target.module, target.parameter):
        row["dtype"] = "dtype=int8"
    *_, entries, cluster_dim = palette.lut_shape
    row["palettization_mode"] = f"num_clusters={entries}, cluster_dim={cluster_dim}"
    row["reason"] = ""
    if note:
        row["conversion"] = note
    return row


def native_arguments(weight: Weight, dense: torch.Tensor, sensitivity: SensitivityOf | None) -> dict[str, Any]:
    """What the native module takes to palettize the values of a weight, but for the threads."""
    config, axes, cluster_dim = weight.config, weight.owners[0].axes, weight.config.cluster_dim or 1
    channel_axis = axes[config.channel_axis or 0]
    return {
        "values": as_bytes(dense),
        "dtype": NAMES[dense.dtype],
        "shape": tuple(dense.shape),
        "sensitivity": None if sensitivity is None else sensitivity(weight),
        "mode": "kmeans",
        "nbits": int(config.n_bits),
        "granularity": config.granularity.value,
        "group_size": config.group_size,
        "channel_axis": channel_axis,
        # Without groups, vectors lie along the output axis. They lie along the channel axis here; and there is no scale.
        "output_axis": channel_axis if cluster_dim > 1 else axes[0],
        "cluster_dim": cluster_dim,
        "enable_per_channel_scale": bool(config.enable_per_channel_scale),
        "lut_dtype": None if config.lut_dtype is None else str(config.lut_dtype).replace("torch.", ""),
        # A Core ML converter takes a table of integers, and one of floats with a per-channel scale, but not both at once.
        "fold_scale": True,
        # It makes programs of half precision by default; so they have the very weights of the module, rounded.
        "half_scales": True,
    }
