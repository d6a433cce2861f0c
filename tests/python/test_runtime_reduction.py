"""Reductions, places of extremes and cumulative sums: values and gradients against torch."""

import numpy as np
import pytest
import torch
from coremltools.converters.mil import Builder as mb

from mil import check, check_cases

RNG = np.random.default_rng(7)
SHAPES = [((6,), [0]), ((3, 4), [1]), ((3, 4), [0]), ((2, 3, 4), [0, 2]), ((2, 3, 4), [-2]), ((2, 3, 4), None), ((1, 1), [0, 1]),
          ((70, 300), [1]), ((300, 70), [0]), ((2, 150, 3, 5), [1, 3])]
REFERENCES = {
    "sum": lambda x, axes, keep: x.sum(axes, keepdim=keep),
    "mean": lambda x, axes, keep: x.mean(axes, keepdim=keep),
    "max": lambda x, axes, keep: x.amax(axes, keepdim=keep),
    "min": lambda x, axes, keep: x.amin(axes, keepdim=keep),
    "sum_square": lambda x, axes, keep: x.square().sum(axes, keepdim=keep),
    "l1_norm": lambda x, axes, keep: x.abs().sum(axes, keepdim=keep),
    "l2_norm": lambda x, axes, keep: x.square().sum(axes, keepdim=keep).sqrt(),
    "log_sum": lambda x, axes, keep: x.sum(axes, keepdim=keep).log(),
    "log_sum_exp": lambda x, axes, keep: x.logsumexp(axes, keepdim=keep),
}


def product(x, axes, keep):
    for axis in sorted((axis % x.ndim for axis in axes), reverse=True):
        x = x.prod(axis, keepdim=keep)
    return x


REFERENCES["prod"] = product


def values(op, shape, dtype):
    x = RNG.normal(size=shape)
    if op == "log_sum":
        x = RNG.random(shape) + 0.25
    if op == "prod":
        x = 1 + 0.05 * x
    return x.astype(dtype)


@pytest.mark.parametrize("keep", [True, False])
@pytest.mark.parametrize("dtype", [np.float32, np.float16])
@pytest.mark.parametrize("op", REFERENCES)
def test_reductions(op, dtype, keep):
    cases = []
    for shape, axes in SHAPES:
        every = list(range(len(shape))) if axes is None else axes
        cases.append((
            lambda x, a=axes: getattr(mb, f"reduce_{op}")(x=x, axes=a, keep_dims=keep), {"x": values(op, shape, dtype)},
            lambda x, a=every: REFERENCES[op](x, a, keep)))
    check_cases(cases, differentiable=dtype == np.float32)


@pytest.mark.parametrize("op", ["sum", "max", "min", "prod", "l1_norm", "sum_square"])
def test_integers(op):
    references = {"sum": np.sum, "max": np.max, "min": np.min, "prod": np.prod, "l1_norm": lambda x, **a: np.abs(x).sum(**a),
                  "sum_square": lambda x, **a: np.square(x).sum(**a)}
    x = RNG.integers(-5, 6, (3, 4, 5)).astype(np.int32)
    check(lambda x: getattr(mb, f"reduce_{op}")(x=x, axes=[1], keep_dims=True), {"x": x}, lambda x: references[op](x, axis=1, keepdims=True))


@pytest.mark.parametrize("op", ["argmax", "argmin"])
def test_places_of_extremes(op):
    cases = []
    for shape, axis in [((6,), 0), ((3, 4), -1), ((3, 4), 0), ((2, 3, 4), 1), ((5, 700), 1)]:
        for keep in (True, False):
            cases.append((
                lambda x, a=axis, k=keep: getattr(mb, f"reduce_{op}")(x=x, axis=a, keep_dims=k), {"x": RNG.normal(size=shape).astype(np.float32)},
                lambda x, a=axis, k=keep: getattr(torch, op)(x, a, k)))
    check_cases(cases)
    ties = np.array([[1, 3, 3, 1], [2, 2, 2, 2]], np.float32)
    check(lambda x: getattr(mb, f"reduce_{op}")(x=x, axis=1), {"x": ties}, lambda x: getattr(np, op)(x, 1))


def test_cumulative_sums():
    def reference(x, axis, exclusive, backwards):
        x = x.flip(axis) if backwards else x
        sums = x.cumsum(axis)
        sums = sums - x if exclusive else sums
        return sums.flip(axis) if backwards else sums
    cases = []
    for shape, axis in [((6,), 0), ((3, 4), 1), ((2, 3, 4), 0), ((2, 3, 4), 1), ((3, 2), -1), ((2, 500), 1)]:
        for exclusive in (False, True):
            for backwards in (False, True):
                cases.append((
                    lambda x, a=axis, e=exclusive, b=backwards: mb.cumsum(x=x, axis=a, exclusive=e, reverse=b),
                    {"x": RNG.normal(size=shape).astype(np.float32)}, lambda x, a=axis, e=exclusive, b=backwards: reference(x, a, e, b)))
    check_cases(cases, differentiable=True)


@pytest.mark.parametrize("op", ["sum", "mean", "max", "min", "log_sum_exp", "l2_norm"])
def test_numbers_that_are_special(op):
    x = np.array([[0.0, -0.0, 1], [np.inf, 1, 2], [-np.inf, 1, 2], [-np.inf] * 3, [1e18, 1, 1]], np.float32)
    with np.errstate(all="ignore"):
        check(lambda x: getattr(mb, f"reduce_{op}")(x=x, axes=[1]), {"x": x},
              lambda x: np.float32(REFERENCES[op](torch.tensor(x), [1], False).numpy()))
