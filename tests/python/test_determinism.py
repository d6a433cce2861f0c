"""The same bytes for the same input and settings, whatever the number of threads."""

import pytest

import judge
from zoo_graphs import attention, multifunction

SETTINGS = [
    ["--nbits", 4],
    ["--nbits", 8, "--mode", "uniform", "--per-channel-scale"],
    ["--nbits", 3, "--granularity", "per_grouped_channel", "--group-size", 4, "--lut-dtype", "int8"],
    ["--nbits", 6, "--cluster-dim", 4],
    ["--nbits", 4, "--exact"],
]


@pytest.mark.parametrize("flags", SETTINGS, ids=lambda flags: " ".join(map(str, flags)))
@pytest.mark.parametrize("builder", [attention, multifunction])
def test_threads_and_repetition(builder, flags, models, compress):
    model = models(builder)
    digests = {judge.digest(compress(model, *flags, "--threads", threads)[0]) for threads in (1, 2, 2, 3)}
    digests.add(judge.digest(compress(model, *flags)[0]))
    assert len(digests) == 1


def test_the_report_but_for_the_time(models, compress):
    reports = [compress(models(attention), "--nbits", 4, "--threads", n)[1] for n in (1, 2)]
    for report in reports:
        assert report.pop("seconds") >= 0
    assert reports[0] == reports[1]


def test_the_seed_matters_for_vectors_alone(models, compress):
    model = models(attention)
    scalar = {judge.digest(compress(model, "--nbits", 4, "--seed", seed)[0]) for seed in (0, 1, 2)}
    assert len(scalar) == 1
    vectors = [compress(model, "--nbits", 8, "--cluster-dim", 4, "--seed", seed)[0] for seed in (0, 0, 1)]
    assert judge.digest(vectors[0]) == judge.digest(vectors[1]) != judge.digest(vectors[2])


def test_decompress_repeats(models, compress, palettizer, tmp_path):
    out, _ = compress(models(attention), "--nbits", 4)
    for name in ("a.mlpackage", "b.mlpackage"):
        palettizer("decompress", out, "-o", tmp_path / name)
    assert judge.digest(tmp_path / "a.mlpackage") == judge.digest(tmp_path / "b.mlpackage")
