"""The outputs of a model on some samples, and how far errors of its weights move them.

A small error E of a weight moves an output by JE, J being the derivative of the one by the other. For a random v whose elements are
independent, with mean 0 and variance 1, the mean of (vᵀJE)² is |JE|²; and vᵀJ is what one way back through the model gives, for all
weights at once and whatever their errors. So a few ways back tell what each form of each weight does to the outputs, where runs
would take one for each form.

Source: M. Hutchinson, "A stochastic estimator of the trace of the influence matrix", 1989.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import nn

from palettizer import _native
from palettizer._progress import shown
from palettizer.torch.palettization._layerwise.processes import gathered
from palettizer.torch.palettization._layerwise.samples import Samples
from palettizer.torch.palettization._plan.palettize import undisturbed
from palettizer.torch.palettization._plan.plan import Weight
from palettizer.torch.palettization._plan.sharding import distributed
from palettizer.torch.palettization._plan.tensors import DTYPES, as_bytes, write_values

_PROBES = 32
"""Ways back at least, of all samples together."""
_KEPT = 1 << 20
"""Elements of an output that are kept of each sample: the logits of a language model would be larger than the model."""


class Outputs:
    """What a model gives for the first samples, that it is held against.

    Raises:
        ValueError: there are none that errors could be told by.
    """

    def __init__(self, model: nn.Module, samples: Samples) -> None:
        self._model, self._samples, self._items = model, samples, samples.first()
        self._before: list[list[torch.Tensor]] = []
        energies: list[float] = []
        with torch.no_grad():
            for item in self._items:
                found = samples.outputs(model, item)
                energies.extend([0.0] * (len(found) - len(energies)))
                for at, output in enumerate(found):
                    energies[at] += _energy(output)
                self._before.append([_some(output) for output in found])
        self._energies = [energy if math.isfinite(energy) else 0.0 for energy in _totals(energies)]
        """Of each output; 0 of one that says nothing."""
        if not any(self._energies):
            raise ValueError("the model gives no tensor of finite floats that are not all 0")

    def noise(self) -> float:
        """How far the outputs are off now, as a part of their energy: the mean over the outputs; infinite if one is broken."""
        errors, energies = ([0.0] * len(self._energies) for _ in range(2))
        with torch.no_grad():
            for item, before in zip(self._items, self._before):
                for at, (kept, output) in enumerate(zip(before, self._samples.outputs(self._model, item))):
                    errors[at] += _energy(_some(output) - kept)
                    energies[at] += _energy(kept)
        parts = [
            error / energy
            for error, energy, sound in zip(_totals(errors), _totals(energies), self._energies)
            if sound and energy > 0.0
        ]
        noise = sum(parts) / len(parts)
        return math.inf if math.isnan(noise) else noise

    def harms(self, weights: Sequence[Weight], palettes: Mapping[str, Sequence[_native.Palette]]) -> dict[str, list[float]]:
        """What each of some palettes of each weight, alone, does to the outputs, as a part of their energy.

        Raises:
            RuntimeError: there is no way back from the outputs to the weights.
        """
        sums = {weight.name: [0.0] * len(palettes[weight.name]) for weight in weights}
        problem = ""
        try:
            self._add_harms(weights, palettes, sums)
        except RuntimeError as error:
            if not distributed():
                raise
            problem = str(error)
        # a process without samples has no problem, and would wait for those that have one
        problem = next((problem for problem in gathered(problem) if problem), "")
        if problem:
            raise RuntimeError(problem)
        everything = sum(self._energies)
        return {name: [total / everything for total in _totals(found)] for name, found in sums.items()}

    def _add_harms(
        self, weights: Sequence[Weight], palettes: Mapping[str, Sequence[_native.Palette]], sums: dict[str, list[float]]
    ) -> None:
        draw = torch.Generator().manual_seed(0)
        dots: dict[str, list[float]] = {}
        rounds = -(-_PROBES // max(1, len(self._items)))
        with ExitStack() as stack:
            stack.enter_context(torch.enable_grad())
            stack.enter_context(_heard(weights, palettes, dots))
            for item in shown(self._items * rounds, self._samples.progress, "measuring"):
                torch.autograd.backward(self._probe(self._samples.outputs(self._model, item), draw))
                for parameter in self._model.parameters():
                    parameter.grad = None
                for name, found in dots.items():
                    sums[name] = [total + dot * dot / rounds for total, dot in zip(sums[name], found)]
                dots.clear()

    def _probe(self, outputs: Sequence[torch.Tensor], draw: torch.Generator) -> torch.Tensor:
        """Σ vᵀy over the outputs, in which each counts as it does in the noise; its size is that of the outputs, for half precision."""
        everything, count = sum(self._energies), sum(energy > 0.0 for energy in self._energies)
        total = torch.zeros((), dtype=torch.float32)
        for output, energy in zip(outputs, self._energies):
            if energy > 0.0 and output.requires_grad:
                probe = torch.randn(output.shape, generator=draw).to(output.device)
                total = total.to(output.device) + (output.float() * probe).sum() * (everything / energy / count) ** 0.5
        return total

    @contextmanager
    def changed(self, weights: Sequence[Weight], palettes: Mapping[str, _native.Palette]) -> Iterator[None]:
        """Puts palettes in the place of weights for a while."""
        before: list[tuple[Weight, torch.Tensor]] = []
        try:
            for weight in weights:
                with torch.no_grad(), weight.owners[0].values(write=True) as tensor:
                    before.append((weight, tensor.detach().clone()))
                    write_values(palettes[weight.name], tensor)
            yield
        finally:
            with undisturbed(), torch.no_grad():
                for weight, values in before:
                    with weight.owners[0].values(write=True) as tensor:
                        tensor.copy_(values)


@contextmanager
def _heard(
    weights: Sequence[Weight], palettes: Mapping[str, Sequence[_native.Palette]], dots: dict[str, list[float]]
) -> Iterator[None]:
    """Adds to `dots` the product of each weight's gradient with the error of each of its palettes, and lets the gradient go."""
    frozen = [parameter for weight in weights for parameter in weight.parameters() if not parameter.requires_grad]
    handles: list[Any] = []

    def adder(name: str) -> Any:
        def add(parameter: torch.Tensor) -> None:
            gradient, parameter.grad = parameter.grad, None
            if gradient is None:
                return
            with torch.no_grad():
                found = _products(parameter, gradient, palettes[name])
            # parameters that lie in the same memory are one weight
            dots[name] = [one + other for one, other in zip(found, dots.get(name, [0.0] * len(found)))]

        return add

    try:
        for parameter in frozen:
            parameter.requires_grad_(True)
        for weight in weights:
            for parameter in weight.parameters():
                hook = adder(weight.name)
                handles.append(parameter.register_post_accumulate_grad_hook(hook))  # type: ignore[no-untyped-call]
        yield
    finally:
        for handle in handles:
            handle.remove()
        for parameter in frozen:
            parameter.requires_grad_(False)


def _products(parameter: torch.Tensor, gradient: torch.Tensor, palettes: Sequence[_native.Palette]) -> list[float]:
    gradient = (gradient.to_dense() if gradient.is_sparse else gradient).float()
    values = parameter.detach().float()
    found = []
    for palette in palettes:
        dense = torch.empty(tuple(palette.shape), dtype=DTYPES[palette.dtype])
        palette.decompress_into(as_bytes(dense))
        error = dense.to(values.device, torch.float32) - values
        found.append(float((error * gradient).sum(dtype=torch.float64)))
    return found


def _energy(values: torch.Tensor) -> float:
    return float(values.float().square().sum(dtype=torch.float64))


def _some(output: torch.Tensor) -> torch.Tensor:
    """Some elements, evenly spread, by an odd step: that of even ones would meet the same columns again and again."""
    flat = output.detach().reshape(-1)
    return flat[:: (flat.numel() // _KEPT) | 1].float().clone()


def _totals(numbers: Sequence[float]) -> list[float]:
    """The sums over all processes, of which some may have seen fewer."""
    everywhere = gathered(list(numbers))
    longest = max(len(some) for some in everywhere)
    return [sum(some[at] for some in everywhere if at < len(some)) for at in range(longest)]
