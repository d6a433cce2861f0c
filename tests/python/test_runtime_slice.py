"""Parts of tensors, and tensors from parts."""

import numpy as np
import pytest
import torch
from coremltools.converters.mil import Builder as mb

import mil
from test_runtime_shape import KINDS, check_kinds, values

SLICES = [
    ((7,), {"begin": [2], "end": [5]}, np.s_[2:5]),
    ((7,), {"begin": [-3], "end": [7], "stride": [2]}, np.s_[-3:7:2]),
    ((7,), {"begin": [6], "end": [1], "stride": [-2]}, np.s_[6:1:-2]),
    ((7,), {"begin": [0], "end": [0], "stride": [-1], "begin_mask": [True], "end_mask": [True]}, np.s_[::-1]),
    ((7,), {"begin": [5], "end": [0], "stride": [-3], "end_mask": [True]}, np.s_[5::-3]),
    ((4, 5, 6), {"begin": [1, 0, 2], "end": [3, 5, 6]}, np.s_[1:3, :, 2:]),
    ((4, 5, 6), {"begin": [0, 0, 0], "end": [4, -1, 100]}, np.s_[:, :-1, :]),
    ((4, 5, 6), {"begin": [1, 2, 3], "end": [0, 0, 0], "end_mask": [True] * 3}, np.s_[1:, 2:, 3:]),
    ((4, 5, 6), {"begin": [1, 2, 3], "end": [4, 4, 4], "begin_mask": [False, True, True]}, np.s_[1:4, :4, :4]),
    ((4, 5, 6), {"begin": [1, -2, 3], "end": [0, 0, 0], "squeeze_mask": [True, True, False],
                 "end_mask": [False, False, True]}, np.s_[1, -2, 3:]),
    ((4, 5, 6), {"begin": [3, 4, -6], "end": [0, 0, 6], "squeeze_mask": [True, False, False],
                 "stride": [1, -2, 5]}, np.s_[3, 4:0:-2, ::5]),
    ((4, 5, 6), {"begin": [3, 4, 5], "end": [1, 1, 1], "stride": [-1, -1, -2]}, np.s_[3:1:-1, 4:1:-1, 5:1:-2]),
    ((2, 40, 17), {"begin": [0, 39, 1], "end": [2, 1, 17], "stride": [1, -3, 2]}, np.s_[:, 39:1:-3, 1::2]),
]


def at(x, index):
    """Which elements an index has, which torch does not do with steps below 0."""
    places = np.arange(x.numel()).reshape(x.shape)[index]
    return torch.tensor(places.copy())


def test_slice_by_index():
    def case(shape, given, index):
        return lambda x: mb.slice_by_index(x=x, **given), shape, lambda x: x.reshape(-1)[at(x, index)]
    check_kinds([case(*given) for given in SLICES])


def test_slice_update():
    def case(shape, given, index, dtype):
        def expected(x, update):
            return x.reshape(-1).scatter(0, at(x, index).reshape(-1), update.reshape(-1)).reshape(x.shape)

        def build(x, update):
            updated = mb.slice_update(x=x, update=update, **given)
            return mb.cast(x=updated, dtype="int32") if dtype == np.bool_ else updated
        return build, {"x": values(shape, dtype), "update": values(values(shape)[index].shape, dtype, 1)}, expected
    for dtype in KINDS:
        mil.check_cases([case(*given, dtype) for given in SLICES], differentiable=dtype == np.float32)


def test_slices_that_come_while_it_runs():
    inputs = {"x": values((5, 6)), "begin": np.array([1, -4], np.int32), "end": np.array([2**31 - 1, -1], np.int32)}
    by_index = (lambda x, begin, end: mb.slice_by_index(x=x, begin=begin, end=end), inputs,
                lambda x, begin, end: x[1:, -4:-1])

    def by_size(begin, size, index):
        given = {"x": values((4, 5, 6)), "begin": np.array(begin, np.int32), "size": np.array(size, np.int32)}
        return lambda x, begin, size: mb.slice_by_size(x=x, begin=begin, size=size), given, lambda x, begin, size: x[index]
    mil.check_cases([
        by_index,
        by_size([0, 1, 2], [4, 2, 3], np.s_[:, 1:3, 2:5]),
        by_size([1, -2, 0], [-1, -1, 1], np.s_[1:, -2:, :1]),
        by_size([3, 4, 5], [1, 1, 1], np.s_[3:4, 4:5, 5:6]),
    ], differentiable=True)


def test_slice_by_size():
    def case(begin, size, index):
        return lambda x: mb.slice_by_size(x=x, begin=begin, size=size), (4, 5, 6), lambda x: x[index]
    check_kinds([case([0, 1, 2], [4, 2, 3], np.s_[:, 1:3, 2:5]), case([3, 4, 5], [-1, 1, 1], np.s_[3:4, 4:5, 5:6])])


def tensors(shapes, dtype):
    return {f"x{number}": values(shape, dtype, number) for number, shape in enumerate(shapes)}


def joins(dtype):
    def visible(var):
        return mb.cast(x=var, dtype="int32") if dtype == np.bool_ else var

    def concat(axis, sizes):
        shapes = [[size if (axis % 3) == at else dim for at, dim in enumerate((3, 4, 5))] for size in sizes]
        return (lambda **xs: visible(mb.concat(values=list(xs.values()), axis=axis)), tensors(shapes, dtype),
                lambda **xs: torch.cat(list(xs.values()), axis))

    def interleaved(axis):
        def expected(**xs):
            shape = [2, 3, 4]
            shape[axis] *= 3
            return torch.stack(list(xs.values()), axis % 3 + 1).reshape(shape)
        return (lambda **xs: visible(mb.concat(values=list(xs.values()), axis=axis, interleave=True)),
                tensors([(2, 3, 4)] * 3, dtype), expected)

    def stack(axis):
        return (lambda **xs: visible(mb.stack(values=list(xs.values()), axis=axis)), tensors([(2, 3)] * 3, dtype),
                lambda **xs: torch.stack(list(xs.values()), axis))

    def split(axis, shape, sizes, **given):
        def build(x):
            return [visible(part) for part in mb.split(x=x, axis=axis, **(given or {"split_sizes": sizes}))]
        return build, {"x": values(shape, dtype)}, lambda x: torch.split(x, sizes, axis)
    sizes = [(0, [1, 2, 3]), (1, [2, 2]), (-1, [4, 1, 1, 2]), (2, [5])]
    return [
        *(concat(axis, parts) for axis, parts in sizes),
        *(interleaved(axis) for axis in (0, 1, -1)),
        *(stack(axis) for axis in (0, 1, 2, -1, -3)),
        split(0, (6, 2), [1, 2, 3]), split(-1, (2, 3, 8), [4, 1, 1, 2]), split(1, (3, 4), [1, 3], num_splits=2, split_sizes=[1, 3]),
        split(0, (4, 6), 2, num_splits=2), split(1, (4, 6), 2, num_splits=3),
    ]


@pytest.mark.parametrize("dtype", KINDS)
def test_joins(dtype):
    mil.check_cases(joins(dtype), differentiable=dtype == np.float32)


def test_gradient_of_a_part_of_a_split():
    # of the three parts, one is used
    mil.check_cases([(lambda x: mb.transpose(x=mb.split(x=x, num_splits=3, axis=1)[1], perm=[1, 0]), {"x": values((2, 6))},
                      lambda x: x[:, 2:4].T)], differentiable=True)


def test_concat_of_scalars():
    mil.check_cases([(lambda x: mb.concat(values=[mb.squeeze(x=x), np.float32(2)], axis=0), {"x": values((1,))},
                      lambda x: torch.stack([x[0], torch.tensor(2.0)]))], differentiable=True)


def test_joins_in_threads():
    mil.check_cases([
        (lambda x, y: mb.concat(values=[x, y], axis=1), {"x": values((500, 70)), "y": values((500, 90))},
         lambda x, y: torch.cat([x, y], 1)),
        (lambda x: mb.split(x=x, num_splits=3, axis=1), {"x": values((900, 90))}, lambda x: torch.split(x, 30, 1)),
        (lambda x: mb.slice_by_index(x=x, begin=[800, 1], end=[1, 90], stride=[-1, 1]), {"x": values((900, 90))},
         lambda x: x[2:801, 1:90].flip(0)),
        (lambda x: mb.tile(x=x, reps=[3, 1, 40]), {"x": values((9, 50, 3))}, lambda x: x.tile(3, 1, 40)),
    ], differentiable=True)


def test_tile():
    def case(reps):
        return lambda x: mb.tile(x=x, reps=reps), (2, 1, 3), lambda x: x.tile(*reps)
    check_kinds([case(reps) for reps in [(1, 1, 1), (2, 1, 3), (1, 4, 1), (3, 2, 2)]])


def test_pad():
    def case(pad, mode, dtype):
        given = {"constant_val": dtype(-1.5)} if mode == "constant" else {}
        widths = [(0, 0)] * (3 - len(pad) // 2) + list(zip(pad[::2], pad[1::2]))

        def expected(x):
            if mode == "constant":
                return torch.nn.functional.pad(x, [n for pair in widths[::-1] for n in pair], value=-1.5)
            # torch reflects fewer axes than this, so that the places are numpy's
            places = np.pad(np.arange(x.numel()).reshape(x.shape), widths, {"reflect": "reflect", "replicate": "edge"}[mode])
            return x.reshape(-1)[torch.tensor(places)]
        return lambda x: mb.pad(x=x, pad=list(pad), mode=mode, **given), {"x": values((3, 4, 5), dtype)}, expected
    cases = [
        ((1, 2), "constant"), ((0, 0, 3, 1), "constant"), ((1, 0, 0, 2, 1, 1), "constant"),
        ((1, 2), "reflect"), ((2, 1, 3, 0), "reflect"), ((1, 2), "replicate"), ((2, 1, 3, 4), "replicate"),
        ((0, 1, 2, 1, 1, 0), "replicate"), ((2, 2, 3, 3, 4, 4), "reflect"), ((0, 0), "reflect"),
    ]
    for dtype in (np.float32, np.float16):
        mil.check_cases([case(*given, dtype) for given in cases], differentiable=dtype == np.float32)


def test_pad_that_comes_while_it_runs():
    inputs = {"x": values((2, 3)), "pad": np.array([0, 1, 2, 0], np.int32)}
    mil.check(lambda x, pad: mb.pad(x=x, pad=pad), inputs, lambda x, pad: np.pad(x, [(0, 1), (2, 0)]))


def test_sliding_windows():
    def case(axis, size, stride):
        def expected(x):
            return x.unfold(axis, size, stride).movedim(-1, axis % 3 + 1)
        return lambda x: mb.sliding_windows(x=x, axis=axis, size=size, stride=stride), (4, 5, 6), expected
    check_kinds([case(*given) for given in [(0, 2, 1), (1, 3, 2), (-1, 4, 3), (2, 6, 1), (1, 1, 1), (2, 2, 2)]])


def test_band_part():
    def case(lower, upper, shape):
        def expected(x):
            row, column = torch.arange(shape[-2])[:, None], torch.arange(shape[-1])
            band = ((lower < 0) | (row - column <= lower)) & ((upper < 0) | (column - row <= upper))
            return x * band
        return lambda x: mb.band_part(x=x, lower=lower, upper=upper), shape, expected
    bands = [(-1, -1), (0, -1), (-1, 0), (0, 0), (1, 2), (9, 0), (2, -1)]
    check_kinds([case(*band, shape) for band in bands for shape in ((4, 4), (2, 3, 5), (5, 2))])


@pytest.mark.parametrize(("build", "given", "message"), [
    (lambda x, n: mb.slice_by_index(x=x, begin=n, end=n, squeeze_mask=[True, False]), [9, 1], "begin has 9"),
    (lambda x, n: mb.slice_by_size(x=x, begin=n, size=n), [1, 3], "leave axis 1"),
    (lambda x, n: mb.tile(x=x, reps=n), [-1, 3], "reps has -1"),
    (lambda x, n: mb.tile(x=x, reps=n), [2**31 - 1, 2**31 - 1], "memory|bytes"),
    (lambda x, n: mb.pad(x=x, pad=n), [1, 2, -3, 2], "pad has -3"),
    (lambda x, n: mb.pad(x=x, pad=n, mode="reflect"), [0, 0, 3, 2], "reflection"),
    (lambda x, n: mb.pad(x=x, pad=n, mode="replicate"), [0, 2**31 - 1, 2**31 - 1, 0], "memory|bytes"),
])
def test_what_cannot_be(build, given, message):
    with pytest.raises(ValueError, match=message):
        mil.run(build, {"x": values((2, 3)), "n": np.array(given, np.int32)})
