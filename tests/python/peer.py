"""What the peer makes of the same model and settings; asked once per session and setting."""

import functools

import coremltools as ct
import coremltools.optimize.coreml as cto
import numpy as np
from coremltools.converters.mil.mil.passes.graph_pass import PassOption
from coremltools.converters.mil.mil.passes.pass_registry import PASS_REGISTRY
from coremltools.models.utils import _apply_graph_pass

import judge


def config(**options):
    """A global palettizer configuration."""
    return cto.OptimizationConfig(global_config=cto.OpPalettizerConfig(**options))


@functools.cache
def palettized(path, joint=False, **options):
    """The peer's dense weights after palettization, or None where it fails on that setting.

    The pass runs on the loaded program; converting the result back into a package, which takes the
    peer most of its time on a small model, is left out.
    """
    step = PASS_REGISTRY["compression::palettize_weights"]
    step.set_options([PassOption("config", config(**options)), PassOption("joint_compression", joint)])
    try:
        program = _apply_graph_pass(judge.load(path), step, return_pymil_prog=True)
    except (ValueError, NotImplementedError):
        return None
    found = {}
    for function, op in judge.operations(program):
        for parameter, var in op.inputs.items():
            if not isinstance(var, (list, tuple)) and var.op is not None:
                if var.op.op_type == "const" or var.op.op_type.startswith("constexpr_"):
                    dense = judge.value(var)
                    if isinstance(dense, np.ndarray):
                        found[0, function, op.name, parameter] = dense, bool(judge.chain(var))
    return found


def save(model, path):
    model.save(str(path))
    return path


def pruned(model, sparsity=0.6):
    return cto.prune_weights(model, cto.OptimizationConfig(cto.OpMagnitudePrunerConfig(target_sparsity=sparsity)))


def quantized(model, joint=False, **options):
    options = {"mode": "linear_symmetric", "dtype": "int8", **options}
    return cto.linear_quantize_weights(
        model, cto.OptimizationConfig(cto.OpLinearQuantizerConfig(**options)), joint_compression=joint)


def palette(model, joint=False, **options):
    return cto.palettize_weights(model, config(**{"nbits": 4, **options}), joint_compression=joint)


def quantized_luts(model):
    """The LUTs of a palettized model as int8, with `linear_quantize_weights` as the second tool."""
    options = cto.OpLinearQuantizerConfig(mode="linear_symmetric", dtype="int8", granularity="per_tensor",
                                          weight_threshold=0)
    return cto.linear_quantize_weights(model, cto.OptimizationConfig(options), joint_compression=True)


def decompressed(path):
    """The peer's `decompress_weights`, as a model."""
    return cto.decompress_weights(judge.load(path))


__all__ = ["ct", "config", "decompressed", "palette", "palettized", "pruned", "quantized", "quantized_luts", "save"]
