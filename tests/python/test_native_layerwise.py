"""`_native.palettize` with second moments, and `_native.assemble`: what they report against sums in numpy."""

import numpy as np
import pytest

from palettizer import _native

RNG = np.random.default_rng(12)
DTYPES = {"f32": np.float32, "f16": np.float16}


def flat(array):
    return np.ascontiguousarray(array).view(np.uint8).reshape(-1)


def dense(palette):
    out = np.empty(palette.shape, DTYPES[palette.dtype])
    palette.decompress_into(flat(out))
    return out


def moments(row_runs, blocks, n):
    x = RNG.normal(size=(row_runs, blocks, n + 6, n)) * np.exp(RNG.normal(size=n)) + RNG.normal(size=(row_runs, blocks, n + 6, 1))
    return np.ascontiguousarray(np.einsum("rbti,rbtj->rbij", x, x) / (n + 6), dtype=np.float32)


def cost(difference, second_moments, axis, damping):
    rows = np.moveaxis(difference.astype(np.float64), axis, 0).reshape(difference.shape[axis], -1)
    runs, blocks, n, _ = second_moments.shape
    total = 0.0
    each = -(-len(rows) // runs)
    for run in range(runs):
        for block in range(blocks):
            h = second_moments[run, block].astype(np.float64)
            mean = np.diag(h).mean()
            np.fill_diagonal(h, np.maximum(np.diag(h), 1e-6 * mean) + damping * mean)
            e = rows[run * each : (run + 1) * each, block * n : (block + 1) * n]
            total += np.einsum("ri,ij,rj->", e, h, e)
    return total


CASES = [
    ((12, 40), 0, 1, 1, {"nbits": 3, "granularity": "per_grouped_channel", "group_size": 1}),
    ((40, 12), 1, 3, 1, {"nbits": 2, "granularity": "per_grouped_channel", "group_size": 4, "enable_per_channel_scale": True}),
    ((6, 8, 3, 3), 1, 1, 2, {"nbits": 4, "lut_dtype": "int8"}),
    ((9, 1, 3, 3), 0, 9, 1, {"nbits": 2, "enable_per_channel_scale": True}),
]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("shape", "axis", "runs", "blocks", "options"), CASES, ids=str)
def test_the_objective_is_that_of_the_written_weight(shape, axis, runs, blocks, options, dtype):
    w = RNG.normal(size=shape).astype(DTYPES[dtype])
    h = moments(runs, blocks, w.size // shape[axis] // blocks)
    arguments = {**options, "output_axis": axis, "half_scales": True}
    for algorithm in ("lnq", "gptq"):
        palette = _native.palettize(flat(w), dtype, shape, second_moments=h, algorithm=algorithm, damping=0.02, **arguments)
        assert len(palette.objective) == (6 if algorithm == "lnq" else 4)
        assert palette.error["output_error"] == palette.objective[-1]
        assert palette.error["output_energy"] == pytest.approx(cost(w, h, axis, 0.02), rel=1e-9)
        found = cost(w.astype(np.float64) - dense(palette), h, axis, 0.02)
        assert palette.objective[-1] == pytest.approx(found, rel=1e-7)
        assert all(a >= b for a, b in zip(palette.objective[:-1], palette.objective[1:-1]))
    plain = _native.palettize(flat(w), dtype, shape, **arguments)
    assert plain.objective is None and "output_error" not in plain.error
    assert found < cost(w.astype(np.float64) - dense(plain), h, axis, 0.02)
    fewer = _native.palettize(flat(w), dtype, shape, second_moments=h, rounds=1, **arguments)
    assert len(fewer.objective) == 5


def test_tables_from_elsewhere():
    w = RNG.normal(size=(8, 20)).astype(np.float32)
    h = moments(1, 1, 20)
    luts = np.array([[-1, 0.2, 0.9, -0.3]] * 2, np.float32)
    indices = np.abs(w[:, :, None] - luts[0]).argmin(-1).astype(np.uint8)
    options = {"nbits": 2, "granularity": "per_grouped_channel", "group_size": 4, "output_axis": 0}
    given = {"luts": luts.ravel(), "indices": indices.ravel()}
    plain = _native.assemble(flat(w), "f32", w.shape, **given, **options)
    assert np.array_equal(dense(plain), luts[0][indices]) and plain.objective is None
    fitted = _native.assemble(flat(w), "f32", w.shape, **given, **options, second_moments=h[0, 0], damping=0.02)
    found = cost(w.astype(np.float64) - dense(fitted), h, 0, 0.02)
    assert fitted.objective == [pytest.approx(found, rel=1e-7)]
    assert found < cost(w.astype(np.float64) - dense(plain), h, 0, 0.02)
    scaled = _native.assemble(
        flat(w), "f32", w.shape, **given, **options, enable_per_channel_scale=True, scales=np.full(8, 0.5, np.float32)
    )
    np.testing.assert_allclose(dense(scaled), luts[0][indices] / 2, rtol=1e-6)
    with pytest.raises(ValueError, match="luts must hold 8 numbers, found 4"):
        _native.assemble(flat(w), "f32", w.shape, **{**given, "luts": luts[0]}, **options)


def test_what_cannot_be():
    w = flat(np.ones((4, 6), np.float32))
    good = {"nbits": 2, "output_axis": 0}

    def error(kind=ValueError, **arguments):
        with pytest.raises(kind) as caught:
            _native.palettize(w, "f32", (4, 6), **{**good, "second_moments": moments(1, 1, 6), **arguments})
        return str(caught.value)

    assert error(second_moments=np.ones((6, 5), np.float32)).startswith("second_moments has the shape [6, 5]; expected")
    assert "not contiguous" in error(second_moments=np.asfortranarray(moments(2, 1, 6)))
    assert error(algorithm="adam") == "algorithm is adam; expected lnq or gptq"
    assert error(rounds=-1).startswith("rounds is -1; expected a whole number")
    assert "damping of -2" in error(_native.Refusal, damping=-2.0)
    assert "needs second moments of 6 inputs" in error(_native.Refusal, second_moments=moments(1, 1, 5))
    assert error(_native.Refusal, cluster_dim=2) == "layer-wise fitting needs cluster_dim 1, found 2"
