"""The model inside the binary: what its script says it is, and still a reader of digits when palettized."""

import sys
from pathlib import Path

import numpy as np
import pytest
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

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
    images, labels = load_digits(return_X_y=True)
    x = (images / 16).astype(np.float32).reshape(-1, 1, 8, 8)
    _, x, _, y = train_test_split(x, labels, test_size=0.2, random_state=demo_model.SEED, stratify=labels)
    return float((demo_model.forward(parameters, x)[0].argmax(1) == y).mean())


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
