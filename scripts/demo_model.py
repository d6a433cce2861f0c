"""Trains and converts the network that `palettizer demo` carries inside the binary.

A small convolutional network learns scikit-learn's 8x8 digits in plain numpy (fixed seed, one
thread), and is written as an fp16 ML Program for iOS18. The digits that it is not trained on go into
held-out.bin beside it, for the demo to read: of each first the label, then 64 pixels from 0 to 16, row
by row, a byte each. Run it with the Python tests' environment; it replaces what is in crates/cli/demo:

    python scripts/demo_model.py [OUT.mlpackage]

The images are the test set of E. Alpaydin and C. Kaynak, Optical Recognition of Handwritten Digits, UCI
Machine Learning Repository, doi 10.24432/C50P49, licensed under CC BY 4.0.
"""

import json
import os
import shutil
import sys
import tempfile
from pathlib import Path

for knob in ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ[knob] = "1"  # sums in one order: the same weights on every run

import coremltools as ct
import numpy as np
from coremltools.converters.mil import Builder as mb
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

SEED = 20
EPOCHS = 24
BATCH = 32
DEMO = Path(__file__).parent.parent / "crates/cli/demo/digits.mlpackage"
HELD_OUT = DEMO.with_name("held-out.bin")
SHAPES = {
    "conv1": (32, 1, 3, 3),  # 288 elements: below the default weight threshold
    "conv2": (64, 32, 3, 3),
    "conv3": (64, 64, 3, 3),
    "dense1": (96, 256),
    "dense2": (10, 96),
}


def patches(x):
    """(n, c, h, w) -> (n, h*w, c*9): the 3x3 neighbourhoods, zero padded."""
    n, c, h, w = x.shape
    padded = np.pad(x, ((0, 0), (0, 0), (1, 1), (1, 1)))
    view = np.lib.stride_tricks.sliding_window_view(padded, (3, 3), axis=(2, 3))
    return view.transpose(0, 2, 3, 1, 4, 5).reshape(n, h * w, c * 9)


def unpatch(g, shape):
    """The gradient of `patches`: every neighbourhood adds to where it came from."""
    n, c, h, w = shape
    g = g.reshape(n, h, w, c, 3, 3).transpose(0, 3, 1, 2, 4, 5)
    out = np.zeros((n, c, h + 2, w + 2), g.dtype)
    for i in range(3):
        for j in range(3):
            out[:, :, i : i + h, j : j + w] += g[..., i, j]
    return out[:, :, 1:-1, 1:-1]


def forward(p, x):
    """Class scores, and what the backward pass needs."""
    tape = []
    for name in ("conv1", "conv2", "conv3"):
        cols = patches(x)
        w = p[name].reshape(len(p[name]), -1)
        y = np.maximum(cols @ w.T + p[name + "_bias"], 0)
        n, _, h, wd = x.shape
        y = y.transpose(0, 2, 1).reshape(n, -1, h, wd)
        pooled = name != "conv1"
        tape.append((name, cols, x.shape, y, pooled))
        x = y if not pooled else y.reshape(n, y.shape[1], h // 2, 2, wd // 2, 2).mean(axis=(3, 5))
    flat = x.reshape(len(x), -1)
    hidden = np.maximum(flat @ p["dense1"].T + p["dense1_bias"], 0)
    return hidden @ p["dense2"].T + p["dense2_bias"], (tape, flat, hidden, x.shape)


def backward(p, saved, g):
    tape, flat, hidden, shape = saved
    grads = {"dense2": g.T @ hidden, "dense2_bias": g.sum(0)}
    g = (g @ p["dense2"]) * (hidden > 0)
    grads |= {"dense1": g.T @ flat, "dense1_bias": g.sum(0)}
    g = (g @ p["dense1"]).reshape(shape)
    for name, cols, x_shape, y, pooled in reversed(tape):
        if pooled:
            g = g.repeat(2, axis=2).repeat(2, axis=3) / 4
        g = (g * (y > 0)).reshape(len(g), y.shape[1], -1).transpose(0, 2, 1)
        flat_g, flat_cols = g.reshape(-1, g.shape[2]), cols.reshape(-1, cols.shape[2])
        grads |= {name: (flat_g.T @ flat_cols).reshape(SHAPES[name]), name + "_bias": flat_g.sum(0)}
        g = unpatch(g @ p[name].reshape(len(p[name]), -1), x_shape)
    return grads


def train(x, labels, rng):
    p = {}
    for name, shape in SHAPES.items():
        fan_in = np.prod(shape[1:])
        p[name] = rng.normal(0, np.sqrt(2 / fan_in), shape).astype(np.float32)
        p[name + "_bias"] = np.zeros(shape[0], np.float32)
    first = {k: np.zeros_like(v) for k, v in p.items()}
    second = {k: np.zeros_like(v) for k, v in p.items()}
    steps = EPOCHS * (len(x) // BATCH)
    for step in range(1, steps + 1):
        if step % (len(x) // BATCH) == 1:
            order = rng.permutation(len(x))
        pick = order[(step - 1) % (len(x) // BATCH) * BATCH :][:BATCH]
        scores, saved = forward(p, x[pick])
        e = np.exp(scores - scores.max(1, keepdims=True))
        g = e / e.sum(1, keepdims=True)
        g[np.arange(len(pick)), labels[pick]] -= 1
        rate = 1.5e-3 * 0.5 * (1 + np.cos(np.pi * step / steps))
        for k, d in backward(p, saved, g / len(pick)).items():
            d = d + 1e-4 * p[k]
            first[k] = 0.9 * first[k] + 0.1 * d
            second[k] = 0.999 * second[k] + 0.001 * d * d
            m, v = first[k] / (1 - 0.9**step), second[k] / (1 - 0.999**step)
            p[k] -= (rate * m / (np.sqrt(v) + 1e-8)).astype(np.float32)
    return p


def convert(p, accuracy):
    @mb.program(input_specs=[mb.TensorSpec((1, 1, 8, 8))], opset_version=ct.target.iOS18)
    def digits(image):
        x = image
        for name in ("conv1", "conv2", "conv3"):
            weight = mb.const(val=p[name], name=name + "_weight")
            x = mb.conv(x=x, weight=weight, bias=p[name + "_bias"], pad_type="same", name=name)
            x = mb.relu(x=x)
            if name != "conv1":
                x = mb.avg_pool(x=x, kernel_sizes=[2, 2], strides=[2, 2], pad_type="valid")
        x = mb.reshape(x=x, shape=[1, 256])
        for name in ("dense1", "dense2"):
            weight = mb.const(val=p[name], name=name + "_weight")
            x = mb.linear(x=x, weight=weight, bias=p[name + "_bias"], name=name)
            x = mb.relu(x=x) if name == "dense1" else x
        return mb.softmax(x=x, axis=-1, name="probabilities")

    model = ct.convert(digits, convert_to="mlprogram", minimum_deployment_target=ct.target.iOS18,
                       compute_precision=ct.precision.FLOAT16, skip_model_load=True)
    model.author = "Palettizer"
    model.license = "MIT OR Apache-2.0"
    model.version = "1"
    model.short_description = "Reads handwritten digits: 8x8 grey images, trained on scikit-learn's digits"
    model.user_defined_metadata["test_accuracy"] = f"{accuracy:.4f}"
    model.input_description["image"] = "8x8 grey image, 0 (paper) to 1 (ink)"
    model.output_description["probabilities"] = "One probability for each digit, 0 to 9"
    return model


def save(model, out):
    """Writes the package with fixed identifiers and no date: a second run changes no byte of it."""
    with tempfile.TemporaryDirectory() as scratch:
        made = Path(scratch) / "digits.mlpackage"
        model.save(str(made))
        manifest = json.loads((made / "Manifest.json").read_text())
        fixed = {}
        for i, (old, entry) in enumerate(sorted(manifest["itemInfoEntries"].items(),
                                                key=lambda item: item[1]["path"])):
            fixed[old] = (f"00000000-0000-4000-8000-{i + 1:012d}", entry)
        manifest["itemInfoEntries"] = dict(fixed.values())
        manifest["rootModelIdentifier"] = fixed[manifest["rootModelIdentifier"]][0]
        (made / "Manifest.json").write_text(json.dumps(manifest, indent=4) + "\n")
        program = made / "Data/com.apple.CoreML/model.mlmodel"
        spec = ct.utils.load_spec(str(program))
        spec.description.metadata.userDefined.pop("com.github.apple.coremltools.conversion_date", None)
        program.write_bytes(spec.SerializeToString(deterministic=True))
        program.chmod(0o644)
        shutil.rmtree(out, ignore_errors=True)
        shutil.copytree(made, out)


def split():
    """The digits to train on and those held out, pixels from 0 to 16, and their labels."""
    images, labels = load_digits(return_X_y=True)
    return train_test_split(images, labels, test_size=0.2, random_state=SEED, stratify=labels)


def as_input(images):
    return (images / 16).astype(np.float32).reshape(-1, 1, 8, 8)


def main():
    out = Path(sys.argv[1]) if len(sys.argv) > 1 else DEMO
    train_images, test_images, train_labels, test_labels = split()
    p = train(as_input(train_images), train_labels, np.random.default_rng(SEED))
    p = {k: v.astype(np.float16).astype(np.float32) for k, v in p.items()}
    accuracy = (forward(p, as_input(test_images))[0].argmax(1) == test_labels).mean()
    if accuracy < 0.97:
        sys.exit(f"test accuracy {accuracy:.4f} is below 0.97: the demo model is not replaced")
    save(convert(p, accuracy), out)
    out.with_name(HELD_OUT.name).write_bytes(np.c_[test_labels, test_images].astype(np.uint8).tobytes())
    size = sum(f.stat().st_size for f in out.rglob("*") if f.is_file())
    print(f"{out}: {size} bytes, test accuracy {accuracy:.4f}")
    if size > 250_000:
        sys.exit("the package is larger than 250 KB")


if __name__ == "__main__":
    main()
