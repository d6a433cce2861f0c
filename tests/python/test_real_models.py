"""Models from the world: CREPE (full and tiny, fp16, CoreML6) and Basic Pitch (fp32, CoreML5, shared constants)."""

import numpy as np
import pytest

import judge
import peer

OLD = {"basic-pitch": ["--minimum-deployment-target", "iOS16"]}
NEW = ["--minimum-deployment-target", "iOS18"]
COMPRESSED = {"crepe-full": 7, "crepe-tiny": 7, "basic-pitch": 4}
BITS = {  # compression of fp16 weights at each number of bits, at least
    8: 1.9, 6: 2.5, 4: 3.7, 3: 4.9, 2: 7.0, 1: 12.0,
}


def flags_for(name, nbits):
    return ["--nbits", nbits, *(NEW if nbits == 3 else OLD.get(name, []))]


@pytest.mark.parametrize("nbits", BITS)
@pytest.mark.parametrize("name", COMPRESSED)
def test_bits(name, nbits, real_models, compress, dense):
    model = real_models[name]
    out, report = compress(model, *flags_for(name, nbits))
    done = [w for w in report["weights"] if w["status"] == "compressed"]
    assert len(done) == COMPRESSED[name] and not [w for w in report["weights"] if w not in done]
    before, after = judge.weights(model, 2048), judge.weights(out, 2048)
    assert before.keys() == after.keys()
    total = sum(judge.squared_error(before[key], after[key]) for key in before)
    entries = {name: w for w in done for name in w["op_names"]}
    for key, original in before.items():
        entry = entries[key[2]]
        assert len(np.unique(after[key])) <= 2**nbits == 2 ** entry["nbits"]
        error = judge.squared_error(original, after[key])
        assert entry["mse"] == pytest.approx(error / original.size, rel=1e-9)
    assert total > 0
    judge.assert_same_weights(after, judge.weights(dense(out), 2048))
    if name.startswith("crepe"):
        ratio = report["bytes_before"] / report["bytes_after"]
        assert ratio >= BITS[nbits] * (1 if name == "crepe-full" else 0.8)


# the peer's own time is the limit: some settings for each model
PEERS = [
    ("crepe-tiny", {"nbits": 8}), ("crepe-tiny", {"nbits": 6}), ("crepe-tiny", {"nbits": 4}),
    ("crepe-tiny", {"nbits": 2}), ("crepe-tiny", {"nbits": 1}), ("crepe-tiny", {"nbits": 4, "mode": "uniform"}),
    ("crepe-full", {"nbits": 1}), ("crepe-full", {"nbits": 2, "mode": "uniform"}),
]


def assert_not_above_the_peer(name, model, out, options):
    before, after = judge.weights(model, 2048), judge.weights(out, 2048)
    theirs = peer.palettized(model, **options)
    assert theirs is not None
    for key, original in before.items():
        values, was_palettized = theirs[key]
        assert was_palettized
        error, limit = (judge.squared_error(original, w) for w in (after[key], values))
        assert error <= limit * (1 + 1e-4), f"{key}: {error / limit - 1:.3%} above the peer"


@pytest.mark.parametrize("name, options", PEERS, ids=str)
def test_error_is_at_most_the_peers(name, options, real_models, compress):
    model = real_models[name]
    flags = [flag for k, v in options.items() for flag in (f"--{k}", v)]
    out, _ = compress(model, *flags)
    assert_not_above_the_peer(name, model, out, options)


GROUPED = [
    {"nbits": 4, "granularity": "per_grouped_channel", "group_size": 8},
    {"nbits": 2, "granularity": "per_grouped_channel", "group_size": 1},
    {"nbits": 4, "cluster_dim": 2},
    {"nbits": 6, "cluster_dim": 4},
]


@pytest.mark.parametrize("options", GROUPED, ids=str)
def test_newer_forms_on_a_raised_opset(options, real_models, compress, tmp_path, palettizer, dense):
    """CREPE tiny raised to iOS18 by us, then given to the peer: it palettizes the raised model itself."""
    raised = tmp_path / "raised.mlpackage"
    palettizer("compress", real_models["crepe-tiny"], "-o", raised, "--nbits", 8, "--weight-threshold", 10**9, *NEW)
    flags = [flag for k, v in options.items() for flag in (f"--{k.replace('_', '-')}", v)]
    out, report = compress(real_models["crepe-tiny"], *flags, *NEW)
    skipped = [w["name"] for w in report["weights"] if w["status"] != "compressed"]
    assert not skipped
    judge.assert_same_weights(out, dense(out))
    assert_not_above_the_peer("crepe-tiny", raised, out, options)


def test_shared_constants_of_basic_pitch(real_models, compress):
    """Two kernels that nine convolutions each use: one table each, and still nine consumers."""
    out, report = compress(real_models["basic-pitch"], "--nbits", 4, *OLD["basic-pitch"])
    shared = [w for w in report["weights"] if len(w["op_names"]) == 9]
    assert len(shared) == 2
    after = judge.weights(out, 2048)
    for entry in shared:
        values = [after[key] for key in after if key[2] in entry["op_names"]]
        assert len(values) == 9 and all(judge.same_bits(values[0], other) for other in values)


@pytest.mark.parametrize("name", ["crepe-full", "crepe-tiny"])
def test_all_else_is_unchanged(name, real_models, compress):
    out, _ = compress(real_models[name], "--nbits", 4)
    assert judge.skeleton(out) == judge.skeleton(real_models[name])
