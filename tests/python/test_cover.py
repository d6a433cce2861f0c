"""Every pair of settings: the output loads, holds what the report says, and is as good as the peer's."""

import numpy as np
import pytest

import cover
import judge
import peer
import zoo

ROWS, IMPOSSIBLE = cover.pairwise()
PLAIN, _ = cover.pairwise(lut_dtype="float", per_channel_scale=False)


def name(row):
    return "-".join(str(row[f]) for f in cover.FACTORS)


def model_of(row, op_model):
    values = "lattice" if row["mode"] == "unique" else "tails"
    return op_model(row["op"], row["target"], row["dtype"], values)


def test_the_cover_covers():
    """Every pair is in a row, but for those that some rule excludes by itself."""
    seen = set().union(*(cover.pairs(row) for row in ROWS))
    for factor, values in cover.FACTORS.items():
        for value in values:
            assert any(row[factor] == value for row in ROWS), f"{factor}={value} never occurs"
    assert not IMPOSSIBLE & seen
    assert {(a, b) for a, _, b, _ in IMPOSSIBLE} == {
        ("mode", "nbits"), ("mode", "cluster_dim"), ("mode", "lut_dtype"), ("nbits", "lut_dtype"),
        ("nbits", "target"), ("group_size", "channel_axis"), ("group_size", "cluster_dim"),
        ("group_size", "target"), ("channel_axis", "target"),
        ("cluster_dim", "target"), ("per_channel_scale", "target"), ("lut_dtype", "target"), ("cluster_dim", "op"),
        ("target", "op"),
    }
    assert len(IMPOSSIBLE) < 60 < len(ROWS)


def assert_values_are_few(row, dense, parameter, bits):
    """At most 2^bits distinct values, or vectors, in each group; with a scale, in each channel of a group."""
    output_axis = zoo.OPS[row["op"]].weights[parameter][1]
    axis = cover.group_axis(row["op"], row["channel_axis"], parameter)
    moved = np.moveaxis(dense, axis, 0)
    size = row["group_size"] or len(moved)
    for group in np.split(moved, len(moved) // size):
        if row["per_channel_scale"]:
            if row["cluster_dim"] > 1:
                continue  # the channels of a vector have different scales: see the shape of the table
            group = np.moveaxis(np.moveaxis(group, 0, axis), output_axis, 0)
            counts = [len(np.unique(channel)) for channel in group]
        elif row["cluster_dim"] > 1:
            vectors = group.reshape(size // row["cluster_dim"], row["cluster_dim"], -1)
            counts = [len(np.unique(vectors.transpose(0, 2, 1).reshape(-1, row["cluster_dim"]), axis=0))]
        else:
            counts = [len(np.unique(group))]
        assert max(counts) <= 2**bits


def assert_table(row, shape, parameter, var, bits):
    """The table in the file has the bits, the dtype, the groups and the vectors that were asked for."""
    found_bits, dtype, lut_shape = judge.table(var)
    assert found_bits == bits
    assert dtype == (row["dtype"] if row["lut_dtype"] == "float" else row["lut_dtype"])
    if row["target"] not in cover.NEW:
        assert lut_shape == (2**bits,)
        return
    groups = [1] * len(shape)
    if row["group_size"] is not None:
        axis = cover.group_axis(row["op"], row["channel_axis"], parameter)
        groups[axis] = shape[axis] // row["group_size"]
    assert lut_shape == (*groups, 2**bits, row["cluster_dim"])


@pytest.mark.parametrize("row", ROWS, ids=name)
def test_output(row, op_model, compress, dense):
    model = model_of(row, op_model)
    out, report = compress(model, *cover.flags(row))
    kind = zoo.OPS[row["op"]]
    before, variables = judge.weights(model), judge.constants(out)
    after = {key: judge.value(var) for key, var in variables.items() if key in before}
    entries = {entry["name"]: entry for entry in report["weights"]}
    assert set(entries) == {f"op_{parameter}" for parameter in kind.weights}
    for parameter, (shape, _) in kind.weights.items():
        key, entry = (0, "main", "op", parameter), entries[f"op_{parameter}"]
        assert entry["status"] == "compressed", entry
        bits = entry["nbits"]
        assert bits == (row["nbits"] or bits)
        assert (tuple(entry["shape"]), entry["dtype"], entry["mode"]) == (shape, row["dtype"], row["mode"])
        assert entry["cluster_dim"] == row["cluster_dim"]
        assert after[key].dtype == before[key].dtype and after[key].shape == shape
        assert_table(row, shape, parameter, variables[key], bits)
        assert_values_are_few(row, after[key], parameter, bits)
        error = judge.squared_error(before[key], after[key])
        assert entry["mse"] == pytest.approx(error / after[key].size, rel=1e-9, abs=1e-300)
        if row["mode"] == "unique" and row["lut_dtype"] == "float" and not row["per_channel_scale"]:
            assert error == 0
        if error:
            energy = np.sum(before[key].astype(np.float64) ** 2)
            assert entry["snr_db"] == pytest.approx(10 * np.log10(energy / error), abs=1e-6)
        else:
            assert entry["snr_db"] is None
    others = [key for key in before if key[3] not in kind.weights]
    judge.assert_same_weights(before, after, others)
    judge.assert_same_weights(after, {k: v for k, v in judge.weights(dense(out)).items() if k in after})
    assert judge.skeleton(out) == judge.skeleton(model)


@pytest.mark.parametrize("row", PLAIN, ids=name)
def test_error_is_at_most_the_peers(row, op_model, compress):
    model = model_of(row, op_model)
    options = {k: row[k] for k in ("mode", "nbits", "channel_axis", "cluster_dim")}
    if row["group_size"] is not None:
        options |= {"granularity": "per_grouped_channel", "group_size": row["group_size"]}
    theirs = peer.palettized(model, **options)
    if theirs is None:  # its clustering asks for more vectors than there are
        assert row["cluster_dim"] > 1 and row["group_size"] is not None
        return
    before, ours = judge.weights(model), judge.weights(compress(model, *cover.flags(row))[0])
    for parameter in zoo.OPS[row["op"]].weights:
        key = 0, "main", "op", parameter
        values, was_palettized = theirs[key]
        assert was_palettized
        limit = judge.squared_error(before[key], values) * (1 + 1e-4)
        error = judge.squared_error(before[key], ours[key])
        assert error <= limit, f"{parameter}: {error / limit - 1:.2%} above the peer"


@pytest.mark.parametrize("nbits", [1, 4, 8])
@pytest.mark.parametrize("dtype, flags, most", [("fp16", [], 0), ("fp32", [], 1e-4), ("fp32", ["--exact"], 0)], ids=str)
def test_how_far_from_the_optimum_is_proven(dtype, flags, most, nbits, op_model, compress):
    for values in ("normal", "tails", "outlier"):
        _, report = compress(op_model("linear", "iOS18", dtype, values), "--nbits", nbits, *flags)
        (entry,) = report["weights"]
        assert 0 <= entry["optimality_gap"] <= most


BOUNDS = [("linear", "fp16", 4), ("conv", "fp32", 3), ("gather", "fp16", 8)]


@pytest.mark.parametrize("op, dtype, nbits", BOUNDS)
@pytest.mark.parametrize("extra", [["--lut-dtype", "int8"], ["--lut-dtype", "uint8"], ["--per-channel-scale"]],
                         ids=" ".join)
def test_an_addition_costs_what_it_must(op, dtype, nbits, extra, op_model, compress):
    """An integer table moves each entry by half a step at most; a scale per channel brings the error down."""
    model = op_model(op, "iOS18", dtype, "normal")
    key = 0, "main", "op", next(iter(zoo.OPS[op].weights))
    before = judge.weights(model)[key]
    plain, changed = (judge.weights(compress(model, "--nbits", nbits, *flags)[0])[key] for flags in ([], extra))
    error, allowed = (judge.squared_error(before, w) for w in (changed, plain))
    if extra[0] == "--lut-dtype":
        step = np.abs(plain.astype(np.float64)).max() / 127
        allowed = (np.sqrt(allowed) + np.sqrt(before.size) * step * 0.51) ** 2
    assert 0 < error <= allowed * 1.25
