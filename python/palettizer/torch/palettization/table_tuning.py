"""Tables of a palettized model trained on what the model computes, with fixed indices.

Adam trains the entries of lookup tables, and with them norms, biases and factors of channels: some thousandths of a model's
parameters, so that few samples are enough. Indices stay, so the model stays as small as it is. Every weight is at every
step what its tables say; there is nothing to be finished in the end.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack
from typing import Any

import torch
import torch.distributed as dist
from torch import nn

from palettizer._progress import shown
from palettizer.torch.palettization._layerwise.samples import ForwardFunction, forward
from palettizer.torch.palettization._plan.sharding import distributed, is_sharded
from palettizer.torch.palettization._sensitivity.gradients import LossFunction
from palettizer.torch.palettization._tuning.loss import Distance, distance_from, quiet
from palettizer.torch.palettization._tuning.parameters import Trained

_HALF_LOSS_SCALE = 4096.0
"""What a loss is multiplied by where gradients are of half precision, so that small ones are not lost."""
_ADAM = {"betas": (0.9, 0.95), "eps": 1e-6}
"""A short memory, for there are few steps. Gradients are divided by the largest of the first step, so that the unit of the loss does
not matter, and what is but rounding (as of the biases of an attention's keys) is less than epsilon."""

_WARMING = 8
"""Steps on which the rates rise to what they are to be, at most; a quarter of the steps, where they are fewer. Adam's first steps
move every entry by the whole rate, whatever its gradient, and all that they move adds up in a deep model: full rates at once
would leave the steps behind them to mend that."""


def tune_tables(
    model: nn.Module,
    dataloader: Iterable[Any],
    loss_fn: LossFunction | None = None,
    steps: int = 64,
    *,
    reference: nn.Module | None = None,
    distance: Distance = "kl",
    forward_fn: ForwardFunction = forward,
    learning_rate: float = 0.08,
    norm_learning_rate: float = 1e-3,
    tune_norms: bool = True,
    tune_biases: bool = True,
    tune_scales: bool = True,
    accumulation_steps: int = 1,
    inplace: bool = False,
    losses: list[float] | None = None,
    progress: bool = True,
) -> nn.Module:
    """Trains the lookup tables of a palettized model and returns the model.

    The model is one that any palettizer made or `load_safetensors` restored, with any kind of tables. It is trained in
    evaluation mode (no dropout, batch norms as they are), in the memory of the model, its indices and one gradient of a weight at a
    time. Weights with `requires_grad=False` stay. The rates rise on the first steps and fall to zero along a half cosine, and the
    last tables are kept: losses of different samples say nothing about which step was best.

    Under `torch.distributed` (`torchrun`) each process takes its share of the samples and gradients are averaged; give all of
    them the same model and data loader.

    Args:
        model: the palettized model.
        dataloader: an iterable of samples, or batches of them, whatever they are; it begins anew when it ends.
        loss_fn: takes the model and an item and returns the loss, a scalar tensor; or None with `reference`.
        steps: how many times the tables are changed.
        reference: the float model, in place of `loss_fn`: the loss is then the distance from its outputs.
        distance: "kl" for logits: the divergence of their softmax along the last axis; "mse" for outputs of other kinds.
        forward_fn: how an item is given to the model and to `reference`: a function of model and item that returns the outputs.
            Without it, tuples, lists and mappings are taken apart, by position or by name. Of the outputs the logits count, or
            else the first tensor; where an item has an `attention_mask`, what it masks does not.
        learning_rate: Adam's, for entries. Its unit is the standard deviation of the weights of a table, divided by the number of
            entries (of vectors, by its root): so it does for any number of bits. Factors of channels go with it.
        norm_learning_rate: Adam's, for norms and biases.
        tune_norms: also train the parameters of normalizations.
        tune_biases: also train biases.
        tune_scales: also train the factors of channels, where there are any (`enable_per_channel_scale`).
        accumulation_steps: how many items make up one step.
        inplace: train the model itself; otherwise a copy is trained and returned.
        losses: a list, to which the loss of each step is added.
        progress: show a progress bar, if tqdm is installed.

    Raises:
        TypeError: neither or both of `loss_fn` and `reference`; a loss that is not a tensor.
        ValueError: nothing is palettized, a weight was changed after it was palettized, no samples, a loss that is no scalar, or a loss
            or gradient that is NaN or infinite.

    Whatever ends the work early, with `inplace` too, leaves the model as it was.

    >>> import copy
    >>> from palettizer.torch.palettization import PostTrainingPalettizer, PostTrainingPalettizerConfig
    >>> _ = torch.manual_seed(0)
    >>> float_model = nn.Sequential(nn.Linear(32, 64), nn.ReLU(), nn.Linear(64, 10))
    >>> config = PostTrainingPalettizerConfig.from_dict({"global_config": {"n_bits": 2}})
    >>> model = PostTrainingPalettizer(float_model, config).compress(progress=False)
    >>> batches, losses = [torch.randn(64, 32) for _ in range(8)], []
    >>> tuned = tune_tables(model, batches, reference=float_model, losses=losses, progress=False)
    >>> losses[-1] < losses[0], len(tuned[0].weight.unique())
    (True, 4)
    """
    if distance not in ("kl", "mse"):
        raise ValueError(f'distance is {distance!r}; allowed: "kl" and "mse"')
    _check(model, dataloader, loss_fn, reference, forward_fn)
    _check_numbers(steps=steps, accumulation_steps=accumulation_steps)
    _check_numbers(learning_rate=learning_rate, norm_learning_rate=norm_learning_rate)
    target = model if inplace else copy.deepcopy(model)
    trained = Trained(model, target, tune_norms, tune_biases, tune_scales)
    if reference is not None:
        loss_fn = distance_from(reference, distance, forward_fn)
    assert loss_fn is not None
    tables, others = trained.parameters()
    groups: list[dict[str, Any]] = [{"params": tables, "lr": learning_rate}]
    if others:
        groups.append({"params": others, "lr": norm_learning_rate})
    optimizer = torch.optim.Adam(groups, **_ADAM)  # type: ignore[arg-type]
    descent = _Descent(target, loss_fn, optimizer, _samples(dataloader, accumulation_steps), trained.write)
    with ExitStack() as stack:
        stack.enter_context(torch.enable_grad())
        stack.enter_context(quiet(target))
        if reference is not None:
            stack.enter_context(quiet(reference))
        stack.enter_context(trained.gradients(target))
        try:
            for step in shown(range(steps), progress, "tuning tables", steps):
                loss = descent.step(_part(step, steps))
                if losses is not None:
                    losses.append(loss)
        except BaseException:
            trained.put_back()
            raise
    return target


def _part(step: int, steps: int) -> float:
    """The part of the rates that a step is made with.

    >>> [round(_part(step, 8), 2) for step in range(8)]
    [0.5, 0.96, 0.85, 0.69, 0.5, 0.31, 0.15, 0.04]
    """
    warming = max(1, min(_WARMING, steps // 4))
    return min(1.0, (step + 1) / warming) * (1 + math.cos(math.pi * step / steps)) / 2


class _Descent:
    """Steps of an optimizer, the same in all processes."""

    def __init__(
        self,
        model: nn.Module,
        loss_fn: LossFunction,
        optimizer: torch.optim.Optimizer,
        samples: Iterator[list[Any]],
        write: Callable[[], None],
    ) -> None:
        self.model, self.loss_fn, self.optimizer, self.samples, self.write = model, loss_fn, optimizer, samples, write
        self.parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
        half = any(parameter.dtype == torch.float16 for parameter in model.parameters())
        self.scale = _HALF_LOSS_SCALE if half else 1.0
        self.rates = [group["lr"] for group in optimizer.param_groups]
        self.number, self.largest = 0, 0.0

    def step(self, part: float) -> float:
        """One step at a part of the rates. Returns the loss before it.

        Nothing is changed where gradients are too large; the next will be smaller.

        Raises:
            ValueError: the loss or a gradient is NaN or infinite.
        """
        self.number += 1
        self.optimizer.zero_grad()
        items = next(self.samples)
        loss = sum(self._backward(item) for item in items) / len(items)
        if distributed():
            loss = self._average(loss)
        if not math.isfinite(loss):
            raise ValueError(
                f"the loss of step {self.number} is {loss}; the model is as it was. "
                "Try a smaller learning_rate, or float32 or bfloat16 in place of float16"
            )
        gradients = [parameter.grad for parameter in self.parameters if parameter.grad is not None]
        if not gradients:
            raise ValueError(
                "the loss depends on no table that is to be tuned; "
                "it must be computed from the model that loss_fn is given, without no_grad or detach"
            )
        size = float(torch.stack([gradient.abs().amax().to("cpu", torch.float64) for gradient in gradients]).amax())
        size /= self.scale
        if math.isfinite(size):
            self.largest = self.largest or size or 1.0
            for gradient in gradients:
                gradient.div_(self.scale * self.largest)
            for group, rate in zip(self.optimizer.param_groups, self.rates):
                group["lr"] = rate * part
            self.optimizer.step()
            self.write()
            return loss
        if self.scale <= 1:
            raise ValueError(f"a gradient of step {self.number} is NaN or infinite; the model is as it was")
        self.scale /= 16
        return loss

    def _backward(self, item: Any) -> float:
        loss = self.loss_fn(self.model, item)
        if not isinstance(loss, torch.Tensor):
            raise TypeError(f"loss_fn must return a scalar tensor, found {type(loss).__name__}")
        if loss.numel() != 1:
            raise ValueError(f"loss_fn must return a scalar tensor, found one of shape {tuple(loss.shape)}")
        if loss.requires_grad:
            torch.autograd.backward(loss, torch.full_like(loss, self.scale))
        return loss.item()

    def _average(self, loss: float) -> float:
        """The mean loss of all processes; gradients become theirs."""
        world, device = dist.get_world_size(), self.parameters[0].device
        for parameter in self.parameters:
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
        flat = torch.cat(
            [*(p.grad.to(device).reshape(-1) for p in self.parameters), torch.tensor([loss], device=device)]
        )
        dist.all_reduce(flat)
        flat /= world
        at = 0
        for parameter in self.parameters:
            parameter.grad.copy_(flat[at : at + parameter.numel()].view_as(parameter))
            at += parameter.numel()
        return float(flat[-1])


def _samples(dataloader: Iterable[Any], count: int) -> Iterator[list[Any]]:
    """The items of each step of this process, without an end."""
    rank, world = (dist.get_rank(), dist.get_world_size()) if distributed() else (0, 1)
    items: list[Any] = []
    position = seen = 0
    while True:
        before = seen
        for item in dataloader:
            seen += 1
            if position % world == rank:
                items.append(item)
            position += 1
            if position % world == 0 and len(items) == count:
                yield items
                items = []
        if seen == before:
            again = f"ended after {seen} items and cannot begin anew; pass a list" if seen else "has no samples"
            raise ValueError(f"the dataloader {again}")


def _check(model: Any, dataloader: Any, loss_fn: Any, reference: Any, forward_fn: Any) -> None:
    if not isinstance(model, nn.Module):
        raise TypeError(f"model must be a torch.nn.Module, found {type(model).__name__}")
    if not isinstance(dataloader, Iterable):
        raise TypeError(f"dataloader must be iterable, found {type(dataloader).__name__}")
    if (loss_fn is None) == (reference is None):
        found = "neither" if loss_fn is None else "both"
        raise TypeError(f"tune_tables needs loss_fn, or reference (the float model); found {found}")
    if loss_fn is not None and not callable(loss_fn):
        raise TypeError(f"loss_fn must be a function of the model and a sample, found {type(loss_fn).__name__}")
    if reference is not None and not isinstance(reference, nn.Module):
        raise TypeError(f"reference must be a torch.nn.Module, found {type(reference).__name__}")
    if not callable(forward_fn):
        raise TypeError(f"forward_fn must be a function of the model and an item, found {type(forward_fn).__name__}")
    if reference is model:
        raise ValueError("reference is the model itself; give the float model that was palettized")
    if isinstance(model, nn.parallel.DistributedDataParallel):
        raise ValueError("give model.module: gradients are averaged here, without DistributedDataParallel")
    if is_sharded(model):
        raise ValueError("the parameters of the model are sharded; gather them first")


def _check_numbers(**numbers: Any) -> None:
    for name, value in numbers.items():
        whole = name.endswith("steps")
        if isinstance(value, bool) or not isinstance(value, int if whole else (int, float)):
            raise TypeError(f"{name} must be {'int' if whole else 'float'}, found {value!r} ({type(value).__name__})")
        if not (value >= 1 if whole else 0 <= value < math.inf):
            raise ValueError(f"{name} is {value}; expected {'at least 1' if whole else 'zero or more'}")
