"""Lists of tensors."""

import numpy as np
import pytest
from coremltools.converters.mil import Builder as mb

import mil
from test_runtime_shape import values


def scalar(index):
    """A number that comes while it runs: a model has no inputs without dimensions."""
    return mb.squeeze(x=index)


def test_write_and_read():
    def build(x, at):
        ls = mb.make_list(init_length=2, elem_shape=(2, 3), dtype="fp32")
        ls = mb.list_write(ls=ls, index=scalar(at), value=x)
        ls = mb.list_write(ls=ls, index=0, value=mb.transpose(x=mb.transpose(x=x, perm=[1, 0]), perm=[1, 0]))
        zeros = mb.list_read(ls=ls, index=1)
        length = mb.list_length(ls=ls)
        return [mb.list_read(ls=ls, index=scalar(at)), zeros, mb.expand_dims(x=length, axes=[0]),
                mb.list_gather(ls=ls, indices=[4, 0, 1, 3])]

    def expected(x, at):
        zeros = np.zeros_like(x)
        return x, zeros, np.array([5], np.int32), np.stack([x, x, zeros, zeros])
    mil.check(build, {"x": values((2, 3)), "at": np.array([4], np.int32)}, expected)


def test_scatter_and_gather():
    def build(x, at):
        ls = mb.make_list(init_length=3, elem_shape=(4,), dtype="fp32", dynamic_length=False)
        ls = mb.list_scatter(ls=ls, indices=at, value=x)
        return mb.list_gather(ls=ls, indices=[0, 1, 2])
    mil.check(build, {"x": values((2, 4)), "at": np.array([2, 0], np.int32)},
              lambda x, at: np.stack([x[1], np.zeros(4), x[0]]))


def test_a_loop_that_writes():
    def build(x):
        ls = mb.make_list(init_length=1, elem_shape=(2,), dtype="fp32")

        def cond(at, ls):
            return mb.less(x=at, y=5)

        def body(at, ls):
            value = mb.mul(x=x, y=mb.cast(x=at, dtype="fp32"))
            return mb.add(x=at, y=1), mb.list_write(ls=ls, index=at, value=value)
        _, ls = mb.while_loop(_cond=cond, _body=body, loop_vars=(0, ls))
        return mb.list_gather(ls=ls, indices=[0, 1, 2, 3, 4])
    mil.check(build, {"x": values((2,))}, lambda x: np.arange(5)[:, None] * x)


@pytest.mark.parametrize(("fixed", "at", "message"), [
    (True, 3, "no element 3"), (False, -1, "no element -1"), (False, 2**31 - 1, "bytes"),
])
def test_elements_that_are_not_there(fixed, at, message):
    def build(x, at):
        ls = mb.make_list(init_length=3, elem_shape=(2,), dtype="fp32", dynamic_length=not fixed)
        return mb.list_read(ls=mb.list_write(ls=ls, index=scalar(at), value=x), index=0)
    with pytest.raises(ValueError, match=message):
        mil.run(build, {"x": values((2,)), "at": np.array([at], np.int32)}, max_memory=2**30)


def test_an_element_that_was_not_written():
    def build(x, at):
        return mb.list_read(ls=mb.make_list(init_length=3, elem_shape=(2,), dtype="fp32"), index=scalar(at))
    inputs = {"x": values((2,)), "at": np.array([1], np.int32)}
    mil.check(build, inputs, lambda x, at: np.zeros(2))
    inputs["at"][0] = 3
    with pytest.raises(ValueError, match="the list has 3 elements"):
        mil.run(build, inputs)
