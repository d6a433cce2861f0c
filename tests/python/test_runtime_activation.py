"""Activation functions: values against torch or the documentation's formula in float64, gradients against torch."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from coremltools.converters.mil import Builder as mb

from mil import check, check_gradients, gradients

RNG = np.random.default_rng(3)
FLOATS = [np.float16, np.float32]


def values(shape, dtype=np.float32, scale=3):
    return np.asarray(RNG.normal(size=shape) * scale, dtype)


def at(array, per_channel):
    """A parameter of channels as it is broadcast to x."""
    return np.reshape(array, (1, -1) + (1,) * (per_channel - 2))


# the operation with its parameters, and the same of torch
PLAIN = {
    "relu": (lambda x: mb.relu(x=x), F.relu),
    "relu6": (lambda x: mb.relu6(x=x), F.relu6),
    "sigmoid": (lambda x: mb.sigmoid(x=x), torch.sigmoid),
    "silu": (lambda x: mb.silu(x=x), F.silu),
    "softplus": (lambda x: mb.softplus(x=x), F.softplus),
    "softsign": (lambda x: mb.softsign(x=x), F.softsign),
    "gelu": (lambda x: mb.gelu(x=x), F.gelu),
    "gelu exact": (lambda x: mb.gelu(x=x, mode="EXACT"), F.gelu),
    "gelu tanh": (lambda x: mb.gelu(x=x, mode="TANH_APPROXIMATION"), lambda x: F.gelu(x, approximate="tanh")),
    "gelu sigmoid": (lambda x: mb.gelu(x=x, mode="SIGMOID_APPROXIMATION"), lambda x: x * torch.sigmoid(1.702 * x)),
    "softmax": (lambda x: mb.softmax(x=x), lambda x: torch.softmax(x, -1)),
}
ALPHA, BETA = 0.3125, 1.25
WITH_ALPHA = {
    "elu": lambda x, a: torch.where(x > 0, x, a * torch.expm1(x)),
    "leaky_relu": lambda x, a: torch.where(x > 0, x, a * x),
    "thresholded_relu": lambda x, a: torch.where(x < a, 0, x),
}
WITH_BOTH = {
    "clamped_relu": lambda x, a, b: torch.minimum(torch.where(x > 0, x, a * x), b),
    "linear_activation": lambda x, a, b: a * x + b,
    "scaled_tanh": lambda x, a, b: a * torch.tanh(b * x),
    "sigmoid_hard": lambda x, a, b: torch.clamp(a * x + b, 0, 1),
}


def in_torch(function):
    return lambda x: function(torch.tensor(x)).numpy()


@pytest.mark.parametrize("name", PLAIN)
def test_values(name):
    build, function = PLAIN[name]
    for shape in [(1,), (2, 0), (2, 3, 4), (5, 333), (1, 70001)]:
        for dtype in FLOATS:
            check(build, {"x": values(shape, dtype)}, in_torch(function))


@pytest.mark.parametrize("name", [name for name in PLAIN if name != "softmax"])
def test_numbers_that_are_special(name):
    build, function = PLAIN[name]
    x = np.array([0.0, -0.0, np.nan, 1e-30, -1e-30, 20, -20, 100, -100, 3e4], np.float32)
    check(build, {"x": x}, in_torch(function))


def test_small_values_keep_their_digits():
    x = np.array([-4, -5, -6, -9, -12], np.float32)
    for name in ("sigmoid", "silu", "softplus", "gelu", "gelu tanh"):
        build, function = PLAIN[name]
        # further out the reference itself has lost its digits
        for one in {"gelu": x[:3], "gelu tanh": x[:2]}.get(name, x):
            found = check(build, {"x": one.reshape(1)}, in_torch(function))
            np.testing.assert_allclose(found[0], function(torch.tensor([float(one)], dtype=torch.float64)), rtol=2e-5)


@pytest.mark.parametrize("name", PLAIN)
def test_gradients(name):
    build, function = PLAIN[name]
    check_gradients(build, lambda x: function(x), {"x": values((4, 60))})


@pytest.mark.parametrize("op", [*WITH_ALPHA, *WITH_BOTH])
def test_values_with_parameters(op):
    both = op in WITH_BOTH
    function = WITH_BOTH.get(op) or WITH_ALPHA[op]
    for alpha, beta in [(ALPHA, BETA), (0.125, 0.5), (1.5, 0.25), (0.0, 6.0), (-0.5, 2.0)]:
        for dtype in FLOATS:
            given = {"alpha": dtype(alpha), "beta": dtype(beta)} if both else {"alpha": dtype(alpha)}
            numbers = [torch.tensor(value, dtype=torch.float64) for value in ((alpha, beta) if both else (alpha,))]
            for shape in [(1,), (3, 0), (4, 500)]:
                check(lambda x: getattr(mb, op)(x=x, **given), {"x": values(shape, dtype)},
                      lambda x: function(torch.tensor(x), *numbers).numpy())


@pytest.mark.parametrize("op", [*WITH_ALPHA, *WITH_BOTH])
def test_gradients_with_respect_to_parameters(op):
    both = op in WITH_BOTH
    function = WITH_BOTH.get(op) or WITH_ALPHA[op]
    names = ["alpha", "beta"] if both else ["alpha"]
    x = values((300,))

    def build(x):
        given = {name: mb.const(val=np.float32({"alpha": ALPHA, "beta": BETA}[name]), name=name) for name in names}
        return getattr(mb, op)(x=x, **given)
    # a threshold has no gradient
    sought = ["x"] if op == "thresholded_relu" else ["x", *names]
    against_torch(build, function, x, [ALPHA, BETA][:len(names)], sought)


def against_torch(build, function, x, parameters, sought):
    found = gradients(build, {"x": x}, sought)
    given = [torch.tensor(np.float64(value), requires_grad=True) for value in (x, *parameters)]
    output = function(*given)
    factors = torch.tensor(np.random.default_rng([0, 0]).normal(size=x.shape).astype(np.float32), dtype=torch.float64)
    wanted = torch.autograd.grad((output * factors).sum(), given[:len(sought)])
    for name, one in zip(sought, wanted):
        one = one.numpy()
        np.testing.assert_allclose(found[name], one, atol=1e-5 * np.abs(one).max(), rtol=1e-5)


def test_clamped_relu_below_zero_is_the_documented_one():
    """The peer cuts both branches before it adds them."""
    x = np.array([-4, -1, 0, 2], np.float32)
    check(lambda x: mb.clamped_relu(x=x, alpha=0.5, beta=-1.0), {"x": x},
          lambda x: np.minimum(-1, np.where(x >= 0, x, 0.5 * x)))


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("shape", [(2, 3, 4), (2, 3, 4, 5), (1, 3, 2, 3, 2), (2, 3, 0)])
def test_functions_with_parameters_of_channels(shape, dtype):
    x = values(shape, dtype)
    # the peer wants the same slope for all channels but at rank 4
    alpha = np.asarray([0.5, -0.25, 2] if len(shape) == 4 else [0.5] * 3, dtype)
    beta = np.asarray([1, 2, -0.5], dtype)
    rank = len(shape)
    check(lambda x: mb.prelu(x=x, alpha=alpha), {"x": x}, lambda x: np.where(x > 0, x, x * at(alpha.astype(float), rank)))
    check(lambda x: mb.softplus_parametric(x=x, alpha=alpha, beta=beta), {"x": x},
          lambda x: at(alpha.astype(float), rank) * np.logaddexp(0, x * at(beta.astype(float), rank)))


def test_gradients_with_respect_to_parameters_of_channels():
    x = values((2, 3, 4, 5))
    alpha, beta = np.array([0.5, -0.25, 2], np.float32), np.array([1, 2, -0.5], np.float32)

    def const(name, value):
        return mb.const(val=value, name=name)
    against_torch(lambda x: mb.prelu(x=x, alpha=const("alpha", alpha)), F.prelu, x, [alpha], ["x", "alpha"])
    against_torch(lambda x: mb.softplus_parametric(x=x, alpha=const("alpha", alpha), beta=const("beta", beta)),
                  lambda x, a, b: a.reshape(1, 3, 1, 1) * F.softplus(b.reshape(1, 3, 1, 1) * x),
                  x, [alpha, beta], ["x", "alpha", "beta"])


AXES = [((7,), 0), ((3, 5), 1), ((3, 5), 0), ((3, 5), -2), ((2, 3, 4, 5), 1), ((2, 3, 4, 5), -2), ((2, 0, 3), 1),
        ((2, 3, 0), 1), ((1, 40000), -1), ((400, 300), 0), ((3, 1, 2), 1)]


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("shape, axis", AXES)
def test_softmax(shape, axis, dtype):
    check(lambda x: mb.softmax(x=x, axis=axis), {"x": values(shape, dtype, 5)},
          lambda x: torch.softmax(torch.tensor(x), axis).numpy())


@pytest.mark.parametrize("shape, axis", [(shape, axis) for shape, axis in AXES if 0 not in shape])
def test_gradients_of_softmax(shape, axis):
    check_gradients(lambda x: mb.softmax(x=x, axis=axis), lambda x: torch.softmax(x, axis), {"x": values(shape, scale=2)})


def test_softmax_of_numbers_that_are_special():
    inf, nan = np.inf, np.nan
    x = np.array([[-inf, 0, 0], [-inf, -inf, -inf], [inf, 0, 0], [nan, 0, 0], [1e30, -1e30, 1e30]], np.float32)
    wanted = torch.softmax(torch.tensor(x), -1).numpy()
    check(lambda x: mb.softmax(x=x, axis=-1), {"x": x}, lambda x: wanted)
    check(lambda x: mb.softmax(x=x, axis=0), {"x": x.T.copy()}, lambda x: wanted.T)
