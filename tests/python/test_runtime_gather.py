"""Elements by their indices."""

import itertools
import subprocess

import coremltools as ct
import numpy as np
import pytest
import torch
from coremltools.converters.mil import Builder as mb
from coremltools.converters.mil.mil import types
from coremltools.optimize.coreml import OpLinearQuantizerConfig, OptimizationConfig, linear_quantize_weights

import mil
from palettizer.coreml import OpPalettizerConfig
from palettizer.coreml import OptimizationConfig as PalettizerConfig
from palettizer.coreml import palettize_weights as palettized
from palettizer.runtime import Session
from test_runtime_shape import values
from zoo import TARGETS, convert

NUMBERS = [np.float32, np.float16, np.int32]
MODES = ["add", "sub", "mul", "div", "max", "min", "update"]


def drawn(shape, dim, negative=True, seed=3):
    return np.random.default_rng(seed).integers(-dim if negative else 0, dim, shape).astype(np.int32)


def check_numbers(cases, target="iOS18"):
    """Cases of `x` of a shape and indices, for numbers of every kind, with gradients."""
    for dtype in NUMBERS:
        given = [(build, {"x": values(shape, dtype, at), "indices": indices}, function)
                 for at, (build, shape, indices, function) in enumerate(cases)]
        mil.check_cases(given, target, differentiable=dtype == np.float32)


def taken(x, indices, axis):
    """numpy's `take`."""
    axis %= x.ndim
    flat = x.index_select(axis, indices.reshape(-1).long() % x.shape[axis])
    return flat.reshape(*x.shape[:axis], *indices.shape, *x.shape[axis + 1:])


def test_gather():
    def case(shape, axis, of):
        return (lambda x, indices: mb.gather(x=x, indices=indices, axis=axis), shape, drawn(of, shape[axis]),
                lambda x, indices: taken(x, indices, axis))
    check_numbers([case(*given) for given in [
        ((5,), 0, (3,)), ((5, 4), 0, (2, 3)), ((5, 4), 1, (6,)), ((3, 4, 5), -2, (2, 2)), ((3, 4, 5), 2, (1,)),
    ]], "iOS16")


def test_gather_by_a_scalar():
    def case(shape, axis, index):
        return (lambda x: mb.gather(x=x, indices=index, axis=axis), {"x": values(shape)}, lambda x: x.select(axis, index))
    mil.check_cases([case((7, 3), 0, -2), case((3, 4, 5), 1, 3)], "iOS16", differentiable=True)


def test_gather_in_batches():
    def case(shape, of, axis, batch_dims):
        def expected(x, indices):
            lead = shape[:batch_dims]
            made = [taken(x[at], indices[at], axis % len(shape) - batch_dims) for at in np.ndindex(lead)]
            return torch.stack(made).reshape((*lead, *made[0].shape))
        return (lambda x, indices: mb.gather(x=x, indices=indices, axis=axis, batch_dims=batch_dims), shape,
                drawn(of, shape[axis]), expected)
    check_numbers([case(*given) for given in [
        ((2, 4, 5), (2, 3), 1, 1), ((2, 4, 5), (2, 3), 2, 1), ((2, 3, 4, 5), (2, 3, 6), 2, 2), ((2, 3, 4, 5), (2, 3), -1, 2),
        ((2, 3, 4, 5), (2, 2, 2), 3, 1),
    ]])


def test_gather_along_axis():
    def case(shape, of, axis):
        return (lambda x, indices: mb.gather_along_axis(x=x, indices=indices, axis=axis), shape, drawn(of, shape[axis]),
                lambda x, indices: x.gather(axis, indices.long() % x.shape[axis]))
    check_numbers([case(*given) for given in [
        ((6,), (4,), 0), ((3, 4), (5, 4), 0), ((3, 4, 5), (3, 4, 2), -1), ((3, 4, 5), (3, 7, 5), 1),
    ]])


def test_gather_nd():
    def case(shape, of, batch_dims):
        def expected(x, indices):
            lead = shape[:batch_dims]
            made = [x[at][tuple(indices[at].movedim(-1, 0).long())] for at in np.ndindex(lead)]
            return torch.stack(made).reshape((*lead, *made[0].shape))
        dims = shape[batch_dims:batch_dims + of[-1]]
        indices = np.stack([drawn(of[:-1], dim, seed=at) for at, dim in enumerate(dims)], -1)
        return lambda x, indices: mb.gather_nd(x=x, indices=indices, batch_dims=batch_dims), shape, indices, expected
    check_numbers([case(*given) for given in [
        ((5, 4), (3, 2), 0), ((5, 4), (3, 1), 0), ((3, 4, 5), (2, 2, 2), 0), ((2, 3, 4), (2, 5, 1), 1),
        ((2, 3, 4), (2, 3, 1), 2), ((2, 3, 4, 5), (2, 6, 2), 1), ((6,), (1,), 0), ((2, 3, 4), (2, 2), 1),
    ]])


def outcome(mode, one, other):
    if mode == "div" and not one.is_floating_point():
        return torch.div(one, other, rounding_mode="trunc")
    functions = {"add": torch.add, "sub": torch.sub, "mul": torch.mul, "div": torch.div, "max": torch.maximum,
                 "min": torch.minimum}
    return functions[mode](one, other) if mode in functions else other


def in_order(places, mode):
    """An oracle: updates in order; `places` gives which elements each update meets, and those that it has."""
    def expected(data, indices, updates):
        for to, from_ in places(data, indices):
            changed = data.clone()
            changed[to] = outcome(mode, data[to], updates[from_])
            data = changed
        return data
    return expected


def small(shape, dtype, seed):
    """Numbers that products of many stay small of."""
    rng = np.random.default_rng(seed)
    made = rng.uniform(0.7, 1.5, shape) * rng.choice([-1, 1], shape)
    return (made * 4 if np.dtype(dtype).kind == "i" else made).astype(dtype)


def scattered(op, shape, axis, count, mode, dtype):
    """A scatter on one axis: with one index for all other axes, or with one for each element."""
    lead = axis % len(shape)
    updated = [count if at == lead else dim for at, dim in enumerate(shape)]

    def places(data, indices):
        if op == "scatter":
            every = (slice(None),) * lead
            return [((*every, int(at)), (*every, number)) for number, at in enumerate(indices)]
        return [((*at[:lead], int(indices[at]), *at[lead + 1:]), at) for at in np.ndindex(*indices.shape)]

    def build(data, indices, updates):
        return getattr(mb, op)(data=data, indices=indices, updates=updates, axis=axis, mode=mode)
    indices = drawn(count if op == "scatter" else updated, shape[axis], negative=op == "scatter")
    return (build, {"data": small(shape, dtype, 1), "indices": indices, "updates": small(updated, dtype, 5)},
            in_order(places, mode))


def scattered_nd(shape, of, mode, dtype):
    def places(data, indices):
        return [(tuple(indices[at].tolist()), at) for at in np.ndindex(*indices.shape[:-1])]

    def build(data, indices, updates):
        return mb.scatter_nd(data=data, indices=indices, updates=updates, mode=mode)
    indices = np.stack([drawn(of[:-1], dim, seed=at) for at, dim in enumerate(shape[: of[-1]])], -1)
    return (build, {"data": small(shape, dtype, 1), "indices": indices, "updates": small(of[:-1] + shape[of[-1]:], dtype, 5)},
            in_order(places, mode))


@pytest.mark.parametrize("dtype", NUMBERS)
def test_scatter(dtype):
    one_axis = [((5,), 0, 7), ((4, 3), 0, 3), ((2, 5, 3), 1, 6), ((2, 3, 4), -1, 3)]
    several = [((5,), (7, 1)), ((4, 3), (3, 1)), ((4, 3), (2, 3, 2)), ((3, 4, 2), (5, 2))]
    cases = [
        *(scattered("scatter", *given, mode, dtype) for given, mode in itertools.product(one_axis, MODES)),
        *(scattered("scatter_along_axis", *given, mode, dtype) for given, mode in itertools.product(one_axis, MODES)),
        *(scattered_nd(*given, mode, dtype) for given, mode in itertools.product(several, MODES)),
    ]
    # rounded to fp16 once, at the end
    mil.check_cases(cases, "iOS16", differentiable=dtype == np.float32)


def test_gradient_of_the_largest_of_equal_ones():
    data, indices, updates = np.array([2, 5, 1], np.float32), np.array([0, 0, 2], np.int32), np.array([2, 2, 0], np.float32)
    found = mil.gradients(lambda data, updates: mb.scatter(data=data, indices=indices, updates=updates, mode="max"),
                          {"data": data, "updates": updates}, ["data", "updates"])
    first, second, third = mil._factors((3,), 0, 0)
    np.testing.assert_allclose(found["data"], [first / 3, second, third], rtol=1e-6)
    np.testing.assert_allclose(found["updates"], [first / 3, first / 3, 0], rtol=1e-6)


@pytest.mark.parametrize("at", [7, -8, 2**31 - 1, -(2**31)])
def test_indices_beyond_the_tensor(at):
    x, n = values((7, 2)), np.array([[0, 0], [at, 0]], np.int32)
    for build in [
        lambda x, n: mb.gather(x=x, indices=n),
        lambda x, n: mb.gather_along_axis(x=x, indices=n),
        lambda x, n: mb.gather_nd(x=x, indices=n),
        lambda x, n: mb.scatter_nd(data=x, indices=n, updates=np.zeros(2, np.float32)),
        lambda x, n: mb.scatter_along_axis(data=x, indices=n, updates=np.zeros((2, 2), np.float32)),
    ]:
        with pytest.raises(ValueError, match=f"indices has {at}, for an axis of 7"):
            mil.run(build, {"x": x, "n": n})


def test_indices_from_the_end_where_they_are_validated():
    x, n = values((7, 2)), np.array([-1], np.int32)
    mil.check(lambda x, n: mb.gather(x=x, indices=n), {"x": x, "n": n}, lambda x, n: x[-1:])
    with pytest.raises(ValueError, match="indices has -1"):
        mil.run(lambda x, n: mb.gather(x=x, indices=n, validate_indices=True), {"x": x, "n": n})


def test_integers_divided_by_zero():
    x, n = np.ones(3, np.int32), np.zeros(2, np.int32)
    with pytest.raises(ValueError, match="0 to divide by"):
        mil.run(lambda x, n: mb.scatter(data=x, indices=n, updates=n, mode="div"), {"x": x, "n": n})


def test_embedding_in_threads():
    def case(shape, of, axis):
        return (lambda x, indices: mb.gather(x=x, indices=indices, axis=axis), {"x": values(shape), "indices": drawn(of, shape[axis])},
                lambda x, indices: taken(x, indices, axis))
    mil.check_cases([case((1000, 256), (4, 128), 0), case((300, 1000), (900,), 1), case((100, 40, 30), (50,), 1)],
                    differentiable=True)


GROUPED = {"granularity": "per_grouped_channel", "group_size": 4, "channel_axis": 0}
FORMS = {  # name -> (target, how the constant is compressed; nothing where it is not)
    "fp32": ("iOS18", None),
    "fp16": ("iOS16", None),
    "iOS16": ("iOS16", {"nbits": 4}),
    "iOS16, 6 bits": ("iOS16", {"nbits": 6}),
    **{f"{nbits} bits": ("iOS18", {"nbits": nbits}) for nbits in (1, 2, 3, 4, 6, 8)},
    "groups of rows": ("iOS18", {"nbits": 3, **GROUPED}),
    "a table for each row": ("iOS18", {"nbits": 2, **GROUPED, "group_size": 1}),
    "groups of columns": ("iOS18", {"nbits": 4, **GROUPED, "channel_axis": 1}),
    "scale": ("iOS18", {"nbits": 4, "enable_per_channel_scale": True}),
    "vectors": ("iOS18", {"nbits": 4, "cluster_dim": 2}),
    "vectors in rows": ("iOS18", {"nbits": 4, **GROUPED, "channel_axis": 1, "cluster_dim": 2}),
    "integers in tables": ("iOS18", {"nbits": 4, "lut_dtype": "int8", **GROUPED}),
    "integers in tables, scale": ("iOS18", {"nbits": 4, "lut_dtype": "uint8", "enable_per_channel_scale": True}),
    "quantized": ("iOS18", "per_channel"),
    "quantized in blocks": ("iOS18", "per_block"),
}


def of_table(table, of, target="iOS18", axis=0):
    """A model that gathers as many rows of a table."""
    @mb.program(input_specs=[mb.TensorSpec((of,), dtype=types.int32)], opset_version=TARGETS[target])
    def program(indices):
        return mb.gather(x=mb.const(val=table, name="table"), indices=indices, axis=axis, name="y")
    return convert(program, target)


def compressed(mlmodel, form):
    if form is None:
        return mlmodel
    if isinstance(form, str):
        quantized = OpLinearQuantizerConfig(granularity=form, weight_threshold=0, block_size=4)
        return linear_quantize_weights(mlmodel, OptimizationConfig(quantized))
    return palettized(mlmodel, PalettizerConfig(global_config=OpPalettizerConfig(weight_threshold=0, **form)))


@pytest.mark.parametrize("width", [128, 124])  # rows that begin where a byte does, and others
@pytest.mark.parametrize("form", FORMS)
def test_rows_of_constants(form, width):
    target, form = FORMS[form]
    table = np.random.default_rng(5).normal(size=(96, width)).astype(np.float16 if target == "iOS16" else np.float32)
    indices = np.array([95, 0, 17, 17, -1, 64, -96], np.int32)

    def gathered(indices):
        session = Session(compressed(of_table(table, len(indices), target), form))
        return session.predict({"indices": indices})["y"]
    whole = gathered(np.arange(96, dtype=np.int32))
    found = gathered(indices)
    assert np.abs(whole - table).max() < 4
    np.testing.assert_array_equal(found, whole[indices])


@pytest.mark.parametrize("shape", [(500, 128), (48, 256), (128, 96), (96, 64)])
@pytest.mark.parametrize("form", ["fp16", "iOS16", "4 bits", "groups of rows", "scale", "integers in tables", "quantized"])
def test_a_lie_about_the_shape_is_an_error(form, shape):
    target, form = FORMS[form]
    mlmodel = compressed(of_table(np.random.default_rng(5).normal(size=(96, 128)).astype(np.float16), 3, target), form)
    spec = mlmodel.get_spec()
    (block,) = spec.mlProgram.functions["main"].block_specializations.values()
    for op in block.operations:
        declared = op.outputs[0].type.tensorType
        if op.outputs[0].name.startswith("table") and declared.rank == 2:
            for dim, size in zip(declared.dimensions, shape):
                dim.constant.size = size
    lying = ct.models.MLModel(spec, weights_dir=mlmodel.weights_dir, skip_model_load=True)
    with pytest.raises(ValueError, match="has the shape"):
        Session(lying).predict({"indices": np.array([0, 17, 40], np.int32)})


@pytest.mark.parametrize("form", ["fp16", "4 bits", "scale", "quantized"])
def test_other_rows_are_not_read(form, binary, tmp_path):
    """The whole of the constant takes 128 MiB as it is computed with: more than there is."""
    target, form = FORMS[form]
    table = np.zeros((1 << 17, 256), np.float16)
    table[:, 0] = np.arange(len(table)) % 16
    table[:, -1] = 1
    mlmodel = compressed(of_table(table, 16, target), form and {**form, "mode": "uniform"} if isinstance(form, dict) else form)
    mlmodel.save(str(tmp_path / "m.mlpackage"))
    indices = np.arange(16, dtype=np.int32) * 4097
    np.savez(tmp_path / "x.npz", indices=indices)
    limited = ["bash", "-c", 'ulimit -d 98304 && exec "$@"', "run"]  # KiB of memory of its own
    subprocess.run([*limited, binary, "run", tmp_path / "m.mlpackage", "--inputs", tmp_path / "x.npz", "-o", tmp_path / "y.npz"], check=True)
    np.testing.assert_allclose(np.load(tmp_path / "y.npz")["y"], table[indices], atol=0.6)
