"""How much more memory a training step takes once weights are palettized in it.

A step is played through on paper, once with palettization and once without, and the highest points of both are
compared. On the way forward, tensors are saved for the way back, among them the palettized copy of a weight, wherever
the layer's function saves its weight: a Linear whose input needs no gradient does not, and an Embedding never does. On
the way back, each use of a weight brings the gradient of the copy, then that of the weight itself; then both the copy
and its gradient go.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call

from palettizer.torch.palettization._dkm.config import DKMPalettizerConfig
from palettizer.torch.palettization._dkm.plan import SoftWeight, make_plan
from palettizer.torch.palettization._plan.layers import weights
from palettizer.torch.palettization._plan.sharding import is_sharded
from palettizer.torch.palettization._soft.kernels import kernel
from palettizer.torch.palettization._soft.settings import real_dtype

LOADED, KEPT_BY_A_THREAD = 3 << 20, 3 << 19
"""What a process takes once on the CPU: code, and the buffers that the kernel's threads keep for the next weight."""


def estimate_memory(
    model: nn.Module, config: DKMPalettizerConfig | None = None, example_inputs: Any = None
) -> int:
    """The bytes by which the peak of a training step rises when `DKMPalettizer` palettizes the model so.

    Gradients are taken to be fresh in each step (`zero_grad(set_to_none=True)`) and all milestones to have come. The
    first step, in which centroids are seeded, may need some more for a moment: for the largest weight, two to five
    times its bytes.

    Args:
        model: the model, not yet prepared. It is not changed.
        config: how it is to be palettized; without one, the defaults.
        example_inputs: a batch, as a tensor, or a tuple of what the model is called with. With it, the forward pass is
            run once, and it is known when which tensors are saved; without it, the layers are taken to be used in
            their order, on a batch that takes little memory itself.

    Returns:
        bytes, for the device that the model is on; weights and buffers that are there either way do not count.

    Raises:
        ValueError: settings that cannot be, or parameters in shards.
        TypeError: example_inputs that are neither a tensor nor a tuple.

    >>> model = nn.Sequential(nn.Linear(2048, 2048), nn.ReLU(), nn.Linear(2048, 2048))
    >>> weights = 2 * 2048 * 2048 * 4
    >>> 0 < estimate_memory(model, example_inputs=torch.randn(8, 2048)) < weights
    True
    """
    if is_sharded(model):
        raise ValueError("the parameters of the model are sharded; estimate before the model is wrapped")
    if not (example_inputs is None or isinstance(example_inputs, (Tensor, tuple))):
        raise TypeError(f"example_inputs must be a tensor or a tuple, found {type(example_inputs).__name__}")
    inputs = (example_inputs,) if isinstance(example_inputs, Tensor) else example_inputs
    steps = _in_order(model) if inputs is None else _recorded(model, inputs)
    plan = make_plan(model, DKMPalettizerConfig() if config is None else config)
    every = [(weight, _cost(weight)) for weight in plan.weights.values()]
    costs = {id(parameter): cost for weight, cost in every for parameter in weight.parameters()}
    threads = torch.get_num_threads() if any(w.parameters()[0].device.type == "cpu" for w, _ in every) else 0
    once = LOADED + threads * KEPT_BY_A_THREAD if threads else 0
    return once + sum(cost.state for _, cost in every) + _peak(steps, costs) - _peak(steps, {})


@dataclass(frozen=True)
class Cost:
    """What palettizing one weight takes, in bytes."""

    copy: int
    """A tensor like the weight: the palettized copy, and the gradient of that."""
    saved: int
    """What is kept from the forward to the backward pass beside the copy."""
    forward: int
    """What is needed during the forward pass of the kernel."""
    backward: int
    state: int
    """The buffers that stay."""


def _cost(weight: SoftWeight) -> Cost:
    parameter, settings = weight.parameters()[0], weight.settings
    size = parameter.numel() * parameter.element_size()
    real = real_dtype(parameter.dtype)
    made = kernel(parameter.device.type, parameter.dtype, tuple(parameter.shape), settings)
    centroids = made.groups * made.clusters * made.cluster_dim * real.itemsize
    scale = 0 if settings.scale_scheme is None else settings.permuted(parameter.shape)[0] * real.itemsize
    # In torch operations, the gradient of halves is summed in single precision; the kernel does it chunk by chunk.
    wide = parameter.device.type != "cpu" and real.itemsize > parameter.element_size()
    sums = parameter.numel() * real.itemsize if wide else 0
    turned = 0 if settings.permutation is None else size
    return Cost(
        copy=size,
        saved=made.saved_len * real.itemsize + centroids + scale,
        forward=2 * turned,
        backward=2 * turned + sums,
        state=2 * centroids + scale + 4 * made.groups * made.finds_temperature,
    )


@dataclass(frozen=True)
class Use:
    """A layer uses a parameter of some bytes. `saved`: its function keeps the parameter for the backward pass."""

    parameter: int
    size: int
    saved: bool
    trained: bool
    scratch: int
    """What the function itself needs meanwhile."""
    above: int = 0
    """The gradient of the layer's output."""
    below: int = 0
    """The gradient of its input."""


Step = int | Use
"""What happens in a forward pass: so many bytes are saved, or a parameter is used."""


def _peak(steps: list[Step], costs: dict[int, Cost]) -> int:
    """The most bytes at a time, beside parameters and buffers, in a forward and a backward pass."""
    now = top = 0
    for step in steps:
        if isinstance(step, int):
            now += step
            top = max(top, now)
            continue
        cost = costs.get(step.parameter)
        if cost is None:
            top = max(top, now + step.scratch)
            continue
        top = max(top, now + cost.copy + max(cost.forward, step.scratch))
        now += (cost.copy if step.saved else 0) + (cost.saved if step.trained else 0)
    done: set[int] = set()
    for step in reversed(steps):
        if isinstance(step, int):
            now -= step
            continue
        used = costs.get(step.parameter)
        top = max(top, now + step.above + step.below + step.scratch + (step.size if step.trained else 0))
        if used is not None and step.saved:
            now -= used.copy
        if not step.trained:
            continue
        if used is not None:
            top = max(top, now + step.below + used.copy + step.size + used.backward)
            now -= used.saved
        if step.parameter not in done:
            now += step.size
        done.add(step.parameter)
    return top


def _in_order(model: nn.Module) -> list[Step]:
    """Every layer once, in the model's order. The input of the first one is taken to need no gradient."""
    steps: list[Step] = []
    for module in model.modules():
        for parameter in _own(module):
            saves = parameter.dim() > 1 and not isinstance(module, (nn.Embedding, nn.EmbeddingBag))
            steps.append(_use(parameter, module, saves and (bool(steps) or not isinstance(module, nn.Linear))))
    return steps


def _recorded(model: nn.Module, inputs: tuple[Any, ...]) -> list[Step]:
    """What a forward pass in training mode does, run on copies of the buffers."""
    steps: list[Step] = []
    owners = {parameter.untyped_storage().data_ptr(): parameter for parameter in model.parameters()}
    seen: set[int] = set()
    calls: list[tuple[nn.Module, dict[int, int]]] = [(model, {})]  # of each, where in the steps it uses a parameter

    def use(parameter: Tensor, saved: bool) -> None:
        module, used = calls[-1]
        if id(parameter) not in used:
            used[id(parameter)] = len(steps)
            steps.append(_use(parameter, module, saved))

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() in owners:
            use(owners[storage.data_ptr()], saved=True)
        elif storage.data_ptr() not in seen:
            seen.add(storage.data_ptr())
            steps.append(storage.nbytes())
        return tensor

    def enter(module: nn.Module, _: Any) -> None:
        calls.append((module, {}))

    def leave(module: nn.Module, inputs: Any, output: Any) -> None:
        for parameter in _own(module):
            use(parameter, saved=False)
        for index in calls.pop()[1].values():
            found = steps[index]
            assert isinstance(found, Use)
            steps[index] = replace(found, above=_gradients(output), below=_gradients(inputs))

    holders = [module for module in model.modules() if _own(module)]
    handles = [module.register_forward_pre_hook(enter) for module in holders]
    handles += [module.register_forward_hook(leave) for module in holders]
    modes = {module: module.training for module in model.modules()}
    state = {name: buffer.clone() for name, buffer in model.named_buffers()}
    try:
        model.train()
        with torch.random.fork_rng(), torch.enable_grad(), torch.autograd.graph.saved_tensors_hooks(pack, lambda t: t):
            functional_call(model, state, inputs)
    finally:
        for handle in handles:
            handle.remove()
        for module, mode in modes.items():
            module.training = mode
    return steps


def _gradients(values: Any) -> int:
    """The bytes of the gradients of some tensors, which are one or in a tuple; the same one counts once."""
    tensors = {id(value): value for value in (values if isinstance(values, tuple) else (values,))}
    return sum(value.nbytes for value in tensors.values() if isinstance(value, Tensor) and value.requires_grad)


def _own(module: nn.Module) -> list[Tensor]:
    """The parameters that a call of the module uses itself."""
    inside = [place.module(module).get_parameter(place.parameter) for place in weights(module) if place.within]
    return [*module.parameters(recurse=False), *inside]


def _use(parameter: Tensor, module: nn.Module, saved: bool) -> Use:
    size = parameter.numel() * parameter.element_size()
    # On the CPU, convolutions lay their weight out in blocks, and the gradient likewise before it is laid out plainly.
    blocked = isinstance(module, nn.modules.conv._ConvNd) and parameter.dim() > 1 and parameter.device.type == "cpu"
    return Use(id(parameter), size, saved, parameter.requires_grad, size if blocked else 0)
