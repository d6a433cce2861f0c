"""Broken packages and wrong files: a clear error, exit code 1, nothing written, the input as it was."""

import json
import shutil
import struct

import coremltools as ct
import numpy as np
import pytest
from coremltools.models.utils import load_spec

import judge
from zoo_graphs import multifunction, opset


def weights(package):
    return package / judge.WEIGHTS / "weight.bin"


def program(package):
    return package / judge.PROGRAM


def edit(path, change):
    data = bytearray(path.read_bytes())
    path.write_bytes(bytes(change(data) or data))


def edit_spec(package, change):
    spec = load_spec(str(package))
    (function,) = spec.mlProgram.functions.values()
    (block,) = function.block_specializations.values()
    change(spec, block)
    program(package).write_bytes(spec.SerializeToString())


def edit_manifest(package, change):
    manifest = json.loads((package / "Manifest.json").read_text())
    change(manifest)
    (package / "Manifest.json").write_text(json.dumps(manifest))


def weight_const(block):
    return next(op for op in block.operations if op.outputs[0].name == "linear_w")


def patch(offset, fmt, *content):
    return lambda p: edit(weights(p), lambda d: struct.pack_into(fmt, d, offset, *content))


def first_record(p):
    return weight_offset(p, "conv_w")


def weight_offset(p, name):
    (reference,) = judge.blob_references(p)["main", name]
    return reference[1]


def set_offset(offset):
    return lambda p: edit_spec(
        p, lambda _, b: setattr(weight_const(b).attributes["val"].blobFileValue, "offset", offset))


def record(field, fmt, content):
    """Overwrites one field of conv_w's 64-byte record."""
    at = {"sentinel": 0, "dtype": 4, "size": 8, "offset": 16}[field]
    return lambda p: patch(first_record(p) + at, fmt, content)(p)


def paths(path):
    def change(manifest):
        for entry in manifest["itemInfoEntries"].values():
            if entry["path"].endswith("model.mlmodel"):
                entry["path"] = path
    return lambda p: edit_manifest(p, change)


def to_directory(file):
    def change(package):
        target = package / file
        target.unlink()
        target.mkdir()
    return change


def same_offset(p):
    """linear_w made to start in the middle of conv_w's data."""
    start = first_record(p)
    patch(weight_offset(p, "linear_w") + 16, "<Q", start + 128)(p)


# what is wrong -> (the damage, words that the message must hold)
BROKEN = {
    "truncated weights": (lambda p: edit(weights(p), lambda d: d[: len(d) // 2]), ["weight.bin"]),
    "empty weights": (lambda p: weights(p).write_bytes(b""), ["weight.bin"]),
    "short header": (lambda p: edit(weights(p), lambda d: d[:63]), ["weight.bin"]),
    "no weights": (lambda p: weights(p).unlink(), ["weight.bin"]),
    "sentinel": (record("sentinel", "<I", 0xDEADBEEE), ["sentinel"]),
    "blob dtype": (record("dtype", "<I", 99), ["99"]),
    "other dtype": (record("dtype", "<I", 1), ["conv_w"]),
    "blob size": (record("size", "<Q", 32 * 16 * 9 * 4 - 4), ["conv_w"]),
    "huge blob size": (record("size", "<Q", 2**64 - 64), ["weight.bin"]),
    "data past the end": (record("offset", "<Q", 2**40), ["weight.bin"]),
    "overflowing offset": (record("offset", "<Q", 2**64 - 64), ["weight.bin"]),
    "overlapping blobs": (same_offset, ["overlap"]),
    "blob version": (patch(4, "<I", 3), ["version", "3"]),
    "offset past the end": (set_offset(2**33), ["weight.bin", str(2**33)]),
    "unaligned offset": (set_offset(65), ["65"]),
    "offset of nothing": (set_offset(2**63), ["weight.bin", str(2**63)]),
    "other weight file": (lambda p: edit_spec(p, lambda _, b: setattr(
        weight_const(b).attributes["val"].blobFileValue, "fileName", "@model_path/weights/other.bin")), ["other.bin"]),
    "weight file with ..": (lambda p: edit_spec(p, lambda _, b: setattr(
        weight_const(b).attributes["val"].blobFileValue, "fileName", "@model_path/../../../secret.bin")), [".."]),
    "absolute weight file": (lambda p: edit_spec(p, lambda _, b: setattr(
        weight_const(b).attributes["val"].blobFileValue, "fileName", "/etc/hostname")), ["/etc/hostname"]),
    "garbage protobuf": (lambda p: program(p).write_bytes(bytes(range(256)) * 8), ["model.mlmodel"]),
    "truncated protobuf": (lambda p: edit(program(p), lambda d: d[: len(d) - 40]), ["model.mlmodel"]),
    "empty protobuf": (lambda p: program(p).write_bytes(b""), ["model.mlmodel"]),
    "no program": (lambda p: program(p).unlink(), ["model.mlmodel"]),
    "missing name": (lambda p: edit_spec(p, lambda _, b: b.operations.remove(weight_const(b))), ["linear_w"]),
    "opset without a block": (lambda p: edit_spec(p, lambda s, b: setattr(
        s.mlProgram.functions["main"], "opset", "CoreML4")), ["CoreML4"]),
    "wrong shape": (lambda p: edit_spec(p, lambda _, b: setattr(
        weight_const(b).outputs[0].type.tensorType.dimensions[0].constant, "size", 25)), ["linear_w"]),
    "no manifest": (lambda p: (p / "Manifest.json").unlink(), ["Manifest.json"]),
    "manifest is no JSON": (lambda p: (p / "Manifest.json").write_text("{"), ["Manifest.json"]),
    "manifest without a root": (lambda p: edit_manifest(p, lambda m: m.pop("rootModelIdentifier")),
                                ["rootModelIdentifier"]),
    "manifest with another root": (lambda p: edit_manifest(p, lambda m: m.update(rootModelIdentifier="nobody")),
                                   ["nobody"]),
    "manifest with ..": (paths("../outside/model.mlmodel"), [".."]),
    "manifest with an absolute path": (paths("/etc/hostname"), ["/etc/hostname"]),
    "manifest is a directory": (to_directory("Manifest.json"), ["Manifest.json"]),
    "program is a directory": (to_directory(judge.PROGRAM), ["model.mlmodel"]),
    "weights are a directory": (to_directory(f"{judge.WEIGHTS}/weight.bin"), ["weight.bin"]),
}


@pytest.mark.parametrize("command", ["compress", "decompress", "inspect"])
@pytest.mark.parametrize("name", BROKEN)
def test_broken_package(name, command, models, refuses, tmp_path):
    damage, words = BROKEN[name]
    package = tmp_path / "in.mlpackage"
    shutil.copytree(models(opset, "iOS18"), package)
    damage(package)
    before = judge.digest(package)
    flags = {"compress": ["--nbits", 4], "decompress": [], "inspect": []}[command]
    out = [] if command == "inspect" else ["-o", tmp_path / "out.mlpackage"]
    refuses(words, command, package, *out, *flags, codes=(1,))
    assert judge.digest(package) == before


def neural_network():
    from coremltools.models import datatypes
    from coremltools.models.neural_network import NeuralNetworkBuilder
    builder = NeuralNetworkBuilder([("x", datatypes.Array(4))], [("y", datatypes.Array(2))])
    builder.add_inner_product("fc", np.ones((2, 4), np.float32), None, 4, 2, False, "x", "y")
    return builder.spec


def trees():
    from coremltools.models.tree_ensemble import TreeEnsembleRegressor
    made = TreeEnsembleRegressor([("x", ct.models.datatypes.Double())], "y")
    made.set_default_prediction_value(0.0)
    made.add_leaf_node(0, 0, 1.0)
    return made.spec


def linear_model():
    spec = ct.proto.Model_pb2.Model(specificationVersion=1)
    spec.glmRegressor.offset.append(0.5)
    return spec


OTHERS = [(neural_network, "neuralNetwork"), (trees, "treeEnsembleRegressor"), (linear_model, "glmRegressor")]


@pytest.mark.parametrize("build, kind", OTHERS)
def test_other_model_types_are_refused_by_name(build, kind, refuses, tmp_path):
    path = tmp_path / "other.mlmodel"
    path.write_bytes(build().SerializeToString())
    said = refuses([kind], "compress", path, "-o", tmp_path / "out.mlpackage", "--nbits", 4, codes=(1,))
    assert "ML Program" in said, "no advice"


def test_a_bare_mlmodel_file_is_read(refuses, palettizer, tmp_path):
    """An ML Program without weights beside it: read, found to have no weight file, or written back whole."""
    spec = ct.proto.Model_pb2.Model(specificationVersion=7)
    spec.mlProgram.version = 1
    path = tmp_path / "bare.mlmodel"
    path.write_bytes(spec.SerializeToString())
    assert palettizer("inspect", path, "--json").returncode == 0


@pytest.mark.parametrize("what", ["missing", "text", "folder"])
def test_not_a_model(what, refuses, tmp_path):
    path = tmp_path / {"missing": "nowhere.mlpackage", "text": "notes.txt", "folder": "folder"}[what]
    if what == "text":
        path.write_text("no model\n")
    elif what == "folder":
        path.mkdir()
    refuses([path.name], "compress", path, "-o", tmp_path / "out.mlpackage", "--nbits", 4, codes=(1,))


def test_multifunction_with_a_broken_blob(models, refuses, tmp_path):
    package = tmp_path / "in.mlpackage"
    shutil.copytree(models(multifunction), package)
    edit(weights(package), lambda d: d[: len(d) // 3])
    refuses(["weight.bin"], "compress", package, "-o", tmp_path / "out.mlpackage", "--nbits", 4, codes=(1,))
