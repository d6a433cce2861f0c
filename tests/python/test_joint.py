"""Joint compression, as the peer has it; and a second pass, which leaves palettized weights alone."""

import numpy as np
import pytest

import judge
import peer
from zoo_compressed import compressed

KEY = 0, "main", "op", "weight"
GROUPS = ["--granularity", "per_grouped_channel", "--group-size", 16]
PALETTIZED = ["lut4", "lut3-groups", "lut6-vectors", "lut4-scale", "lut8-int8", "sparse-lut", "int8-lut"]


@pytest.mark.parametrize("nbits", [1, 2, 3, 4, 6, 8])
@pytest.mark.parametrize("kind", ["sparse", "sparse-almost-all"])
def test_pruned(kind, nbits, models, compress, dense):
    model = models(compressed, kind, "iOS18")
    out, report = compress(model, "--nbits", nbits, "--joint-compression")
    (entry,) = report["weights"]
    assert entry["status"] == "compressed" and entry["nbits"] == nbits
    before, variable = judge.weights(model)[KEY], judge.constants(out)[KEY]
    after = judge.value(variable)
    assert judge.chain(variable)[:2] == ["sparse_to_dense", "lut_to_sparse"]
    assert np.all(after[before == 0] == 0)
    assert len(np.unique(after[before != 0])) <= 2**nbits
    error = judge.squared_error(before, after)
    assert entry["mse"] == pytest.approx(error / before.size, rel=1e-9)
    theirs, _ = peer.palettized(model, joint=True, nbits=nbits)[KEY]
    assert error <= judge.squared_error(before, theirs) * (1 + 1e-4)
    judge.assert_same_weights(out, dense(out))
    assert judge.skeleton(out) == judge.skeleton(model)


@pytest.mark.parametrize("flags", [
    GROUPS, ["--lut-dtype", "int8"],
    ["--granularity", "per_grouped_channel", "--group-size", 8, "--lut-dtype", "uint8"],
    ["--per-channel-scale"], ["--per-channel-scale", "--lut-dtype", "int8"],
], ids=["groups", "int8", "groups-uint8", "scale", "scale-int8"])
def test_pruned_with_more(flags, models, compress, dense):
    model = models(compressed, "sparse", "iOS18")
    out, report = compress(model, "--nbits", 4, "--joint-compression", *flags)
    before, after = judge.weights(model)[KEY], judge.weights(out)[KEY]
    assert report["weights"][0]["status"] == "compressed"
    assert np.all(after[before == 0] == 0)
    assert judge.squared_error(before, after) < 0.2 * np.sum(before.astype(np.float64) ** 2)
    judge.assert_same_weights(out, dense(out))
    chain = judge.chain(judge.constants(out)[KEY])
    assert ("sparse_blockwise_shift_scale" in chain) == ("--per-channel-scale" in flags)


def test_vectors_of_a_pruned_weight_are_skipped(models, compress):
    model = models(compressed, "sparse", "iOS18")
    out, report = compress(model, "--nbits", 4, "--cluster-dim", 4, "--joint-compression")
    (entry,) = report["weights"]
    assert entry["status"] == "skipped" and "cluster_dim" in entry["reason"]
    judge.assert_same_weights(model, out)


@pytest.mark.parametrize("nbits", [1, 2, 3, 4, 6, 8])
@pytest.mark.parametrize("kind", ["int8", "int8-tensor", "int8-affine", "uint8-affine"])
def test_quantized(kind, nbits, models, compress, dense):
    model = models(compressed, kind, "iOS18")
    out, report = compress(model, "--nbits", nbits, "--joint-compression")
    (entry,) = report["weights"]
    assert entry["status"] == "compressed" and entry["nbits"] == nbits
    variable = judge.constants(out)[KEY]
    bits, dtype, _ = judge.table(variable)
    assert (bits, dtype) == (nbits, "uint8" if kind.startswith("uint8") else "int8")
    before, after = integers(model), integers(out)
    assert len(np.unique(after)) <= 2**nbits
    theirs, _ = peer.palettized(model, joint=True, nbits=nbits)[KEY]
    original = judge.weights(model)[KEY]
    lost = judge.squared_error(original, judge.value(variable))
    assert entry["mse"] == pytest.approx(lost / original.size, rel=1e-6), "in units of the weight, not of the integers"
    energy = np.sum(original.astype(np.float64) ** 2)
    assert entry["snr_db"] == (pytest.approx(10 * np.log10(energy / lost), abs=1e-4) if lost > 0 else None)
    if kind == "int8-tensor":  # one scale: the error of the integers and that of the weights are one
        ours = judge.squared_error(original, judge.value(variable))
        assert ours <= judge.squared_error(original, theirs) * (1 + 1e-4)
    error, limit = judge.squared_error(before, after), judge.squared_error(before, peers_integers(model, nbits))
    assert error <= limit * (1 + 1e-4)
    judge.assert_same_weights(out, dense(out))


def integers(package):
    """The integers under the scale of a quantized weight, as int64: its data, or what the indices find in the table that
    is scaled."""
    op = judge.constants(package)[KEY].op
    if op.op_type == "constexpr_blockwise_shift_scale":
        return judge.value(op.inputs["data"]).astype(np.int64)
    indices, table = op.inputs["indices"].val, op.inputs["lut"].op.inputs["data"].val
    return type(op).decompress(indices, table, None).astype(np.int64)


SCALED_TABLE = ["lut_to_dense", "blockwise_shift_scale"]
SCALED_WEIGHT = SCALED_TABLE[::-1]


@pytest.mark.parametrize("kind, target, flags, form, tables", [
    ("int8-tensor", "iOS18", [], SCALED_TABLE, 1),
    ("int8-tensor", "iOS18", GROUPS, SCALED_TABLE, 4),
    ("int8", "iOS18", [], SCALED_TABLE, 64),
    ("int8-affine", "iOS18", GROUPS, SCALED_TABLE, 64),
    ("uint8-affine", "iOS18", [], SCALED_TABLE, 64),
    ("int8", "iOS18", ["--nbits", 8], SCALED_WEIGHT, 1),
    ("int8-tensor", "iOS26", [], SCALED_WEIGHT, 1),
    ("int8-affine", "iOS26", GROUPS, SCALED_WEIGHT, 4),
], ids=str)  # fmt: skip
def test_the_table_of_a_quantized_weight_is_scaled(kind, target, flags, form, tables, models, compress, dense):
    """As the peer has it before iOS26, unless the tables would take more than the indices do."""
    model = models(compressed, kind, target)
    out, report = compress(model, "--joint-compression", *(flags if "--nbits" in flags else ["--nbits", 4, *flags]))
    variable = judge.constants(out)[KEY]
    original, (entry,) = judge.weights(model)[KEY], report["weights"]
    lost = judge.squared_error(original, judge.value(variable))
    assert entry["mse"] == pytest.approx(lost / original.size, rel=1e-6), "the tables lie where they were made for"
    assert judge.chain(variable) == form
    _, _, shape = judge.table(variable)
    assert int(np.prod(shape[:-2])) == tables
    judge.assert_same_weights(out, dense(out))


def peers_integers(model, nbits):
    from coremltools.optimize.coreml._quantization_passes import palettize_weights as step
    params = step.blockwise_compress(integers(model).astype(np.int32), "KMEANS", nbits, [0, 0, 0, 0])
    return step.decompress(params._replace(lut=params.lut.astype(np.int64)))


@pytest.mark.parametrize("kind", ["sparse", "int8", "int4-block", "sparse-int8"])
def test_compressed_weights_are_left_alone_without_the_flag(kind, models, compress):
    model = models(compressed, kind, "iOS18")
    out, report = compress(model, "--nbits", 4)
    assert [w["status"] for w in report["weights"]] == ["skipped"] and report["weights"][0]["reason"]
    assert judge.resolved(out) == judge.resolved(model)


@pytest.mark.parametrize("kind", PALETTIZED)
@pytest.mark.parametrize("joint", [False, True], ids=["plain", "joint"])
def test_a_second_pass_leaves_palettized_weights_alone(kind, joint, models, compress):
    model = models(compressed, kind, "iOS18")
    out, report = compress(model, "--nbits", 2, *["--joint-compression"][: int(joint)])
    assert all(w["status"] == "skipped" and w["reason"] for w in report["weights"])
    assert judge.resolved(out) == judge.resolved(model)


@pytest.mark.parametrize("first", [["--nbits", 4], ["--nbits", 3, "--per-channel-scale", "--lut-dtype", "uint8"]],
                         ids=["plain", "scaled"])
def test_a_second_pass_leaves_ours_alone_too(first, op_model, compress):
    out, _ = compress(op_model("linear", "iOS18", "fp16", "tails"), *first)
    again, report = compress(out, "--nbits", 2, "--joint-compression")
    assert all(w["status"] == "skipped" for w in report["weights"])
    assert judge.resolved(again) == judge.resolved(out)


def test_joint_needs_a_new_opset(models, refuses, tmp_path):
    model = models(compressed, "sparse", "iOS16")
    refuses(["--minimum-deployment-target", "iOS18"], "compress", model, "-o", tmp_path / "out.mlpackage",
            "--nbits", 4, "--joint-compression")
