"""Soft k-means as operators of PyTorch: each is one step to autograd, torch.compile and checkpointing.

An operator takes tensors and returns new ones, whatever state they stand for, so that it may be traced, and be run
again with the same result. On the CPU the native kernel does the work, on the memory of the tensors; on other devices,
`TorchSoftKMeans`, with kernels of Triton where there are some. What is kept for the backward pass: the weight itself, its scale, and the state of each step (`saved`).

Within an optimizer step a weight may be used several times: by modules that share it, for each part of an accumulated
gradient, and again when a checkpoint is recomputed. All of these must see the same soft weight, and the centroids move
on only once. So the state has, beside the centroids that the next step starts from, those that this one started from,
and a sum of the weight's bits: while it is the same, nothing moves on.

torch 2.4 or newer is needed.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import count
from typing import Any, NamedTuple, TypeVar, cast

import torch
from torch import Tensor

from palettizer.torch.palettization._soft.kernels import Kernel, arranged, kernel
from palettizer.torch.palettization._soft.settings import SoftSettings, parsed, real_dtype

if not hasattr(torch.library, "register_autograd"):
    raise ImportError(f"differentiable k-means needs torch 2.4 or newer, found {torch.__version__}")


def _library() -> Any:
    """A library of operators under a name that is free.

    This module may be loaded more than once in a process: reloaded, imported again after it was taken from
    sys.modules, or after an interrupt in the middle. What an earlier load has registered may be in use, or half of it
    missing; so each has operators of its own.
    """
    for number in count(1):
        name = "palettizer" if number == 1 else f"palettizer_{number}"
        try:
            return torch.library.Library(name, "DEF")  # type: ignore[no-untyped-call]
        except RuntimeError as error:
            if "single TORCH_LIBRARY" not in str(error):
                raise


_LIBRARY = _library()
_LIBRARIES = [*globals().get("_LIBRARIES", []), _LIBRARY]
"""Those of this module before it was reloaded, too: graphs that autograd or torch.compile hold call them yet."""
_Function = TypeVar("_Function", bound=Callable[..., Any])


def _operator(schema: str) -> Callable[[_Function], _Function]:
    """Makes a function the operator `name` of the library, for tensors on every device.

    `torch.library.custom_op` would do, too, but loads all of torch's compiler, 150 MB, with the first call.
    """

    def define(function: _Function) -> _Function:
        name = function.__name__
        _LIBRARY.define(name + schema, tags=(torch.Tag.pt2_compliant_tag,))
        _LIBRARY.impl(name, function, "CompositeExplicitAutograd")
        return cast(_Function, getattr(getattr(torch.ops, _LIBRARY.ns), name))

    return define


def _shapes(name: str) -> Callable[[_Function], _Function]:
    """Makes a function what says of which shapes an operator's results are, without computing them."""

    def define(function: _Function) -> _Function:
        # `torch.library.register_fake` looks for the caller's source, and fails where any module of the process has a
        # `__getattr__` that gives everything.
        _LIBRARY.impl(name, function, "Meta")
        return function

    return define


class _Work(NamedTuple):
    """A weight as the kernel wants it, and the kernel."""

    kernel: Kernel
    values: Tensor
    settings: SoftSettings


def _work(weight: Tensor, text: str) -> _Work:
    settings = parsed(text)
    made = kernel(weight.device.type, weight.dtype, tuple(weight.shape), settings)
    return _Work(made, arranged(weight, settings), settings)


def bit_sum(values: Tensor) -> Tensor:
    """A sum of a contiguous tensor's bits, by which a weight that has changed is told from one that has not.

    Two weights may have the same sum. Then centroids start one step further back, and no harm is done.

    >>> bit_sum(torch.ones(2)).item() == bit_sum(torch.ones(2)).item() != bit_sum(torch.tensor([1.0, 1.25])).item()
    True
    """
    flat = values.reshape(-1)
    size = flat.element_size()
    wide = all(number * size % 8 == 0 for number in (flat.numel(), flat.storage_offset()))
    integers = torch.int64 if wide else {2: torch.int16, 4: torch.int32, 8: torch.int64}[size]
    return flat.view(integers).sum(dtype=torch.int64)


@_operator(
    "(Tensor weight, Tensor centroids, Tensor start, Tensor scale, Tensor temperature, Tensor seen, Tensor noise, "
    "str settings) -> (Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor)"
)
def soft_weight(
    weight: Tensor, centroids: Tensor, start: Tensor, scale: Tensor, temperature: Tensor, seen: Tensor, noise: Tensor,
    settings: str,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    """The soft weight of a training step, and the state after it.

    Args:
        weight: of any shape; on the CPU, float64, float32, float16 or bfloat16.
        centroids: what the next step starts from, (groups, clusters, cluster_dim); NaN to be seeded here.
        start: what the step of `seen` started from.
        scale: a number for each row; NaN to be computed here, and none at all without a per-channel scale.
        temperature: a number for each group, as `temperature_bits` has it; 0 to be found here, and none at all where
            the settings have one or need none.
        seen: the sum of bits of the weight of the last step.
        noise: a seed for the noise of mode "gsm".
        settings: `SoftSettings.text()`.

    Returns:
        the soft weight, then centroids, start, scale, temperature and seen as they are to be kept, and what is saved of
        the step.
    """
    work = _work(weight, settings)
    mark = bit_sum(work.values)
    scale, channels = _scale(work, scale)
    unseeded = bool(centroids.isnan().any())
    if unseeded:
        start = work.kernel.seed_centroids(work.values, channels)
    else:
        same = bool(mark == seen)
        start = (start if same else centroids).to(real_dtype(weight.dtype), copy=True).contiguous()
    if bool((temperature == 0).any()):
        temperature = temperature_bits(work.kernel.temperatures(work.values, start, channels))
    else:
        temperature = temperature.clone()
    out, following, saved = work.kernel.forward(work.values, start, channels, temperatures_of(temperature), int(noise))
    return work.settings.back(out), following, start, scale, temperature, mark, saved


def temperature_bits(temperatures: Tensor) -> Tensor:
    """Temperatures as they are kept: by their bits, for `model.half()` and the like would make zeros of small ones.

    >>> temperatures_of(temperature_bits(torch.tensor([1e-12])))
    tensor([1.0000e-12])
    """
    return temperatures.view(torch.int32)


def temperatures_of(bits: Tensor) -> Tensor:
    """The opposite."""
    return bits.view(torch.float32)


def _scale(work: _Work, scale: Tensor) -> tuple[Tensor, Tensor | None]:
    """The scale to keep, and the same for the kernel."""
    if scale.numel() == 0:
        return torch.empty_like(scale), None
    if bool(scale.isnan().any()):
        made = work.kernel.channel_scale(work.values)
        assert made is not None
    else:
        made = scale.to(real_dtype(work.values.dtype), copy=True)
    return made, made


@_shapes("soft_weight")
def _(
    weight: Tensor, centroids: Tensor, start: Tensor, scale: Tensor, temperature: Tensor, seen: Tensor, noise: Tensor,
    settings: str,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    real = real_dtype(weight.dtype)
    out = torch.empty_like(weight, memory_format=torch.contiguous_format)
    following, begun = (torch.empty_like(centroids, dtype=real) for _ in range(2))
    # Of a device without data: to look for the kernels of a GPU would launch one.
    saved_len = kernel("meta", weight.dtype, tuple(weight.shape), parsed(settings)).saved_len
    saved = weight.new_empty(saved_len, dtype=real)
    kept = torch.empty_like(scale, dtype=real), torch.empty_like(temperature), torch.empty_like(seen)
    return out, following, begun, *kept, saved


@_operator(
    "(Tensor weight, Tensor scale, Tensor temperature, Tensor noise, Tensor saved, Tensor grad, str settings) -> Tensor"
)
def soft_weight_backward(
    weight: Tensor, scale: Tensor, temperature: Tensor, noise: Tensor, saved: Tensor, grad: Tensor, settings: str
) -> Tensor:
    """The gradient for the weight, of `grad`, that for its soft weight; the others are from `soft_weight`."""
    work = _work(weight, settings)
    channels = scale if scale.numel() > 0 else None
    constants = channels, temperatures_of(temperature), int(noise)
    made = work.kernel.backward(work.values, *constants, saved, arranged(grad, work.settings))
    return work.settings.back(made)


@_shapes("soft_weight_backward")
def _(
    weight: Tensor, scale: Tensor, temperature: Tensor, noise: Tensor, saved: Tensor, grad: Tensor, settings: str
) -> Tensor:
    return torch.empty_like(weight, memory_format=torch.contiguous_format)


def _keep(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    weight, _, _, _, _, _, noise, ctx.settings = inputs
    _, following, start, scale, temperature, seen, saved = output
    ctx.save_for_backward(weight, scale, temperature, noise, saved)
    ctx.mark_non_differentiable(following, start, scale, temperature, seen, saved)
    ctx.set_materialize_grads(False)


def _differentiate(ctx: Any, grad: Tensor | None, *_: Any) -> tuple[Tensor | None, ...]:
    if grad is None:
        return (None,) * 8
    weight, scale, temperature, noise, saved = ctx.saved_tensors
    dense = grad if grad.layout == torch.strided else grad.to_dense()  # of an Embedding with sparse gradients
    made = soft_weight_backward(weight, scale, temperature, noise, saved, dense, ctx.settings)
    return (made, *(None,) * 7)


torch.library.register_autograd(f"{_LIBRARY.ns}::soft_weight", _differentiate, setup_context=_keep, lib=_LIBRARY)


@_operator("(Tensor weight, Tensor centroids, Tensor scale, str settings) -> (Tensor, Tensor, Tensor)")
def hard_weight(weight: Tensor, centroids: Tensor, scale: Tensor, settings: str) -> tuple[Tensor, Tensor, Tensor]:
    """The weight of evaluation, each vector its nearest centroid; and the centroids and the scale as they are kept.

    The arguments are those of `soft_weight`. There is no gradient.
    """
    work = _work(weight, settings)
    scale, channels = _scale(work, scale)
    if bool(centroids.isnan().any()):
        centroids = work.kernel.seed_centroids(work.values, channels)
    else:
        centroids = centroids.to(real_dtype(weight.dtype), copy=True).contiguous()
    return work.settings.back(work.kernel.assign(work.values, centroids, channels)), centroids, scale


@_shapes("hard_weight")
def _(weight: Tensor, centroids: Tensor, scale: Tensor, settings: str) -> tuple[Tensor, Tensor, Tensor]:
    real = real_dtype(weight.dtype)
    out = torch.empty_like(weight, memory_format=torch.contiguous_format)
    return out, torch.empty_like(centroids, dtype=real), torch.empty_like(scale, dtype=real)


@_operator("(Tensor weight, Tensor scale, str settings) -> Tensor")
def channel_scale(weight: Tensor, scale: Tensor, settings: str) -> Tensor:
    """The per-channel scale: as it is, or computed if it is NaN."""
    if bool(scale.isnan().any()):
        return _scale(_work(weight, settings), scale)[0]
    return scale.to(real_dtype(weight.dtype), copy=True)


@_shapes("channel_scale")
def _(weight: Tensor, scale: Tensor, settings: str) -> Tensor:
    return torch.empty_like(scale, dtype=real_dtype(weight.dtype))
