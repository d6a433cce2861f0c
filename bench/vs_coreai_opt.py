"""`palettizer` against coreai-opt 0.4.0: whole calls, in turn, in processes of their own.

    cargo xtask python bench/vs_coreai_opt.py                       # a Core AI program of 26 M weights in fp32, every setting, three runs
    cargo xtask python bench/vs_coreai_opt.py --dtype float16 --settings 4bits --runs 1
    cargo xtask python bench/vs_coreai_opt.py --modules             # a torch module with ResNet-50's layers in fp32

Of modules, `PostTrainingPalettizer.compress` is beside `KMeansPalettizer`'s `prepare` and `finalize` for Core ML.

The program has 25 matrices of 1024 × 1024: normal values, columns of very different sizes, heavy tails, small values, in turn. CPU
time is that of the call on one thread; memory is what it adds to the resident memory, and the peak of the whole process, which for
coreai-opt has PyTorch in it. coreai-opt compiles its clustering
once, which takes ninja and a C++ compiler: a run of it that is not counted comes first. Apple's wheel is for Linux on x86-64 and
for Macs with Apple Silicon.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from types import SimpleNamespace

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent / "tests/python")]

import coreai_support
import downloads
import numpy as np
import palettizer.coreai as core_ai
import torch
import vs_coremltools_torch

COUNT, SIZE = 25, 1024
PEER = ("coreai-opt==0.4.0", "torchao==0.18.0", "ninja==1.13.0")
GROUPS = {"granularity": "per_grouped_channel", "group_size": 8}
SETTINGS = {
    "4bits": {"n_bits": 4},
    "8bits": {"n_bits": 8},
    "4bits-groups8": {"n_bits": 4, **GROUPS},
    "4bits-scale": {"n_bits": 4, "enable_per_channel_scale": True},
    "4bits-int8": {"n_bits": 4, "lut_dtype": "int8"},
    "4bits-int8-scale": {"n_bits": 4, "lut_dtype": "int8", "enable_per_channel_scale": True},
    "3bits": {"n_bits": 3},
}

MODULES = {("resnet50", "4bits"): 25, ("resnet50", "8bits"): 40, ("resnet50", "4bits-groups16"): 25}  # and times less CPU, wanted


def network(dtype):
    """The matrices, with weights of four kinds."""
    torch.manual_seed(0)
    module = coreai_support.Many(COUNT, SIZE, SIZE)
    for at, part in enumerate(module.parts):
        values = torch.randn(SIZE, SIZE) * 0.05
        if at % 4 == 1:
            values *= torch.rand(SIZE).square() * 4 + 0.01
        elif at % 4 == 2:
            values *= torch.randn(SIZE, SIZE).square()
        elif at % 4 == 3:
            values *= 1e-3
        part.weight.data = values
    return module.to(dtype)


def environment():
    """Where the peer's modules are, beside what is installed."""
    folders = [downloads.wheel(pin) for pin in PEER]
    ninja = next(folders[-1].glob("*.data/scripts/ninja"))
    ninja.chmod(0o755)
    paths = [str(folder) for folder in folders] + os.environ.get("PYTHONPATH", "").split(os.pathsep)
    return {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(filter(None, paths)),
            "PATH": f"{ninja.parent}{os.pathsep}{os.environ['PATH']}"}


def run(side, path, out, setting, folder, surroundings):
    """What a call cost; `None` if it failed, which is said."""
    result = folder / "result.json"
    command = [sys.executable, HERE / "coreai_process.py", side, path, out, json.dumps(SETTINGS[setting]), result]
    result.unlink(missing_ok=True)
    done = subprocess.run([str(word) for word in command], capture_output=True, text=True, env=surroundings)
    if not result.exists():
        print(f"{side}, {setting}: {done.stderr.strip().splitlines()[-1]}")
        return None
    return json.loads(result.read_text())


def ratios(before, path):
    """The signal-to-noise ratio of each weight, in dB."""
    after = core_ai.get_weights_metadata(path, 0)
    found = []
    for name, one in before.items():
        values = np.asarray(one.val, np.float64)
        error = np.sum((values - np.asarray(after[name].val, np.float64)) ** 2)
        found.append(10 * np.log10(np.sum(values**2) / error) if error else np.inf)
    return np.array(found)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dtype", choices=("float32", "float16", "bfloat16"), default="float32")
    parser.add_argument("--settings", nargs="+", choices=SETTINGS, default=list(SETTINGS))
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--modules", action="store_true", help="a torch module, in fp32, at three settings of its own")
    args = parser.parse_args()
    surroundings = environment()
    if args.modules:
        if not modules(args.runs, surroundings):
            sys.exit(vs_coremltools_torch.MISSED)
        return
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        path = folder / "model.aimodel"
        dtype = getattr(torch, args.dtype)
        coreai_support.program(network(dtype), torch.randn(1, SIZE).to(dtype)).save_asset(path)
        before = core_ai.get_weights_metadata(path, 0)
        run("peer", path, folder / "warm.aimodel", args.settings[0], folder, surroundings)
        print("| setting | CPU s: we | peer | times | MB added: we | peer | times | MB of the process: we | peer | times | least dB: we | peer | mean dB: we | peer | tensors below |")
        print("|---" * 15 + "|")
        for setting in args.settings:
            costs, outputs = {"ours": [], "peer": []}, {}
            for _ in range(args.runs):
                for side in costs:
                    outputs[side] = folder / f"{side}.aimodel"
                    costs[side].append(run(side, path, outputs[side], setting, folder, surroundings))
            report(setting, before, costs, outputs)
    sys.stdout.flush()
    os._exit(0)  # Apple's runtime sometimes aborts at the end of a process


def modules(runs, surroundings):
    """The same of modules, in the table of `vs_coremltools_torch`; whether every row is as wanted."""
    with tempfile.TemporaryDirectory() as scratch:
        args = SimpleNamespace(models=None, settings=None, rows=MODULES, peer="coreai-opt", runs=runs, scratch=Path(scratch), surroundings=surroundings)
        vs_coremltools_torch.run(args, args.peer, "linear", "4bits")  # compiles the clustering, and is not counted
        return vs_coremltools_torch.table(args)


def report(setting, before, costs, outputs):
    """A line of the table: medians, and what became of the weights."""
    median = lambda side, figure: statistics.median(cost[figure] for cost in costs[side])
    dense = {side: ratios(before, outputs[side]) for side in costs if None not in costs[side]}
    if "peer" not in dense:
        print(f"| {setting} | {median('ours', 'cpu'):.2f} | fails | | {median('ours', 'peak'):.0f} | | | {median('ours', 'whole'):.0f} | | | {dense['ours'].min():.2f} | |"
              f" {dense['ours'].mean():.2f} | | |")
        return
    cells = []
    for figure, form in (("cpu", ".2f"), ("peak", ".0f"), ("whole", ".0f")):
        ours, theirs = median("ours", figure), median("peer", figure)
        cells += [format(ours, form), format(theirs, form), f"{theirs / ours:.1f}"]
    for pick in (np.min, np.mean):
        cells += [f"{pick(dense['ours']):.2f}", f"{pick(dense['peer']):.2f}"]
    below = int(np.sum(dense["ours"] < dense["peer"] - 1e-3))
    print(f"| {setting} | " + " | ".join(cells) + f" | {below} of {len(before)} |", flush=True)


if __name__ == "__main__":
    main()
