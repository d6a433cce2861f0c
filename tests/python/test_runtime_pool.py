"""Poolings of programs that we run, against plain loops of numpy and against torch, and their gradients."""

import itertools
import math

import mil
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from coremltools.converters.mil import Builder as mb

RNG = np.random.default_rng(11)
OPS = {"max": mb.max_pool, "avg": mb.avg_pool, "l2": mb.l2_pool}


def axis(size, kernel, stride, kind, pad, ceil):
    """(outputs, padding before, padding after) as MIL counts them."""
    before, after = pad if kind == "custom" else (0, 0)
    if kind.startswith("same"):
        total = max(0, (-(-size // stride) - 1) * stride + kernel - size)
        before, after = (total - total // 2, total // 2) if kind == "same_lower" else (total // 2, total - total // 2)
    whole = size + before + after
    outputs = math.floor((whole - kernel + (stride - 1 if ceil else 0)) / stride) + 1
    if ceil and before + after > 0 and (outputs - 1) * stride >= size + (before + after) / 2:
        outputs -= 1
    return outputs, before, after


def pooled(x, op, kernel, strides, kind="valid", pad=None, ceil=False, exclude=False):
    """Plain loops over windows."""
    size = x.shape[2:]
    pad = pad or [0, 0] * len(size)
    axes = [axis(n, k, s, kind, pad[2 * i:2 * i + 2], ceil) for i, (n, k, s) in enumerate(zip(size, kernel, strides))]
    out = np.zeros(x.shape[:2] + tuple(a[0] for a in axes))
    for place in np.ndindex(out.shape[2:]):
        starts = [p * s - a[1] for p, s, a in zip(place, strides, axes)]
        part = x[(..., *(slice(max(0, start), max(0, start + k)) for start, k in zip(starts, kernel)))]
        flat = part.reshape(*x.shape[:2], -1)
        if op == "max":
            value = flat.max(-1)
        elif op == "l2":
            value = np.sqrt((flat ** 2).sum(-1))
        else:
            ends = [min(start + k, n + a[2]) - start for start, k, n, a in zip(starts, kernel, size, axes)]
            value = flat.sum(-1) / (flat.shape[-1] if exclude else math.prod(ends))
        out[(..., *place)] = value
    return out


CASES = [
    {"shape": (2, 3, 9), "kernel": [3], "strides": [2]},
    {"shape": (1, 2, 700), "kernel": [700], "strides": [1]},
    {"shape": (1, 2, 30), "kernel": [25], "strides": [2], "kind": "same"},
    {"shape": (2, 3, 9, 8), "kernel": [3, 3], "strides": [2, 2], "kind": "custom", "pad": [1, 1, 1, 1]},
    {"shape": (2, 3, 9, 8), "kernel": [3, 2], "strides": [1, 1], "kind": "same"},
    {"shape": (2, 3, 9, 8), "kernel": [2, 3], "strides": [1, 1], "kind": "same_lower"},
    {"shape": (2, 3, 9, 8), "kernel": [3, 2], "strides": [2, 3], "kind": "same"},
    {"shape": (2, 3, 9, 8), "kernel": [4, 3], "strides": [3, 2], "kind": "same_lower"},
    {"shape": (1, 2, 8, 7), "kernel": [3, 4], "strides": [2, 3], "kind": "custom", "pad": [2, 0, 1, 3]},
    {"shape": (1, 2, 9, 8), "kernel": [3, 3], "strides": [2, 2], "ceil": True},
    {"shape": (1, 2, 9, 8), "kernel": [2, 3], "strides": [2, 3], "kind": "custom", "pad": [1, 1, 1, 1], "ceil": True},
    {"shape": (1, 2, 10, 11), "kernel": [3, 2], "strides": [3, 2], "kind": "custom", "pad": [1, 1, 0, 0], "ceil": True},
    {"shape": (3, 5, 7, 7), "kernel": [7, 7], "strides": [1, 1]},
    {"shape": (1, 1, 1, 1), "kernel": [1, 1], "strides": [1, 1]},
    {"shape": (2, 40, 60, 50), "kernel": [3, 3], "strides": [2, 2], "kind": "custom", "pad": [1, 1, 1, 1]},
    {"shape": (2, 2, 5, 6, 7), "kernel": [2, 3, 2], "strides": [1, 2, 2]},
    {"shape": (1, 2, 5, 6, 7), "kernel": [3, 2, 3], "strides": [2, 1, 2], "kind": "same"},
    {"shape": (1, 2, 5, 6, 7), "kernel": [3, 2, 3], "strides": [2, 1, 2], "kind": "custom", "pad": [1, 0, 1, 1, 2, 0]},
]
PAIRS = [(op, case) for op, case in itertools.product(OPS, CASES) if op != "l2" or len(case["shape"]) < 5]


def built(op, exclude, kernel, strides, shape, kind="valid", pad=None, ceil=False):
    more = {"pad": pad} if pad else {}
    if op == "avg":
        more["exclude_padding_from_average"] = exclude
    if ceil:
        more["ceil_mode"] = True
    return lambda x: OPS[op](x=x, kernel_sizes=kernel, strides=strides, pad_type=kind, **more)


@pytest.mark.parametrize("dtype", [np.float32, np.float16])
@pytest.mark.parametrize("op, case", PAIRS, ids=str)
def test_pool(op, case, dtype):
    x = RNG.standard_normal(case["shape"]).astype(dtype)
    options = {name: value for name, value in case.items() if name != "shape"}
    for exclude in (False, True) if op == "avg" else (False,):
        mil.check(built(op, exclude, **case), {"x": x}, lambda x: pooled(x, op, exclude=exclude, **options))


def of_torch(op, x, exclude, kernel, strides, shape, kind="valid", pad=None, ceil=False):
    """The same with torch's own operations, windows and all."""
    size = x.shape[2:]
    pad = pad or [0, 0] * len(size)
    axes = [axis(n, k, s, kind, pad[2 * i:2 * i + 2], ceil) for i, (n, k, s) in enumerate(zip(size, kernel, strides))]
    ends = [(count - 1) * s + k - n - before for (count, before, _), s, k, n in zip(axes, strides, kernel, size)]
    around = [n for (_, before, _), end in zip(axes[::-1], ends[::-1]) for n in (before, end)]
    windows = lambda values, fill: _windows(F.pad(values, around, value=fill), kernel, strides)
    if op == "max":
        return windows(x, -math.inf).amax(-1)
    if op == "l2":
        return windows(x ** 2, 0).sum(-1).sqrt()
    ones = torch.ones_like(x)
    if not exclude:
        ones = F.pad(ones, [n for (_, before, after) in axes[::-1] for n in (before, after)], value=1)
        more = [n for end, (_, _, after) in zip(ends[::-1], axes[::-1]) for n in (0, end - after)]
        return windows(x, 0).sum(-1) / _windows(F.pad(ones, more), kernel, strides).sum(-1)
    return windows(x, 0).sum(-1) / windows(ones, 0).sum(-1)


def _windows(values, kernel, strides):
    for at, (k, s) in enumerate(zip(kernel, strides), 2):
        values = values.unfold(at, k, s)
    return values.flatten(2 + len(kernel))


@pytest.mark.parametrize("op, case", PAIRS, ids=str)
def test_gradients_of_pools(op, case):
    x = RNG.standard_normal(case["shape"]).astype(np.float32)
    for exclude in (False, True) if op == "avg" else (False,):
        mil.check_gradients(built(op, exclude, **case), lambda x: of_torch(op, x, exclude, **case), {"x": x})


def test_of_equal_elements_the_first_gets_the_gradient_and_nan_is_the_largest():
    x = np.array([[[1, 1, 0, 2, 2, 2]]], np.float32)
    build = lambda x: mb.max_pool(x=x, kernel_sizes=[3], strides=[3], pad_type="valid")
    mil.check_gradients(build, lambda x: F.max_pool1d(x, 3, 3), {"x": x})
    x[0, 0, 1], x[0, 0, 5] = np.nan, -np.inf
    found, = mil.run(build, {"x": x})
    np.testing.assert_array_equal(found, [[[np.nan, 2]]])


def test_a_window_in_the_padding_alone():
    x = np.ones((1, 1, 2), np.float32)
    for op, value in (("max", -np.inf), ("avg", 0), ("l2", 0)):
        found, = mil.run(lambda x: OPS[op](x=x, kernel_sizes=[1], pad_type="custom", pad=[2, 0]), {"x": x})
        np.testing.assert_array_equal(found, [[[value, value, 1, 1]]])


@pytest.mark.parametrize("op", OPS)
def test_l2_of_zeros_has_no_gradient_and_nothing_is_pooled_from_no_images(op):
    build = lambda x: OPS[op](x=x, kernel_sizes=[2], pad_type="valid")
    found = mil.gradients(build, {"x": np.zeros((1, 1, 3), np.float32)}, ["x"])["x"]
    assert np.isfinite(found).all()
