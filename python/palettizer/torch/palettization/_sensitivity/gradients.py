"""How much the loss depends on each weight: the sum of its squared gradients over some samples.

Each gradient is squared, added and freed as soon as autograd has it, so that there is never more than one beside the
sums. The sums are float32, one for each weight that will be palettized. What a forward pass changes in the model, such
as the running statistics of a batch norm, is put back.

With several processes each takes its share of the samples, and the sums are added up.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from itertools import islice
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from torch import nn

from palettizer import _native
from palettizer._progress import shown
from palettizer.torch.palettization._plan.plan import Weight
from palettizer.torch.palettization._plan.sharding import distributed, is_sharded

_logger = logging.getLogger(__name__)

LossFunction = Callable[[nn.Module, Any], torch.Tensor]


def compute(
    model: nn.Module,
    weights: Sequence[Weight],
    others: Sequence[Weight],
    dataloader: Iterable[Any],
    loss_fn: LossFunction,
    nsamples: int,
    progress: bool,
) -> tuple[dict[str, torch.Tensor], dict[str, float]]:
    """Name -> normalised sensitivity of each weight, float32 on the CPU, of the weight's shape; and what was the largest.

    A weight that got no gradient is reported with a warning and gets ones. Of `others` there is nothing to report.

    Raises:
        TypeError: there is no data, no loss function, or it returns something else than a tensor.
        ValueError: no samples, a loss that is no scalar or depends on no weight, gradients that are NaN or infinite.
    """
    from palettizer.torch.palettization._sensitivity.sharded import ShardedSums

    if not isinstance(dataloader, Iterable):
        raise TypeError(f"dataloader must be iterable, found {type(dataloader).__name__}")
    if not callable(loss_fn):
        raise TypeError(f"loss_fn must be a function of the model and a sample, found {type(loss_fn).__name__}")
    if nsamples < 1:
        raise ValueError(f"calibration_nsamples is {nsamples}; at least one sample is needed")
    all_of_them = [*weights, *others]
    sums: Sums | ShardedSums
    sums = ShardedSums(model, all_of_them) if is_sharded(model) else Sums(model, all_of_them)
    if weights and not any(_asks(weight) for weight in weights):
        raise ValueError(
            "no weight that would be palettized requires a gradient; call requires_grad_(True) on the weights first"
        )
    with ExitStack() as stack:
        stack.enter_context(left_as_it_was(model))
        stack.enter_context(torch.enable_grad())
        if isinstance(model, nn.parallel.DistributedDataParallel):
            # The gradients of each process by itself: the squares are added up, not the gradients.
            stack.enter_context(model.no_sync())
        stack.enter_context(sums)
        samples = share(islice(dataloader, nsamples), whole_rounds=isinstance(sums, ShardedSums))
        for index, sample in enumerate(shown(samples, progress, "sensitivities", nsamples)):
            try:
                backward(model, loss_fn, sample)
            except RuntimeError as error:
                if index > 0 or not _belongs_on_cuda(model, error):
                    raise
                stack.callback(model.cpu)
                backward(model.cuda(), loss_fn, sample)
            sums.after_backward()
        return _normalised(weights, sums.collect())


def _asks(weight: Weight) -> bool:
    """Whether a weight can get a gradient."""
    return any(parameter.requires_grad for parameter in weight.parameters())


def share(samples: Iterable[Any], whole_rounds: bool) -> Iterator[Any]:
    """The samples of this process: each takes every n-th.

    A model in shards can only be run by all processes together. With `whole_rounds` the samples of a last round that
    does not go round are left out.
    """
    rank, world = (dist.get_rank(), dist.get_world_size()) if distributed() else (0, 1)
    seen, mine = 0, None
    for index, sample in enumerate(samples):
        seen += 1
        if index % world == rank:
            mine = sample
            if not whole_rounds:
                yield sample
        if whole_rounds and index % world == world - 1:
            yield mine
    if seen == 0:
        raise ValueError("the dataloader has no samples")
    if whole_rounds and seen % world:
        _logger.warning("%d of %d samples do not go round %d processes and were left out", seen % world, seen, world)
        if seen < world:
            raise ValueError(f"the dataloader has {seen} samples, fewer than the {world} processes")


def _belongs_on_cuda(model: nn.Module, error: RuntimeError) -> bool:
    """Whether samples are on a GPU and the model is not. coremltools always moves it there, and scripts rely on it."""
    return (
        torch.cuda.is_available()
        and "same device" in str(error)
        and all(parameter.device.type == "cpu" for parameter in model.parameters())
    )


def backward(model: nn.Module, loss_fn: LossFunction, sample: Any) -> None:
    loss = loss_fn(model, sample)
    if not isinstance(loss, torch.Tensor):
        raise TypeError(f"loss_fn must return a scalar tensor, found {type(loss).__name__}")
    if loss.numel() != 1:
        raise ValueError(f"loss_fn must return a scalar tensor, found one of shape {tuple(loss.shape)}")
    if not loss.requires_grad:
        raise ValueError(
            "the loss does not depend on any parameter that requires a gradient; "
            "it must be computed from the model that loss_fn is given, without no_grad or detach"
        )
    torch.autograd.backward(loss)


@contextmanager
def left_as_it_was(model: nn.Module) -> Iterator[None]:
    """Puts gradients and buffers back at the end; training modes and requires_grad are never touched."""
    gradients = [(parameter, parameter.grad) for parameter in model.parameters()]
    buffers = [
        (module, name, buffer, buffer.detach().clone())
        for module in model.modules()
        for name, buffer in module._buffers.items()
        if buffer is not None and not buffer.is_meta
    ]
    for parameter, _ in gradients:
        parameter.grad = None
    try:
        yield
    finally:
        for parameter, gradient in gradients:
            parameter.grad = gradient
        with torch.no_grad():
            for module, name, buffer, before in buffers:
                if buffer.device != before.device or not torch.equal(buffer, before):
                    buffer.copy_(before)
                module._buffers[name] = buffer


class Sums:
    """The squared gradients of ordinary parameters."""

    def __init__(self, model: nn.Module, weights: Sequence[Weight]) -> None:
        self.model = model
        self.weights = weights
        self.sums: dict[str, torch.Tensor] = {}
        self.handles: list[Any] = []

    def __enter__(self) -> Sums:
        for weight in self.weights:
            for parameter in weight.parameters():
                if parameter.requires_grad:
                    hook = self._adder(weight.name)
                    self.handles.append(parameter.register_post_accumulate_grad_hook(hook))  # type: ignore[no-untyped-call]
        return self

    def __exit__(self, *error: Any) -> None:
        for handle in self.handles:
            handle.remove()

    def _adder(self, name: str) -> Callable[[torch.Tensor], None]:
        def add(parameter: torch.Tensor) -> None:
            gradient, parameter.grad = parameter.grad, None
            if gradient is None:
                return
            if name not in self.sums:
                self.sums[name] = torch.zeros(parameter.shape, dtype=torch.float32, device=parameter.device)
            _add_square(self.sums[name], gradient)

        return add

    def after_backward(self) -> None:
        """Frees the gradients that nobody asked for."""
        for parameter in self.model.parameters():
            parameter.grad = None

    def collect(self) -> Iterator[tuple[str, torch.Tensor]]:
        """(name, sum) of each weight that got a gradient in any process; each sum is let go when the next is asked."""
        found = set(self.sums)
        if distributed():
            found = _in_any_process(self.weights, found)
        for weight in self.weights:
            if weight.name not in found:
                continue
            if weight.name not in self.sums:  # another process has it
                parameter = weight.parameters()[0]
                self.sums[weight.name] = torch.zeros(parameter.shape, dtype=torch.float32, device=parameter.device)
            total = self.sums.pop(weight.name)
            if distributed():
                dist.all_reduce(total)
            yield weight.name, total


def _add_square(total: torch.Tensor, gradient: torch.Tensor) -> None:
    with torch.no_grad():
        if gradient.is_sparse:  # of an Embedding with sparse=True: the rows that were looked up
            gradient = gradient.coalesce()
            total.index_add_(0, gradient.indices()[0], gradient.values().float().square_())
        else:
            gradient = gradient.to(total.dtype)
            total.addcmul_(gradient, gradient)


def _in_any_process(weights: Sequence[Weight], found: Iterable[str]) -> set[str]:
    """The names that any process has."""
    gathered: list[Any] = [None] * dist.get_world_size()
    dist.all_gather_object(gathered, sorted(found))
    return {name for names in gathered for name in names}


def _normalised(
    weights: Sequence[Weight], raw: Iterator[tuple[str, torch.Tensor]]
) -> tuple[dict[str, torch.Tensor], dict[str, float]]:
    done: dict[str, torch.Tensor] = {}
    largest: dict[str, float] = {}
    for name, total in raw:
        values = total.detach().to("cpu", torch.float32).contiguous()
        del total
        largest[name] = values.max().item()
        try:
            _native.normalise_sensitivity(values.view(-1).numpy())
        except ValueError as error:
            raise ValueError(f"the sensitivity of {name}: {error}; is the loss finite?") from error
        done[name] = values
    for weight in weights:
        if weight.name not in done:
            why = "no gradient reached it" if _asks(weight) else "it does not require a gradient"
            _logger.warning("%s: %s; all its elements count alike", weight.name, why)
            done[weight.name] = torch.from_numpy(np.ones(weight.owners[0].facts.shape, np.float32))
    return done, largest
