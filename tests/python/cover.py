"""The command's settings: which there are, which of them go together, and a cover of all pairs that can occur."""

import pairwise as pairwise_rows
import zoo

FACTORS = {
    "mode": ("kmeans", "uniform", "unique"),
    "nbits": (1, 2, 3, 4, 6, 8, None),
    "group_size": (None, 1, 4, 16, 32),  # None: per_tensor
    "channel_axis": (None, 0, 1),
    "cluster_dim": (1, 2, 4),
    "per_channel_scale": (False, True),
    "lut_dtype": ("float", "int8", "uint8"),
    "target": ("iOS16", "iOS17", "iOS18", "iOS26"),
    "dtype": ("fp16", "fp32"),
    "op": ("conv", "depthwise", "grouped", "conv_transpose", "linear", "matmul_y", "matmul_yt", "matmul_x",
           "matmul_xt", "gather", "lstm", "sdpa"),
}

NEW = ("iOS18", "iOS26")

# Each rule names its factors and says which of their combinations the product does not define.
RULES = [
    (("mode", "nbits"), lambda mode, nbits: (mode == "unique") == (nbits is None)),
    (("mode", "cluster_dim"), lambda mode, dim: mode != "uniform" or dim == 1),
    (("mode", "lut_dtype"), lambda mode, lut: mode != "unique" or lut == "float"),
    (("group_size", "channel_axis"), lambda size, axis: size is not None or axis is None),
    (("target", "group_size"), lambda target, size: target in NEW or size is None),
    (("target", "cluster_dim"), lambda target, dim: target in NEW or dim == 1),
    (("target", "nbits"), lambda target, nbits: target in NEW or nbits != 3),
    (("target", "lut_dtype"), lambda target, lut: target in NEW or lut == "float"),
    (("target", "per_channel_scale"), lambda target, scale: target in NEW or not scale),
    (("target", "dtype", "op"), lambda target, dtype, op: zoo.exists(op, target, dtype)),
    (("group_size", "channel_axis", "cluster_dim", "op"), lambda *row: not indivisible(*row)),
]


def group_axis(op, channel_axis, parameter):
    """The axis of groups and vectors: the one asked for, or else that of the consumer's output channels."""
    return zoo.OPS[op].weights[parameter][1] if channel_axis is None else channel_axis


def indivisible(group_size, channel_axis, cluster_dim, op):
    """Which setting does not divide the channels of some weight of the op, or None."""
    kind = zoo.OPS[op]
    for parameter, (shape, _) in kind.weights.items():
        axis = group_axis(op, channel_axis, parameter)
        if group_size is not None and shape[axis] % group_size:
            return "group_size"
        # a vector must not reach across the groups of a grouped convolution, nor of the palette
        per_conv_group = shape[axis] // kind.groups if axis == 0 else shape[axis]
        if (group_size or shape[axis]) % cluster_dim or per_conv_group % cluster_dim:
            return "cluster_dim"
    return None


def pairs(row):
    return pairwise_rows.pairs(row, FACTORS)


def pairwise(**fixed):
    """(rows, pairs that no allowed row holds); `fixed` pins some factors to one value."""
    return pairwise_rows.rows(FACTORS, RULES, fixed)


def flags(row):
    """The row as command line flags."""
    given = ["--mode", row["mode"], "--lut-dtype", row["lut_dtype"], "--cluster-dim", row["cluster_dim"]]
    if row["nbits"] is not None:
        given += ["--nbits", row["nbits"]]
    if row["group_size"] is None:
        given += ["--granularity", "per_tensor"]
    else:
        given += ["--granularity", "per_grouped_channel", "--group-size", row["group_size"]]
    if row["channel_axis"] is not None:
        given += ["--channel-axis", row["channel_axis"]]
    if row["per_channel_scale"]:
        given.append("--per-channel-scale")
    return given
