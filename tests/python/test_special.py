"""Constants that no clustering was made for: handled or skipped with a reason, never a crash, never damaged."""

import numpy as np
import pytest

import judge
import zoo_special
from zoo_special import FEW, KINDS, NON_FINITE, SHAPE

ODD, EVEN = (0, "main", "odd", "weight"), (0, "main", "even", "weight")
SETTINGS = {
    "kmeans1": ["--nbits", 1],
    "kmeans8": ["--nbits", 8],
    "uniform4": ["--nbits", 4, "--mode", "uniform"],
    "unique": ["--mode", "unique"],
    "rows": ["--nbits", 4, "--granularity", "per_grouped_channel", "--group-size", 1],
    "vectors": ["--nbits", 4, "--cluster-dim", 4],
    "scaled": ["--nbits", 4, "--per-channel-scale"],
    "int8": ["--nbits", 4, "--lut-dtype", "int8"],
    "uint8": ["--nbits", 4, "--lut-dtype", "uint8"],
    "exact": ["--nbits", 4, "--exact"],
}
LOSSLESS = {"kmeans1", "kmeans8", "uniform4", "unique", "rows", "vectors", "exact"}
ALLOWED_TO_REFUSE = {"unique"}  # a weight with more than 256 values


@pytest.mark.parametrize("setting", SETTINGS)
@pytest.mark.parametrize("dtype", ["fp16", "fp32"])
@pytest.mark.parametrize("kind", KINDS)
def test_special(kind, dtype, setting, models, compress):
    model = models(zoo_special.special, kind, dtype)
    out, report = compress(model, *SETTINGS[setting])
    entry = {w["name"]: w for w in report["weights"]}["special"]
    before, after = judge.weights(model), judge.weights(out)
    if kind in NON_FINITE:  # a mask of 0 and -inf has a table of its own: lossless, or left alone
        assert entry["status"] == "skipped" or kind in ("mask", "all-nan"), entry
    elif setting not in ALLOWED_TO_REFUSE or kind in FEW:
        assert entry["status"] == "compressed", entry
    if entry["status"] == "skipped":
        assert entry["reason"]
        assert judge.same_bits(before[ODD], after[ODD])
        return
    assert np.array_equal(np.isfinite(after[ODD]), np.isfinite(before[ODD]))
    if kind in NON_FINITE or (kind in FEW and setting in LOSSLESS):
        assert np.array_equal(after[ODD], before[ODD], equal_nan=True)
        assert not entry["mse"]
    else:
        largest = np.abs(before[ODD].astype(np.float64)).max()
        assert np.abs(after[ODD].astype(np.float64)).max() <= largest * 1.01
        assert entry["mse"] == pytest.approx(
            judge.squared_error(before[ODD], after[ODD]) / before[ODD].size, rel=1e-9, abs=1e-300)


@pytest.mark.parametrize("kind", sorted(NON_FINITE))
def test_a_skipped_neighbour_costs_nothing(kind, models, compress):
    """The ordinary weight beside a mask is palettized as if it were alone."""
    out, report = compress(models(zoo_special.special, kind, "fp16"), "--nbits", 4)
    other, _ = compress(models(zoo_special.special, "zeros", "fp16"), "--nbits", 4)
    statuses = {w["name"]: w["status"] for w in report["weights"]}
    assert statuses["ordinary"] == "compressed"
    assert statuses["special"] == "skipped" or kind in ("mask", "all-nan")
    judge.assert_same_weights(out, other, [EVEN])


@pytest.mark.parametrize("kind, bits", [("one-value", 1), ("two-values", 1)])
def test_unique_picks_the_smallest_table(kind, bits, models, compress):
    _, report = compress(models(zoo_special.special, kind, "fp32"), "--mode", "unique", "--op-name", "ordinary=skip")
    assert {w["name"]: w["nbits"] for w in report["weights"]}["special"] == bits


@pytest.mark.parametrize("dtype", ["fp16", "fp32"])
def test_immediate_constants(dtype, models, compress, dense):
    """A weight that is written into the program is a weight like any other."""
    model, twin = models(zoo_special.immediate, dtype), models(zoo_special.special, "plain", dtype)
    judge.assert_same_weights(model, twin)
    (out, report), (other, _) = compress(model, "--nbits", 4), compress(twin, "--nbits", 4)
    assert [w["status"] for w in report["weights"]] == ["compressed"] * 2
    judge.assert_same_weights(out, other)
    judge.assert_same_weights(out, dense(out))
    assert judge.constants(out)[ODD].shape == SHAPE


@pytest.mark.parametrize("threshold, expected", [(0, 2), (3071, 2), (3072, 1), (6143, 1), (6144, 0)])
def test_the_threshold_is_exclusive(threshold, expected, models, compress):
    """48 × 64 = 3072 elements are above 3071, not above 3072."""
    _, report = compress(models(zoo_special.special, "plain", "fp16"), "--nbits", 4, "--weight-threshold", threshold)
    done = [w for w in report["weights"] if w["status"] == "compressed"]
    assert len([w for w in done if w["name"] in ("special", "ordinary")]) == expected
