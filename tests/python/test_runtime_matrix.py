"""Products of matrices: values and gradients against torch, in fp32 and fp16."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from coremltools.converters.mil import Builder as mb

import palettizer.coreml as cto
from mil import assert_close, check, check_cases, model
from palettizer.runtime import Session

RNG = np.random.default_rng(5)


def values(*shape, dtype=np.float32):
    return RNG.normal(size=shape).astype(dtype)


MATMULS = [  # shapes, and whether each is given as its transpose
    ((3, 4), (4, 5), False, False), ((4, 3), (4, 5), True, False), ((3, 4), (5, 4), False, True), ((4, 3), (5, 4), True, True),
    ((2, 3, 4), (4, 5), False, False), ((2, 3, 4), (2, 4, 5), False, False), ((2, 1, 3, 4), (6, 4, 5), False, False),
    ((6, 4, 3), (2, 1, 5, 4), True, True), ((1, 7, 4), (3, 4, 1), False, False), ((3, 4), (2, 5, 4), False, True),
    ((70, 33), (33, 65), False, False), ((3, 40, 70), (3, 70, 50), False, False),
]


@pytest.mark.parametrize("dtype", [np.float32, np.float16])
def test_matmul(dtype):
    cases = []
    for x, y, flip_x, flip_y in MATMULS:
        cases.append((
            lambda x, y, a=flip_x, b=flip_y: mb.matmul(x=x, y=y, transpose_x=a, transpose_y=b),
            {"x": values(*x, dtype=dtype), "y": values(*y, dtype=dtype)},
            lambda x, y, a=flip_x, b=flip_y: (x.mT if a else x) @ (y.mT if b else y)))
    check_cases(cases, differentiable=dtype == np.float32)


def test_matmul_of_a_vector():
    # the only one that the peer can build
    x, y = values(4), values(4, 5)
    wanted = x.astype(np.float64) @ y.astype(np.float64)
    found = Session(model(lambda x, y: mb.matmul(x=x, y=y), {"x": x, "y": y})).predict({"x": x, "y": y})
    assert_close(next(iter(found.values())).reshape(wanted.shape), wanted)


def test_matmul_of_integers():
    x, y = RNG.integers(-9, 9, (2, 3, 4)).astype(np.int32), RNG.integers(-9, 9, (4, 5)).astype(np.int32)
    check(lambda x, y: mb.matmul(x=x, y=y), {"x": x, "y": y}, lambda x, y: x @ y)


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize(("x", "outputs"), [((3, 7), 5), ((2, 3, 7), 1), ((1, 1, 2, 40), 70), ((5,), 3)])
def test_linear_and_its_gradients(x, outputs, bias):
    x, weight, offset = values(*x), values(outputs, x[-1]), values(outputs)

    def build(x):
        given = {"bias": mb.const(val=offset, name="offset")} if bias else {}
        return mb.linear(x=x, weight=mb.const(val=weight, name="weights"), name="out", **given)
    session = Session(model(build, {"x": x}))
    found = session.predict({"x": x})["out"]
    slope = values(*found.shape)
    ours = session.grad({"x": x}, {"out": slope}, ["x", "weights"] + ["offset"] * bias).gradients
    wide = {name: torch.tensor(array, dtype=torch.float64, requires_grad=True)
            for name, array in (("x", x), ("weights", weight), ("offset", offset))}
    wanted = F.linear(wide["x"], wide["weights"], wide["offset"] if bias else None)
    assert_close(found, wanted.detach().numpy())
    wanted.backward(torch.tensor(slope, dtype=torch.float64))
    for name, gradient in ours.items():
        np.testing.assert_allclose(gradient, wide[name].grad.numpy(), rtol=1e-4, atol=1e-5)


def test_einsum():
    # the peer builds these two, by any letters
    cases = []
    for equation, x, y in [("nchw,nwhu->nchu", (2, 3, 4, 5), (2, 5, 4, 6)), ("chw,whr->chr", (3, 4, 5), (5, 4, 6)),
                           ("abcd,adce->abce", (2, 1, 7, 9), (2, 9, 7, 1)), ("bik,kij->bij", (8, 3, 70), (70, 3, 33))]:
        cases.append((
            lambda x, y, e=equation: mb.einsum(values=(x, y), equation=e), {"x": values(*x), "y": values(*y)},
            lambda x, y, e=equation: torch.einsum(e, x, y)))
    check_cases(cases, differentiable=True)


@pytest.mark.parametrize("dtype", [np.float32, np.float16])
def test_attention(dtype):
    cases = []
    for q, k, v, mask in [
        ((2, 3, 5, 8), (2, 3, 7, 8), (2, 3, 7, 4), None), ((1, 4, 8), (1, 6, 8), (1, 6, 8), None),
        ((2, 3, 5, 8), (2, 3, 7, 8), (2, 3, 7, 4), (5, 7)), ((2, 3, 5, 8), (2, 3, 7, 8), (2, 3, 7, 4), (2, 1, 5, 7)),
        ((1, 1, 150, 16), (1, 1, 90, 16), (1, 1, 90, 8), (1, 1, 150, 90)), ((1, 2, 1, 3), (1, 2, 1, 3), (1, 2, 1, 3), None),
    ]:
        inputs = {"query": values(*q, dtype=dtype), "key": values(*k, dtype=dtype), "value": values(*v, dtype=dtype)}
        if mask:
            inputs["attn_mask"] = values(*mask, dtype=dtype)
        cases.append((
            lambda **given: mb.scaled_dot_product_attention(**given), inputs,
            lambda query, key, value, attn_mask=None: F.scaled_dot_product_attention(query, key, value, attn_mask)))
    # torch sums products of rounded weights; those of halves are a few units off
    check_cases(cases, ulps=4, differentiable=dtype == np.float32)


def test_attention_by_a_mask_of_booleans():
    q, k, v = values(1, 2, 5, 8), values(1, 2, 7, 8), values(1, 2, 7, 8)
    seen = RNG.random((5, 7)) < 0.6
    seen[:, 0] = True
    check_cases([(
        lambda query, key, value, attn_mask: mb.scaled_dot_product_attention(
            query=query, key=key, value=value, attn_mask=mb.cast(x=attn_mask, dtype="bool")),
        {"query": q, "key": k, "value": v, "attn_mask": seen.astype(np.int32)},
        lambda query, key, value, attn_mask: F.scaled_dot_product_attention(query, key, value, attn_mask != 0))])


def test_is_the_same_on_any_number_of_threads():
    inputs = {"x": values(3, 70, 130), "y": values(3, 130, 90)}
    mlmodel = model(lambda x, y: mb.matmul(x=x, y=y), inputs)
    found = [next(iter(Session(mlmodel, threads=threads).predict(inputs).values())) for threads in (1, 2, 3, 7)]
    assert all(np.array_equal(found[0], other) for other in found[1:])


BLOCKED = [  # settings of a weight that is expanded by blocks of rows: tables of rows or columns, scales, vectors, integers
    {"nbits": 4}, {"nbits": 3}, {"nbits": 8}, {"nbits": 1, "granularity": "per_grouped_channel", "group_size": 1},
    {"nbits": 4, "granularity": "per_grouped_channel", "group_size": 4}, {"nbits": 6, "enable_per_channel_scale": True},
    {"nbits": 4, "granularity": "per_grouped_channel", "group_size": 2, "channel_axis": 1},
    {"nbits": 4, "cluster_dim": 2}, {"nbits": 2, "cluster_dim": 4, "granularity": "per_grouped_channel", "group_size": 4},
    {"nbits": 4, "lut_dtype": "int8"}, {"nbits": 4, "lut_dtype": "uint8", "enable_per_channel_scale": True},
]  # fmt: skip


@pytest.mark.parametrize("dtype", [np.float32, np.float16])
@pytest.mark.parametrize("outputs, inputs, rows, biased", [(604, 512, 5, True), (604, 512, 1, False), (197, 2048, 33, True), (9001, 40, 3, False)])
def test_a_weight_that_is_expanded_by_blocks_is_the_whole_weight(outputs, inputs, rows, biased, dtype):
    weight, bias = values(outputs, inputs, dtype=dtype), values(outputs, dtype=dtype) if biased else None
    x = values(rows, inputs, dtype=dtype)
    dense = model(lambda x: mb.linear(x=x, weight=weight, bias=bias, name="y"), {"x": x})
    before = Session(dense).predict({"x": x})["y"]
    for options in BLOCKED:
        config = cto.OptimizationConfig(global_config=cto.OpPalettizerConfig(weight_threshold=0, **options))
        small = cto.palettize_weights(dense, config)
        found = Session(small).predict({"x": x})["y"]
        whole = Session(cto.decompress_weights(small)).predict({"x": x})["y"]
        np.testing.assert_array_equal(found, whole, err_msg=str(options))
        skipped = [row["reason"] for row in small.report.values() if row["status"] != "compressed"]
        assert skipped or not np.array_equal(found, before), options
