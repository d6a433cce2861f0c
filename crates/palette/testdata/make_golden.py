"""Writes dense.txt and peer.txt from coremltools' own arithmetic. Run with the oracle's Python."""

import pathlib

import numpy as np
from coremltools.converters.mil.mil.ops.defs.iOS16 import constexpr_ops as ios16
from coremltools.converters.mil.mil.ops.defs.iOS18 import compression as ios18
from coremltools.optimize.coreml._quantization_passes import palettize_weights

here = pathlib.Path(__file__).parent
rng = np.random.default_rng(20240917)
NAMES = {"float16": "fp16", "float32": "fp32", "int8": "int8", "uint8": "uint8"}


def text(name, array):
    array = np.ascontiguousarray(array)
    shape = "x".join(map(str, array.shape)) or "-"
    return f"{name}={NAMES[str(array.dtype)]}:{shape}:{array.tobytes().hex()}"


def floats(shape, dtype, spread=1.0):
    return (rng.standard_normal(shape) * spread).astype(dtype)


lines = ["# op, inputs and output: name=dtype:shape:little-endian hex. Written by make_golden.py."]
for dtype in ("float16", "float32", "int8", "uint8"):
    for index_shape, groups, nbits, vector, axis in [
        ((6, 2), (2, 1), 2, 1, None),
        ((4, 6, 2), (1, 3, 2), 3, 1, None),
        ((2, 4, 3), (2, 2, 1), 1, 3, 1),
        ((2, 4, 3), (1, 2, 3), 2, 2, -1),
        ((4, 3), (2, 3), 4, 2, -2),
        ((5,), (5,), 6, 1, None),
    ]:
        lut_shape = groups + (2**nbits, vector)
        lut = floats(lut_shape, dtype) if dtype.startswith("f") else rng.integers(0, 127, lut_shape).astype(dtype)
        indices = rng.integers(0, 2**nbits, index_shape).astype(np.uint8)
        out = ios18.constexpr_lut_to_dense.decompress(indices, lut, axis)
        lines.append(f"lut axis={axis} {text('indices', indices)} {text('lut', lut)} {text('out', out)}")
        mask = rng.integers(0, 2, index_shape).astype(np.uint8)
        out_mask, values = ios18.constexpr_lut_to_sparse.decompress(mask, indices[mask != 0], lut, axis)
        bits = [np.packbits(m.flatten(), bitorder="little") for m in (mask, out_mask)]
        lines.append(
            f"lut_sparse axis={axis} {text('shape', np.zeros((0,) + index_shape, np.uint8))} {text('mask', bits[0])} "
            f"{text('indices', indices[mask != 0])} {text('lut', lut)} {text('out_mask', bits[1])} {text('out', values)}"
        )

for scale_dtype in ("float16", "float32"):
    for data_dtype in ("int8", "uint8", "float16", "float32"):
        for offset_dtype in (None, "same", "float16", "float32"):
            if scale_dtype == "float16" and offset_dtype == "float32":
                continue
            for shape, blocks in [((4, 6), (2, 3)), ((3, 4, 2), (3, 1, 1)), ((2, 3, 4), (1, 3, 2)), ((7,), (1,))]:
                if data_dtype.startswith("f"):
                    data = floats(shape, data_dtype, 30)
                else:
                    info = np.iinfo(data_dtype)
                    data = rng.integers(info.min, info.max + 1, shape).astype(data_dtype)
                scale = floats(blocks, scale_dtype, 0.01)
                scale.flat[0] = 600 if scale_dtype == "float16" else 1e-41
                offset = None
                if offset_dtype is not None:
                    kind = data_dtype if offset_dtype == "same" else offset_dtype
                    offset = floats(blocks, "float64", 20).astype(kind) if kind[0] == "f" else (
                        rng.integers(0, 100, blocks).astype(kind))
                with np.errstate(all="ignore"):
                    out = ios18.constexpr_blockwise_shift_scale.decompress(data, scale, offset)
                line = f"shift_scale {text('data', data)} {text('scale', scale)}"
                if offset is not None:
                    line += f" {text('offset', offset)}"
                lines.append(f"{line} {text('out', out.astype(scale_dtype))}")

for scale_dtype in ("float16", "float32"):
    for data_dtype, zero_dtype in (("int8", "int8"), ("uint8", "uint8"), ("uint8", "float32")):
        for scalar in (True, False):
            data = rng.integers(0, 120, (3, 4, 2)).astype(data_dtype)
            shape = () if scalar else (4,)
            scale = floats(shape or (1,), scale_dtype, 0.01).reshape(shape)
            zero = rng.integers(0, 100, shape or (1,)).astype(zero_dtype).reshape(shape)
            out = ios16.constexpr_affine_dequantize.decompress(data, zero, scale, 1)
            lines.append(
                f"affine axis=1 {text('data', data)} {text('scale', scale)} {text('zero', zero)} {text('out', out)}"
            )
(here / "dense.txt").write_text("\n".join(lines) + "\n")

lines = ["# What coremltools makes of a weight. Written by make_golden.py."]
for dtype in ("float16", "float32"):
    weight = floats((16, 12), dtype)
    for mode, nbits, group, axis in [
        ("KMEANS", 1, 0, 0), ("KMEANS", 2, 0, 0), ("KMEANS", 4, 0, 0), ("KMEANS", 2, 4, 0), ("KMEANS", 3, 3, 1),
        ("UNIFORM", 2, 0, 0), ("UNIFORM", 4, 8, 0), ("UNIFORM", 3, 6, 1),
        ("UNIQUE", None, 4, 0), ("UNIQUE", None, 0, 0),
    ]:
        params = palettize_weights.grouped_channelwise_compress(weight, mode, nbits, axis, group)
        out = palettize_weights.decompress(params)
        lines.append(
            f"{mode.lower()} nbits={nbits} group={group} axis={axis} {text('weight', weight)} "
            f"{text('indices', params.indices.astype(np.uint8))} {text('lut', params.lut)} {text('out', out)}"
        )
(here / "peer.txt").write_text("\n".join(lines) + "\n")
