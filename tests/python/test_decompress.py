"""Every form of compressed weight comes back dense, with the values that the peer gives it, bit for bit."""

import pytest

import judge
import peer
import zoo_compressed
from zoo_compressed import CASES, compressed


def assert_dense(package, model):
    variables = judge.constants(package)
    assert not [key for key, var in variables.items() if judge.chain(var)]
    assert judge.skeleton(package) == judge.skeleton(model)


@pytest.mark.parametrize("kind, target", CASES)
def test_values_are_the_peers(kind, target, models, dense):
    model = models(compressed, kind, target)
    assert any(judge.chain(var) for var in judge.constants(model).values()), "the peer did not compress it"
    out = dense(model)
    assert_dense(out, model)
    judge.assert_same_weights(out, model)


@pytest.mark.parametrize("kind, target", CASES)
def test_as_the_peers_decompress_weights(kind, target, models, dense, tmp_path):
    model = models(compressed, kind, target)
    theirs = peer.save(peer.decompressed(model), tmp_path / "theirs.mlpackage")
    judge.assert_same_weights(dense(model), theirs)


@pytest.mark.parametrize("target", ["iOS16", "iOS17", "iOS18"])
def test_cast(target, models, dense):
    model = models(zoo_compressed.cast, target)
    out = dense(model)
    assert_dense(out, model)
    judge.assert_same_weights(out, model)


def test_nothing_to_do(models, dense):
    model = models(zoo_compressed.plain, "iOS18")
    assert judge.resolved(dense(model)) == judge.resolved(model)


@pytest.mark.parametrize("flags", [
    ["--nbits", 4], ["--nbits", 3, "--granularity", "per_grouped_channel", "--group-size", 16],
    ["--nbits", 6, "--cluster-dim", 4, "--per-channel-scale", "--lut-dtype", "int8"],
], ids=["tensor", "groups", "everything"])
def test_there_and_back(flags, models, compress, dense, tmp_path, palettizer):
    """A decompressed model palettizes again, without loss where its values still fit a table of their own."""
    back = dense(compress(models(zoo_compressed.plain, "iOS18"), *flags)[0])
    again = tmp_path / "again.mlpackage"
    palettizer("compress", back, "-o", again, *flags[:2], *(flags[2:] if len(flags) < 8 else []))
    if "--cluster-dim" not in flags:
        judge.assert_same_weights(again, back)
