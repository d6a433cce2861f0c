"""`palettizer compress --statistics` on a checkpoint and on programs: what is written, read back, against sums in numpy."""

import json

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

import judge
import zoo

RNG = np.random.default_rng(31)
DAMPING = {"plain": 0.1, "guided": 0.03}

# name: (shape, output axis, runs of rows, blocks)
LAYERS = {
    "q.weight": ((64, 96), 0, 1, 1),
    "conv1d.weight": ((96, 64), 1, 1, 1),
    "grouped.weight": ((64, 8, 3, 3), 0, 4, 1),
    "transposed.weight": ((32, 16, 3, 3), 1, 1, 2),
}


def moments(row_runs, blocks, n):
    x = RNG.normal(size=(row_runs, blocks, 2 * n, n)) * np.exp(RNG.normal(size=n)) + RNG.normal(size=(row_runs, blocks, 2 * n, 1))
    return (np.einsum("rbti,rbtj->rbij", x, x) / (2 * n)).astype(np.float32)


def cost(difference, second_moments, axis, damping):
    """Σ eᵀHe with the damped H."""
    rows = np.moveaxis(difference.astype(np.float64), axis, 0).reshape(difference.shape[axis], -1)
    n = second_moments.shape[-1]
    second_moments = second_moments.reshape(-1, rows.shape[1] // n, n, n)
    each = -(-len(rows) // len(second_moments))
    total = 0.0
    for run, blocks in enumerate(second_moments.astype(np.float64)):
        for block, h in enumerate(blocks):
            mean = np.diag(h).mean()
            np.fill_diagonal(h, np.maximum(np.diag(h), 1e-6 * mean) + damping * mean)
            e = rows[run * each : (run + 1) * each, block * n : (block + 1) * n]
            total += np.einsum("ri,ij,rj->", e, h, e)
    return total


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    """A folder with a model, weights and second moments by name."""
    folder = tmp_path_factory.mktemp("statistics")
    weights = {name: RNG.normal(size=shape).astype(np.float32) for name, (shape, *_) in LAYERS.items()}
    weights["embed.weight"] = RNG.normal(size=(48, 64)).astype(np.float32)
    weights["embed.weight"][:3] /= 10
    weights["other.weight"] = RNG.normal(size=(48, 64)).astype(np.float32)
    save_file(weights, folder / "model.safetensors")
    found = {}
    for name, (shape, axis, runs, blocks) in LAYERS.items():
        h = moments(runs, blocks, int(np.prod(shape)) // shape[axis] // blocks)
        found[name] = h[0, 0] if runs * blocks == 1 else h if blocks > 1 else h[:, 0]
    return folder, weights, found


def write(folder, found, metadata=None, **more):
    axes = {f"{name}.output_axis": str(axis) for name, (_, axis, *_) in LAYERS.items() if axis}
    tensors = {f"{name}.second_moments": h for name, h in found.items()} | more
    save_file(tensors, folder / "h.safetensors", {"palettizer.statistics": "1", **axes, **(metadata or {})})


@pytest.fixture
def compress(checkpoint, palettizer, tmp_path):
    """`compress(*flags)`: the dense weights that come out, and the report's rows by name; or what it says if it fails."""
    folder, _, _ = checkpoint

    def run(*flags, code=0):
        out, dense, report = tmp_path / "out.safetensors", tmp_path / "dense.safetensors", tmp_path / "r.json"
        arguments = ["compress", folder / "model.safetensors", "-o", out, "--report", report, "--force", *flags]
        done = palettizer(*arguments, check=False)
        assert done.returncode == code, done.stderr
        if code:
            return done.stderr
        palettizer("decompress", out, "-o", dense, "--force")
        rows = {row["name"]: row for row in json.loads(report.read_text())["weights"]}
        return load_file(dense), rows, done.stdout

    return run


FORMS = [
    ["--nbits", 3, "--group-size", 1],
    ["--nbits", 2],
    ["--nbits", 4, "--group-size", 16, "--lut-dtype", "int8"],
]


@pytest.mark.parametrize("kind", DAMPING)
@pytest.mark.parametrize("form", FORMS, ids=str)
def test_outputs_are_kept_and_the_report_says_how_well(form, kind, checkpoint, compress):
    folder, weights, found = checkpoint
    write(folder, found, {"guided": str(kind == "guided").lower()})
    plain, _, _ = compress(*form)
    costs = {}
    for algorithm in ("lnq", "gptq"):
        dense, rows, said = compress(*form, "--statistics", folder / "h.safetensors", "--algorithm", algorithm)
        assert "output dB" in said
        for name, (_, axis, *_) in LAYERS.items():
            row, h = rows[name], found[name]
            assert (row["fit"], row["fallback"]) == ("layerwise", None), row
            lost = costs[name, algorithm] = cost(weights[name] - dense[name], h, axis, DAMPING[kind])
            snr = 10 * np.log10(cost(weights[name], h, axis, DAMPING[kind]) / lost)
            assert row["output_snr_db"] == pytest.approx(snr, abs=1e-5)
            assert lost < cost(weights[name] - plain[name], h, axis, DAMPING[kind])
        for name in ("embed.weight", "other.weight"):
            row = rows[name]
            assert (row["fit"], row["fallback"]) == ("k-means", "there are no statistics of it")
            assert row["output_snr_db"] is None and np.array_equal(dense[name], plain[name])
    assert sum(costs[name, "lnq"] < costs[name, "gptq"] for name in LAYERS) >= 3


def test_options_reach_the_fit(checkpoint, compress):
    folder, weights, found = checkpoint
    write(folder, found)
    flags = ["--nbits", 2, "--group-size", 1, "--statistics", folder / "h.safetensors"]
    results = [compress(*flags, *more)[0]["q.weight"] for more in ([], ["--rounds", 0], ["--rounds", 2], ["--damping", 0.4])]
    costs = [[cost(weights["q.weight"] - dense, found["q.weight"], 0, damping) for damping in (0.1, 0.4)] for dense in results]
    assert np.array_equal(results[0], results[2])
    assert costs[0][0] < costs[1][0] and costs[0][0] < costs[3][0] and costs[3][1] < costs[0][1]


def test_fallbacks_say_why_and_weigh(checkpoint, compress):
    folder, weights, found = checkpoint
    frequency = np.ones(48, np.float32)
    frequency[:3] = 1e4
    fisher = np.exp(RNG.normal(size=(48, 64)) * 3).astype(np.float32)
    write(folder, found, **{"embed.weight.frequency": frequency, "other.weight.fisher": fisher})
    plain, _, _ = compress("--nbits", 2)
    flags = ["--nbits", 2, "--statistics", folder / "h.safetensors", "--strict"]
    dense, rows, said = compress(*flags, "--op-name", "q.weight=cluster_dim=2,nbits=4", "--op-name", "grouped.weight=mode=uniform")
    assert (rows["q.weight"]["fit"], rows["q.weight"]["fallback"]) == ("k-means", "layer-wise fitting needs cluster_dim 1, found 2")
    assert rows["grouped.weight"]["fit"] is None
    assert rows["grouped.weight"]["fallback"] == "layer-wise fitting needs mode kmeans, found uniform"
    for name in ("embed.weight", "other.weight"):
        assert rows[name]["fallback"] == "there are no second moments of its inputs" and rows[name]["sensitivity"]
    assert rows["q.weight"]["sensitivity"] and not rows["transposed.weight"]["sensitivity"]
    assert "there are no second moments of its inputs" in said

    def error(name, values, weight):
        return (weight * (weights[name] - values[name]).astype(np.float64) ** 2).sum()

    weight = frequency[:, None]
    assert error("embed.weight", dense, weight) < 0.5 * error("embed.weight", plain, weight)
    assert error("other.weight", dense, fisher) < 0.9 * error("other.weight", plain, fisher)


def test_an_axis_that_is_not_said_is_asked_for(checkpoint, compress):
    folder, _, found = checkpoint
    save_file({f"{name}.second_moments": found[name] for name in ("q.weight", "conv1d.weight")}, folder / "h.safetensors")
    _, rows, _ = compress("--nbits", 2, "--statistics", folder / "h.safetensors")
    assert rows["q.weight"]["fit"] == "layerwise"
    assert rows["conv1d.weight"]["fallback"] == (
        "layer-wise fitting needs second moments of 64 inputs for the shape [96, 64] with output axis 0, found 96"
    )


def test_the_number_of_threads_makes_no_difference(checkpoint, palettizer, tmp_path):
    folder, _, found = checkpoint
    write(folder, found)
    all_bytes = set()
    for threads in (1, 2, 3):
        out = tmp_path / f"{threads}.safetensors"
        palettizer("compress", folder / "model.safetensors", "-o", out, "--nbits", 3, "--statistics", folder / "h.safetensors",
                   "--threads", threads)
        all_bytes.add(out.read_bytes())
    assert len(all_bytes) == 1


def test_bad_files(checkpoint, compress):
    folder, _, found = checkpoint
    h = found["q.weight"]

    def error(tensors, metadata=None, flags=(), code=1):
        save_file(tensors, folder / "bad.safetensors", metadata)
        return compress("--nbits", 2, "--statistics", folder / "bad.safetensors", *flags, code=code)

    name = "q.weight.second_moments"
    lopsided = h.copy()
    lopsided[3, 5] += 1000
    said = error({name: lopsided})
    assert f'the statistics "{name}"' in said and "[5, 3]" in said and "expected a symmetric matrix" in said
    negative = h.copy()
    negative[7, 7] = -1
    assert "-1 at [7, 7]" in error({name: negative})
    broken = h.copy()
    broken[0, 2] = np.nan
    assert "NaN at [0, 2], expected finite numbers" in error({name: broken})
    assert "the shape [96, 95], expected [n, n]" in error({name: h[:, :95].copy()})
    assert 'palettizer.statistics is "2", expected "1"' in error({name: h}, {"palettizer.statistics": "2"})
    assert 'guided is "maybe"' in error({name: h}, {"guided": "maybe"})
    assert 'q.weight.output_axis is "7", expected an axis from 0 to 1' in error({name: h}, {"q.weight.output_axis": "7"})
    said = error({"model.q.weight.second_moments": h})
    assert "no statistics are of a weight" in said and "model.q.weight" in said
    assert "has no tensor of numbers called NAME.second_moments" in error({"x": h})
    assert "damping" in error({name: h}, flags=["--damping", "-1"], code=2)
    assert "--statistics" in compress("--nbits", 2, "--algorithm", "lnq", code=2)
    said = error({name: h}, flags=["--sensitivity", folder / "h.safetensors"], code=2)
    assert "--sensitivity" in said and "--statistics" in said


@pytest.mark.parametrize("dtype", ["fp16", "fp32"])
@pytest.mark.parametrize("op", ["linear", "conv", "conv_transpose", "matmul_y"])
def test_programs_are_fitted_too(op, dtype, palettizer, tmp_path):
    """What the peer decompresses costs what the report says: of weights by the names of their constants."""
    model, out, report = tmp_path / "m.mlpackage", tmp_path / "o.mlpackage", tmp_path / "r.json"
    zoo.build(op, "iOS18", dtype).save(str(model))
    ((key, before),) = judge.weights(model, 2048).items()
    name = f"{key[2]}_{key[3]}"
    ((_, axis),) = zoo.OPS[op].weights.values()
    h = moments(1, 1, before.size // before.shape[axis])
    save_file({f"{name}.second_moments": h}, tmp_path / "h.safetensors")
    flags = ["--nbits", 3, "--group-size", 4, "--report", report, "--force"]
    costs = []
    for more in ([], ["--statistics", tmp_path / "h.safetensors"]):
        palettizer("compress", model, "-o", out, *flags, *more)
        ((_, after),) = judge.weights(out, 2048).items()
        costs.append(cost(before.astype(np.float64) - after.astype(np.float64), h, axis, 0.1))
    (row,) = json.loads(report.read_text())["weights"]
    assert row["fit"] == "layerwise"
    assert row["output_snr_db"] == pytest.approx(10 * np.log10(cost(before, h, axis, 0.1) / costs[1]), abs=1e-4)
    assert costs[1] < 0.8 * costs[0]
