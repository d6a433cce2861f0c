"""Core AI programs in folders: damage is an error of ours and never the end of the process, and saving replaces at once or not."""

import hashlib
import shutil
import subprocess
import sys

import numpy as np
import pytest
from coreai_support import cnn

import palettizer.coreai as core_ai
from palettizer.coreai import OpPalettizerConfig, OptimizationConfig

FOUR = OptimizationConfig(global_config=OpPalettizerConfig(nbits=4, weight_threshold=100))


@pytest.fixture(scope="module")
def sound(tmp_path_factory):
    return cnn(tmp_path_factory.mktemp("sound"))


@pytest.fixture
def damaged(sound, tmp_path):
    """A copy, with other bytes: `damaged(change, honest)`; an honest one has the hash of them."""
    def make(change, honest=False):
        path = tmp_path / "damaged.aimodel"
        shutil.rmtree(path, ignore_errors=True)
        shutil.copytree(sound, path)
        body = path / "main.mlirb"
        body.write_bytes(change(body.read_bytes()))
        if honest:
            (path / "main.hash").write_bytes(hashlib.sha256(body.read_bytes()).digest())
        return path
    return make


def test_truncated(damaged, sound):
    length = (sound / "main.mlirb").stat().st_size
    for end in range(0, length, 64):
        with pytest.raises(ValueError, match="damaged"):
            core_ai.load(damaged(lambda body: body[:end]))


def test_flipped_bytes(damaged, sound):
    length = (sound / "main.mlirb").stat().st_size
    for at in np.random.default_rng(0).integers(0, length, 100):
        with pytest.raises(ValueError, match="damaged: main.hash is not the SHA-256 of main.mlirb; make it again"):
            core_ai.load(damaged(lambda body: body[:at] + bytes([body[at] ^ 0x10]) + body[at + 1:]))


@pytest.mark.parametrize("change, said", [
    (lambda path: shutil.rmtree(path), "there is no "),
    (lambda path: (path / "main.mlirb").unlink(), "it has no main.mlirb"),
    (lambda path: (path / "main.hash").unlink(), "it has no main.hash"),
    (lambda path: (path / "main.hash").write_bytes(b""), "main.hash is not the SHA-256"),
    (lambda path: (path / "metadata.json").write_text("{"), "damaged"),
    (lambda path: (path / "metadata.json").unlink(), "it has no metadata.json"),
    (lambda path: (path / "metadata.json").write_text('{"assetVersion": "9.0"}'), "damaged"),
    (lambda path: (path / "main.mlirb").write_bytes(b"PK\3\4" * 9), "begins with 50 4b 03 04, expected 4d 4c ef 52"),
    (lambda path: (shutil.rmtree(path), path.write_bytes(b"ML\xefR")), "expected a folder"),
    (lambda path: ((path / "main.mlirb").unlink(), (path / "main.mlirb").mkdir()), "it has no main.mlirb"),
])  # fmt: skip
def test_parts_that_are_missing_or_wrong(damaged, change, said):
    path = damaged(lambda body: body)
    change(path)
    for call in (core_ai.load, core_ai.decompress_weights, core_ai.get_weights_metadata, lambda path: core_ai.palettize_weights(path, FOUR)):
        with pytest.raises((ValueError, FileNotFoundError), match=said):
            call(path)


def test_damage_with_the_hash_of_it(damaged, sound, tmp_path):
    """Whoever wants to can give a damaged program the right hash; Apple's reader then decides, and what it does not survive is found
    in a process of its own."""
    length = (sound / "main.mlirb").stat().st_size
    paths = []
    for number, end in enumerate([*range(0, 64, 8), *np.random.default_rng(1).integers(64, length, 40)]):
        path = tmp_path / f"cut{number}.aimodel"
        shutil.move(damaged(lambda body: body[:end], honest=True), path)
        paths.append(path)
    for path in paths:
        with pytest.raises(ValueError, match="damaged"):
            core_ai.load(path)


def test_saving_replaces_a_program_at_once(sound, tmp_path):
    small = core_ai.palettize_weights(sound, FOUR, progress=False)
    out = tmp_path / "out.aimodel"
    small.save(out)
    first = {file.name: file.read_bytes() for file in out.iterdir()}
    assert set(first) == {"main.mlirb", "main.hash", "metadata.json"}
    with pytest.raises(FileExistsError, match="exists already; pass overwrite=True to replace it"):
        small.save(out)
    (out / "notes.txt").write_text("of another tool")
    small.save(out, overwrite=True)
    again = {file.name: file.read_bytes() for file in out.iterdir()}
    assert again["main.mlirb"] == first["main.mlirb"] and set(again) == set(first)
    assert list(tmp_path.iterdir()) == [out]


@pytest.mark.parametrize("out, said", [
    ("out.mlpackage", "must end in .aimodel"), ("nowhere/out.aimodel", "nowhere"), ("folder.aimodel", "only Core AI programs are replaced"),
])  # fmt: skip
def test_places_that_nothing_is_saved_to(sound, tmp_path, out, said):
    kept = tmp_path / "folder.aimodel" / "kept.txt"
    kept.parent.mkdir()
    kept.write_text("mine")
    with pytest.raises((ValueError, OSError), match=said):
        core_ai.load(sound).save(tmp_path / out, overwrite=True)
    assert kept.read_text() == "mine" and len(list(tmp_path.iterdir())) == 1


def test_metadata_is_kept(sound, tmp_path):
    asset = core_ai.load(sound)._opened
    asset.metadata.author, asset.metadata.license = "somebody", "free"
    named = tmp_path / "named.aimodel"
    asset.save(named)
    core_ai.palettize_weights(named, FOUR, progress=False).save(tmp_path / "small.aimodel")
    found = core_ai.load(tmp_path / "small.aimodel")._opened.metadata
    assert (found.author, found.license) == ("somebody", "free")


WITHOUT = """
import sys
class Nothing:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == "coreai": raise ModuleNotFoundError(name)
sys.meta_path.insert(0, Nothing())
from importlib import metadata
version = metadata.version
def other(name):
    if name == "coreai-core": {what}
    return version(name)
metadata.version = other
import palettizer.coreai
"""


@pytest.mark.parametrize("what, said", [
    ("raise metadata.PackageNotFoundError(name)",
     "palettizer.coreai needs coreai-core, which is not installed: pip install 'palettizer[coreai]'"),
    ("return '2.0'", "coreai-core 2.0 does not have coreai.authoring"),
])  # fmt: skip
def test_a_missing_or_other_wheel(what, said):
    done = subprocess.run([sys.executable, "-c", WITHOUT.format(what=what)], capture_output=True, text=True)
    assert done.returncode == 1 and "ImportError: " + said in done.stderr.splitlines()[-1], done.stderr
