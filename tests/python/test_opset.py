"""Raising a program's opset, judged by coremltools: same inputs, same values, same types.

One program per opset holds every op that a later opset redefines, once or more, as far as the
opset has it. It is written by the peer, raised by our binary (no weight is large enough to be
palettized) and read back by the peer's loader, which picks the ops' definitions by the target.
"""

import subprocess
import sys
from pathlib import Path

import coremltools as ct
import numpy as np
import pytest
from coremltools.converters.mil import Builder as mb
from coremltools.converters.mil.frontend.milproto import load as milproto
from coremltools.converters.mil.mil import get_new_symbol, types

import judge
import zoo_graphs

REPO = Path(__file__).resolve().parents[2]
TARGETS = ("iOS15", "iOS16", "iOS17", "iOS18", "iOS26")
STEPS = [(old, new) for i, old in enumerate(TARGETS) for new in TARGETS[i + 1 :]]
IN_THE_WAY = {"crop_resize", "non_maximum_suppression"}

RNG = np.random.default_rng(7)
X3 = RNG.standard_normal((2, 3, 4)).astype(np.float32)
X4 = RNG.standard_normal((1, 3, 6, 6)).astype(np.float32)
POSITIVE = np.abs(X3) + 1
W = {n: RNG.standard_normal((n, 3)).astype(np.float32) * 0.1 for n in (6, 9, 12)}
H = {n: RNG.standard_normal((n, 3)).astype(np.float32) * 0.1 for n in (9, 12)}
SEQUENCE = RNG.standard_normal((4, 1, 3)).astype(np.float32)
STATE = np.zeros((1, 3), np.float32)


def packed(values, bits):
    flat = (values.reshape(-1, 1) >> np.arange(bits)) & 1
    return np.packbits(flat.astype(np.uint8).ravel(), bitorder="little")


def lut(bits, shape):
    indices = RNG.integers(0, 2**bits, shape)
    values = RNG.standard_normal(2**bits).astype(np.float16)
    return lambda name: mb.constexpr_lut_to_dense(
        indices=packed(indices, bits), lut=values, shape=np.uint32(shape), name=name)


def sparse(shape, dtype):
    mask = RNG.integers(0, 2, shape)
    data = RNG.standard_normal(int(mask.sum())).astype(dtype)
    return lambda name: mb.constexpr_sparse_to_dense(
        nonzero_data=data, mask=packed(mask, 1), shape=np.uint32(shape), name=name)


def affine(data, zero_point, scale, axis):
    return lambda name: mb.constexpr_affine_dequantize(
        quantized_data=data, zero_point=zero_point, scale=scale, axis=np.int32(axis), name=name)


I8 = RNG.integers(-128, 128, (4, 3, 2, 2)).astype(np.int8)
U8 = RNG.integers(0, 256, (4, 3, 2, 2)).astype(np.uint8)
HALF = RNG.standard_normal(4).astype(np.float16)
SCALES = np.float32([0.1, 7.7e-3, 3.0])

# name -> (the first target, a function of the op's name). The op type is the name up to a `/`.
CASES = {
    "batch_norm": ("iOS15", lambda name: mb.batch_norm(
        x=X4, mean=np.float32([0, 1, 2]), variance=np.float32([1, 2, 3]), name=name)),
    "cast": ("iOS15", lambda name: mb.cast(x=X3, dtype="int32", name=name)),
    "cast/bool": ("iOS15", lambda name: mb.cast(x=X3, dtype="bool", name=name)),
    "clamped_relu": ("iOS15", lambda name: mb.clamped_relu(x=X3, alpha=0.5, beta=0.6, name=name)),
    "clip": ("iOS15", lambda name: mb.clip(x=X3, alpha=-0.5, beta=0.25, name=name)),
    "conv": ("iOS15", lambda name: mb.conv(x=X4, weight=W[6].reshape(6, 3, 1, 1), name=name)),
    "conv/bias": ("iOS15", lambda name: mb.conv(
        x=X4, weight=np.ones((3, 1, 3, 3), np.float32), bias=np.float32([1, 2, 3]), groups=3,
        pad_type="custom", pad=[1, 1, 1, 1], strides=[2, 2], dilations=[1, 1], name=name)),
    "conv_transpose": ("iOS15", lambda name: mb.conv_transpose(
        x=X4, weight=np.ones((3, 2, 2, 2), np.float32), strides=[2, 2], name=name)),
    "elu": ("iOS15", lambda name: mb.elu(x=X3, alpha=0.5, name=name)),
    "expand_dims": ("iOS15", lambda name: mb.expand_dims(x=X3, axes=[0, -1], name=name)),
    "gather": ("iOS15", lambda name: mb.gather(x=X3, indices=[2, 0], axis=1, name=name)),
    "gather/default": ("iOS15", lambda name: mb.gather(x=X3, indices=[1], name=name)),
    "gather/negative": ("iOS15", lambda name: mb.gather(x=X3, indices=[[-1, 0], [1, -3]], axis=-2, name=name)),
    "gather/scalar": ("iOS15", lambda name: mb.gather(x=X3, indices=-2, axis=2, name=name)),
    "gather/batch": ("iOS16", lambda name: mb.gather(
        x=X3, indices=[[-1, 0], [1, 2]], axis=1, batch_dims=1, name=name)),
    "gather/int16": ("iOS16", lambda name: mb.gather(x=X3, indices=np.int16([-1, 0]), axis=1, name=name)),
    "gather/uint16": ("iOS16", lambda name: mb.gather(x=X3, indices=np.uint16([2, 0]), axis=1, name=name)),
    "gather_along_axis": ("iOS15", lambda name: mb.gather_along_axis(
        x=X3, indices=np.int32(np.arange(24).reshape(2, 3, 4) % 5 - 2), axis=1, name=name)),
    "gather_nd": ("iOS15", lambda name: mb.gather_nd(x=X3, indices=[[0, -1], [1, 2]], name=name)),
    "gather_nd/batch": ("iOS16", lambda name: mb.gather_nd(
        x=X3, indices=[[[0, -1]], [[2, 3]]], batch_dims=1, name=name)),
    "gru": ("iOS15", lambda name: mb.gru(
        x=SEQUENCE, initial_h=STATE, weight_ih=W[9], weight_hh=H[9], output_sequence=True, name=name)),
    "instance_norm": ("iOS15", lambda name: mb.instance_norm(
        x=X4, gamma=np.float32([1, 2, 3]), beta=np.float32([0, 0, 1]), epsilon=1e-3, name=name)),
    "inverse": ("iOS15", lambda name: mb.inverse(x=POSITIVE, epsilon=0.25, name=name)),
    "inverse/default": ("iOS15", lambda name: mb.inverse(x=POSITIVE, name=name)),
    "l2_norm": ("iOS15", lambda name: mb.l2_norm(x=X3, name=name)),
    "layer_norm": ("iOS15", lambda name: mb.layer_norm(
        x=X3, axes=[-1], gamma=np.float32([1, 2, 3, 4]), epsilon=1e-3, name=name)),
    "leaky_relu": ("iOS15", lambda name: mb.leaky_relu(x=X3, alpha=0.1, name=name)),
    "linear": ("iOS15", lambda name: mb.linear(x=X3.reshape(8, 3), weight=W[6], name=name)),
    "linear_activation": ("iOS15", lambda name: mb.linear_activation(x=X3, alpha=0.1, beta=2.0, name=name)),
    "local_response_norm": ("iOS15", lambda name: mb.local_response_norm(x=X4, size=3, name=name)),
    "log": ("iOS15", lambda name: mb.log(x=POSITIVE, name=name)),
    "lstm": ("iOS15", lambda name: mb.lstm(
        x=SEQUENCE, initial_h=STATE, initial_c=STATE, weight_ih=W[12], weight_hh=H[12], name=name)),
    "matmul": ("iOS15", lambda name: mb.matmul(x=X3, y=X3, transpose_y=True, name=name)),
    "prelu": ("iOS15", lambda name: mb.prelu(x=X4, alpha=np.float32([0.1, 0.2, 0.3]), name=name)),
    "reduce_argmax": ("iOS15", lambda name: mb.reduce_argmax(x=X3, axis=1, name=name)),
    "reduce_argmin": ("iOS15", lambda name: mb.reduce_argmin(x=X3, keep_dims=True, name=name)),
    "resample": ("iOS15", lambda name: mb.resample(
        x=X4, coordinates=np.zeros((1, 2, 2, 2), np.float32), sampling_mode="bilinear",
        padding_mode="constant", padding_value=0.0, coordinates_mode="unnormalized",
        align_corners=True, name=name)),
    "reshape": ("iOS15", lambda name: mb.reshape(x=X3, shape=[4, -1], name=name)),
    "reshape/zeros": ("iOS15", lambda name: mb.reshape(x=X3, shape=[0, -1, 0], name=name)),
    "reshape_like": ("iOS16", lambda name: mb.reshape_like(
        x=X3, ref_tensors=[np.zeros((4, 6), np.float32)], begins=[0], ends=[2], end_masks=[False], name=name)),
    "reverse": ("iOS15", lambda name: mb.reverse(x=X3, axes=[1], name=name)),
    "reverse_sequence": ("iOS15", lambda name: mb.reverse_sequence(
        x=X3, lengths=[2, 3], seq_axis=1, batch_axis=0, name=name)),
    "rnn": ("iOS15", lambda name: mb.rnn(
        x=SEQUENCE, initial_h=STATE, weight_ih=W[9][:3], weight_hh=H[9][:3], name=name)),
    "rsqrt": ("iOS15", lambda name: mb.rsqrt(x=POSITIVE, name=name)),
    "scaled_tanh": ("iOS15", lambda name: mb.scaled_tanh(x=X3, alpha=0.5, beta=2.0, name=name)),
    "scatter": ("iOS15", lambda name: mb.scatter(
        data=X3, indices=[-1], updates=X3[:, :1], axis=1, mode="update", name=name)),
    "scatter_along_axis": ("iOS15", lambda name: mb.scatter_along_axis(
        data=X3, indices=np.full((2, 1, 4), -2, np.int32), updates=X3[:, :1], axis=1, mode="update", name=name)),
    "scatter_nd": ("iOS15", lambda name: mb.scatter_nd(data=X3, indices=[[1, -1]], updates=X3[0, :1], name=name)),
    "sigmoid_hard": ("iOS15", lambda name: mb.sigmoid_hard(x=X3, alpha=0.5, beta=0.2, name=name)),
    "slice_by_index": ("iOS15", lambda name: mb.slice_by_index(
        x=X3, begin=[0, -2, 1], end=[2, 3, 2], squeeze_mask=[False, False, True], name=name)),
    "slice_by_size": ("iOS15", lambda name: mb.slice_by_size(x=X3, begin=[0, 1, 1], size=[2, -1, 2], name=name)),
    "sliding_windows": ("iOS15", lambda name: mb.sliding_windows(x=X3, axis=2, size=2, name=name)),
    "softplus_parametric": ("iOS15", lambda name: mb.softplus_parametric(
        x=X4, alpha=np.float32([1, 2, 3]), beta=np.float32([1, 2, 3]), name=name)),
    "squeeze": ("iOS15", lambda name: mb.squeeze(x=X4, axes=[0], name=name)),
    "thresholded_relu": ("iOS15", lambda name: mb.thresholded_relu(x=X3, alpha=0.3, name=name)),
    "topk": ("iOS15", lambda name: mb.topk(x=X3, k=2, axis=1, name=name)),
    "topk/values": ("iOS16", lambda name: mb.topk(x=X3, k=2, sort=False, return_indices=False, name=name)),
    "transpose": ("iOS15", lambda name: mb.transpose(x=X3, perm=[-1, 0, 1], name=name)),
    "upsample_bilinear": ("iOS15", lambda name: mb.upsample_bilinear(
        x=X4, scale_factor_height=2, scale_factor_width=3, align_corners=False, name=name)),
    "constexpr_affine_dequantize": ("iOS16", affine(I8, np.int8([1, -2, 3, 0]), np.abs(HALF), 0)),
    "constexpr_affine_dequantize/last": ("iOS16", affine(U8[..., :1, 0], np.uint8([1, 255, 3]), SCALES, -2)),
    "constexpr_affine_dequantize/scalar": ("iOS16", affine(U8, np.uint8(128), np.float32(0.0173), 1)),
    "constexpr_affine_dequantize/half": ("iOS16", affine(U8, np.uint8(255), np.float16(311.7), 1)),
    "constexpr_affine_dequantize/float": ("iOS16", affine(I8, np.float32(0.5), np.float32(0.0173), 1)),
    "constexpr_affine_dequantize/mixed": ("iOS16", affine(I8, np.int8(3), np.float32([0.1, 0.2, 0.3]), 1)),
    "constexpr_cast": ("iOS16", lambda name: mb.constexpr_cast(
        source_val=np.float16(X3), output_dtype="fp32", name=name)),
    **{f"constexpr_lut_to_dense/{bits}": ("iOS16", lut(bits, (5, 7, 3))) for bits in (1, 2, 4, 6, 8)},
    "constexpr_lut_to_dense/small": ("iOS16", lut(2, (3, 3))),
    "constexpr_sparse_to_dense": ("iOS16", sparse((5, 7, 3), np.float16)),
    "constexpr_sparse_to_dense/small": ("iOS16", sparse((3, 2), np.float32)),
}
REWRITTEN = ("gather", "scatter")


def op_name(case):
    return "op_" + case.replace("/", "_")


def build(target, *, cases=None, inputs=None, body=None):
    """A model of the peer's; the ops of `cases` come out as they were built."""
    specs = inputs or [mb.TensorSpec(shape=(2,))]

    def program(*args):
        outputs = [mb.relu(x=args[0], name="unrelated")] if body is None else list(body(*args))
        for case in cases or ():
            made = CASES[case][1](op_name(case))
            outputs += made if isinstance(made, (list, tuple)) else [made]
        return tuple(outputs)

    # The builder reads the program's inputs off the function's parameters.
    names = [f"x{i}" for i in range(len(specs))]
    scope = {"program": program}
    function = eval(f"lambda {', '.join(names)}: program({', '.join(names)})", scope)
    made = mb.program(input_specs=specs, opset_version=ct.target[target])(function)
    return ct.convert(made, convert_to="mlprogram", minimum_deployment_target=ct.target[target],
                      compute_precision=ct.precision.FLOAT32, skip_model_load=True,
                      pass_pipeline=ct.PassPipeline.EMPTY)


@pytest.fixture(scope="module")
def raised(palettizer, tmp_path_factory):
    """`raised(package, target)`: the package at the target, unchanged otherwise."""
    def run(package, target, check=True):
        out = tmp_path_factory.mktemp("raised") / "raised.mlpackage"
        done = palettizer("compress", package, "-o", out, "--nbits", 8, "--weight-threshold", 1000000000,
                          "--minimum-deployment-target", target, check=check)
        return out if done.returncode == 0 else done
    return run


def load(package):
    model = ct.models.MLModel(str(package), skip_model_load=True)
    spec = model.get_spec()
    program = milproto.load(spec, specification_version=spec.specificationVersion,
                            file_weights_dir=model.weights_dir)
    return spec, program, {op.name: op for op in all_ops(program.functions["main"])}


def all_ops(block):
    for op in block.operations:
        for inner in op.blocks:
            yield from all_ops(inner)
        yield op


def save(folder, model, name="model"):
    package = folder / f"{name}.mlpackage"
    model.save(str(package))
    return package


@pytest.fixture(scope="module")
def step(raised, tmp_path_factory):
    """`step(old, new)`: the ops by name, of the program with all cases of an opset and of it raised."""
    packages, loaded, steps = {}, {}, {}

    def get(old, new):
        if old not in packages:
            cases = [case for case, (since, _) in CASES.items() if since <= old and exists(case, old)]
            packages[old] = save(tmp_path_factory.mktemp("old"), build(old, cases=cases), old)
            loaded[old] = load(packages[old])[2]
        if (old, new) not in steps:
            spec, _, ops = load(raised(packages[old], new))
            assert spec.specificationVersion == ct.target[new]
            function = spec.mlProgram.functions["main"]
            assert function.opset == f"CoreML{5 + TARGETS.index(new)}"
            assert list(function.block_specializations) == [function.opset]
            steps[old, new] = ops
        return loaded[old], steps[old, new]
    return get


def exists(case, target):
    # In iOS18 the builder makes the iOS18 forms, which take other arguments.
    return not (case.startswith("constexpr_") and target >= "iOS18")


def value(var):
    """The value that the peer infers, or what it makes of a compressed constant."""
    if var.val is None and var.op is not None and var.op.op_type.startswith("constexpr_"):
        return var.op.materialized_val_inference()
    return var.val


def flat(inputs):
    for name, bound in inputs.items():
        for i, var in enumerate(bound if isinstance(bound, (list, tuple)) else [bound]):
            if var is not None and not name.startswith("_"):
                yield (name, i), var


def assert_same(old, new, what):
    if types.is_list(old.sym_type):
        return
    assert types.is_compatible_type(old.sym_type, new.sym_type), what
    assert (value(old) is None) == (value(new) is None), what
    if value(old) is not None:
        old, new = np.asarray(value(old)), np.asarray(value(new))
        assert old.dtype == new.dtype and old.shape == new.shape, what
        assert old.tobytes() == new.tobytes(), what


@pytest.mark.parametrize("old, new", STEPS)
@pytest.mark.parametrize("case", CASES)
def test_an_op_means_the_same(step, case, old, new):
    if CASES[case][0] > old or not exists(case, old):
        return  # the older opset has no such op
    before, after = (ops[op_name(case)] for ops in step(old, new))
    if case.startswith("constexpr_"):
        kept = case.endswith(("/float", "/mixed"))
        renamed = case.startswith("constexpr_affine") and new >= "iOS18" and not kept
        assert after.op_type == ("constexpr_blockwise_shift_scale" if renamed else before.op_type)
    else:
        assert after.op_type == before.op_type
        bound = dict(flat(after.inputs))
        for key, var in flat(before.inputs):
            if key[0] == "indices" and case.startswith(REWRITTEN):
                wanted = non_negative(before) if new >= "iOS17" and old < "iOS17" else var.val
                assert np.array_equal(bound[key].val, wanted), key
            else:
                assert_same(var, bound[key], key)
    assert len(before.outputs) == len(after.outputs)
    for one, other in zip(before.outputs, after.outputs):
        assert_same(one, other, case)


def non_negative(op):
    """The indices of a gather or scatter, counted from the start: numpy's own reading of them."""
    data = op.inputs.get("x", op.inputs.get("data"))
    indices = op.indices.val
    if op.op_type.endswith("_nd"):
        begin = op.batch_dims.val if op.inputs.get("batch_dims") is not None else 0
        sizes = np.array(data.shape[begin : begin + indices.shape[-1]])
    else:
        sizes = data.shape[op.axis.val]
    return np.where(indices >= 0, indices, indices + sizes)


def test_every_redefinition_has_a_case():
    lines = (REPO / "crates/coreml/src/opset/definitions.tsv").read_text().splitlines()[2:]
    count = {}
    for line in lines:
        op = line.split("\t")[0]
        count[op] = count.get(op, 0) + 1
    redefined = {op for op, n in count.items() if n > 1}
    assert redefined - IN_THE_WAY <= {case.split("/")[0] for case in CASES}


def test_the_table_is_what_the_script_makes():
    script = REPO / "scripts/opset_table.py"
    done = subprocess.run([sys.executable, script, "--check"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("new", ["iOS17", "iOS18"])
@pytest.mark.parametrize("sizes", [(2, 3, 4), (None, 3, None)], ids=["fixed", "flexible"])
def test_indices_that_are_not_known_are_guarded(raised, tmp_path, sizes, new):
    def body(x, i0, i1, i2):
        yield mb.gather(x=x, indices=i1, axis=-1, name="g")
        yield mb.gather(x=x, indices=mb.squeeze(x=i0, axes=[0]), axis=0, name="scalar")
        yield mb.gather_nd(x=x, indices=i2, name="nd")
        yield mb.gather_along_axis(x=x, indices=mb.cast(x=x, dtype="int32"), axis=1, name="along")
        yield mb.scatter_nd(data=x, indices=i2, updates=mb.gather_nd(x=x, indices=i2), name="scatter")

    shape = tuple(get_new_symbol() if size is None else size for size in sizes)
    specs = [mb.TensorSpec(shape=shape)]
    specs += [mb.TensorSpec(shape=more, dtype=types.int32) for more in ((1,), (5,), (4, 2))]
    model = build("iOS16", inputs=specs, body=body)
    package = save(tmp_path, model)
    _, _, before = load(package)
    _, _, after = load(raised(package, new))
    for name in ("g", "scalar", "nd", "along", "scatter"):
        select = after[name].indices.op
        assert select.op_type == "select"
        assert select.cond.op.op_type == "greater_equal" and select.cond.op.y.val == 0
        assert select.a.name == before[name].indices.name
        size = select.b.op.y
        if sizes[0] == 2:
            wanted = {"g": 4, "scalar": 2, "along": 3}.get(name, [2, 3])
            assert np.array_equal(size.val, wanted)
        elif name == "along":
            assert size.val == 3
        else:
            assert size.op.op_type == "slice_by_index" and size.op.x.op.op_type == "shape"
        assert types.is_compatible_type(before[name].outputs[0].sym_type, after[name].outputs[0].sym_type)


def test_ops_in_nested_blocks_are_raised(raised, tmp_path):
    def body(x, i):
        yield mb.cond(
            pred=mb.cast(x=mb.reduce_max(x=i), dtype="bool"),
            _true_fn=lambda: mb.gather(x=x, indices=i, axis=1, name="inner"),
            _false_fn=lambda: mb.slice_by_index(x=x, begin=[0, 0, 0], end=[2, 2, 4], name="other"))

    specs = [mb.TensorSpec(shape=(2, 3, 4)), mb.TensorSpec(shape=(2,), dtype=types.int32)]
    package = save(tmp_path, build("iOS16", inputs=specs, body=body))
    _, _, after = load(raised(package, "iOS18"))
    assert after["inner"].indices.op.op_type == "select"


@pytest.mark.parametrize("graph", zoo_graphs.GRAPHS)
def test_whole_models_are_raised(models, raised, graph):
    package = models(*zoo_graphs.GRAPHS[graph])
    out = raised(package, "iOS26")
    before, after = judge.programs(package), judge.programs(out)
    for one, other in zip(before, after, strict=True):
        def ops(program):
            return [(function, op.op_type) for function, op in judge.operations(program)]
        assert ops(one) == ops(other)  # none of them needs a rewrite
    spec = judge.load(out).get_spec()
    assert {model.specificationVersion for model in [spec, *judge.ml_programs(spec)]} == {ct.target.iOS26}


@pytest.mark.parametrize("name", ["crepe-full", "crepe-tiny", "basic-pitch"])
def test_real_models_are_raised(real_models, raised, name):
    out = raised(real_models[name], "iOS18")
    assert [len(list(judge.operations(p))) for p in judge.programs(out)] == [
        len(list(judge.operations(p))) for p in judge.programs(real_models[name])]


def refused(raised, tmp_path, body, *words):
    package = save(tmp_path, build("iOS16", inputs=[mb.TensorSpec(shape=(1, 3, 6, 6))], body=body))
    raised(package, "iOS16")  # nothing to do
    done = raised(package, "iOS18", check=False)
    said = done.stdout + done.stderr
    assert done.returncode == 1
    for word in (*words, "minimum_deployment_target"):
        assert word in said, said


def test_ops_in_the_way_are_listed(raised, tmp_path):
    def body(x):
        yield mb.crop_resize(x=x, roi=np.zeros((2, 1, 4, 1, 1), np.float32), name="crops")
        yield mb.clip(x=x, alpha=1.0, beta=1.0, name="flat")
        yield mb.non_maximum_suppression(
            boxes=np.zeros((1, 5, 4), np.float32), scores=np.zeros((1, 5, 2), np.float32),
            iou_threshold=0.5, score_threshold=0.5, max_boxes=3, name="nms")[0]

    refused(raised, tmp_path, body, "crop_resize", "crops", "roi", "clip", "flat", "non_maximum_suppression", "nms")
