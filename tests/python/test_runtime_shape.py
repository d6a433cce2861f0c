"""The same elements in another shape or order."""

import numpy as np
import pytest
import torch
from coremltools.converters.mil import Builder as mb

import mil

KINDS = [np.float32, np.float16, np.int32, np.bool_]


def values(shape, dtype=np.float32, seed=0):
    rng = np.random.default_rng(seed)
    if dtype == np.bool_:
        return rng.random(shape) < 0.5
    if np.dtype(dtype).kind == "i":
        return rng.integers(-(2**31), 2**31, shape).astype(dtype)
    return rng.standard_normal(shape).astype(dtype)


def check_kinds(cases, target="iOS18"):
    """Cases of one input, a shape, checked for elements of every kind, and their gradients for floats."""
    for dtype in KINDS:
        def visible(build, dtype=dtype):
            # a model has no outputs of booleans
            return (lambda x: mb.cast(x=build(x), dtype="int32")) if dtype == np.bool_ else build
        given = [(visible(build), {"x": values(shape, dtype, at)}, function)
                 for at, (build, shape, function) in enumerate(cases)]
        mil.check_cases(given, target, differentiable=dtype == np.float32)


PERMUTATIONS = [
    ((5,), [0]),
    ((2, 3), [1, 0]),
    ((2, 3, 4), [2, 0, -2]),
    ((1, 7, 1, 5), [3, 1, 0, 2]),
    ((2, 3, 4, 5), [0, 2, 1, 3]),  # rows stay whole
    ((2, 3, 4, 5), [0, 3, 1, 2]),
    ((3, 19, 21), [0, 2, 1]),  # blocks and what is left of them
    ((2, 17, 3, 33), [3, 2, 0, 1]),
    ((16, 16), [1, 0]),
    ((4, 3, 2, 2, 3), [4, 2, 0, 3, 1]),
]


def transposed(shape, perm):
    return (lambda x: mb.transpose(x=x, perm=perm), shape, lambda x: x.permute(*perm))


def test_transpose():
    check_kinds([transposed(shape, perm) for shape, perm in PERMUTATIONS])


def test_transpose_in_threads():
    cases = [transposed(shape, perm) for shape, perm in [
        ((300, 500), [1, 0]),
        ((1, 3, 224, 224), [0, 2, 3, 1]),
        ((1, 224, 224, 3), [0, 3, 1, 2]),
        ((2, 128, 12, 64), [0, 2, 1, 3]),
        ((100, 40, 40), [0, 2, 1]),
        ((40, 30, 3, 40), [3, 2, 1, 0]),
    ]]
    cases = [(build, {"x": values(shape)}, function) for build, shape, function in cases]
    mil.check_cases(cases, differentiable=True)
    build, inputs, _ = mil.together(cases)
    for one, other in zip(mil.run(build, inputs, threads=1), mil.run(build, inputs, threads=3)):
        np.testing.assert_array_equal(one, other)


def reshaped(build, shape, found):
    return (build, shape, lambda x: x.reshape(found))


def test_other_shapes():
    shape = (2, 1, 3, 1)
    check_kinds([
        reshaped(lambda x: mb.reshape(x=x, shape=[3, 2]), shape, (3, 2)),
        reshaped(lambda x: mb.expand_dims(x=x, axes=[-1]), shape, (2, 1, 3, 1, 1)),
        reshaped(lambda x: mb.expand_dims(x=x, axes=[0, -1, 2]), (2, 3), (1, 2, 1, 3, 1)),
        reshaped(lambda x: mb.squeeze(x=x), shape, (2, 3)),
        reshaped(lambda x: mb.squeeze(x=x, axes=[-1]), shape, (2, 1, 3)),
        reshaped(lambda x: mb.squeeze(x=x, axes=[0, 1]), shape, (2, 3, 1)),  # what is not 1 stays
        reshaped(lambda x: mb.expand_dims(x=mb.squeeze(x=x), axes=[0]), (1, 1), (1,)),
        reshaped(lambda x: mb.flatten2d(x=x), shape, (2, 3)),
        reshaped(lambda x: mb.flatten2d(x=x, axis=-2), shape, (2, 3)),
        reshaped(lambda x: mb.flatten2d(x=x, axis=0), shape, (1, 6)),
        reshaped(lambda x: mb.flatten2d(x=x, axis=4), shape, (6, 1)),
    ])


@pytest.mark.parametrize(("target", "cases"), [
    ("iOS15", [((2, 3, 4), [6, 4], (6, 4)), ((2, 3, 4), [0, -1, 2], (2, 6, 2)), ((2, 3, 4), [-1], (24,)),
               ((24,), [2, 3, -1, 1], (2, 3, 4, 1)), ((2, 3, 4), [2, 0, -1], (2, 3, 4))]),
    ("iOS17", [((2, 50), [1, 0, -1, 0], (1, 1, 2, 50)), ((2, 3, 4), [-1, 0], (6, 4)), ((1, 1), [1], (1,)),
               ((2, 3, 4), [0, 0, 0], (2, 3, 4))]),
])
def test_reshape(target, cases):
    given = [reshaped(lambda x, wanted=wanted: mb.reshape(x=x, shape=wanted), shape, found)
             for shape, wanted, found in cases]
    given = [(build, {"x": values(shape)}, function) for build, shape, function in given]
    mil.check_cases(given, target, differentiable=True)


def test_reshape_while_it_runs():
    def case(shape, wanted, found):
        return (lambda x, shape: mb.reshape(x=x, shape=shape), {"x": values(shape), "shape": np.array(wanted, np.int32)},
                lambda x, shape: x.reshape(found))
    mil.check_cases([case((2, 3, 4), [6, 4], (6, 4)), case((2, 3, 4), [-1, 0], (6, 4)), case((6,), [1, 2, -1], (1, 2, 3))])
    like = {"x": values((6, 10)), "one": values((2, 3, 4)), "other": values((1, 5, 2))}
    mil.check_cases([(lambda x, one, other: mb.reshape_like(
        x=x, ref_tensors=(one, other), begins=(0, 1), ends=(-1, 0), end_masks=(False, True)),
        like, lambda x, one, other: x.reshape(2, 3, 5, 2) + 0 * (one.sum() + other.sum()))], differentiable=True)


def test_shape():
    mil.check_cases([(lambda x: mb.shape(x=x), {"x": values((2, 1, 3), dtype)}, lambda x: torch.tensor(x.shape))
                     for dtype in KINDS])


def test_reverse():
    def case(axes):
        given = {} if axes is None else {"axes": axes}
        return (lambda x: mb.reverse(x=x, **given), (2, 3, 4, 5), lambda x: x.flip(axes or [0, 1, 2, 3]))
    check_kinds([case(axes) for axes in [None, [0], [-1], [0, 2], [1, 2, 3, 0]]])


def test_reverse_sequence():
    def case(shape, sequence, batch):
        lengths = [0, 1, shape[sequence], 2][: shape[batch]]

        def expected(x):
            rows = []
            for row, length in zip(x.movedim((batch, sequence), (0, 1)), lengths):
                rows.append(torch.cat([row[:length].flip(0), row[length:]]))
            return torch.stack(rows).movedim((0, 1), (batch, sequence))
        return (lambda x: mb.reverse_sequence(x=x, lengths=lengths, seq_axis=sequence, batch_axis=batch), shape, expected)
    check_kinds([case(*given) for given in [
        ((4, 3), 1, 0), ((3, 4), 0, 1), ((2, 4, 5, 3), -1, 1), ((5, 4), 0, 1), ((4, 2, 6), 2, 0),
    ]])


@pytest.mark.parametrize(("build", "message"), [
    (lambda x, n: mb.reshape(x=x, shape=n), "x has the shape"),
    (lambda x, n: mb.reverse_sequence(x=x, lengths=n, seq_axis=1, batch_axis=0), "positions"),
    (lambda x, n: mb.reverse_sequence(x=x, lengths=n), "two axes"),
])
def test_what_cannot_be(build, message):
    with pytest.raises(ValueError, match=message):
        mil.run(build, {"x": values((2, 3)), "n": np.array([7, -1], np.int32)})
