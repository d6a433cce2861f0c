"""Elementwise functions of two tensors: values against numpy or the peer, gradients against torch."""

import coremltools as ct
import numpy as np
import pytest
import torch
from coremltools.converters.mil import Builder as mb
from coremltools.converters.mil.mil import get_new_symbol, types

from mil import check, check_gradients, run
from palettizer.runtime import Session
from zoo import TARGETS, convert

RNG = np.random.default_rng(2)
FLOATS = [np.float16, np.float32]
# all ways in which dimensions are broadcast, merged or not, and sizes that are split
SHAPES = [
    ((1,), (5,)),
    ((3,), (1,)),
    ((2, 3, 4), (2, 3, 4)),
    ((2, 3, 4), (4,)),
    ((2, 3, 4), (3, 1)),
    ((2, 1, 4), (3, 1)),
    ((1, 3, 1, 2), (2, 1, 5, 1)),
    ((4, 1), (1, 6)),
    ((0, 3), (1, 3)),
    ((2, 1), (2, 0)),
    ((1, 300, 301), (300, 301)),
    ((1, 300, 301), (300, 1)),
    ((301,), (250, 301)),
    ((70000,), (1,)),
]
ARITHMETIC = {
    "add": np.add, "sub": np.subtract, "mul": np.multiply, "real_div": np.true_divide, "floor_div": np.floor_divide,
    "mod": np.mod, "pow": np.power, "maximum": np.maximum, "minimum": np.minimum,
}
COMPARISONS = {
    "equal": np.equal, "not_equal": np.not_equal, "less": np.less, "less_equal": np.less_equal, "greater": np.greater,
    "greater_equal": np.greater_equal,
}
LOGICAL = {"logical_and": np.logical_and, "logical_or": np.logical_or, "logical_xor": np.logical_xor}


def values(shape, dtype=np.float32, least=0.5, most=3):
    """Numbers far enough from where functions jump."""
    return np.asarray(RNG.integers(int(least * 16), int(most * 16) + 1, shape) / 16, dtype)


def in_order(function):
    """Functions of numpy and torch that take no names."""
    return lambda **inputs: function(*inputs.values())


def as_int(var):
    return mb.cast(x=var, dtype="int32")


@pytest.mark.parametrize("op", ARITHMETIC)
def test_values_of_all_shapes(op):
    for x_shape, y_shape in SHAPES:
        for dtype in FLOATS:
            inputs = {"x": values(x_shape, dtype), "y": values(y_shape, dtype)}
            check(lambda x, y: getattr(mb, op)(x=x, y=y), inputs, in_order(ARITHMETIC[op]))


@pytest.mark.parametrize("op", COMPARISONS)
def test_comparisons(op):
    for x_shape, y_shape in SHAPES:
        inputs = {"x": values(x_shape, most=1), "y": values(y_shape, most=1)}
        check(lambda x, y: as_int(getattr(mb, op)(x=x, y=y)), inputs, in_order(COMPARISONS[op]))
    ints = {"x": np.array([1, 2, 16777217], np.int32), "y": np.array([1, 3, 16777216], np.int32)}
    check(lambda x, y: as_int(getattr(mb, op)(x=x, y=y)), ints, in_order(COMPARISONS[op]))
    special = np.array([np.nan, np.inf, -np.inf, 0.0, -0.0, 1], np.float32)
    pair = {"x": special.reshape(-1, 1), "y": special}
    check(lambda x, y: as_int(getattr(mb, op)(x=x, y=y)), pair, in_order(COMPARISONS[op]))


@pytest.mark.parametrize("op", LOGICAL)
def test_logical(op):
    inputs = {"x": np.array([[True], [False]]), "y": np.array([True, False, True])}
    check(lambda x, y: as_int(getattr(mb, op)(x=x, y=y)), inputs, in_order(LOGICAL[op]))


@pytest.mark.parametrize("op", ARITHMETIC)
def test_the_same_tensor_twice_and_operands_that_are_needed_later(op):
    x, y = values((3, 4)), values((4,))
    function = ARITHMETIC[op]
    check(lambda x, y: getattr(mb, op)(x=mb.square(x=x), y=y), {"x": x, "y": y}, lambda x, y: function(x * x, y))
    check(lambda x, y: getattr(mb, op)(x=y, y=mb.square(x=x)), {"x": x, "y": y}, lambda x, y: function(y, x * x))

    def used_again(x, y):
        s = mb.square(x=x)
        first = getattr(mb, op)(x=s, y=s)
        return mb.add(x=mb.add(x=getattr(mb, op)(x=s, y=y), y=first), y=s)
    check(used_again, {"x": x, "y": y}, lambda x, y: function(x * x, y) + function(x * x, x * x) + x * x)


def test_numbers_that_are_special():
    special = np.array([0.0, -0.0, 1, -1, 0.3, -2.5, 7, np.inf, -np.inf, np.nan], np.float32)
    pair = {"x": special.reshape(-1, 1), "y": special}
    for op in ("add", "sub", "mul", "real_div", "pow", "mod", "floor_div"):
        check(lambda x, y: getattr(mb, op)(x=x, y=y), pair, lambda x, y: ARITHMETIC[op](np.float32(x), np.float32(y)))
    # as the documentation has it: x > y ? x : y
    check(lambda x, y: mb.maximum(x=x, y=y), pair, lambda x, y: np.where(x > y, x, y))
    check(lambda x, y: mb.minimum(x=x, y=y), pair, lambda x, y: np.where(x > y, y, x))


def test_quotients_that_are_rounded_down():
    x = np.array([1, -1, 7, -7, 0.3, 1e10, 5.5], np.float32)
    y = np.array([0.1, 0.1, 2, 2, -0.1, 3, -2.25], np.float32)
    for op in ("floor_div", "mod"):
        check(lambda x, y: getattr(mb, op)(x=x, y=y), {"x": x, "y": y}, lambda x, y: ARITHMETIC[op](np.float32(x), np.float32(y)))


@pytest.mark.parametrize("exponent", [-2, -1, -0.5, 0, 0.5, 1, 2, 3, 2.5])
def test_powers(exponent):
    x = np.array([0, 0.25, 1, 1.5, 9, np.inf], np.float32)
    check(lambda x: mb.pow(x=x, y=np.float32(exponent)), {"x": x}, lambda x: np.power(x, exponent))
    x = values((50,))
    check_gradients(lambda x: mb.pow(x=x, y=np.float32(exponent)), lambda x: x**exponent, {"x": x})


def test_integers():
    x = np.array([-2147483648, -7, -6, -1, 0, 1, 6, 7, 100000], np.int32).reshape(-1, 1)
    y = np.array([-3, -2, -1, 1, 2, 3, 100000], np.int32)
    with np.errstate(all="ignore"):
        for op in ("add", "sub", "mul", "maximum", "minimum", "mod", "floor_div"):
            wanted = ARITHMETIC[op](x, y)
            check(lambda x, y: getattr(mb, op)(x=x, y=y), {"x": x, "y": y}, lambda x, y: wanted)
        exponents = np.array([0, 1, 2, 5], np.int32)
        check(lambda x, y: mb.pow(x=x, y=y), {"x": x, "y": exponents}, lambda x, y: np.power(x, exponents))
    check(lambda x, y: mb.pow(x=x, y=y), {"x": x, "y": np.array([-1, -2], np.int32)},
          lambda x, y: np.where(x == 1, 1, np.where(x == -1, [-1, 1], 0)))
    check(lambda x, y: mb.real_div(x=x, y=y), {"x": x[1:], "y": y}, lambda x, y: np.trunc(x / y))
    zero = {"x": np.array([-5, 0, 5], np.int32), "y": np.zeros(3, np.int32)}
    for op in ("mod", "floor_div", "real_div"):
        check(lambda x, y: getattr(mb, op)(x=x, y=y), zero, lambda x, y: y)


TORCH = {
    "add": torch.add, "sub": torch.sub, "mul": torch.mul, "real_div": torch.div, "mod": torch.remainder, "pow": torch.pow,
    "maximum": torch.maximum, "minimum": torch.minimum,
}


@pytest.mark.parametrize("op", TORCH)
def test_gradients(op):
    for x_shape, y_shape in SHAPES:
        if 0 in x_shape + y_shape:
            continue
        # odd sixteenths for y, so that neither is a multiple of the other
        inputs = {"x": values(x_shape), "y": values(y_shape) + np.float32(1 / 32)}
        check_gradients(lambda x, y: getattr(mb, op)(x=x, y=y), in_order(TORCH[op]), inputs)


def test_gradients_where_both_are_equal_are_those_of_torch():
    inputs = {"x": np.array([1, 2, 3], np.float32), "y": np.array([1, 1, 4], np.float32)}
    for op in ("maximum", "minimum"):
        check_gradients(lambda x, y: getattr(mb, op)(x=x, y=y), in_order(TORCH[op]), inputs)


def test_gradients_of_powers_at_zero_are_those_of_torch():
    inputs = {"x": np.array([0, 0, 2, 0], np.float32), "y": np.array([0, 2, 0, 1], np.float32)}
    check_gradients(lambda x, y: mb.pow(x=x, y=y), in_order(torch.pow), inputs)


def test_the_gradient_of_a_quotient_that_is_rounded_down_is_zero():
    check_gradients(lambda x, y: mb.add(x=mb.floor_div(x=x, y=y), y=mb.mul(x=x, y=y)),
                    lambda x, y: x * y, {"x": values((5,)), "y": values((5,))})


SELECTED = [
    ((2, 3), (2, 3), (2, 3)),
    ((3,), (2, 3), (2, 3)),
    ((2, 1), (2, 3), (2, 3)),
    ((1,), (2, 3), (3,)),
    ((2, 3), (1,), (1,)),
    ((2, 3), (1, 3), (2, 1)),
    ((2, 3), (2, 1), (3,)),
    ((2, 1), (2, 1), (2, 3)),
    ((1,), (2, 1), (2, 3)),
    ((0,), (2, 0), (1,)),
    ((1, 300, 300), (300, 1), (1, 300, 300)),
]


@pytest.mark.parametrize("dtype", [*FLOATS, np.int32, np.bool_])
def test_select(dtype):
    for cond_shape, a_shape, b_shape in SELECTED:
        if np.broadcast_shapes(a_shape, b_shape) != np.broadcast_shapes(cond_shape, a_shape, b_shape):
            continue  # the peer declares the shape of a and b alone
        inputs = {"cond": RNG.random(cond_shape) < 0.5, "a": np.asarray(RNG.integers(0, 9, a_shape), dtype),
                  "b": np.asarray(RNG.integers(0, 9, b_shape), dtype)}
        outcome = as_int if dtype == np.bool_ else (lambda x: x)
        check(lambda cond, a, b: outcome(mb.select(cond=cond, a=a, b=b)), inputs, in_order(np.where))


def test_gradients_of_select():
    for cond_shape, a_shape, b_shape in SELECTED:
        wide = np.broadcast_shapes(cond_shape, a_shape, b_shape)
        if np.broadcast_shapes(a_shape, b_shape) != wide or 0 in wide:
            continue
        inputs = {"cond": RNG.random(cond_shape) < 0.5, "a": values(a_shape), "b": values(b_shape)}
        check_gradients(lambda cond, a, b: mb.select(cond=cond, a=a, b=b), in_order(torch.where), inputs)


def test_shapes_that_cannot_be_broadcast_are_named():
    """Only a shape that is not known before can be wrong."""
    symbols = [get_new_symbol(), get_new_symbol()]
    specs = [mb.TensorSpec((symbol, 3), dtype=types.fp32) for symbol in symbols]

    @mb.program(input_specs=specs, opset_version=TARGETS["iOS18"])
    def program(x, y):
        return mb.add(x=x, y=y)
    flexible = [ct.TensorType(name=name, shape=(ct.RangeDim(1, 9), 3)) for name in "xy"]
    session = Session(convert(program, "iOS18", inputs=flexible))
    with pytest.raises(ValueError, match=r"shapes \[2, 3\] and \[4, 3\] cannot be broadcast together"):
        session.predict({"x": np.zeros((2, 3), np.float32), "y": np.zeros((4, 3), np.float32)})


def test_a_result_that_is_too_large_is_refused():
    inputs = {"x": np.zeros((100000, 1), np.float32), "y": np.zeros((1, 100000), np.float32)}
    with pytest.raises(ValueError, match="memory"):
        run(lambda x, y: mb.add(x=x, y=y), inputs, max_memory=1 << 30)
