"""The operations that multiply an input by a weight, as products of matrices.

Each operation is y = W x for many inputs x: the tokens of a sequence, or what lies under the kernel at each place of an
image. W has a row for each output channel, and its columns in the order of the weight's memory. The squared error of
the output over all inputs is then Σ (w − q)ᵀ H (w − q) over the rows w of W, with H = Σ x xᵀ, the second moment.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F

_CHUNK = 1 << 22
"""How many numbers of the matrix of inputs are made at a time."""


class Unfolding(NamedTuple):
    """How a convolution goes over its input. All but the groups has a number for each spatial axis."""

    kernel: tuple[int, ...]
    stride: tuple[int, ...]
    padding: tuple[tuple[int, int], ...]
    dilation: tuple[int, ...]
    groups: int
    insert: tuple[int, ...]
    """The step at which a transposed convolution puts its input into zeros; 1 for others."""
    transposed: bool


@dataclass(frozen=True)
class Operation:
    """A product of a weight, as the function was given it, and inputs."""

    input: torch.Tensor
    weight: torch.Tensor
    output_axis: int
    """The axis of the weight's output channels."""
    unfolding: Unfolding | None = None

    @property
    def groups(self) -> int:
        """Into how many groups the channels fall; each has inputs of its own."""
        return 1 if self.unfolding is None else self.unfolding.groups

    @property
    def blocks(self) -> int:
        """How many blocks along the diagonal H consists of: the groups that lie along the columns."""
        return self.groups if self.unfolding is not None and self.unfolding.transposed else 1

    def columns(self) -> Iterator[torch.Tensor]:
        """The inputs x, some at a time, as float32 [groups, inputs, columns of a group]."""
        if self.unfolding is not None:
            yield from _unfolded(self.input.detach(), self.unfolding)
            return
        matrix = self.input.detach().reshape(-1, self.input.shape[-1])
        for part in torch.split(matrix, max(1, _CHUNK // max(1, matrix.shape[1]))):
            yield part.float()[None]

    def rows_of(self, gradient: torch.Tensor) -> torch.Tensor:
        """A gradient of the output as [inputs, output channels], the inputs in the order of `columns`."""
        if self.unfolding is not None:
            if gradient.dim() == len(self.unfolding.kernel) + 1:
                gradient = gradient[None]
            gradient = gradient.movedim(1, -1)
        return gradient.reshape(-1, gradient.shape[-1])


@dataclass(frozen=True)
class LookUp:
    """Rows that are taken out of a table."""

    weight: torch.Tensor
    indices: torch.Tensor


def operation(function: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Operation | LookUp | None:
    """What a call of a function of torch does with a weight, or None."""
    known = _FUNCTIONS.get(function)
    if known is None:
        return None
    names, make = known
    given = {**dict(zip(names, args)), **kwargs}
    return make(given)


def _linear(given: dict[str, Any]) -> Operation:
    return Operation(given["input"], given["weight"], 0)


def _matmul(given: dict[str, Any]) -> Operation | None:
    input, weight = given["input"], given["mat2"]
    both = isinstance(input, torch.Tensor) and isinstance(weight, torch.Tensor)
    return Operation(input, weight, 1) if both and weight.dim() == 2 and input.dim() > 0 else None


def _addmm(given: dict[str, Any]) -> Operation:
    return Operation(given["mat1"], given["mat2"], 1)


def _look_up(given: dict[str, Any]) -> LookUp:
    return LookUp(given["weight"], given["indices"])


def _convolution(axes: int) -> Callable[[dict[str, Any]], Operation]:
    def make(given: dict[str, Any]) -> Operation:
        kernel = tuple(given["weight"].shape[2:])
        stride, dilation = _each(given.get("stride", 1), axes), _each(given.get("dilation", 1), axes)
        padding = given.get("padding", 0)
        if padding == "same":
            wanted = [d * (k - 1) for d, k in zip(dilation, kernel)]
            around = tuple((total // 2, total - total // 2) for total in wanted)
        else:
            around = tuple((p, p) for p in _each(0 if padding == "valid" else padding, axes))
        unfolding = Unfolding(kernel, stride, around, dilation, given.get("groups", 1), (1,) * axes, False)
        return Operation(given["input"], given["weight"], 0, unfolding)

    return make


def _transposed(axes: int) -> Callable[[dict[str, Any]], Operation]:
    def make(given: dict[str, Any]) -> Operation:
        kernel = tuple(given["weight"].shape[2:])
        stride, dilation = _each(given.get("stride", 1), axes), _each(given.get("dilation", 1), axes)
        padding, more = _each(given.get("padding", 0), axes), _each(given.get("output_padding", 0), axes)
        reach = [d * (k - 1) for d, k in zip(dilation, kernel)]
        around = tuple((r - p, r - p + m) for r, p, m in zip(reach, padding, more))
        unfolding = Unfolding(kernel, (1,) * axes, around, dilation, given.get("groups", 1), stride, True)
        return Operation(given["input"], given["weight"], 1, unfolding)

    return make


def _each(value: Any, axes: int) -> tuple[int, ...]:
    values = (value,) if isinstance(value, int) else tuple(value)
    return values * axes if len(values) == 1 else values


_CONVOLUTION = ("input", "weight", "bias", "stride", "padding", "dilation", "groups")
_TRANSPOSED = ("input", "weight", "bias", "stride", "padding", "output_padding", "groups", "dilation")

_FUNCTIONS: dict[Any, tuple[tuple[str, ...], Callable[[dict[str, Any]], Operation | LookUp | None]]] = {
    F.linear: (("input", "weight"), _linear),
    torch.addmm: (("input", "mat1", "mat2"), _addmm),
    torch.Tensor.addmm: (("input", "mat1", "mat2"), _addmm),
    **dict.fromkeys((torch.mm, torch.Tensor.mm), (("input", "mat2"), _matmul)),
    torch.matmul: (("input", "other"), lambda given: _matmul({"input": given["input"], "mat2": given["other"]})),
    torch.Tensor.matmul: (("input", "other"), lambda given: _matmul({"input": given["input"], "mat2": given["other"]})),
    torch.embedding: (("weight", "indices"), _look_up),
    torch.embedding_bag: (("weight", "indices"), _look_up),
    F.conv1d: (_CONVOLUTION, _convolution(1)),
    F.conv2d: (_CONVOLUTION, _convolution(2)),
    F.conv3d: (_CONVOLUTION, _convolution(3)),
    F.conv_transpose1d: (_TRANSPOSED, _transposed(1)),
    F.conv_transpose2d: (_TRANSPOSED, _transposed(2)),
    F.conv_transpose3d: (_TRANSPOSED, _transposed(3)),
}


def _unfolded(input: torch.Tensor, how: Unfolding) -> Iterator[torch.Tensor]:
    """What lies under the kernel at each place of the output, for some images or some lines of one at a time."""
    axes = len(how.kernel)
    if input.dim() == axes + 1:
        input = input[None]
    under, places = input.shape[1] * math.prod(how.kernel), _places(input.shape[2:], how)
    line = under * math.prod(places[1:])
    for images in torch.split(input, max(1, _CHUNK // (line * places[0]))):
        windows = _windows(_spread(images.float(), how), how)
        # Of several images, all lines are taken at once: they are few enough.
        for part in torch.split(windows, max(1, _CHUNK // (line * len(images))), dim=2):
            yield _matrix(part, how)


def _places(sizes: Sequence[int], how: Unfolding) -> list[int]:
    """How many places of the output there are along each axis."""
    return [
        ((size - 1) * insert + sum(padding) - dilation * (kernel - 1)) // stride + 1
        for size, insert, padding, dilation, kernel, stride in zip(
            sizes, how.insert, how.padding, how.dilation, how.kernel, how.stride
        )
    ]


def _matrix(windows: torch.Tensor, how: Unfolding) -> torch.Tensor:
    """Windows [images, channels, places…, kernel…] as [groups, images · places, channels of a group · kernel]."""
    if how.transposed:  # its kernel is turned around
        windows = windows.flip(list(range(-len(how.kernel), 0)))
    images, channels = windows.shape[:2]
    apart = windows.reshape(images, how.groups, channels // how.groups, -1, math.prod(how.kernel))
    ordered = apart.permute(1, 0, 3, 2, 4)
    return ordered.reshape(how.groups, images * apart.shape[3], -1)


def _spread(images: torch.Tensor, how: Unfolding) -> torch.Tensor:
    """Images [images, channels, …] with padding, and for a transposed convolution with zeros between their places."""
    if any(step > 1 for step in how.insert):
        sizes = [(size - 1) * step + 1 for size, step in zip(images.shape[2:], how.insert)]
        wide = images.new_zeros(*images.shape[:2], *sizes)
        wide[(slice(None), slice(None), *(slice(None, None, step) for step in how.insert))] = images
        images = wide
    # F.pad wants the last axis first; what is negative is cut off.
    return F.pad(images, [side for pair in reversed(how.padding) for side in pair])


def _windows(images: torch.Tensor, how: Unfolding) -> torch.Tensor:
    """A view [images, channels, places…, kernel…]."""
    for axis, (kernel, stride, dilation) in enumerate(zip(how.kernel, how.stride, how.dilation), start=2):
        images = images.unfold(axis, dilation * (kernel - 1) + 1, stride)[..., ::dilation]
    return images
