"""Trains a network on Fashion-MNIST, palettizes it to 2 bits and to 1 bit while it is trained on, and converts it.

    python examples/dkm_fashion_mnist.py --data FOLDER --output runs
    python examples/dkm_fashion_mnist.py --data FOLDER --bits 4,3,2,1 --epochs 10
    python examples/dkm_fashion_mnist.py --data FOLDER --quick         # seconds: to see that all is in place

Needs torch, coremltools and palettizer. FOLDER (or the environment variable PALETTIZER_FASHION_MNIST) holds the four files
of Fashion-MNIST (zalandoresearch/fashion-mnist, or Debian's package dataset-fashion-mnist). The
output folder gets a Core ML package of each model and a plot of the accuracies; a table of them is printed. Where coreai-torch
is installed, it also gets a Core AI program (.aimodel) of each palettized model.

What differentiable k-means adds to a training script is in `fine_tune`, and the one call of `step` in `train`.

The recipe, and what it was chosen by: test accuracies at 1 bit, of a network that reaches 92.2 % in float. They are of one seed,
and differences of 0.2 are noise; for a model that matters, choose by images that are not the ones you report.

- Start from the trained network: its weights are what the centroids are seeded with. Only seeded, it loses about 15 points.
- Temperature (palett_tau): each layer finds its own, since none is given. By hand, with weights scaled by channel, 0.01 gave
  91.6 % and 0.03 as much, and coremltools' 0.0001 90.8 %: attention is all but hard, and weights hardly ever change clusters.
  Without scales 0.0001 gave 91.1 %, 0.001 gave 91.5 %; but there a temperature above twice the variance of a layer's
  weights draws all centroids into one, so by hand it has to be found anew for each network.
- Learning rate: it goes up to a third of the float training's, and ends at zero, for the nearest centroid is taken in the
  end, and large last steps would leave weights between two. As high as the float training's, it gives the same.
- Two epochs; two more added 0.1 at coremltools' temperature.
- Layers with 2048 weights or fewer, here the first and the last, stay in float: they hold 0.4 % of the weights.
- 2 bits are easy: 92.3 % with all of this, 92.0 % with coremltools' defaults.
"""

from __future__ import annotations

import argparse
import gzip
import os
import sys
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple
from collections.abc import Callable

import coremltools as ct
import numpy as np
import torch
from palettizer.torch.palettization import DKMPalettizer, DKMPalettizerConfig, ModuleDKMPalettizerConfig
from torch import Tensor, nn
from torch.nn import functional as F

BATCH = 128
RATE = 3e-3
TUNING_RATE = 1e-3
COLOURS = ("#1f6fb4", "#d9480f", "#2b8a3e", "#862e9c", "#a61e4d", "#5c4813")


class Images(NamedTuple):
    """Images (count, 1, 28, 28) from 0 to 1, and the class of each."""

    pixels: Tensor
    classes: Tensor


class Data(NamedTuple):
    """What is trained on, and what accuracies are measured on."""

    training: Images
    test: Images


@dataclass
class Result:
    """A trained model, and its test accuracy in percent: before the first epoch of its training, and after each."""

    name: str
    model: nn.Module
    first_epoch: int
    accuracies: list[float]
    size: int = 0


def load(folder: Path, part: str, count: int | None) -> Images:
    """The first so many images of a part, "train" or "t10k"; all of them for None."""
    pixels, classes = (read(folder, f"{part}-{what}")[:count] for what in ("images-idx3-ubyte", "labels-idx1-ubyte"))
    return Images((pixels.float() / 255).unsqueeze(1), classes.long())


def read(folder: Path, name: str) -> Tensor:
    """An idx file of bytes: a word whose last byte is the rank, the sizes, the bytes."""
    plain, packed = folder / name, folder / f"{name}.gz"
    if packed.is_file():
        data = gzip.decompress(packed.read_bytes())
    elif plain.is_file():
        data = plain.read_bytes()
    else:
        sys.exit(f"{folder} has neither {name}.gz nor {name}: --data names a folder with Fashion-MNIST's four files")
    rank = data[3]
    sizes = np.frombuffer(data, ">u4", rank, offset=4)
    return torch.from_numpy(np.frombuffer(data, np.uint8, offset=4 + 4 * rank).reshape(sizes).copy())


def network() -> nn.Module:
    """A network of 421,642 parameters."""
    model = nn.Sequential(
        nn.Conv2d(1, 32, 3, padding=1), nn.MaxPool2d(2), nn.ReLU(),
        nn.Conv2d(32, 64, 3, padding=1), nn.MaxPool2d(2), nn.ReLU(), nn.Flatten(),
        nn.Dropout(0.25), nn.Linear(64 * 7 * 7, 128), nn.ReLU(), nn.Dropout(0.25), nn.Linear(128, 10),
    )  # fmt: skip
    return model.to(memory_format=torch.channels_last)  # the order that convolutions on a CPU are fastest in


def train(
    name: str, model: nn.Module, data: Data, epochs: int, rate: float, step: Callable[[], None] = lambda: None
) -> list[float]:
    """Trains with AdamW, at a rate that rises for a tenth of the time and then falls to zero; the accuracies."""
    pixels, classes = data.training
    batches = len(classes) // BATCH
    optimizer = torch.optim.AdamW(model.parameters(), rate)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, rate, total_steps=epochs * batches, pct_start=0.1)
    accuracies = [accuracy(model, data.test)]
    for epoch in range(epochs):
        model.train()
        for index in torch.randperm(len(classes))[: batches * BATCH].split(BATCH):
            batch = pixels[index]
            if torch.rand(()) < 0.5:
                batch = batch.flip(-1)
            optimizer.zero_grad()
            F.cross_entropy(model(batch), classes[index]).backward()
            optimizer.step()
            schedule.step()
            step()
        accuracies.append(accuracy(model, data.test))
        print(f"{name}: {accuracies[-1]:.2f} % after epoch {epoch + 1} of {epochs}", flush=True)
    return accuracies


def fine_tune(trained: Result, bits: int, data: Data, epochs: int) -> Result:
    """A copy of a trained model with palettized weights, trained on."""
    options = ModuleDKMPalettizerConfig(n_bits=bits, enable_per_channel_scale=True)
    palettizer = DKMPalettizer(trained.model, DKMPalettizerConfig(global_config=options))
    model = palettizer.prepare()
    name = f"{bits} bit{'s' * (bits > 1)}"
    accuracies = train(name, model, data, epochs, TUNING_RATE, palettizer.step)
    return Result(name, palettizer.finalize(), len(trained.accuracies) - 1, accuracies)


@torch.no_grad()
def accuracy(model: nn.Module, test: Images) -> float:
    """Right answers in percent."""
    model.eval()
    batches = zip(test.pixels.split(1000), test.classes.split(1000))
    right = sum(int((model(pixels).argmax(1) == classes).sum()) for pixels, classes in batches)
    return 100 * right / len(test.classes)


def convert(model: nn.Module, path: Path) -> int:
    """Writes a model's Core ML package; its bytes."""
    program = torch.export.export(model.eval(), (torch.zeros(1, 1, 28, 28),)).run_decompositions({})
    package = ct.convert(program, minimum_deployment_target=ct.target.iOS18, skip_model_load=sys.platform != "darwin")
    package.save(str(path))
    return sum(file.stat().st_size for file in path.rglob("*") if file.is_file())


def convert_for_core_ai(model: nn.Module, path: Path) -> None:
    """Writes the Core AI program of a palettized model, where coreai-torch is installed."""
    if find_spec("coreai_torch") is not None:
        from palettizer import coreai

        coreai.convert(model, torch.zeros(1, 1, 28, 28), progress=False).save(path, overwrite=True)


def table(results: list[Result], test: Images) -> str:
    """A row for each model, compared with the first."""
    rows = ["model    test %  points  before fine-tuning       kB   smaller"]
    base = accuracy(results[0].model, test)
    for result in results:
        here = accuracy(result.model, test)
        before = f"{result.accuracies[0]:.2f}" if result.first_epoch else ""
        rows.append(f"{result.name:<8} {here:>6.2f}  {here - base:>+6.2f}  {before:>18} {result.size / 1000:>8.1f} "
                    f"{results[0].size / result.size:>8.1f}×")  # fmt: skip
    return "\n".join(rows)


def plot(results: list[Result], path: Path, width: int = 640, height: int = 400, margin: int = 50) -> None:
    """An SVG image of the accuracies over the epochs; what is below the scale is left out."""
    last = max(result.first_epoch + len(result.accuracies) - 1 for result in results)
    low = int(min(min(result.accuracies[1:]) for result in results)) - 1
    high = max(max(result.accuracies) for result in results) + 0.5

    def across(epoch: float) -> float:
        return margin + (width - 2 * margin) * epoch / last

    def down(percent: float) -> float:
        return height - margin - (height - 2 * margin) * (percent - low) / (high - low)

    def text(x: float, y: float, what: object, rest: str = "") -> str:
        return f'<text x="{x:.0f}" y="{y:.0f}" {rest}>{what}</text>'

    parts = [f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" font-family="sans-serif" '
             f'font-size="12" text-anchor="middle"><rect width="100%" height="100%" fill="white"/>']  # fmt: skip
    parts.append(text(width / 2, 24, "Fashion-MNIST: test accuracy in percent", 'font-size="15"'))
    parts.append(text(width / 2, height - 12, "epoch"))
    for percent in range(low, int(high) + 1):
        parts.append(f'<path d="M{margin} {down(percent):.1f}H{width - margin}" stroke="#ddd"/>')
        parts.append(text(margin - 16, down(percent) + 4, percent))
    parts += [text(across(epoch), height - margin + 18, epoch) for epoch in range(last + 1)]
    for number, result in enumerate(results):
        colour = COLOURS[number % len(COLOURS)]
        points = [(across(result.first_epoch + epoch), down(percent), percent)
                  for epoch, percent in enumerate(result.accuracies) if percent >= low]  # fmt: skip
        line = " ".join(f"{x:.1f},{y:.1f}" for x, y, _ in points)
        parts.append(f'<polyline points="{line}" fill="none" stroke="{colour}" stroke-width="2"/>')
        parts += [f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3" fill="{colour}"/>' for x, y, _ in points]
        label = f"{result.name}, {result.size / 1000:.0f} kB"
        parts.append(text(width - margin - 110, height - margin - 16 * (len(results) - number), label,
                          f'fill="{colour}" text-anchor="start"'))  # fmt: skip
    path.write_text("\n".join([*parts, "</svg>"]) + "\n", encoding="utf-8")


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=os.environ.get("PALETTIZER_FASHION_MNIST"), metavar="FOLDER")
    parser.add_argument("--output", type=Path, default=Path("dkm_fashion_mnist"), metavar="FOLDER")
    parser.add_argument("--bits", default="2,1", help="for the palettized models, with commas between (default: 2,1)")
    parser.add_argument("--epochs", type=int, default=6, help="of the float training (default: 6)")
    parser.add_argument("--tuning-epochs", type=int, default=2, help="of each palettized model (default: 2)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--quick", action="store_true", help="one epoch each, of a few images")
    args = parser.parse_args()
    try:
        args.bits = [int(bits) for bits in args.bits.split(",")]
    except ValueError:
        parser.error(f"--bits takes numbers with commas between, as in 2,1; found {args.bits!r}")
    if args.data is None:
        parser.error("--data (or PALETTIZER_FASHION_MNIST) must name the folder with Fashion-MNIST's four files")
    return args


def main() -> None:
    args = parse()
    counts = (3000, 1000) if args.quick else (None, None)
    data = Data(load(args.data, "train", counts[0]), load(args.data, "t10k", counts[1]))
    epochs, tuning_epochs = (1, 1) if args.quick else (args.epochs, args.tuning_epochs)
    args.output.mkdir(parents=True, exist_ok=True)

    torch.manual_seed(args.seed)
    model = network()
    results = [Result("float", model, 0, train("float", model, data, epochs, RATE))]
    results += [fine_tune(results[0], bits, data, tuning_epochs) for bits in args.bits]
    for result in results:
        path = args.output / f"{result.name.replace(' ', '-')}.mlpackage"
        result.size = convert(result.model, path)
        if result is not results[0]:
            convert_for_core_ai(result.model, path.with_suffix(".aimodel"))
    plot(results, args.output / "accuracy.svg")
    print(f"\n{table(results, data.test)}\n\nThe packages and the plot are in {args.output}")


if __name__ == "__main__":
    main()
