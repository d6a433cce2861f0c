"""Constants that are not like weights: masks, NaN, one value, two values, extremes, immediate values."""

import tempfile
from pathlib import Path

import coremltools as ct
import numpy as np
from coremltools.converters.mil import Builder as mb
from coremltools.models.utils import load_spec

import judge
from zoo import DTYPES, TARGETS, convert, random

SHAPE = (64, 96)


def values(kind, dtype):
    np_dtype = DTYPES[dtype][0]
    top = float(np.finfo(np_dtype).max)
    w = random(f"special.{kind}", SHAPE).astype(np.float64)
    flat = w.reshape(-1)
    if kind == "one-value":
        w[:] = 0.3
    elif kind == "zeros":
        w[:] = 0
    elif kind == "signed-zeros":
        w[:] = np.where(w > 0, 0.0, -0.0)
    elif kind == "two-values":
        w[:] = np.where(w > 0.02, 0.75, -0.125)
    elif kind == "one-constant-row":
        w[3] = 0.25
    elif kind == "zero-row":
        w[5] = 0
    elif kind == "some-nan":
        flat[::97] = np.nan
    elif kind == "all-nan":
        w[:] = np.nan
    elif kind == "one-inf":
        flat[11] = np.inf
    elif kind == "mask":
        w[:] = np.where(w > 0, 0.0, -np.inf)
    elif kind == "extremes":
        w[:] = np.where(w > 0.05, top, np.where(w < -0.05, -top, w))
    elif kind == "subnormal":
        w *= float(np.finfo(np_dtype).tiny) / 4
    elif kind == "outlier":
        flat[0] = top * 0.9
    elif kind == "plain":
        pass
    else:
        raise ValueError(kind)
    with np.errstate(over="ignore"):
        return w.astype(np_dtype)


KINDS = ("one-value", "zeros", "signed-zeros", "two-values", "one-constant-row", "zero-row", "some-nan", "all-nan",
         "one-inf", "mask", "extremes", "subnormal", "outlier")
NON_FINITE = {"some-nan", "all-nan", "one-inf", "mask"}
FEW = {"one-value": 1, "zeros": 1, "signed-zeros": 1, "two-values": 2}


def special(kind, dtype):
    """A linear whose weight is special, and after it an ordinary one."""
    @mb.program(input_specs=[mb.TensorSpec((4, 96), dtype=DTYPES[dtype][1])], opset_version=TARGETS["iOS18"])
    def program(x):
        x = mb.linear(x=x, weight=mb.const(val=values(kind, dtype), name="special"), name="odd")
        ordinary = random("ordinary", (48, 64)).astype(DTYPES[dtype][0])
        return mb.linear(x=x, weight=mb.const(val=ordinary, name="ordinary"), name="even")
    return convert(program, "iOS18")


def immediate(dtype):
    """The special model with its weights written into the program instead of the blob file."""
    folder = Path(tempfile.mkdtemp()) / "immediate.mlpackage"
    special("plain", dtype).save(str(folder))
    spec = load_spec(str(folder))
    for block in spec.mlProgram.functions["main"].block_specializations.values():
        for op in block.operations:
            if op.type == "const" and op.attributes["val"].WhichOneof("value") == "blobFileValue":
                value = op.attributes["val"]
                data = judge.blob(folder, value.blobFileValue.fileName, value.blobFileValue.offset)[1]
                value.ClearField("blobFileValue")
                if dtype == "fp16":
                    value.immediateValue.tensor.bytes.values = data
                else:
                    value.immediateValue.tensor.floats.values.extend(np.frombuffer(data, np.float32).tolist())
    (folder / judge.PROGRAM).write_bytes(spec.SerializeToString())
    assert isinstance(ct.models.MLModel(str(folder), skip_model_load=True), ct.models.MLModel)
    return folder
