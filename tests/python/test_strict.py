"""--strict: a skip that nobody asked for is exit code 3, and nothing is written."""

import pytest

import zoo_special
from zoo_graphs import layer_norm

ASKED_FOR = [
    ["--nbits", 4, "--op-name", "special=skip"],
    ["--nbits", 4, "--op-type", "linear=skip"],
    ["--nbits", 4, "--op-name", "odd=skip"],
    ["--nbits", 4, "--weight-threshold", 100000],
]
NOT_ASKED_FOR = {
    "one-inf": ["--nbits", 4],
    "plain": ["--nbits", 4, "--granularity", "per_grouped_channel", "--group-size", 7],
    "outlier": ["--nbits", 4, "--cluster-dim", 5],
    "some-nan": ["--nbits", 8, "--op-name", "ordinary=skip"],
    "zero-row": ["--mode", "unique"],
}


@pytest.mark.parametrize("kind", NOT_ASKED_FOR)
def test_unasked_skip(kind, models, refuses, tmp_path, compress):
    model, flags = models(zoo_special.special, kind, "fp16"), NOT_ASKED_FOR[kind]
    said = refuses(["special"], "compress", model, "-o", tmp_path / "never.mlpackage", *flags, "--strict", codes=(3,))
    assert not (tmp_path / "never.mlpackage").exists()
    _, report = compress(model, *flags)
    (entry,) = [w for w in report["weights"] if w["name"] == "special"]
    assert entry["status"] == "skipped" and entry["reason"] in said.replace("\n", " ")


@pytest.mark.parametrize("flags", ASKED_FOR, ids=lambda flags: " ".join(map(str, flags)))
def test_asked_for_skip(flags, models, compress):
    _, report = compress(models(zoo_special.special, "plain", "fp16"), *flags, "--strict")
    assert "compressed" not in {w["status"] for w in report["weights"] if w["name"] == "special"}


def test_no_skip(models, compress):
    _, report = compress(models(zoo_special.special, "plain", "fp16"), "--nbits", 4, "--strict")
    assert {w["status"] for w in report["weights"]} == {"compressed"}


def test_strict_keeps_an_existing_output(models, palettizer, tmp_path):
    model, out = models(zoo_special.special, "one-inf", "fp16"), tmp_path / "out.mlpackage"
    palettizer("compress", model, "-o", out, "--nbits", 4)
    before = sorted((p, p.stat().st_mtime_ns) for p in out.rglob("*"))
    done = palettizer("compress", model, "-o", out, "--nbits", 2, "--force", "--strict", check=False)
    assert done.returncode == 3
    assert sorted((p, p.stat().st_mtime_ns) for p in out.rglob("*")) == before


def test_one_dimensional_constants_do_not_count(models, compress):
    """A layer norm's gamma is no weight that --strict asks for: the peer leaves 1-D constants alone."""
    _, report = compress(models(layer_norm), "--nbits", 4, "--strict")
    assert "compressed" in {w["status"] for w in report["weights"]}
