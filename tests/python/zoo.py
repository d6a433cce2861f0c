"""Small models, one weight-bearing op each, made with coremltools' MIL builder.

`build(op, target, dtype, values)` gives an `MLModel`; the weights are deterministic. Every weight is
above the default threshold of 2048 elements and small enough for the peer to be quick.
"""

import zlib

import coremltools as ct
import numpy as np
from coremltools.converters.mil import Builder as mb
from coremltools.converters.mil.mil import types

TARGETS = {
    "iOS15": ct.target.iOS15,
    "iOS16": ct.target.iOS16,
    "iOS17": ct.target.iOS17,
    "iOS18": ct.target.iOS18,
    "iOS26": ct.target.iOS26,
}
DTYPES = {"fp16": (np.float16, types.fp16), "fp32": (np.float32, types.fp32)}


def random(label, shape, values="tails"):
    """Weights drawn for a label: the same ones in every run and on every machine."""
    rng = np.random.default_rng(zlib.crc32(label.encode()))
    if values == "normal":
        return (rng.standard_normal(shape) * 0.05).astype(np.float32)
    if values == "tails":  # heavy tails: a few weights far from the rest
        return (rng.standard_t(3, shape) * 0.04).astype(np.float32)
    if values == "outlier":
        w = rng.standard_normal(shape) * 0.02
        w.reshape(-1)[:: w.size // 7] *= 400
        return w.astype(np.float32)
    if values == "lattice":  # three values, so that even vectors of four stay below 256
        return rng.choice(np.array([-0.5, 0.125, 0.25], np.float32), shape)
    raise ValueError(values)


def convert(program, target, **options):
    """The program as an MLModel, as it was written: no graph pass of the default pipeline runs."""
    options.setdefault("pass_pipeline", ct.PassPipeline.EMPTY)
    return ct.convert(
        program,
        convert_to="mlprogram",
        minimum_deployment_target=TARGETS[target],
        compute_precision=ct.precision.FLOAT32,
        skip_model_load=True,
        **options,
    )


class Op:
    """One op of the zoo: its weights by parameter, each with the shape and the axis of the output channels."""

    def __init__(self, op_type, input_shape, weights, body, targets=None, groups=1):
        self.op_type = op_type
        self.input_shape = input_shape
        self.weights = weights  # parameter -> (shape, output axis)
        self.body = body  # (x, weights, bias maker) -> Var
        self.targets = targets or ("iOS16", "iOS17", "iOS18", "iOS26")
        self.groups = groups


def _lstm(x, w, dtype):
    return mb.lstm(
        x=x,
        initial_h=np.zeros((1, 32), dtype),
        initial_c=np.zeros((1, 32), dtype),
        weight_ih=w["weight_ih"],
        weight_hh=w["weight_hh"],
        bias=np.linspace(-0.1, 0.1, 128).astype(dtype),
        direction="forward",
        output_sequence=False,
        name="op",
    )[0]


OPS = {
    "conv": Op("conv", (1, 32, 1, 8), {"weight": ((64, 32, 1, 3), 0)},
               lambda x, w, d: mb.conv(x=x, weight=w["weight"], bias=np.ones(64, d), name="op")),
    "depthwise": Op("conv", (1, 320, 4, 4), {"weight": ((320, 1, 3, 3), 0)},
                    lambda x, w, d: mb.conv(x=x, weight=w["weight"], groups=320, name="op"), groups=320),
    "grouped": Op("conv", (1, 64, 1, 8), {"weight": ((128, 16, 1, 2), 0)},
                  lambda x, w, d: mb.conv(x=x, weight=w["weight"], groups=4, name="op"), groups=4),
    "conv_transpose": Op("conv_transpose", (1, 32, 1, 8), {"weight": ((32, 64, 1, 3), 1)},
                         lambda x, w, d: mb.conv_transpose(x=x, weight=w["weight"], name="op")),
    "linear": Op("linear", (4, 96), {"weight": ((64, 96), 0)},
                 lambda x, w, d: mb.linear(x=x, weight=w["weight"], bias=np.ones(64, d), name="op")),
    "matmul_y": Op("matmul", (4, 96), {"y": ((96, 64), 1)},
                   lambda x, w, d: mb.matmul(x=x, y=w["y"], name="op")),
    "matmul_yt": Op("matmul", (4, 96), {"y": ((64, 96), 0)},
                    lambda x, w, d: mb.matmul(x=x, y=w["y"], transpose_y=True, name="op")),
    "matmul_x": Op("matmul", (96, 4), {"x": ((64, 96), 0)},
                   lambda x, w, d: mb.matmul(x=w["x"], y=x, name="op")),
    "matmul_xt": Op("matmul", (96, 4), {"x": ((96, 64), 1)},
                    lambda x, w, d: mb.matmul(x=w["x"], y=x, transpose_x=True, name="op")),
    "gather": Op("gather", (1,), {"x": ((128, 32), 0)},
                 lambda x, w, d: mb.gather(x=w["x"], indices=mb.cast(x=x, dtype="int32"), axis=0, name="op")),
    "lstm": Op("lstm", (5, 1, 32), {"weight_ih": ((128, 32), 0), "weight_hh": ((128, 32), 0)}, _lstm),
    "sdpa": Op("scaled_dot_product_attention", (32, 4, 8, 16),
               {"key": ((32, 4, 2, 16), 0), "value": ((32, 4, 2, 16), 0)},
               lambda x, w, d: mb.scaled_dot_product_attention(
                   query=x, key=w["key"], value=w["value"], name="op"),
               targets=("iOS18", "iOS26")),
}


def exists(op, target, dtype):
    """Whether Core ML has the op in this opset and for this element type."""
    if op == "lstm" and dtype == "fp16":
        return target in ("iOS17", "iOS18", "iOS26")
    return target in OPS[op].targets


def build(op, target, dtype, values="tails"):
    """One op and its weights; the op is called `op`, a weight `op_<parameter>`."""
    kind = OPS[op]
    np_dtype, mil_dtype = DTYPES[dtype]

    @mb.program(input_specs=[mb.TensorSpec(kind.input_shape, dtype=mil_dtype)],
                opset_version=TARGETS[target])
    def program(x):
        weights = {
            name: mb.const(val=random(f"{op}.{name}", shape, values).astype(np_dtype), name=f"op_{name}")
            for name, (shape, _) in kind.weights.items()
        }
        return mb.identity(x=kind.body(x, weights, np_dtype), name="result")

    return convert(program, target)
