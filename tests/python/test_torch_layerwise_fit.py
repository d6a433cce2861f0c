"""The layer-wise fit in torch operations, against the native kernel and against sums in numpy."""

import numpy as np
import pytest
import torch

from palettizer import _native
from palettizer.torch.palettization._layerwise.fit import Settings, fit_on_device, palette_on_device
from palettizer.torch.palettization._plan.tensors import NAMES, as_bytes

DAMPING = 0.02


def weights(rows, n, seed=0):
    return np.random.default_rng(seed).standard_t(5, size=(rows, n)).astype(np.float32)


def moments(runs, blocks, n, seed=1, dead=0):
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(runs, blocks, n + 9, n)) * np.exp(rng.normal(size=n)) + rng.normal(size=(runs, blocks, n + 9, 1))
    x[..., n - dead :] = 0
    return np.einsum("rbti,rbtj->rbij", x, x).astype(np.float32) / (n + 9)


def damped(h, damping=DAMPING):
    h = h.astype(np.float64)
    mean = np.diag(h).mean() or 1.0
    np.fill_diagonal(h, np.maximum(np.diag(h), 1e-6 * mean) + damping * mean)
    return h


def cost(w, found, h, per_table, damping=DAMPING):
    """The sum of the damped objective by its definition."""
    rows, n = w.shape
    runs, blocks, size, _ = h.shape
    luts, indices = found.luts.double().numpy(), found.indices.numpy()
    q = np.stack([luts[row // per_table][indices[row]] for row in range(rows)])
    if found.scales is not None:
        q *= found.scales.double().numpy()[:, None]
    each, total = -(-rows // runs), 0.0
    for row in range(rows):
        for block in range(blocks):
            cut = slice(block * size, (block + 1) * size)
            e = (q - w)[row, cut]
            total += e @ damped(h[row // each, block], damping) @ e
    return total


def fit(w, h, start=None, **settings):
    settings = {"rows_per_table": 1, "damping": DAMPING, "threads": 1, **settings}
    start = None if start is None else torch.from_numpy(start)
    return fit_on_device(torch.from_numpy(w), torch.from_numpy(h), Settings(**settings), start)


def native(w, h, nbits, per_table, row_scale=False, start=None, **arguments):
    """What the kernel finds: its objectives, without what comes of rounding scales."""
    rows, _ = w.shape
    grouped = {} if per_table >= rows else {"granularity": "per_grouped_channel", "group_size": per_table, "channel_axis": 0}
    return _native.palettize(
        w.reshape(-1).view(np.uint8), "f32", w.shape, nbits=nbits, **grouped, output_axis=0, second_moments=h, damping=DAMPING,
        enable_per_channel_scale=row_scale, sensitivity=None if start is None else start.reshape(-1), threads=1, **arguments,
    )  # fmt: skip


def compare(w, h, nbits, per_table, row_scale=False, start=None, algorithm="lnq", rounds=2, near=1e-2):
    found = fit(w, h, start, nbits=nbits, rows_per_table=per_table, row_scale=row_scale, algorithm=algorithm, rounds=rounds)
    expected = native(w, h, nbits, per_table, row_scale, start, algorithm=algorithm, rounds=rounds)
    assert len(found.objective) == 3 + rounds * (algorithm == "lnq") == len(expected.objective) - 1
    assert found.objective == sorted(found.objective, reverse=True)
    energy = expected.error["output_energy"]
    assert np.allclose(found.objective[:2], expected.objective[:2], rtol=1e-6, atol=1e-11 * energy)
    assert np.allclose(found.objective, expected.objective[:-1], rtol=near, atol=1e-11 * energy)
    assert found.objective[-1] == pytest.approx(cost(w, found, h, per_table), rel=1e-6, abs=1e-11 * energy)
    luts = found.luts.numpy()
    assert luts.shape == (-(-len(w) // per_table), 2**nbits) and (np.diff(luts) >= 0).all()
    return found, expected


@pytest.mark.parametrize("algorithm", ["lnq", "gptq"])
@pytest.mark.parametrize("nbits", [1, 2, 3, 4, 6, 8])
@pytest.mark.parametrize("per_table, row_scale", [(1, False), (4, False), (4, True), (24, False), (24, True), (1, True)])
def test_the_kernel_finds_the_same(per_table, row_scale, nbits, algorithm):
    compare(weights(24, 70), moments(1, 1, 70), nbits, per_table, row_scale, algorithm=algorithm)


@pytest.mark.parametrize("n", [1, 2, 63, 64, 65, 130])
@pytest.mark.parametrize("rows", [1, 5])
def test_columns_around_a_block(rows, n):
    for per_table in {1, rows}:
        for nbits in (2, 4):
            compare(weights(rows, n), moments(1, 1, n), nbits, per_table)


@pytest.mark.parametrize("runs, blocks, per_table", [
    (2, 1, 1), (2, 1, 8), (4, 1, 2), (3, 1, 8), (1, 4, 2), (1, 2, 8), (2, 2, 8), (8, 1, 1), (8, 1, 8),
])  # fmt: skip
def test_several_matrices(runs, blocks, per_table):
    compare(weights(8, 24), moments(runs, blocks, 24 // blocks), 3, per_table)


@pytest.mark.parametrize("row_scale", [False, True])
def test_rows_of_unlike_size_with_matrices_of_their_own(row_scale):
    w = weights(12, 20) * np.exp(np.random.default_rng(3).normal(size=(12, 1))).astype(np.float32)
    compare(w, moments(3, 1, 20), 2, 12, row_scale)
    compare(w, moments(12, 1, 20), 2, 3, row_scale)


@pytest.mark.parametrize("case", ["zeros", "constant rows", "dead columns", "few values", "all dead", "one row of zeros", "huge", "tiny"])
@pytest.mark.parametrize("per_table, row_scale", [(1, False), (6, True)])
def test_special_inputs(case, per_table, row_scale):
    w, h = weights(6, 40), moments(1, 1, 40, dead={"dead columns": 15, "all dead": 40}.get(case, 0))
    if case == "zeros":
        w[:] = 0
    elif case == "constant rows":
        w[:3] = np.float32([[0.25], [-3], [0]])
    elif case == "few values":
        w = np.sign(w)
    elif case == "one row of zeros":
        w[4] = 0
    elif case in ("huge", "tiny"):
        w *= np.float32({"huge": 1e15, "tiny": 1e-15}[case])
    # The best scale of a row of zeros is zero, and rounding decides whether it is above that and so is taken.
    near = 5e-2 if row_scale and case in ("constant rows", "one row of zeros") else 1e-2
    found, _ = compare(w, h, 3, per_table, row_scale, near=near)
    assert torch.isfinite(found.luts).all()


def test_weights_of_the_start():
    w, start = weights(8, 50), np.random.default_rng(5).gamma(0.3, size=(8, 50)).astype(np.float32) + 1e-6
    found, _ = compare(w, moments(1, 1, 50), 3, 2, start=start)
    assert found.objective[0] != fit(w, moments(1, 1, 50), nbits=3, rows_per_table=2).objective[0]


def test_a_matrix_that_needs_more_damping():
    h = np.ones((1, 1, 30, 30), np.float32)
    h[0, 0, 0, 1] = h[0, 0, 1, 0] = 3
    found = fit(weights(4, 30), h, nbits=2, damping=0.0)
    assert found.damping[0] > 0 and found.objective == sorted(found.objective, reverse=True)
    assert fit(weights(4, 30), moments(1, 1, 30), nbits=2).damping == [DAMPING]
    h[:] = np.float32(-1)
    h[0, 0] = -1e9 * (1 - np.eye(30)) + np.eye(30)
    with pytest.raises(_native.Refusal, match="matrix 0 of second moments is not positive definite, even with a damping of 100"):
        fit(weights(4, 30), h, nbits=2)


@pytest.mark.parametrize("per_table, row_scale, runs", [(1, False, 1), (3, True, 1), (24, False, 2), (5, False, 3)])
def test_memory_does_not_matter(per_table, row_scale, runs):
    w, h = weights(24, 40), moments(runs, 1, 40)
    options = {"nbits": 3, "rows_per_table": per_table, "row_scale": row_scale}
    whole = fit(w, h, **options)
    for numbers in (1, 3000):
        parts = fit(w, h, numbers=numbers, **options)
        assert np.allclose(parts.objective, whole.objective, rtol=1e-9)
        assert torch.equal(parts.indices, whole.indices) and torch.allclose(parts.luts, whole.luts, rtol=1e-6)


def test_the_last_table_may_have_fewer_rows():
    w, h = weights(7, 30), moments(1, 1, 30)
    found = fit(w, h, nbits=2, rows_per_table=3)
    assert found.luts.shape == (3, 4) and found.objective[-1] == pytest.approx(cost(w, found, h, 3), rel=1e-9)
    alone = fit(w[6:], h, nbits=2, rows_per_table=3)
    assert torch.equal(alone.luts[0], found.luts[2]) and torch.equal(alone.indices[0], found.indices[6])


def test_unused_entries_find_a_place():
    """Two values far from all others, which a start that does not count them leaves without an entry."""
    w = weights(1, 60) * np.float32(0.1)
    w[0, :2] = 5, -5
    start = np.ones_like(w)
    start[0, :2] = 1e-9
    found, _ = compare(w, moments(1, 1, 60), 2, 1, start=start)
    assert len(found.indices.unique()) == 4


def test_assembled():
    w, h = weights(8, 40), moments(1, 1, 40)
    found = fit(w, h, nbits=3, rows_per_table=4)
    palette = _native.assemble(
        w.reshape(-1).view(np.uint8), "f32", w.shape, nbits=3, granularity="per_grouped_channel", group_size=4,
        output_axis=0, luts=found.luts.numpy().reshape(-1), indices=found.indices.numpy().reshape(-1),
        second_moments=h, damping=DAMPING, threads=1,
    )  # fmt: skip
    assert palette.error["output_error"] <= found.objective[-1] * (1 + 1e-6)


ERRORS = {
    "no rows": ((0, 3), (1, 1, 3, 3), {}, r"weights have shape \(0, 3\)"),
    "columns": ((2, 4), (1, 1, 3, 3), {}, r"second moments have shape \(1, 1, 3, 3\); expected .* = 4"),
    "axes": ((2, 3), (3, 3), {}, r"second moments have shape \(3, 3\)"),
    "runs": ((2, 3), (3, 1, 3, 3), {}, "second moments for 3 runs of rows, of which there are 2"),
    "blocks with scales": ((2, 4), (1, 2, 2, 2), {"row_scale": True}, "2 blocks need"),
}


@pytest.mark.parametrize("case", ERRORS)
def test_errors(case):
    shape, of, options, text = ERRORS[case]
    with pytest.raises(_native.Refusal, match=text):
        fit(np.zeros(shape, np.float32), np.zeros(of, np.float32), nbits=1, **options)
    with pytest.raises(ValueError, match="must be finite"):
        fit(np.full((2, 2), np.nan, np.float32), np.zeros((1, 1, 2, 2), np.float32), nbits=1)
    with pytest.raises(ValueError, match=r"start weights have shape \(1, 2\); expected \(2, 2\)"):
        fit(np.ones((2, 2), np.float32), np.ones((1, 1, 2, 2), np.float32), np.ones((1, 2), np.float32), nbits=1)


def normalised(sensitivity):
    values = sensitivity.reshape(-1).numpy().copy()
    _native.normalise_sensitivity(values)
    return values


WEIGHTS = {
    "linear": ((12, 20), 0, 1, 1, {}),
    "transposed": ((20, 12), 1, 2, 1, {}),
    "conv": ((8, 4, 3, 3), 0, 2, 1, {"granularity": "per_grouped_channel", "group_size": 4}),
    "grouped transposed conv": ((8, 6, 3), 1, 1, 2, {"granularity": "per_grouped_channel", "group_size": 2, "lut_dtype": "int8"}),
    "scales": ((12, 20), 0, 1, 1, {"granularity": "per_grouped_channel", "group_size": 4, "enable_per_channel_scale": True}),
    "int8, scales": ((12, 20), 0, 1, 1, {"enable_per_channel_scale": True, "lut_dtype": "int8"}),
}


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16], ids=str)
@pytest.mark.parametrize("case", WEIGHTS)
def test_palettes_are_those_of_the_native_module(case, dtype):
    shape, axis, runs, blocks, options = WEIGHTS[case]
    weight = torch.from_numpy(weights(shape[0], int(np.prod(shape[1:])))).reshape(shape).to(dtype)
    h = moments(runs, blocks, weight.numel() // shape[axis] // blocks)
    fisher = torch.from_numpy(np.random.default_rng(5).gamma(0.5, size=shape).astype(np.float32)) * 1e4
    fisher[1] = 0
    arguments = {
        "values": as_bytes(weight), "dtype": NAMES[dtype], "shape": shape, "mode": "kmeans", "nbits": 3,
        "granularity": "per_tensor", "group_size": None, "channel_axis": axis, "output_axis": axis, "cluster_dim": 1,
        "enable_per_channel_scale": False, "lut_dtype": None, "fold_scale": True, "half_scales": True, **options,
    }  # fmt: skip
    how = {"algorithm": "lnq", "rounds": 2, "damping": DAMPING, "threads": 1}
    for start in (None, fisher):
        expected = _native.palettize(
            **arguments, second_moments=h, sensitivity=None if start is None else normalised(start), **how
        )
        palette = palette_on_device(weight, torch.from_numpy(h), {**arguments, "sensitivity": None}, fisher=start, **how)
        assert palette.lut_shape == expected.lut_shape and palette.nbits == 3
        assert palette.error["output_energy"] == pytest.approx(expected.error["output_energy"], rel=1e-9)
        assert palette.error["output_error"] == pytest.approx(expected.error["output_error"], rel=1e-2)
