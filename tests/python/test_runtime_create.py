"""Tensors from a few numbers, where a tensor is not zero, and sorting."""

import numpy as np
import pytest
import torch
from coremltools.converters.mil import Builder as mb

import mil
from test_runtime_shape import values


def test_fill():
    cases = []
    for value in (np.float32(2.5), np.float16(-1.5), np.int32(16777217), np.int32(-3)):
        cases.append((lambda shape, value=value: mb.fill(shape=shape, value=value), {"shape": np.array([2, 3], np.int32)},
                      lambda shape, value=value: torch.tensor(np.full(tuple(shape), value))))
        cases.append((lambda x, value=value: mb.fill_like(ref_tensor=x, value=value), {"x": values((2, 2))},
                      lambda x, value=value: torch.tensor(np.full(x.shape, value))))
    cases.append((lambda shape: mb.cast(x=mb.fill(shape=shape, value=True), dtype="int32"),
                  {"shape": np.array([3], np.int32)}, lambda shape: torch.ones(3, dtype=torch.int32)))
    cases.append((lambda shape: mb.fill(shape=shape), {"shape": np.array([1, 2], np.int32)}, lambda shape: torch.zeros(1, 2)))
    mil.check_cases(cases)


@pytest.mark.parametrize(("start", "end", "step"), [
    (0, 7, 1), (3, 10, 3), (10, 0, -3), (5, 5, 1), (5, 2, 1), (0.5, 3, 0.25), (1, -1, -0.3), (0, 1, 0.1),
])
def test_range(start, end, step):
    dtype = np.int32 if isinstance(step, int) else np.float32
    given = {name: np.array([value], dtype) for name, value in zip(("start", "end", "step"), (start, end, step))}

    def build(start, end, step):
        return mb.range_1d(**{name: mb.squeeze(x=var) for name, var in (("start", start), ("end", end), ("step", step))})
    if (end - start) / step > 0:  # a model has no outputs without elements
        mil.check(build, given, lambda start, end, step: np.arange(start[0], end[0], step[0]))
    else:
        mil.check(lambda start, end, step: mb.shape(x=build(start, end, step)), given,
                  lambda start, end, step: np.array([0]))


def test_gradient_of_a_range():
    given = {"start": np.array([0.5], np.float32), "step": np.array([0.25], np.float32)}
    mil.check_gradients(lambda start, step: mb.range_1d(start=mb.squeeze(x=start), end=np.float32(3), step=mb.squeeze(x=step)),
                        lambda start, step: start + step * torch.arange(10), given)


def test_range_without_an_end():
    given = {name: np.array([value], np.float32) for name, value in (("end", 3), ("step", 0))}
    build = lambda end, step: mb.range_1d(start=np.float32(0), end=mb.squeeze(x=end), step=mb.squeeze(x=step))  # noqa: E731
    with pytest.raises(ValueError, match="no range"):
        mil.run(build, given)
    given = {name: np.array([value], np.float32) for name, value in (("end", 3e30), ("step", 1))}
    with pytest.raises(ValueError, match="memory|bytes"):
        mil.run(build, given)


def test_one_hot():
    indices = np.array([[0, 2], [-1, 3], [4, 1]], np.int32)

    def case(axis, size, on=1, off=0):
        def expected(indices):
            at = axis % 3
            hot = indices.unsqueeze(at) == torch.arange(size).reshape([size if dim == at else 1 for dim in range(3)])
            return torch.where(hot, torch.tensor(on), torch.tensor(off))
        return (lambda indices: mb.one_hot(indices=indices, one_hot_vector_size=size, axis=axis, on_value=on, off_value=off),
                {"indices": indices}, expected)
    mil.check_cases([case(-1, 4), case(0, 4), case(1, 3), case(-2, 5, np.float32(2.5), np.float32(-1)),
                     case(2, 4, np.float16(0.5), np.float16(3)), case(-1, 4, np.int32(7), np.int32(-7))])


def test_non_zero():
    for x in (np.array([[3, 0, np.nan], [-0.0, 4, 0], [5, 0, np.inf]], np.float32), np.array([0, 7, 0, -1], np.int32),
              values((2, 3, 2), np.bool_)):
        mil.check(lambda x: mb.non_zero(x=x), {"x": x}, lambda x: np.argwhere(x))


def orders(shape, axis, dtype):
    rng = np.random.default_rng(7)
    return rng.integers(-4, 5, shape).astype(dtype), axis


@pytest.mark.parametrize("dtype", [np.float32, np.float16, np.int32])
def test_argsort(dtype):
    def case(shape, axis, ascending):
        x, axis = orders(shape, axis, dtype)  # with many equal elements, whose order stays

        def expected(x):
            return torch.sort(x if ascending else -x, dim=axis, stable=True).indices.int()
        return lambda x: mb.argsort(x=x, axis=axis, ascending=ascending), {"x": x}, expected
    mil.check_cases([case(shape, axis, ascending) for ascending in (True, False)
                     for shape, axis in [((9,), 0), ((40,), -1), ((4, 7), 0), ((4, 7), 1), ((2, 11, 3), 1), ((2, 3, 4), -1)]])


def test_order_of_special_numbers():
    x = np.array([np.nan, 0.0, -np.inf, -0.0, np.inf, -1.0, np.nan, 1e-45], np.float32)
    mil.check(lambda x: mb.argsort(x=x, ascending=True), {"x": x}, lambda x: np.array([2, 5, 1, 3, 7, 4, 0, 6]))
    mil.check(lambda x: mb.argsort(x=x), {"x": x}, lambda x: np.array([4, 7, 1, 3, 5, 2, 0, 6]))
    x = np.array([-(2**31), 2**31 - 1, 0], np.int32)
    mil.check(lambda x: mb.argsort(x=x), {"x": x}, lambda x: np.array([1, 2, 0]))


@pytest.mark.parametrize("dtype", [np.float32, np.float16, np.int32])
def test_topk(dtype):
    def case(shape, axis, k, ascending, **given):
        rng = np.random.default_rng(8)
        x = rng.permutation(int(np.prod(shape))).reshape(shape).astype(dtype)

        def expected(x):
            found = torch.sort(x, axis, descending=not ascending)
            count = x.shape[axis] if k == -1 else k
            found = [part.narrow(axis, 0, count) for part in found]
            return found[0] if given.get("return_indices") is False else (found[0], found[1].int())
        return lambda x: mb.topk(x=x, k=k, axis=axis, ascending=ascending, **given), {"x": x}, expected
    mil.check_cases([
        case((9,), 0, 3, False), case((9,), 0, 3, True), case((4, 7), 0, 2, False), case((4, 7), -1, 7, True),
        case((2, 11, 3), 1, 4, False, sort=False), case((2, 5), 1, 2, False, return_indices=False), case((2, 3), 0, 1, True),
    ], differentiable=dtype == np.float32)


def test_topk_since_ios17():
    x = values((3, 5))
    mil.check(lambda x: mb.topk(x=x, k=np.int8(3), output_indices_dtype="int32"), {"x": x},
              lambda x: (-np.sort(-x)[:, :3], np.argsort(-x)[:, :3]))
    found = mil.run(lambda x: mb.cast(x=mb.topk(x=x, k=2, output_indices_dtype="uint16")[1], dtype="int32"), {"x": x})[0]
    np.testing.assert_array_equal(found, np.argsort(-x)[:, :2])


def test_sort_in_threads():
    x = values((40, 70, 30))
    for axis in (0, 1, 2):
        mil.check(lambda x, axis=axis: mb.argsort(x=x, axis=axis, ascending=True), {"x": x},
                  lambda x, axis=axis: np.argsort(x, axis, kind="stable"))
