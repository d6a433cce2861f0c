"""Models that the peer has compressed already, one way each."""

import numpy as np

import peer
import zoo


def _conv(target):
    return zoo.build("conv", target, "fp16")


def _grouped(**more):
    return {"granularity": "per_grouped_channel", "group_size": 8, **more}


# name -> (targets, how). Every chain of compression ops that the peer can write is here once at least.
KINDS = {
    "lut1": (("iOS16", "iOS18"), lambda m: peer.palette(m, nbits=1)),
    "lut4": (("iOS16", "iOS18"), lambda m: peer.palette(m, nbits=4)),
    "lut6": (("iOS16", "iOS18"), lambda m: peer.palette(m, nbits=6)),
    "lut8-uniform": (("iOS16", "iOS18"), lambda m: peer.palette(m, nbits=8, mode="uniform")),
    "lut3-groups": (("iOS18",), lambda m: peer.palette(m, nbits=3, **_grouped())),
    "lut4-groups-axis1": (("iOS18",), lambda m: peer.palette(m, nbits=4, **_grouped(channel_axis=1))),
    "lut6-vectors": (("iOS18",), lambda m: peer.palette(m, nbits=6, cluster_dim=4)),
    "lut2-vectors-groups": (("iOS18",), lambda m: peer.palette(m, nbits=2, cluster_dim=2, **_grouped())),
    "lut4-scale": (("iOS18",), lambda m: peer.palette(m, nbits=4, enable_per_channel_scale=True, **_grouped())),
    "lut8-int8": (("iOS18",), lambda m: peer.quantized_luts(peer.palette(m, nbits=8))),
    "int8": (("iOS16", "iOS18"), lambda m: peer.quantized(m)),
    "uint8-affine": (("iOS16", "iOS18"), lambda m: peer.quantized(m, mode="linear", dtype="uint8")),
    "int8-affine": (("iOS16", "iOS18"), lambda m: peer.quantized(m, mode="linear")),
    "int8-tensor": (("iOS16", "iOS18"), lambda m: peer.quantized(m, granularity="per_tensor")),
    "int4-block": (("iOS18",), lambda m: peer.quantized(m, dtype="int4", granularity="per_block", block_size=8)),
    "uint4-block": (("iOS18",), lambda m: peer.quantized(
        m, mode="linear", dtype="uint4", granularity="per_block", block_size=16)),
    "sparse": (("iOS16", "iOS18"), lambda m: peer.pruned(m)),
    "sparse-almost-all": (("iOS16", "iOS18"), lambda m: peer.pruned(m, 0.99)),
    "sparse-lut": (("iOS18",), lambda m: peer.palette(peer.pruned(m), joint=True)),
    "sparse-lut-int8": (("iOS18",), lambda m: peer.quantized_luts(peer.palette(peer.pruned(m), joint=True, nbits=8))),
    "sparse-int8": (("iOS18",), lambda m: peer.quantized(peer.pruned(m), joint=True)),
    "sparse-uint4": (("iOS18",), lambda m: peer.quantized(
        peer.pruned(m), joint=True, mode="linear", dtype="uint4")),
    "int8-lut": (("iOS18",), lambda m: peer.palette(peer.quantized(m), joint=True)),
}
CASES = [(kind, target) for kind, (targets, _) in KINDS.items() for target in targets]


def compressed(kind, target):
    """The zoo's convolution, compressed by the peer."""
    return KINDS[kind][1](_conv(target))


def compressed_op(kind, target, op, dtype, values):
    """An op of the zoo, compressed by the peer; left as it is where the peer leaves it."""
    return KINDS[kind][1](zoo.build(op, target, dtype, values))


def plain(target):
    return _conv(target)


def cast(target):
    """A weight stored as fp16 for an fp32 op: `constexpr_cast`."""
    from coremltools.converters.mil import Builder as mb

    @mb.program(input_specs=[mb.TensorSpec((4, 96))], opset_version=zoo.TARGETS[target])
    def program(x):
        half = zoo.random("cast", (64, 96)).astype(np.float16)
        weight = mb.constexpr_cast(source_val=half, output_dtype="fp32", name="w")
        return mb.linear(x=x, weight=weight, name="op")
    return zoo.convert(program, target)
