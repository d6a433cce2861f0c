"""Norms: values and gradients against torch, in fp32 and fp16."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from coremltools.converters.mil import Builder as mb

from mil import assert_close, check_cases, model
from palettizer.runtime import Session

RNG = np.random.default_rng(6)
FLOATS = [np.float32, np.float16]


def values(*shape, dtype=np.float32, offset=0.5):
    return (RNG.normal(size=shape) + offset).astype(dtype)


def with_constants(build, function, x, constants, differentiable=True):
    """Values, and gradients of x and of constants, of `build(x, **constants)` against `function(x, **constants)` of torch."""
    session = Session(model(lambda x: build(x, **{name: mb.const(val=value, name=name) for name, value in constants.items()}), {"x": x}))
    (name, found), = session.predict({"x": x}).items()
    wide = {key: torch.tensor(np.float64(value), requires_grad=True) for key, value in {"x": x, **constants}.items()}
    wanted = function(**wide)
    assert_close(found, wanted.detach().numpy())
    if not differentiable:
        return
    slope = RNG.normal(size=found.shape).astype(np.float32)
    ours = session.grad({"x": x}, {name: slope}, ["x", *constants]).gradients
    wanted.backward(torch.tensor(np.float64(slope)))
    for key, gradient in ours.items():
        target = wide[key].grad.numpy()
        np.testing.assert_allclose(gradient, target, rtol=1e-4, atol=1e-4 * np.abs(target).max() + 1e-6, err_msg=key)


@pytest.mark.parametrize("affine", [True, False])
@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("shape", [(2, 3, 7), (2, 5, 4, 6), (1, 1, 1, 1), (2, 3, 2, 4, 3), (1, 40, 30, 33)])
def test_batch_norm(shape, dtype, affine):
    channels = shape[1]
    constants = {"mean": values(channels, dtype=dtype), "variance": (RNG.random(channels) + 0.3).astype(dtype)}
    if affine:
        constants |= {"gamma": values(channels, dtype=dtype), "beta": values(channels, dtype=dtype)}
    epsilon = dtype(0.0078125)

    def function(x, mean, variance, gamma=None, beta=None):
        # torch's own has no gradients of the moments
        mean, deviation = (one.reshape(-1, *[1] * (len(shape) - 2)) for one in (mean, (variance + float(epsilon)).sqrt()))
        normal = (x - mean) / deviation
        return normal * gamma.reshape(mean.shape) + beta.reshape(mean.shape) if affine else normal
    with_constants(
        lambda x, **given: mb.batch_norm(x=x, epsilon=epsilon, **given), function,
        values(*shape, dtype=dtype), constants, dtype == np.float32 and affine)


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("shape", [(2, 3, 7), (2, 5, 4, 6), (1, 40, 30, 33)])
def test_instance_norm(shape, dtype):
    constants = {"gamma": values(shape[1], dtype=dtype), "beta": values(shape[1], dtype=dtype)}
    epsilon = dtype(0.0078125)
    with_constants(
        lambda x, **given: mb.instance_norm(x=x, epsilon=epsilon, **given),
        lambda x, gamma, beta: F.instance_norm(x, weight=gamma, bias=beta, eps=float(epsilon)),
        values(*shape, dtype=dtype), constants, dtype == np.float32)


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize(("shape", "axes"), [((3, 7), [-1]), ((2, 3, 4), [1, 2]), ((2, 3, 4), [2]), ((2, 3, 4), [1]), ((2, 3, 4, 5), [1, 3]),
                                             ((200, 400), [1]), ((5,), [0])])
def test_layer_norm(shape, axes, dtype):
    inner = [shape[axis] for axis in sorted(axis % len(shape) for axis in axes)]
    constants = {"gamma": values(*inner, dtype=dtype), "beta": values(*inner, dtype=dtype)}
    epsilon = dtype(0.0078125)

    def reference(x, gamma, beta):
        at = [axis % len(shape) for axis in axes]
        wide = [dim if axis in at else 1 for axis, dim in enumerate(shape)]
        centred = x - x.mean(at, keepdim=True)
        return centred / (centred.square().mean(at, keepdim=True) + float(epsilon)).sqrt() * gamma.reshape(wide) + beta.reshape(wide)
    with_constants(lambda x, **given: mb.layer_norm(x=x, axes=axes, epsilon=epsilon, **given), reference,
                   values(*shape, dtype=dtype), constants, dtype == np.float32)


def test_norms_without_parameters():
    def l2(x, epsilon):
        return x / (x.square().sum((-3, -2, -1), keepdim=True) + epsilon).sqrt()

    def response(x, size, alpha, beta, k):
        before, squares = size // 2, F.pad(x.square().movedim(1, -1), (size // 2, size - size // 2 - 1))
        sums = squares.unfold(-1, size, 1).sum(-1).movedim(-1, 1)
        assert before >= 0
        return x / (k + alpha / size * sums) ** beta
    cases = [
        (lambda x: mb.layer_norm(x=x, axes=[-1]), {"x": values(4, 9)}, lambda x: F.layer_norm(x, (9,))),
        (lambda x: mb.instance_norm(x=x), {"x": values(2, 3, 5, 4)}, lambda x: F.instance_norm(x)),
        (lambda x: mb.l2_norm(x=x), {"x": values(2, 3, 4, 5)}, lambda x: l2(x, 1e-6)),
        (lambda x: mb.l2_norm(x=x, epsilon=0.5), {"x": values(3, 4, 5)}, lambda x: l2(x, 0.5)),
    ]
    for size, alpha, beta, k in ((1, 1e-4, 0.75, 1.0), (3, 0.5, 0.75, 2.0), (5, 1.0, 1.5, 0.5), (9, 0.25, 0.5, 1.0), (4, 0.5, 1.0, 1.0)):
        cases.append((
            lambda x, s=size, a=alpha, b=beta, k=k: mb.local_response_norm(x=x, size=s, alpha=a, beta=b, k=k), {"x": values(2, 7, 3, 2)},
            lambda x, s=size, a=alpha, b=beta, k=k: response(x, s, a, b, k)))
    check_cases(cases, differentiable=True)
