"""Settings that make no sense, or that the program is too old for: an error that names the flag."""

import pytest

import cover
import judge
from zoo_compressed import plain
from zoo_graphs import opset
from zoo_special import special

# flags -> words that the message must hold
USAGE = {
    "no nbits": ([], ["--nbits"]),
    "nbits 5": (["--nbits", 5], ["--nbits", "5"]),
    "nbits 0": (["--nbits", 0], ["--nbits"]),
    "nbits 16": (["--nbits", 16], ["--nbits", "8"]),
    "mode": (["--nbits", 4, "--mode", "kmedians"], ["--mode", "kmeans", "uniform", "unique"]),
    "custom is for the API": (["--mode", "custom"], ["custom"]),
    "nbits with unique": (["--mode", "unique", "--nbits", 4], ["nbits", "unique"]),
    "uniform vectors": (["--nbits", 4, "--mode", "uniform", "--cluster-dim", 2], ["--cluster-dim", "uniform"]),
    "cluster dim 0": (["--nbits", 4, "--cluster-dim", 0], ["--cluster-dim"]),
    "group size -1": (["--nbits", 4, "--group-size=-1"], ["--group-size"]),
    "granularity": (["--nbits", 4, "--granularity", "per_block"], ["--granularity", "per_grouped_channel"]),
    "lut dtype": (["--nbits", 4, "--lut-dtype", "int4"], ["--lut-dtype", "uint8"]),
    "unique int8": (["--mode", "unique", "--lut-dtype", "int8"], ["--lut-dtype", "unique"]),
    "threshold": (["--nbits", 4, "--weight-threshold", "many"], ["--weight-threshold"]),
    "target": (["--nbits", 4, "--minimum-deployment-target", "iOS14"], ["--minimum-deployment-target", "iOS18"]),
    "op type without a value": (["--nbits", 4, "--op-type", "linear"], ["--op-type"]),
    "op type with a bad value": (["--nbits", 4, "--op-type", "linear=5"], ["--op-type", "5"]),
    "op name with a bad value": (["--nbits", 4, "--op-name", "odd=never"], ["--op-name", "never"]),
    "a missing config file": (["--config", "nowhere.yaml"], ["nowhere.yaml"]),
    "config and nbits": (["--config", "nowhere.yaml", "--nbits", 4], ["--config"]),
    "threads": (["--nbits", 4, "--threads=-1"], ["--threads"]),
    "unknown flag": (["--nbits", 4, "--sharpen"], ["--sharpen"]),
}


@pytest.mark.parametrize("name", USAGE)
def test_usage(name, models, refuses, tmp_path):
    flags, words = USAGE[name]
    refuses(words, "compress", models(special, "plain", "fp16"), "-o", tmp_path / "out.mlpackage", *flags)


@pytest.mark.parametrize("args", [
    [], ["compress"], ["compress", "a.mlpackage"], ["squeeze", "a.mlpackage"], ["inspect"],
    ["decompress", "a.mlpackage"], ["completions"], ["completions", "cobol"],
], ids=" ".join)
def test_usage_without_arguments(args, refuses):
    refuses([], *args, codes=(2,))


NEEDS_IOS18 = {
    "3 bits": ["--nbits", 3],
    "groups": ["--nbits", 4, "--granularity", "per_grouped_channel"],
    "vectors": ["--nbits", 4, "--cluster-dim", 2],
    "scale": ["--nbits", 4, "--per-channel-scale"],
    "int8": ["--nbits", 4, "--lut-dtype", "int8"],
    "uint8": ["--nbits", 4, "--lut-dtype", "uint8"],
    "by type": ["--nbits", 4, "--op-type", "conv=3"],
}


@pytest.mark.parametrize("target", ["iOS16", "iOS17"])
@pytest.mark.parametrize("name", NEEDS_IOS18)
def test_an_old_opset(name, target, models, refuses, tmp_path):
    refuses(["--minimum-deployment-target", "iOS18"], "compress", models(plain, target), "-o",
            tmp_path / "out.mlpackage", *NEEDS_IOS18[name], codes=(1,))


@pytest.mark.parametrize("flags", [["--nbits", 4], ["--mode", "unique"], ["--nbits", 3]], ids=str)
def test_the_oldest_opset(flags, models, refuses, tmp_path):
    refuses(["--minimum-deployment-target", "iOS16"] if "3" not in map(str, flags) else ["iOS18"],
            "compress", models(opset, "iOS15"), "-o", tmp_path / "out.mlpackage", *flags, codes=(1,))


@pytest.mark.parametrize("target", ["iOS16", "iOS17"])
def test_one_group_of_all_channels_needs_no_new_opset(target, models, compress):
    """It is one table, which the op of iOS16 holds."""
    model = models(plain, target)
    grouped = compress(model, "--nbits", 4, "--granularity", "per_grouped_channel", "--group-size", 0)[0]
    assert judge.digest(grouped) == judge.digest(compress(model, "--nbits", 4)[0])


INDIVISIBLE = [
    # op, group size, channel axis, cluster dim
    ("conv", 48, None, 1), ("conv", 32, None, 5), ("conv", 3, 1, 1), ("conv", 2, None, 4),
    ("linear", 36, None, 1), ("linear", None, None, 5), ("matmul_y", 48, None, 1), ("matmul_xt", None, None, 7),
    ("depthwise", 4, 1, 1), ("depthwise", None, None, 2), ("conv_transpose", 48, None, 1), ("grouped", None, None, 64),
    ("gather", 33, None, 1), ("lstm", 24, 1, 1), ("sdpa", 3, None, 1), ("sdpa", 16, 1, 1),
]


@pytest.mark.parametrize("op, group_size, axis, cluster_dim", INDIVISIBLE)
def test_what_does_not_divide_is_skipped_with_its_reason(op, group_size, axis, cluster_dim, op_model, compress):
    model = op_model(op, "iOS18", "fp16", "tails")
    reason = cover.indivisible(group_size, axis, cluster_dim, op)
    assert reason
    flags = ["--nbits", 4, "--cluster-dim", cluster_dim]
    if group_size is not None:
        flags += ["--granularity", "per_grouped_channel", "--group-size", group_size]
    if axis is not None:
        flags += ["--channel-axis", axis]
    out, report = compress(model, *flags)
    assert report["weights"]
    for entry in report["weights"]:
        assert entry["status"] == "skipped" and reason in entry["reason"], entry
    assert judge.resolved(out) == judge.resolved(model)


@pytest.mark.parametrize("axis", [4, -5, 99])
def test_an_axis_that_is_not_there(axis, op_model, compress):
    out, report = compress(op_model("conv", "iOS18", "fp16", "tails"), "--nbits", 4, "--granularity",
                           "per_grouped_channel", "--group-size", 4, f"--channel-axis={axis}")
    (entry,) = report["weights"]
    assert entry["status"] == "skipped" and str(axis) in entry["reason"]


@pytest.mark.parametrize("axis, same", [(-4, 0), (-3, 1)])
def test_an_axis_from_the_end(axis, same, op_model, compress):
    model = op_model("conv", "iOS18", "fp16", "tails")
    grouped = ["--nbits", 4, "--granularity", "per_grouped_channel", "--group-size", 4]
    outs = [compress(model, *grouped, f"--channel-axis={a}")[0] for a in (axis, same)]
    assert judge.digest(outs[0]) == judge.digest(outs[1])
