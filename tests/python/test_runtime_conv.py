"""Convolutions of programs that we run, against torch in float64: every parameter, and the gradients of all three arguments."""

import mil
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from coremltools.converters.mil import Builder as mb

RNG = np.random.default_rng(7)
CONVS = {1: F.conv1d, 2: F.conv2d, 3: F.conv3d}
TRANSPOSED = {1: F.conv_transpose1d, 2: F.conv_transpose2d, 3: F.conv_transpose3d}


def numbers(*shape, dtype=np.float32):
    return RNG.standard_normal(shape).astype(dtype)


def extents(kernel, dilations):
    return [(k - 1) * d + 1 for k, d in zip(kernel, dilations)]


def padding(kind, pad, size, kernel, strides, dilations):
    """Padding before and after each axis."""
    if kind == "custom":
        return list(zip(pad[::2], pad[1::2]))
    if kind == "valid":
        return [(0, 0)] * len(size)
    totals = [max(0, (-(-n // s) - 1) * s + k - n) for n, k, s in zip(size, extents(kernel, dilations), strides)]
    return [(t - t // 2, t // 2) if kind == "same_lower" else (t // 2, t - t // 2) for t in totals]


def convolve(x, weight, bias, pads, strides, dilations, groups):
    """torch's convolution, of tensors, with padding on either side."""
    flat = [n for pair in reversed(pads) for n in pair]
    return CONVS[x.dim() - 2](F.pad(x, flat), weight, bias, strides, 0, dilations, groups)


def conv_case(x, weight, bias=False, target="iOS18", constant=True, dtype=np.float32, **options):
    axes = len(x) - 2
    strides, dilations = options.get("strides", [1] * axes), options.get("dilations", [1] * axes)
    groups = options.get("groups", 1)
    inputs = {"x": numbers(*x, dtype=dtype), "weight": numbers(*weight, dtype=dtype)}
    if bias:
        inputs["bias"] = numbers(weight[0], dtype=dtype)
    pads = padding(options.get("pad_type", "valid"), options.get("pad", [0, 0] * axes), x[2:], weight[2:], strides, dilations)
    constants = {name: inputs.pop(name) for name in ["weight", "bias"] if constant and name in inputs}

    def build(**given):
        return mb.conv(**given, **constants, **options)

    def expected(**given):
        given |= {name: value.astype(np.float64) for name, value in constants.items()}
        x, weight, bias = (None if given.get(name) is None else torch.tensor(given[name]) for name in ("x", "weight", "bias"))
        return convolve(x, weight, bias, pads, strides, dilations, groups).numpy()

    return build, inputs, expected, target


CASES = [
    # one axis
    dict(x=(2, 3, 10), weight=(4, 3, 3)),
    dict(x=(1, 1, 1024), weight=(16, 1, 64), strides=[4], pad_type="custom", pad=[30, 31], bias=True),
    dict(x=(2, 4, 9), weight=(6, 2, 2), groups=2, pad_type="same", strides=[2], bias=True),
    dict(x=(1, 2, 5000), weight=(3, 2, 5), dilations=[7], pad_type="same"),
    dict(x=(1, 40, 700), weight=(24, 40, 9), pad_type="same", bias=True),
    dict(x=(3, 6, 7), weight=(6, 1, 3), groups=6, pad_type="same_lower", strides=[3]),
    dict(x=(1, 700, 30), weight=(3, 700, 1), bias=True),
    # two
    dict(x=(2, 3, 9, 8), weight=(5, 3, 3, 3), bias=True),
    dict(x=(1, 3, 33, 35), weight=(8, 3, 7, 7), strides=[2, 2], pad_type="custom", pad=[3, 3, 3, 3]),
    dict(x=(2, 8, 6, 5), weight=(4, 8, 1, 1), bias=True),
    dict(x=(2, 8, 6, 5), weight=(4, 8, 1, 1)),
    dict(x=(2, 8, 6, 5), weight=(4, 8, 1, 1), strides=[2, 3]),
    dict(x=(2, 8, 6, 5), weight=(4, 8, 1, 1), pad_type="custom", pad=[1, 0, 0, 2], bias=True),
    dict(x=(2, 8, 6, 5), weight=(8, 4, 1, 1), groups=2, bias=True),
    dict(x=(3, 4, 6, 5), weight=(7, 4, 6, 5), bias=True),
    dict(x=(3, 4, 6, 5), weight=(8, 2, 6, 5), groups=2),
    dict(x=(1, 6, 12, 11), weight=(6, 1, 3, 3), groups=6, pad_type="same", bias=True),
    dict(x=(2, 6, 12, 11), weight=(12, 1, 5, 3), groups=6, pad_type="same", strides=[2, 1]),
    dict(x=(1, 5, 80, 70), weight=(5, 1, 3, 3), groups=5, pad_type="custom", pad=[1, 2, 0, 3], dilations=[2, 3]),
    dict(x=(1, 1, 90, 80), weight=(2, 1, 3, 3), bias=True),
    dict(x=(1, 8, 9, 9), weight=(8, 2, 3, 3), groups=4, dilations=[2, 1], pad_type="same_lower", strides=[2, 2]),
    dict(x=(1, 3, 4, 5), weight=(2, 3, 2, 4), pad_type="same"),
    dict(x=(1, 3, 4, 5), weight=(2, 3, 2, 4), pad_type="same_lower", bias=True),
    dict(x=(1, 2, 3, 3), weight=(2, 2, 2, 2), dilations=[900, 1], pad_type="custom", pad=[900, 900, 0, 0]),
    dict(x=(1, 2, 40, 3), weight=(2, 2, 3, 2), strides=[30, 5], pad_type="custom", pad=[0, 40, 7, 0]),
    dict(x=(9, 32, 7, 7), weight=(48, 32, 3, 3), pad_type="same", bias=True),
    dict(x=(1, 70, 40, 41), weight=(20, 70, 3, 3), pad_type="same"),
    dict(x=(1, 1, 1, 1), weight=(1, 1, 1, 1), bias=True),
    # three
    dict(x=(2, 2, 4, 5, 6), weight=(3, 2, 2, 3, 2), bias=True),
    dict(x=(1, 4, 5, 5, 5), weight=(4, 2, 3, 2, 3), groups=2, strides=[2, 1, 2], dilations=[1, 2, 1], pad_type="same"),
    dict(x=(1, 3, 4, 6, 5), weight=(6, 1, 3, 3, 3), groups=3, pad_type="same_lower", strides=[1, 2, 1], bias=True),
    dict(x=(2, 3, 4, 6, 5), weight=(6, 3, 1, 1, 1)),
    dict(x=(2, 3, 4, 6, 5), weight=(6, 3, 3, 1, 1), pad_type="custom", pad=[2, 1, 0, 0, 0, 0]),
    dict(x=(2, 3, 2, 3, 4), weight=(5, 3, 2, 3, 4), bias=True),
]


@pytest.mark.parametrize("case", CASES, ids=str)
@pytest.mark.parametrize("dtype", [np.float32, np.float16])
def test_conv(case, dtype):
    mil.check(*conv_case(**case, dtype=dtype))
