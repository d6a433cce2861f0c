"""Every form that a weight can come in, with every setting: a program that the peer reads, or a reason, or an error.

The cover holds every pair of a form that the peer compresses to and of our settings that can occur, whether the setting
suits the form or not, and some rows at random beside. Each ends in one of three ways: a weight in a form that the
peer loads and decompresses to the very values that we do; a weight left as it was, with a reason; or an error before
anything is written.
"""

import random

import numpy as np
import pytest
from coremltools.models.utils import _apply_graph_pass
from coremltools.optimize.coreml._quantization_passes import WeightDecompressor

import judge
import pairwise
import zoo
import zoo_compressed
from cover import NEW
from palettizer import coreml as ours

DENSE = "dense"
FACTORS = {
    "form": (DENSE, *zoo_compressed.KINDS),
    "made_for": ("iOS15", "iOS16", "iOS17", "iOS18", "iOS26"),
    "op": ("conv", "grouped", "conv_transpose", "linear", "matmul_y", "gather"),
    "dtype": ("fp16", "fp32"),
    "mode": ("kmeans", "uniform", "unique", "custom"),
    "nbits": (1, 2, 3, 4, 6, 8, None),
    "group_size": (None, 1, 8, 32),  # None: per_tensor
    "channel_axis": (None, 0, 1),
    "cluster_dim": (1, 2, 4),
    "per_channel_scale": (False, True),
    "lut_dtype": (None, "int8", "uint8"),
    "joint": (False, True),
    "target": ("iOS16", "iOS17", "iOS18", "iOS26"),
}
# What joint compression takes up again, in the forms of iOS18.
JOINT = {"sparse", "sparse-almost-all", "int8", "int8-tensor", "int8-affine", "uint8-affine"}
AT_RANDOM = 80


def made(form, target):
    """Whether the form exists in programs of the target. What iOS17 and iOS26 read, iOS16 and iOS18 write."""
    if form == DENSE:
        return True
    older = {"iOS17": "iOS16", "iOS26": "iOS18"}.get(target, target)
    if form == "lut8-int8" and target == "iOS26":
        return False  # the peer does not quantize tables there
    return older in zoo_compressed.KINDS[form][0]


# What no configuration can say, and what no program holds: all else is tried.
RULES = [
    (("form", "made_for"), made),
    (("made_for", "op", "dtype"), lambda target, op, dtype: target == "iOS15" or zoo.exists(op, target, dtype)),
    (("made_for", "target"), lambda made_for, target: made_for <= target),
    (("mode", "nbits"), lambda mode, nbits: (mode in ("unique", "custom")) == (nbits is None)),
    (("mode", "cluster_dim"), lambda mode, dim: mode in ("kmeans", "unique") or dim == 1),
    (("mode", "lut_dtype"), lambda mode, lut: mode in ("kmeans", "uniform") or lut is None),
    (("group_size", "channel_axis"), lambda size, axis: size is not None or axis is None),
]


def rows():
    """The cover, and the rows at random."""
    found, _ = pairwise.rows(FACTORS, RULES)
    chance = random.Random(0)
    while len(found) < AT_RANDOM + len(COVER):
        row = {factor: chance.choice(values) for factor, values in FACTORS.items()}
        if pairwise.allowed(row, RULES):
            found.append(row)
    return found


COVER, _ = pairwise.rows(FACTORS, RULES)
ROWS = rows()


def name(row):
    return "-".join(str(value) for value in row.values())


def build(form, target, op, dtype, values):
    if form == DENSE:
        return zoo.build(op, target, dtype, values)
    return zoo_compressed.compressed_op(form, target, op, dtype, values)


def three(values):
    """A table of three values, by where a value lies."""
    flat = values.flatten().astype(np.float64)
    third = float(np.abs(flat).max()) / 3
    return np.array([-2 * third, 0, 2 * third], values.dtype), [int(v > -third) + int(v > third) for v in flat]


def config(row):
    options = {"mode": row["mode"], "nbits": row["nbits"], "cluster_dim": row["cluster_dim"],
               "enable_per_channel_scale": row["per_channel_scale"], "lut_dtype": row["lut_dtype"]}
    if row["mode"] == "custom":
        options["lut_function"] = three
    if row["group_size"] is not None:
        options |= {"granularity": "per_grouped_channel", "group_size": row["group_size"],
                    "channel_axis": row["channel_axis"]}
    return ours.OptimizationConfig(global_config=ours.OpPalettizerConfig(**options))


def decompressed_by_the_peer(path):
    """What the peer's `decompress_weights` makes of every weight, by place."""
    step = WeightDecompressor(op_selector=lambda op: True)
    program = _apply_graph_pass(judge.load(path), step, return_pymil_prog=True)
    found = {}
    for function, op in judge.operations(program):
        for parameter, var in op.inputs.items():
            if not isinstance(var, (list, tuple)) and isinstance(var.val, np.ndarray):
                assert not judge.chain(var)
                found[0, function, op.name, parameter] = var.val
    return found


def test_the_cover_covers():
    seen = {(factor, row[factor]) for row in COVER for factor in FACTORS}
    assert seen == {(factor, value) for factor, values in FACTORS.items() for value in values}
    joint = {(row["form"], row["per_channel_scale"]) for row in COVER if row["joint"]}
    assert ("sparse", True) in {(row["form"], row["per_channel_scale"]) for row in ROWS if row["joint"]}
    assert len({form for form, _ in joint}) == len(FACTORS["form"])


@pytest.mark.parametrize("row", ROWS, ids=name)
def test_form(row, models, tmp_path):
    values = "lattice" if row["mode"] == "unique" else "tails"
    model = models(build, row["form"], row["made_for"], row["op"], row["dtype"], values)
    try:
        result = ours.palettize_weights(model, config(row), row["joint"], progress=False,
                                        minimum_deployment_target=row["target"])
    except ValueError as error:
        # The only error that a sound model gives: its opset is too old for what was asked.
        assert row["target"] in ("iOS16", "iOS17") and "iOS18" in str(error), error
        return
    out, flat = tmp_path / "out.mlpackage", tmp_path / "flat.mlpackage"
    result.save(str(out))
    ours.decompress_weights(result, progress=False).save(str(flat))

    before, variables = judge.weights(model), judge.constants(out)
    after = judge.weights(out)
    judge.assert_same_weights(after, judge.weights(flat))
    theirs = decompressed_by_the_peer(out)
    judge.assert_same_weights(after, {key: theirs[key] for key in after})
    kind = zoo.OPS[row["op"]]
    assert len(result.report) == len(kind.weights)
    for parameter in kind.weights:
        # The peer converts what it has compressed: a transposed convolution has another name then.
        (key,) = [key for key in before if key[3] == parameter and key[2].startswith("op")]
        entry = next(w for title, w in result.report.items() if title.startswith(f"op_{parameter}"))
        assert after[key].dtype == before[key].dtype and after[key].shape == before[key].shape
        if entry["status"] == "skipped":
            taken = row["form"] == DENSE or (row["joint"] and row["form"] in JOINT and row["target"] in NEW)
            assert entry["reason"] and ("already compressed" in entry["reason"]) == (not taken), entry
            assert judge.same_bits(before[key], after[key])
            continue
        assert row["form"] == DENSE or row["joint"]
        assert any(op.startswith("lut_to") for op in judge.chain(variables[key]))
        bits, _, _ = judge.table(variables[key])
        assert bits == entry["nbits"] or (bits, entry["nbits"]) == (4, 3)
        if entry["dtype"] in ("fp16", "fp32"):
            error = judge.squared_error(before[key], after[key])
            assert entry["mse"] == pytest.approx(error / after[key].size, rel=1e-9, abs=1e-300)
        if "sparse" in row["form"]:
            assert np.all(after[key][before[key] == 0] == 0)
