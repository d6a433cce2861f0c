"""One weight and its statistics become a palette: fitted to the layer's outputs, or by k-means where that cannot be."""

from __future__ import annotations

import math
from contextlib import suppress
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from palettizer import _native
from palettizer.torch.palettization._layerwise.fit import palette_on_device
from palettizer.torch.palettization._layerwise.statistics import Statistics
from palettizer.torch.palettization._plan import metadata
from palettizer.torch.palettization._plan.budget import Allotment, Price, part, pricer, sampled
from palettizer.torch.palettization._plan.palettize import native_arguments
from palettizer.torch.palettization._plan.plan import Weight
from palettizer.torch.palettization._plan.tensors import as_bytes, to_native

GUIDED_DAMPING, PLAIN_DAMPING = 0.03, 0.1
"""Where a config names none; measured on language models."""
_RARE = 0.01
"""How much a row that was never looked up counts, of what a row does on average; as in crates/pipeline/src/statistics."""


def fitted(
    weight: Weight, found: Statistics, guided: bool, threads: int
) -> tuple[tuple[_native.Palette, float], dict[str, Any]]:
    """The palette of a weight, and what the report says of it beyond its error."""
    with torch.no_grad(), weight.owners[0].values() as tensor:
        arguments = {**native_arguments(weight, to_native(tensor), None), "threads": threads}
        why = _why_not(weight, found)
        if not why and found.moments is not None:
            try:
                palette = _fit(weight, tensor, arguments, found, guided)
                return (palette, palette.error["mse"]), {**_figures(palette), "fallback": ""}
            except _native.Refusal as refusal:  # of the layout, or of everything: then the next call says it again
                why = str(refusal)
        palette = _native.palettize(**{**arguments, "sensitivity": _sensitivity(weight, found)})
        return (palette, palette.error["mse"]), {"fallback": why}


def quick(weight: Weight) -> Weight:
    """The weight as the fast algorithm fits it."""
    return replace(weight, config=replace(weight.config, algorithm="gptq"))


def price(allotment: Allotment, weight: Weight, found: Statistics, guided: bool, threads: int) -> None:
    """Prices the forms of a weight by the fast algorithm, whose errors are in proportion to those of the other."""
    sensitivity = _sensitivity(weight, found)
    largest = None if found.fisher is None else float(found.fisher.max())
    by_k_means = pricer(threads, sensitivity, largest)

    def make(weight: Weight, dense: torch.Tensor) -> Price:
        fast = quick(weight)
        if found.moments is None or _why_not(weight, found):
            return by_k_means(fast, dense)
        (palette, _), figures = fitted(fast, found, guided, threads)
        if figures["fallback"]:
            return by_k_means(fast, dense)
        energy = palette.error["output_energy"]
        return palette, part(palette.error["output_error"], energy), energy if guided else None

    moments = None if found.moments is None else sampled(found.moments.to("cpu", torch.float32).numpy())
    allotment.price(weight, ("layerwise", guided, weight.config.damping, sensitivity, moments), make)


def start(weight: Weight, found: Statistics, guided: bool, threads: int) -> tuple[float, _native.Palette]:
    """The palette by k-means that a fit starts from, and its error, as `price` has it of fits.

    What is fitted to samples loses little of their outputs, and more of others'. This palette does not know them.
    """
    with torch.no_grad(), weight.owners[0].values() as tensor:
        dense = to_native(tensor)
        arguments = {**native_arguments(weight, dense, None), "threads": threads}
        sensitivity = _sensitivity(weight, found)
        palette = _native.palettize(**{**arguments, "sensitivity": sensitivity})
        if found.moments is not None and not _why_not(weight, found):
            with suppress(_native.Refusal):
                fit = _fit(quick(weight), tensor, arguments, found, guided)
                if fit.objective:
                    return part(fit.objective[0], fit.error["output_energy"]), palette
        if sensitivity is None:
            return part(palette.error["squared_error"], palette.error["energy"]), palette
        return part(*palette.weighted_error(as_bytes(dense), sensitivity)), palette


def _why_not(weight: Weight, found: Statistics) -> str:
    """Why the palette of a weight is not fitted to outputs, or nothing."""
    owner = weight.owners[0]
    if found.moments is None and found.frequency is not None:
        return "an embedding: k-means, each row weighted by how often it was looked up"
    if metadata.PRUNING in metadata.recorded(owner.module, owner.parameter):
        return "a pruned weight: its zeros must stay zeros"
    return found.why_not


def _fit(
    weight: Weight, values: torch.Tensor, arguments: dict[str, Any], found: Statistics, guided: bool
) -> _native.Palette:
    """Fits where the values are; what cannot be fitted is for the native module to refuse."""
    assert found.moments is not None
    config = weight.config
    plain = (config.cluster_dim or 1) == 1 and not (config.group_size is not None and config.channel_axis == 1)
    if _on_gpu(values) and plain and not (found.moments.shape[1] > 1 and config.enable_per_channel_scale):
        given = {name: value for name, value in arguments.items() if name != "threads"}
        return palette_on_device(
            values, found.moments, given, fisher=found.fisher, threads=arguments["threads"], **settings(weight, guided)
        )
    start = None if found.fisher is None else _normalised(found.fisher)
    moments = np.ascontiguousarray(found.moments.to("cpu", torch.float32).numpy())
    more = {"sensitivity": start, "second_moments": moments, **settings(weight, guided)}
    return _native.palettize(**{**arguments, **more}, deferred=False)


def _on_gpu(values: torch.Tensor) -> bool:
    return values.is_cuda


def settings(weight: Weight, guided: bool) -> dict[str, Any]:
    """How a weight is fitted."""
    config = weight.config
    default = GUIDED_DAMPING if guided else PLAIN_DAMPING
    return {
        "algorithm": config.algorithm,
        "rounds": config.rounds,
        "damping": default if config.damping is None else config.damping,
    }


def _figures(palette: _native.Palette) -> dict[str, Any]:
    """The signal-to-noise ratios of the layer's outputs: after the fit, and of the k-means that it starts from."""
    energy, objective = palette.error["output_energy"], palette.objective
    figures = {"output_snr": _decibels(energy, palette.error["output_error"])}
    return {**figures, "output_snr_start": _decibels(energy, objective[0])} if objective else figures


def _decibels(signal: float, noise: float) -> float:
    if noise <= 0:
        return math.inf
    return 10 * math.log10(signal / noise) if signal > 0 else -math.inf


def _sensitivity(weight: Weight, found: Statistics) -> NDArray[np.float32] | None:
    """What an error of each element costs, as far as that is known."""
    shape, axis = weight.owners[0].facts.shape, weight.owners[0].axes[0]
    if found.fisher is not None:
        return _normalised(found.fisher)
    if found.moments is not None:
        rest = (*shape[:axis], *shape[axis + 1 :])
        diagonal = found.moments.diagonal(dim1=2, dim2=3).reshape(len(found.moments), -1)
        size = -(-shape[axis] // len(diagonal))
        rows = diagonal.repeat_interleave(size, 0)[: shape[axis]]
        return _normalised(rows.reshape(shape[axis], *rest).movedim(0, axis))
    if found.frequency is not None:
        rows = found.frequency.clamp(min=_RARE * max(found.frequency.mean().item(), 1e-30))
        return _normalised(rows.reshape(-1, *(1,) * (len(shape) - 1)).expand(shape))
    return None


def _normalised(tensor: torch.Tensor) -> NDArray[np.float32]:
    values: NDArray[np.float32] = tensor.detach().to("cpu", torch.float32).reshape(-1).numpy().copy()
    _native.normalise_sensitivity(values)
    return values
