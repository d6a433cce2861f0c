"""Quantized activations against the peer's own values, and random numbers against their distributions."""

import numpy as np
import pytest
import torch
from coremltools.converters.mil import Builder as mb

from mil import check, check_gradients, model, run
from palettizer.runtime import Session

RNG = np.random.default_rng(8)


@pytest.mark.parametrize("dtype", [np.float32, np.float16])
@pytest.mark.parametrize(("integer", "zero_points"), [("int8", [-3, 0, 7]), ("uint8", [128, 0, 255]), ("int8", None)])
@pytest.mark.parametrize("axis", [None, 1])
def test_quantize_and_back(integer, zero_points, axis, dtype):
    x = (RNG.normal(size=(2, 3, 4)) * 20).astype(dtype)
    scale = np.array([0.25, 0.5, 1.0], dtype) if axis is not None else dtype(0.5)
    more = {} if axis is None else {"axis": axis}
    if zero_points is not None:
        points = np.array(zero_points).astype(integer)
        more["zero_point"] = points if axis is not None else points[0]

    def levels(x):
        wide = scale.reshape(1, 3, 1) if axis is not None else scale
        offset = more.get("zero_point", np.int8(0)).astype(np.float64)
        offset = offset.reshape(1, 3, 1) if axis is not None and zero_points is not None else offset
        bounds = np.iinfo(integer)
        return np.clip(np.round(x / wide) + offset, bounds.min, bounds.max), wide, offset

    def back(x):
        found, wide, offset = levels(x)
        return (found - offset) * wide
    check(lambda x: mb.dequantize(input=mb.quantize(input=x, scale=scale, output_dtype=integer, **more), scale=scale, **more), {"x": x}, back)
    check(lambda x: mb.cast(x=mb.quantize(input=x, scale=scale, output_dtype=integer, **more), dtype="int32"), {"x": x}, lambda x: levels(x)[0])


@pytest.mark.parametrize("axis", [None, 1])
def test_gradients_go_straight_through_what_is_not_clipped(axis):
    x = (RNG.normal(size=(2, 3, 4)) * 40).astype(np.float32)
    scale = np.array([0.25, 0.5, 1.0], np.float32) if axis is not None else np.float32(0.5)
    points = np.array([-3, 0, 7], np.int8) if axis is not None else np.int8(5)
    more = {"scale": scale, "zero_point": points, **({} if axis is None else {"axis": axis})}

    def straight(x):
        if axis is None:
            return torch.fake_quantize_per_tensor_affine(x, float(scale), int(points), -128, 127)
        return torch.fake_quantize_per_channel_affine(x, torch.tensor(scale), torch.tensor(points.astype(np.int32)), axis, -128, 127)
    gradient = check_gradients(lambda x: mb.dequantize(input=mb.quantize(input=x, output_dtype="int8", **more), **more),
                               straight, {"x": x})["x"]
    assert (gradient == 0).any() and (gradient != 0).any()


def draws(build):
    """What an operation draws, twice by one session and once by another: always the same."""
    def with_input(x):
        return [mb.identity(x=x), build()]
    x = np.zeros(1, np.float32)
    mlmodel = model(with_input, {"x": x})
    session = Session(mlmodel)
    found = [list(one.predict({"x": x}).values())[1] for one in (session, session, Session(mlmodel))]
    assert all(np.array_equal(found[0], other) for other in found[1:])
    return found[0].astype(np.float64)


def test_random_numbers_have_their_distributions():
    normal = draws(lambda: mb.random_normal(shape=[100, 200], mean=3.0, stddev=2.0, seed=5))
    assert normal.shape == (100, 200) and abs(normal.mean() - 3) < 0.06 and abs(normal.std() - 2) < 0.05
    assert abs(((normal - 3) / 2 > 1).mean() - 0.1587) < 0.01
    uniform = draws(lambda: mb.random_uniform(shape=[20000], low=-1.0, high=3.0))
    assert uniform.min() >= -1 and uniform.max() < 3 and np.abs(np.histogram(uniform, 4, (-1, 3))[0] / 5000 - 1).max() < 0.06
    coins = draws(lambda: mb.random_bernoulli(shape=[20000], prob=0.25, seed=1))
    assert set(coins) == {0, 1} and abs(coins.mean() - 0.25) < 0.015


@pytest.mark.parametrize("mode", ["logits", "probs"])
def test_categories_come_as_often_as_they_should(mode):
    shares = np.array([[0.5, 0.25, 0.25, 0], [0, 0, 0, 1]], np.float32)
    x = shares if mode == "probs" else np.log(np.maximum(shares, 1e-30)).astype(np.float32)
    found, = run(lambda x: mb.random_categorical(x=x, mode=mode, size=8000, seed=3), {"x": x})
    assert found.shape == (2, 8000)
    for row, share in zip(found, shares):
        counts = np.bincount(row.astype(int), minlength=4) / 8000
        np.testing.assert_allclose(counts, share, atol=0.02)


def test_operations_and_seeds_differ():
    def build(x):
        return [mb.random_normal(shape=[8], mean=0.0, stddev=1.0, seed=seed, name=name) for seed, name in ((-1, "a"), (-1, "b"), (1, "c"), (2, "d"), (1, "e"))]
    a, b, c, d, e = run(build, {"x": np.zeros(1, np.float32)})
    assert not np.array_equal(a, b) and not np.array_equal(c, d) and not np.array_equal(a, c)
    np.testing.assert_array_equal(c, e)
