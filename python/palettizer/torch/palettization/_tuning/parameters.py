"""Everything of a model that is trained: tables, and beside them the parameters of norms and biases."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from palettizer.torch.palettization._io.store import recovered
from palettizer.torch.palettization._plan import metadata
from palettizer.torch.palettization._plan.palettize import undisturbed
from palettizer.torch.palettization._plan.walk import Owner, walk
from palettizer.torch.palettization._tuning.tables import Tables


class Plain:
    """A parameter that is trained as it is, by a change in 32 bits at least."""

    def __init__(self, parameters: list[nn.Parameter]) -> None:
        self.parameters = list({id(parameter): parameter for parameter in parameters}.values())
        self.dtype = torch.promote_types(parameters[0].dtype, torch.float32)
        self.before = parameters[0].detach().clone()
        self.change = nn.Parameter(torch.zeros_like(self.before, dtype=self.dtype))

    def add_gradient(self, parameter: Tensor) -> None:
        """Takes the gradient of the parameter, and frees it."""
        gradient, parameter.grad = parameter.grad, None
        if gradient is not None:
            gradient = gradient.to(self.dtype)
            self.change.grad = gradient if self.change.grad is None else self.change.grad.add_(gradient)

    @torch.no_grad()
    def write(self) -> None:
        """Writes the parameter."""
        for parameter in self.parameters:
            parameter.copy_(self.before.to(self.dtype) + self.change)


class Trained:
    """What is trained of a model, all of it to be written or put back at once.

    Args:
        model: the palettized model, which tells what is palettized and which parameters are one tensor.
        target: the one to be trained: the same, or a copy.
        norms, biases, scales: whether these are trained, too.

    Raises:
        ValueError: nothing is palettized, a weight is not what its record says, or none requires a gradient.
    """

    def __init__(self, model: nn.Module, target: nn.Module, norms: bool, biases: bool, scales: bool) -> None:
        weights, others = _kinds(model, norms, biases)
        if not weights:
            raise ValueError(
                "no weight of the model is palettized; palettize it first, for instance by LayerwisePalettizer"
            )
        self.tables = []
        for owners in weights:
            first = owners[0]
            palette = recovered(first.module, first.parameter, first.name, first.module.get_parameter(first.parameter))
            if any(_parameter(owner).requires_grad for owner in owners):
                places = [(target.get_submodule(owner.module_name), owner.parameter) for owner in owners]
                self.tables.append(Tables(places, palette, scales))
        if not self.tables:
            raise ValueError("no palettized weight requires a gradient; call requires_grad_(True) on those to be tuned")
        self.plain = [Plain([_parameter(o, target.get_submodule(o.module_name)) for o in owners]) for owners in others]
        self._parts: list[Tables | Plain] = [*self.tables, *self.plain]
        self._buffers = [(b, b.detach().clone()) for b in target.buffers() if not b.is_meta]

    def parameters(self) -> tuple[list[nn.Parameter], list[nn.Parameter]]:
        """What the optimizer changes: of entries and factors of channels, and of all else."""
        scales = [tables.scale_change for tables in self.tables if tables.scale_change is not None]
        return [tables.change for tables in self.tables] + scales, [plain.change for plain in self.plain]

    def write(self) -> None:
        """Writes all to the model, without heed of Ctrl-C."""
        with undisturbed():
            for part in self._parts:
                part.write()

    def put_back(self) -> None:
        """Makes the model what it was."""
        with undisturbed(), torch.no_grad():
            for group in self.parameters():
                for parameter in group:
                    parameter.zero_()
            for part in self._parts:
                part.write()
            for buffer, before in self._buffers:
                buffer.copy_(before)

    @contextmanager
    def gradients(self, model: nn.Module) -> Iterator[None]:
        """Gradients of the model go to what is trained, and nothing else has any, for a while."""
        before = [(parameter, parameter.requires_grad, parameter.grad) for parameter in model.parameters()]
        handles: list[Any] = []
        try:
            for parameter, *_ in before:
                parameter.requires_grad_(False)
                parameter.grad = None
            for part in self._parts:
                for parameter in part.parameters:
                    parameter.requires_grad_(True)
                    hook = parameter.register_post_accumulate_grad_hook(part.add_gradient)  # type: ignore[no-untyped-call]
                    handles.append(hook)
            yield
        finally:
            for handle in handles:
                handle.remove()
            for parameter, asked, gradient in before:
                parameter.requires_grad_(asked)
                parameter.grad = gradient


def _parameter(owner: Owner, module: nn.Module | None = None) -> nn.Parameter:
    return (module or owner.module).get_parameter(owner.parameter)


def _kinds(model: nn.Module, norms: bool, biases: bool) -> tuple[list[list[Owner]], list[list[Owner]]]:
    """The palettized weights by their owners, those with a record first; and the other parameters to be trained."""
    shared: dict[Any, list[Owner]] = {}
    for owner in walk(model):
        if owner.parameter in owner.module._parameters:
            shared.setdefault(owner.identity, []).append(owner)
    weights, others = [], []
    for owners in shared.values():
        recorded = [o for o in owners if metadata.PALETTIZATION in metadata.recorded(o.module, o.parameter)]
        if recorded:
            weights.append(recorded + [owner for owner in owners if owner not in recorded])
            continue
        wanted = any((norms and _is_norm(o.module)) or (biases and _is_bias(o)) for o in owners)
        if wanted and owners[0].facts.problem is None and _parameter(owners[0]).requires_grad:
            others.append(owners)
    return weights, others


def _is_norm(module: nn.Module) -> bool:
    """Whether a module is a normalization: by its name, since models have many of their own."""
    if isinstance(module, nn.LayerNorm):
        return True
    return "norm" in type(module).__name__.lower() and all(p.dim() == 1 for p in module.parameters(recurse=False))


def _is_bias(owner: Owner) -> bool:
    return "bias" in owner.parameter and not _is_norm(owner.module)
