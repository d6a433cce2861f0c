"""Core AI programs that are quantized or pruned already: decompressed as the wheel computes them, and palettized further."""

import itertools

import numpy as np
import pytest
import torch
from coreai_support import Many, program, run

import palettizer.coreai as core_ai
from palettizer.coreai import OpPalettizerConfig, OptimizationConfig
from palettizer.coreai._constants import constant, splat
from palettizer.coreai._fold import evaluate
from palettizer.coreai._opened import Opened
from palettizer.coreai._wheel import ir, ops


def changed(dense, tmp_path, name, change):
    """A program whose weights are stored in another form: `change(values, kind)` gives their operations."""
    opened = Opened(dense).copied()
    for weight in opened.weights:
        values, op = evaluate(weight.op.results[0]), weight.op
        with op.context, op.location, ir.InsertionPoint(op):
            op.results[0].replace_all_uses_with(change(values, op.results[0].type.element_type))
        op.operation.erase()
    path = tmp_path / f"{name}.aimodel"
    opened.save(path)
    return path


def quantized(bits, signed):
    def change(values, kind):
        low, high = (-(1 << bits - 1), (1 << bits - 1) - 1) if signed else (0, (1 << bits) - 1)
        step = ((values.max(1) - values.min(1)) / (high - low)).astype(values.dtype)
        zero = np.zeros(len(values), np.int64) if signed else np.round(-values.min(1) / step).astype(np.int64)
        whole = np.clip(np.round(values / step[:, None]) + zero[:, None], low, high).astype(np.int64)
        integers = (ir.IntegerType.get_signed if signed else ir.IntegerType.get_unsigned)(bits)
        blocks = (len(values), 1)
        return ops.blockwise_shift_scale(
            data=constant(packed(whole, bits), values.shape, integers), scale=constant(step, blocks, kind),
            offset1=constant(packed(zero, bits), blocks, integers), offset2=splat(0, blocks, kind))
    return change


def cast(values, kind):
    """As coreai-opt writes tables of integers: cast, scaled, and cast again."""
    table = np.linspace(-127, 127, 16).round().astype(np.int8)
    step = (np.abs(values).max() / 127).astype(values.dtype)
    indices = np.abs(values[..., None] / step - table).argmin(-1)
    lut = constant(table, (1, 1, 16, 1), ir.IntegerType.get_signed(8))
    axis = splat(0, (), ir.IntegerType.get_signed(16))
    found = ops.lut_to_dense(constant(packed(indices, 4), values.shape, ir.IntegerType.get_unsigned(4)), lut, axis)
    dense = ir.RankedTensorType.get(list(values.shape), kind)
    zero = splat(0, (1, 1), kind)
    scaled = ops.blockwise_shift_scale(ops.CastOp(dense, found).result, constant(step, (1, 1), kind), zero, zero)
    return ops.CastOp(dense, scaled).result


def pruned(values, kind):
    kept = np.abs(values) >= np.median(np.abs(values))
    mask = constant(np.packbits(kept.reshape(-1), bitorder="little"), values.shape, ir.IntegerType.get_unsigned(1))
    sparse = ops.build_sparse_with_bitmask(constant(values[kept], (int(kept.sum()),), kind), mask)
    return ops.sparse_with_bitmask_to_dense(sparse)


def packed(whole, bits):
    ones = (whole.reshape(-1, 1) & ((1 << bits) - 1)) >> np.arange(bits) & 1
    return np.packbits(ones.astype(np.uint8).reshape(-1), bitorder="little")


FORMS = {
    "int8": quantized(8, True), "uint8": quantized(8, False), "int4": quantized(4, True), "uint4": quantized(4, False), "sparse": pruned,
    "cast": cast,
}  # fmt: skip


@pytest.fixture(scope="module", params=[torch.float32, torch.float16], ids=str)
def dense(request):
    torch.manual_seed(7)
    return program(Many(2).to(request.param), torch.randn(4, 24).to(request.param)), request.param


def check(small, back, form, dtype):
    """The wheel multiplies by unsigned bytes with an offset in another order: what comes out is the same but for rounding."""
    if form == "uint8":
        np.testing.assert_allclose(small, back, rtol=0, atol=1e-5 if dtype == torch.float32 else 1e-2)
    else:
        assert np.array_equal(small, back)


@pytest.mark.parametrize("form", FORMS)
def test_decompressed(dense, tmp_path, form):
    made, dtype = dense
    x = {"x": torch.randn(4, 24).to(dtype)}
    path = changed(made, tmp_path, form, FORMS[form])
    back = core_ai.decompress_weights(path)
    assert all(not weight["ops"] for weight in back._opened.listed(0))
    back.save(tmp_path / "back.aimodel")
    small, dense = (found["y"] for found in run(tmp_path, (path, x), (tmp_path / "back.aimodel", x)))
    check(small, dense, form, dtype)
    found, kept = core_ai.get_weights_metadata(path, 0), core_ai.get_weights_metadata(made, 0)
    for name in kept:
        error = np.abs(found[name].val.astype(np.float64) - kept[name].val)
        assert error.max() < (0.05 if "8" in form else 0.2)
        assert form != "sparse" or found[name].sparsity == 0.5


@pytest.mark.parametrize("form", ["int8", "uint8", "sparse"])
def test_palettized_further(dense, tmp_path, form):
    made, dtype = dense
    x = {"x": torch.randn(4, 24).to(dtype)}
    path = changed(made, tmp_path, form, FORMS[form])
    before = core_ai.get_weights_metadata(path, 0)
    plain = core_ai.palettize_weights(path, OptimizationConfig(global_config=OpPalettizerConfig(nbits=4, weight_threshold=0)), progress=False)
    assert {row["reason"] for row in plain.report.values()} == {"already compressed; decompress_weights makes it dense"}
    paths, count = [], 0
    for bits, group, scale, lut, dim in itertools.product((1, 3, 4, 8), (None, 4), (False, True), (None, "int8", "uint8"), (1, 2)):
        more = {"granularity": "per_grouped_channel", "group_size": group} if group else {}
        if scale and dim == 2:
            continue
        config = OptimizationConfig(global_config=OpPalettizerConfig(
            nbits=bits, weight_threshold=0, enable_per_channel_scale=scale, lut_dtype=lut, cluster_dim=dim, **more))
        small = core_ai.palettize_weights(path, config, True, progress=False)
        after = core_ai.get_weights_metadata(small, 0)
        for name, row in small.report.items():
            if row["status"] != "compressed":
                assert row["reason"] and (form != "sparse" or dim == 2), row
                continue
            error = np.sum((after[name].val.astype(np.float64) - before[name].val) ** 2)
            energy = np.sum(before[name].val.astype(np.float64) ** 2)
            count += 1
            assert row["snr_db"] is None if error == 0 else row["snr_db"] == pytest.approx(10 * np.log10(energy / error), abs=0.02)
            if form == "sparse":
                assert np.array_equal(after[name].val == 0, before[name].val == 0) or bits == 1
        if all(row["status"] == "compressed" for row in small.report.values()):
            paths += [tmp_path / f"small{len(paths)}.aimodel", tmp_path / f"back{len(paths)}.aimodel"]
            small.save(paths[-2])
            written = (paths[-2] / "main.mlirb").stat().st_size
            assert small.report.bytes_after >= written
            core_ai.decompress_weights(small).save(paths[-1])
    assert count >= 16 and len(paths) >= 16
    outputs = [found["y"] for found in run(tmp_path, *((path, x) for path in paths))]
    for small, back in zip(outputs[::2], outputs[1::2]):
        check(small, back, form, dtype)
