"""Elementwise functions of one tensor: values against numpy and scipy in float64 or the peer, gradients against torch."""

import numpy as np
import pytest
import scipy.special
import torch
from coremltools.converters.mil import Builder as mb

from mil import check, check_gradients, gradients, run

RNG = np.random.default_rng(1)
SHAPES = [(1,), (7,), (3, 0, 2), (2, 3, 4, 5), (1, 70001)]
FLOATS = [np.float16, np.float32]

# the operation, what it is, and the least and largest argument that are tried
FUNCTIONS = {
    "abs": (np.abs, -3, 3),
    "acos": (np.arccos, -1, 1),
    "asin": (np.arcsin, -1, 1),
    "atan": (np.arctan, -9, 9),
    "atanh": (np.arctanh, -0.95, 0.95),
    "ceil": (np.ceil, -9, 9),
    "cos": (np.cos, -20, 20),
    "cosh": (np.cosh, -5, 5),
    "erf": (scipy.special.erf, -5, 5),
    "exp": (np.exp, -9, 9),
    "exp2": (np.exp2, -9, 9),
    "floor": (np.floor, -9, 9),
    "identity": (lambda x: x, -9, 9),
    "inverse": (lambda x: 1 / (x + 1e-4), 0.5, 9),
    "log": (np.log, 0.001, 90),
    "round": (np.round, -9, 9),
    "rsqrt": (lambda x: 1 / np.sqrt(x + 1e-12), 0.01, 9),
    "sign": (np.sign, -9, 9),
    "sin": (np.sin, -20, 20),
    "sinh": (np.sinh, -5, 5),
    "sqrt": (np.sqrt, 0, 90),
    "square": (np.square, -9, 9),
    "tan": (np.tan, -1.4, 1.4),
    "tanh": (np.tanh, -5, 5),
}


def values(shape, least, most, dtype=np.float32):
    return np.asarray(RNG.uniform(least, most, shape), dtype)


@pytest.mark.parametrize("op", FUNCTIONS)
def test_values_of_all_sizes(op):
    function, least, most = FUNCTIONS[op]
    for shape in SHAPES:
        for dtype in FLOATS:
            check(lambda x: getattr(mb, op)(x=x), {"x": values(shape, least, most, dtype)}, lambda x: function(x))


@pytest.mark.parametrize("op", FUNCTIONS)
def test_numbers_that_are_special(op):
    # where nothing is added, the logarithm of 0 is -inf
    function = (lambda x: np.log(x + np.float64(np.float32(1e-45)))) if op == "log" else FUNCTIONS[op][0]
    x = np.array([0.0, -0.0, np.inf, -np.inf, np.nan, 1e-30, -1e-30, 1e30, 1, -1, 2.5, 3.5, 88.5, -103, 0.49999997], np.float32)
    check(lambda x: getattr(mb, op)(x=x), {"x": x}, lambda x: np.float32(function(x)))


@pytest.mark.parametrize("op", [op for op in FUNCTIONS if op not in ("ceil", "floor", "round", "sign")])
def test_gradients(op):
    functions = {
        "identity": lambda x: x * 1,
        "inverse": lambda x: 1 / (x + 1e-4),
        "log": torch.log,
        "rsqrt": lambda x: torch.rsqrt(x + 1e-12),
        "square": torch.square,
    }
    _, least, most = FUNCTIONS[op]
    room = 0.02 * (most - least)
    x = values((3, 50), least + room, most - room)
    check_gradients(lambda x: getattr(mb, op)(x=x), functions.get(op) or getattr(torch, op, None), {"x": x})


@pytest.mark.parametrize("op", ["ceil", "floor", "round", "sign"])
def test_steps_have_no_slope(op):
    found = gradients(lambda x: getattr(mb, op)(x=x), {"x": values((9,), -3, 3)}, ["x"])
    np.testing.assert_array_equal(found["x"], np.zeros(9))


def test_slopes_where_they_are_not_unique_are_those_of_torch():
    x = np.array([-1, 0, 1], np.float32)
    check_gradients(lambda x: mb.abs(x=x), torch.abs, {"x": x})
    check_gradients(lambda x: mb.clip(x=x, alpha=-1.0, beta=1.0), lambda x: torch.clamp(x, -1, 1), {"x": x})
    check_gradients(lambda x: mb.threshold(x=x, alpha=0.0), lambda x: torch.clamp(x, min=0), {"x": x})


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("op, function", [
    ("inverse", lambda x, e: 1 / (x + e)),
    ("log", lambda x, e: np.log(x + e)),
    ("rsqrt", lambda x, e: 1 / np.sqrt(x + e)),
])
def test_epsilon(op, function, dtype):
    x = np.array([0, 0.25, 1, 7], dtype)
    for epsilon in (dtype(0.125), dtype(2)):
        check(lambda x: getattr(mb, op)(x=x, epsilon=epsilon), {"x": x}, lambda x: function(x, float(epsilon)))
    # from iOS17 on, in another type than x
    check(lambda x: getattr(mb, op)(x=x, epsilon=np.float16(0.5)), {"x": x.astype(np.float32)}, lambda x: function(x, 0.5))


def test_epsilon_by_default():
    zero = np.zeros(1, np.float32)
    assert run(lambda x: mb.log(x=x), {"x": zero})[0] == np.log(np.float32(1e-45))
    assert run(lambda x: mb.inverse(x=x), {"x": zero})[0] == np.float32(1 / np.float64(np.float32(1e-4)))
    assert run(lambda x: mb.log(x=x), {"x": zero.astype(np.float16)})[0] == -np.inf


@pytest.mark.parametrize("op, torch_function", [
    ("inverse", lambda x, e: 1 / (x + e)),
    ("log", lambda x, e: torch.log(x + e)),
    ("rsqrt", lambda x, e: torch.rsqrt(x + e)),
])
def test_gradients_with_respect_to_epsilon(op, torch_function):
    x = values((40,), 0.5, 3)

    def both(x):
        return getattr(mb, op)(x=x, epsilon=mb.const(val=np.float32(0.25), name="epsilon"))
    found = gradients(both, {"x": x}, ["x", "epsilon"])
    x_, e = torch.tensor(x, dtype=torch.float64, requires_grad=True), torch.tensor(0.25, dtype=torch.float64, requires_grad=True)
    factors = torch.tensor(np.random.default_rng([0, 0]).normal(size=40).astype(np.float32), dtype=torch.float64)
    wanted = torch.autograd.grad((torch_function(x_, e) * factors).sum(), [x_, e])
    np.testing.assert_allclose(found["x"], wanted[0].numpy(), rtol=1e-5)
    np.testing.assert_allclose(found["epsilon"], wanted[1].numpy(), rtol=1e-5)


@pytest.mark.parametrize("dtype", FLOATS)
def test_clip_and_threshold(dtype):
    x = np.array([-np.inf, -3, -1, -0.0, 0.5, 2, np.inf, np.nan], dtype)
    check(lambda x: mb.clip(x=x, alpha=dtype(-1), beta=dtype(0.5)), {"x": x}, lambda x: np.clip(x, -1, 0.5))
    check(lambda x: mb.threshold(x=x, alpha=dtype(0.25)), {"x": x}, lambda x: np.maximum(x, 0.25))
    # before iOS17 the bounds could be in any order: the upper one holds
    check(lambda x: mb.clip(x=x, alpha=dtype(1), beta=dtype(-1)), {"x": x}, target="iOS16",
          expected=lambda x: np.minimum(np.maximum(x, 1), -1))


def test_integers():
    x = np.array([-2147483648, -7, -1, 0, 1, 5, 30, 46341, 2147483647], np.int32)
    with np.errstate(over="ignore"):
        for op, wanted in [("abs", np.abs(x)), ("sign", np.sign(x)), ("square", np.square(x)), ("identity", x)]:
            check(lambda x: getattr(mb, op)(x=x), {"x": x}, lambda x: wanted)
    check(lambda x: mb.threshold(x=x, alpha=np.int32(16777217)), {"x": x}, lambda x: np.maximum(x, 16777217))
    check(lambda x: mb.exp2(x=x), {"x": np.array([0, 1, 5, 30, -1], np.int32)}, lambda x: np.exp2(x).astype(int))


def test_logical_not_and_identity_of_booleans():
    x = np.array([[True, False], [False, False]])
    check(lambda x: mb.cast(x=mb.logical_not(x=x), dtype="int32"), {"x": x}, lambda x: ~x)
    check(lambda x: mb.cast(x=mb.identity(x=x), dtype="int32"), {"x": x}, lambda x: x)


INTEGERS = ["int8", "uint8", "int16", "uint16", "int32"]


@pytest.mark.parametrize("source", ["fp16", "fp32", "int32", *INTEGERS])
@pytest.mark.parametrize("dtype", ["fp16", "fp32", *INTEGERS, "bool"])
def test_cast(source, dtype):
    """What fits is as in numpy; types that no input has are cast to before."""
    x = np.array([0, 1, 2, 100, 127, 3.75, 0.5, 0.25], {"fp16": np.float16, "fp32": np.float32}.get(source, np.int32))

    def casts(x):
        x = mb.cast(x=x, dtype=source) if source in INTEGERS else x
        x = mb.cast(x=x, dtype=dtype)
        return mb.cast(x=x, dtype="int32") if dtype == "bool" else mb.cast(x=x, dtype="fp32")
    names = {"fp16": np.float16, "fp32": np.float32, "bool": np.bool_}
    check(casts, {"x": x}, lambda x: np.float32(x.astype(names.get(dtype, dtype))))


def test_cast_of_what_a_type_has_not():
    floats = np.array([-1e10, -300.5, -1.5, 300.5, 70000, 1e10, np.inf, -np.inf, np.nan], np.float32)
    limits = {"int8": (-128, 127), "uint8": (0, 255), "int16": (-32768, 32767), "uint16": (0, 65535),
              "int32": (-2147483648, 2147483647)}
    for dtype, (least, most) in limits.items():
        wanted = np.nan_to_num(np.clip(np.trunc(floats.astype(np.float64)), least, most))
        check(lambda x: mb.cast(x=mb.cast(x=x, dtype=dtype), dtype="int32"), {"x": floats}, lambda x: wanted)
    ints = np.array([-70000, -129, -1, 128, 255, 256, 70000], np.int32)
    for dtype in limits:
        check(lambda x: mb.cast(x=mb.cast(x=x, dtype=dtype), dtype="int32"), {"x": ints}, lambda x: x.astype(dtype))
    # halves: ties to even, and too large ones are infinite
    x = np.array([65519, 65520, -1e6, 2049, 1e-8, 6e-8], np.float32)
    np.testing.assert_array_equal(run(lambda x: mb.cast(x=x, dtype="fp16"), {"x": x})[0], x.astype(np.float16))
    nans = np.array([np.nan, 0, -0.0, 1e-40], np.float32)
    check(lambda x: mb.cast(x=mb.cast(x=x, dtype="bool"), dtype="int32"), {"x": nans}, lambda x: np.array([1, 0, 0, 1]))


def test_gradients_pass_casts():
    x = values((11,), -3, 3)
    check_gradients(lambda x: mb.square(x=mb.cast(x=mb.cast(x=x, dtype="fp16"), dtype="fp32")),
                    lambda x: x.half().double().square(), {"x": x}, tolerance=2e-3)

