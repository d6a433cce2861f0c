"""Palettized modules through coremltools' converter, and what its program then holds."""

import coremltools as ct
import numpy as np
import torch
from torch_support import layers

import judge

TARGETS = {"iOS16": ct.target.iOS16, "iOS18": ct.target.iOS18}
torch.backends.mha.set_fastpath_enabled(False)  # the converter does not know the fused attention of evaluation mode


def convert(model, sample, target, how, path, precision="FLOAT32", without=()):
    """The package of a module: traced, or exported with its decompositions."""
    if how == "traced":
        with torch.no_grad():
            program = torch.jit.trace(model, sample, check_trace=False)
        kinds = {torch.int32: np.int32, torch.float16: np.float16, torch.float32: np.float32}
        inputs = [ct.TensorType(shape=tuple(sample.shape), dtype=kinds[sample.dtype])]
    else:
        program, inputs = torch.export.export(model, (sample,)).run_decompositions({}), None
    passes = ct.PassPipeline.DEFAULT
    passes.remove_passes(without)
    package = ct.convert(program, inputs=inputs, minimum_deployment_target=TARGETS[target], skip_model_load=True,
                         compute_precision=getattr(ct.precision, precision), pass_pipeline=passes)
    package.save(str(path))
    return path


def sample(kind, dtype="fp32"):
    """An input of the kind's model."""
    if kind.startswith("embedding"):
        return torch.arange(4, dtype=torch.int32).reshape(1, 4)
    return layers.values(f"sample {kind}", layers.KINDS[kind].input_shape).to(layers.DTYPES[dtype])


def palettized(path):
    """Name of the parameter -> the variable, for every constant behind a lookup table.

    The converter writes `layer.out_proj.weight` as `layer_out_proj_weight`; export puts `p_` before it, and where
    there are two ops the second has `_1` at its end.
    """
    found = {}
    for var in judge.constants(path).values():
        if "lut_to_dense" in judge.chain(var):
            found[var.op.name.removeprefix("p_").removesuffix("_1")] = var
    return found
