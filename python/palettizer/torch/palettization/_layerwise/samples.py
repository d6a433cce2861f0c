"""How a model is run on the items of a data loader, and what is put back when that is over."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from itertools import islice
from typing import Any

import torch
from torch import nn

from palettizer._progress import shown
from palettizer.torch.palettization._layerwise.watch import without_fast_paths
from palettizer.torch.palettization._sensitivity.gradients import LossFunction, backward, left_as_it_was, share

_FIRST = 16
"""Samples that are kept for more than one look, as for Core ML models."""

ForwardFunction = Callable[[nn.Module, Any], Any]


def forward(model: nn.Module, item: Any) -> Any:
    """Runs a model on an item: what is no tensor is taken apart, by name or by position.

    Raises:
        TypeError: the model does not take such an item.
    """
    try:
        if isinstance(item, Mapping):
            return model(**item)
        return model(*item) if isinstance(item, (tuple, list)) else model(item)
    except TypeError as error:
        raise TypeError(
            f"{error}. An item of the dataloader is a {type(item).__name__}; the model is called with its elements if it "
            "is a tuple, a list or a dict, and else with the item itself: forward_fn(model, item) may do it otherwise"
        ) from error


class Samples:
    """The samples of this process, each taken once.

    Raises:
        TypeError: there is no data, or a function that is none.
        ValueError: no samples.
    """

    def __init__(
        self,
        dataloader: Iterable[Any],
        nsamples: int,
        loss_fn: LossFunction | None,
        forward_fn: ForwardFunction | None,
        progress: bool,
    ) -> None:
        if not isinstance(dataloader, Iterable):
            raise TypeError(f"dataloader must be iterable, found {type(dataloader).__name__}")
        for name, function in (("loss_fn", loss_fn), ("forward_fn", forward_fn)):
            if function is not None and not callable(function):
                raise TypeError(f"{name} must be a function of the model and a sample, found {type(function).__name__}")
        if loss_fn is not None and forward_fn is not None:
            raise TypeError("loss_fn runs the model itself; give either loss_fn or forward_fn")
        if nsamples < 1:
            raise ValueError(f"calibration_nsamples is {nsamples}; at least one sample is needed")
        self.guided = loss_fn is not None
        self._loss_fn, self._forward = loss_fn, forward_fn or forward
        self.progress, self.count = progress, 0
        self._items, self._nsamples = islice(dataloader, nsamples), nsamples
        self._first: list[Any] = []
        self._taken = False

    def __iter__(self) -> Iterator[Any]:
        self._taken = True
        for item in shown(share(self._items, whole_rounds=False), self.progress, "calibrating", self._nsamples):
            self.count += 1
            if self.count <= _FIRST:
                self._first.append(item)
            yield item

    def first(self) -> list[Any]:
        """Some that can be had again: those that were taken first, or are taken now."""
        if not self._taken:
            for _ in islice(self, _FIRST):
                pass
        return self._first

    def run(self, model: nn.Module, item: Any) -> None:
        """Runs the model on one of them, and with a loss the way back too."""
        if self._loss_fn is None:
            with torch.no_grad():
                self.run_forward(model, item)
        else:
            with torch.enable_grad():
                backward(model, self._loss_fn, item)
            for parameter in model.parameters():
                parameter.grad = None

    def outputs(self, model: nn.Module, item: Any) -> list[torch.Tensor]:
        """What the model gives for one of them: the tensors of floats that a function returns, or else those of the model's calls."""
        heard: list[Any] = []
        handle = model.register_forward_hook(lambda module, inputs, output: heard.append(output))
        try:
            returned = (self._loss_fn or self._forward)(model, item)
        finally:
            handle.remove()
        whole, called = _floats(returned), _floats(heard)
        return (called or whole) if self.guided else (whole or called)

    def run_forward(self, model: nn.Module, item: Any) -> None:
        """Runs the model on one of them, and not the way back."""
        (self._forward if self._loss_fn is None else self._loss_fn)(model, item)


def _floats(found: Any) -> list[torch.Tensor]:
    """The tensors of floats in some nested lists and dicts."""
    if isinstance(found, torch.Tensor):
        return [found] if found.is_floating_point() else []
    if isinstance(found, Mapping):
        found = list(found.values())
    return [tensor for one in found for tensor in _floats(one)] if isinstance(found, (list, tuple)) else []


@contextmanager
def calibrating(model: nn.Module) -> Iterator[None]:
    """Makes a model compute as it will in use, and puts everything back: modes, gradients, buffers, caches."""
    modes = [(module, module.training) for module in model.modules()]
    caches = _with_caches(model)
    with ExitStack() as stack:
        stack.enter_context(left_as_it_was(model))
        stack.enter_context(without_fast_paths())
        if hasattr(torch.compiler, "set_stance"):  # torch 2.6
            stack.enter_context(torch.compiler.set_stance("force_eager"))  # what is compiled cannot be watched
        if any(isinstance(module, nn.RNNBase) for module, _ in modes):
            stack.enter_context(torch.backends.cudnn.flags(enabled=False))  # it has no way back but in training
        if isinstance(model, nn.parallel.DistributedDataParallel):
            stack.enter_context(model.no_sync())
        try:
            for module, _ in modes:
                module.training = False
            for config in caches:
                config.use_cache = False
            yield
        finally:
            for module, training in modes:
                module.training = training
            for config in caches:
                config.use_cache = True


def _with_caches(model: nn.Module) -> list[Any]:
    """The configs of transformers' models that would keep keys and values: nobody generates here."""
    configs = {id(module.config): module.config for module in model.modules() if hasattr(module, "config")}
    return [config for config in configs.values() if getattr(config, "use_cache", None) is True]
