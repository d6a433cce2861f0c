"""The plan applied: each weight goes to the native module, and its values and buffers come back.

All palettes are made before the first weight changes, and then all weights are changed without heed of Ctrl-C: whatever
ends the work, a model is whole or untouched. A palette is small beside its weight. Weights that are contiguous in the
memory of the CPU are read and written where they are.
"""

from __future__ import annotations

import math
import signal
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from palettizer import _native
from palettizer.torch.palettization._plan import metadata
from palettizer.torch.palettization._plan.plan import Weight
from palettizer.torch.palettization._plan.walk import Owner

NAMES = {torch.float32: "f32", torch.float16: "f16", torch.bfloat16: "bf16"}
DTYPES = {name: dtype for dtype, name in NAMES.items()}
SensitivityOf = Callable[[Weight], NDArray[np.float32]]


def check_values(weights: Iterable[Weight]) -> None:
    """Looks for NaN and infinite values, which no mean can be taken of.

    Raises:
        ValueError: naming the weights that have some.
    """
    bad = []
    for weight in weights:
        with weight.owners[0].values() as tensor, torch.no_grad():
            least, most = torch.aminmax(tensor)
            if not math.isfinite(least.item()) or not math.isfinite(most.item()):
                count = tensor.numel() - int(torch.isfinite(tensor).sum())
                bad.append(f"{weight.name} ({count} of {tensor.numel()})")
            elif max(abs(least.item()), abs(most.item())) > torch.finfo(torch.float32).max:
                bad.append(f"{weight.name} (beyond float32)")
    if bad:
        raise ValueError(
            f"NaN or infinite values in {', '.join(bad)}; nothing was changed. "
            "Repair the weights, or give their modules None in the config to leave them alone"
        )


Maker = Callable[[Weight, torch.Tensor], tuple["_native.Palette", float]]
"""Makes the palette of a weight's values, as the native module can read them, and gives its mean squared error."""


def maker(threads: int, sensitivity: SensitivityOf | None = None) -> Maker:
    """Palettizes here, on some threads."""

    def make(weight: Weight, dense: torch.Tensor) -> tuple[_native.Palette, float]:
        made = _native.palettize(
            as_bytes(dense), NAMES[dense.dtype], tuple(dense.shape), **native_settings(weight),
            sensitivity=None if sensitivity is None else sensitivity(weight), threads=threads,
        )  # fmt: skip
        return made, made.error["mse"]

    return make


class Made(NamedTuple):
    """A weight's palette, not yet put anywhere."""

    weight: Weight
    palette: _native.Palette
    mse: float


def make_palette(weight: Weight, make: Maker) -> Made:
    """The palette of one weight, which stays as it is."""
    with torch.no_grad(), weight.owners[0].values() as tensor:
        return Made(weight, *make(weight, to_native(tensor)))


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


def put(made: Made, targets: Sequence[Owner]) -> dict[str, Any]:
    """Writes one palettized weight to `targets`, and returns its row of the report.

    The targets are the weight's owners, or those in a copy of the model.
    """
    owner, target, palette = made.weight.owners[0], targets[0], made.palette
    native = DTYPES[palette.dtype]
    with torch.no_grad(), target.values(write=True) as tensor:
        in_place = tensor.dtype == native and tensor.device.type == "cpu" and tensor.is_contiguous()
        dense = tensor if in_place else torch.empty(tuple(palette.shape), dtype=native)
        palette.decompress_into(as_bytes(dense))
        if not in_place:
            tensor.copy_(dense)
        for other in targets[1:]:
            parameter = other.module.get_parameter(other.parameter)
            # Parameters that lie in one memory do not in a copy.
            if target is not owner and parameter.data_ptr() != tensor.data_ptr():
                parameter.copy_(tensor)
        fields = {name: as_stored(v, native, tensor.dtype) for name, v in buffers(palette, native).items()}
    quantized = palette.lut_integers is not None
    note = metadata.conversion(owner.module, owner.parameter, "vector_axis" in fields, quantized)
    for target in targets:
        metadata.register(target.module, target.parameter, fields, quantized)
    row: dict[str, Any] = {"error": math.sqrt(made.mse), "#params": owner.facts.numel}
    if metadata.QUANTIZATION in metadata.recorded(target.module, target.parameter):
        row["dtype"] = "dtype=int8"
    *_, entries, cluster_dim = palette.lut_shape
    row["palettization_mode"] = f"num_clusters={entries}, cluster_dim={cluster_dim}"
    row["reason"] = ""
    if note:
        row["conversion"] = note
    return row


def native_settings(weight: Weight) -> dict[str, Any]:
    """The settings of a weight's config as the native module takes them."""
    config = weight.config
    vectors = (config.cluster_dim or 1) > 1
    return {
        "mode": "kmeans",
        "nbits": int(config.n_bits),
        "granularity": config.granularity.value,
        "group_size": config.group_size,
        "channel_axis": weight.channel_axis,
        # Without groups, vectors lie along the output axis. They lie along the channel axis here; and there is no scale.
        "output_axis": weight.channel_axis if vectors else weight.output_axis,
        "cluster_dim": config.cluster_dim or 1,
        "enable_per_channel_scale": bool(config.enable_per_channel_scale),
        "lut_dtype": None if config.lut_dtype is None else str(config.lut_dtype).replace("torch.", ""),
        # A Core ML converter takes a table of integers, and one of floats with a per-channel scale, but not both at once.
        "fold_scale": True,
        # It makes programs of half precision by default; so they have the very weights of the module, rounded.
        "half_scales": True,
    }


def to_native(tensor: torch.Tensor) -> torch.Tensor:
    """The tensor itself if the native module can read it, or a copy on the CPU. A float64 one is rounded to float32."""
    dtype = tensor.dtype if tensor.dtype in NAMES else torch.float32
    return tensor.detach().to("cpu", dtype).contiguous()


def as_bytes(tensor: torch.Tensor) -> NDArray[np.uint8]:
    """The memory of a contiguous tensor on the CPU."""
    array: NDArray[np.uint8] = tensor.detach().reshape(-1).view(torch.uint8).numpy()
    return array


def from_bytes(data: NDArray[np.uint8], dtype: torch.dtype, shape: Iterable[int] | None) -> torch.Tensor:
    """A tensor of its bytes; what is there has a shape."""
    tensor = torch.empty(tuple(shape or ()), dtype=dtype)
    if tensor.numel() > 0:
        as_bytes(tensor)[:] = data
    return tensor


def buffers(made: _native.Palette, dtype: torch.dtype) -> dict[str, torch.Tensor]:
    """What a converter needs to know of a palette: the tensors by the names of their buffers."""
    fields = {"lut": from_bytes(made.entries(), dtype, made.lut_shape)}
    if made.scale is not None:
        fields["palettization_scale"] = from_bytes(made.scale, dtype, made.scale_shape)
    if made.vector_axis is not None:
        fields["vector_axis"] = torch.tensor(made.vector_axis)
    if made.lut_scale is not None:
        fields["quantization_n_bits"] = torch.tensor(8)
        fields["quantization_scale"] = from_bytes(made.lut_scale, dtype, made.lut_scale_shape)
        if made.lut_offset is not None:
            fields["zero_point"] = from_bytes(made.lut_offset, torch.uint8, made.lut_scale_shape)
    return fields


def as_stored(value: torch.Tensor, native: torch.dtype, stored: torch.dtype) -> torch.Tensor:
    """A table or a scale in the dtype of its weight, where that is not one of the native module's."""
    return value.to(stored) if value.dtype == native else value
