"""The model inside the binary: what its script says it is, and still a reader of digits when palettized."""

import re
import sys
from pathlib import Path

import numpy as np
import pytest

import judge

REPO = Path(__file__).resolve().parents[2]
sys.path.append(str(REPO / "scripts"))

import demo_model

CONSUMERS = {name: (0, "main", name + "_cast_fp16", "weight") for name in demo_model.SHAPES}


def accuracy(package):
    """The share of the held-out digits that the package's weights read right, by the script's own forward pass."""
    weights = judge.weights(package)
    parameters = {}
    for name, (index, function, op, parameter) in CONSUMERS.items():
        parameters[name] = weights[index, function, op, parameter].astype(np.float32)
        parameters[name + "_bias"] = weights[index, function, op, "bias"].astype(np.float32)
    _, images, _, labels = demo_model.split()
    return float((demo_model.forward(parameters, demo_model.as_input(images))[0].argmax(1) == labels).mean())


def test_it_is_what_it_says():
    metadata = judge.load(demo_model.DEMO).get_spec().description.metadata
    assert metadata.author == "Palettizer"
    said = float(metadata.userDefined["test_accuracy"])
    assert said >= 0.97 and accuracy(demo_model.DEMO) == pytest.approx(said, abs=1e-4)
    assert sum(file.stat().st_size for file in demo_model.DEMO.rglob("*") if file.is_file()) <= 250_000
    sizes = sorted(w.size for k, w in judge.weights(demo_model.DEMO).items() if k[3] == "weight")
    assert sum(size > 2048 for size in sizes) >= 3 and sizes[0] <= 2048


# bits -> points of accuracy that may be lost at most
@pytest.mark.parametrize("nbits, lost", [(8, 0.003), (6, 0.003), (4, 0.006), (3, 0.02), (2, 0.15)])
def test_palettized_it_still_reads(nbits, lost, compress):
    out, _ = compress(demo_model.DEMO, "--nbits", nbits)
    assert accuracy(out) >= accuracy(demo_model.DEMO) - lost


def test_the_command_carries_the_digits_that_were_held_out():
    _, images, _, labels = demo_model.split()
    held = np.frombuffer(demo_model.HELD_OUT.read_bytes(), np.uint8).reshape(-1, 65)
    assert len(held) == 360 and demo_model.HELD_OUT.stat().st_size <= 40_000
    np.testing.assert_array_equal(held[:, 0], labels)
    np.testing.assert_array_equal(held[:, 1:], images)


def test_the_demo_counts_what_is_read_right(palettizer, tmp_path):
    """Its figures are those of the script's own forward pass in fp32, but for an image that fp16 decides otherwise."""
    said = palettizer("demo", "--save", tmp_path / "digits").stdout
    shares = dict(re.findall(r"^ *(as it is|\d) .*? (\d+\.\d)%", said, re.MULTILINE))
    assert list(shares) == ["as it is", "8", "6", "4", "3", "2", "1"]
    for bits, share in shares.items():
        name = "digits.mlpackage" if bits == "as it is" else f"digits-{bits}-bit.mlpackage"
        assert float(share) == pytest.approx(100 * accuracy(tmp_path / "digits" / name), abs=100 / 360 + 0.05), bits
    assert float(shares["as it is"]) > 97 and float(shares["1"]) < 60
    _, images, _, labels = demo_model.split()
    kept = np.load(tmp_path / "digits/held-out.npz")["image"]
    np.testing.assert_array_equal(kept, demo_model.as_input(images))
    np.testing.assert_array_equal(np.loadtxt(tmp_path / "digits/held-out-labels.txt", int), labels)
