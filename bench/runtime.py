"""Core ML programs run by us and the same networks by torch: time and memory, forward and with gradients of all large weights.
Basic Pitch, which its authors converted to ONNX as well, is run against onnxruntime.

    cargo xtask python bench/runtime.py                                      # every network, three runs
    cargo xtask python bench/runtime.py --networks gpt2-64 --runs 1
    cargo xtask python bench/runtime.py --networks resnet50-1 --json figures.json

Each run is a process of its own on two threads, the sides in turn; all is computed in fp32, with random weights. A run is the
median of several calls after a first one. CPU time is user and system time. The peak is how far resident memory rises above
what it is before the model is loaded. "4 bits" is the same program with its weights palettized, expanded in each call.
The outputs of all sides are compared; medians over the runs are printed.
"""

import argparse
import json
import os
import shutil
import statistics
import sys
from pathlib import Path
from types import SimpleNamespace

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))

import measure
import numpy as np
import runtime_networks

THREADS = 2
FORWARD, GRADIENTS, EXPANDING = 1.3, 1.5, 1.1  # how many times torch's CPU time at most; the float model's, where weights are expanded
CLOSE = 1e-3  # how far outputs may differ, as a part of their largest value
TORCH = ("torch", "ours", "4 bits", "torch, gradients", "ours, gradients")
NETWORKS = dict.fromkeys(runtime_networks.NETWORKS, TORCH) | {"basic-pitch": ("onnxruntime", "ours", "4 bits")}
SIDES = {  # name -> (who runs, whether weights are palettized, whether gradients are made)
    "torch": ("torch", False, False), "ours": ("ours", False, False), "4 bits": ("ours", True, False),
    "onnxruntime": ("onnxruntime", False, False), "torch, gradients": ("torch", False, True), "ours, gradients": ("ours", False, True),
}


def run(args, network, side):
    """One process; what it measured, and the output."""
    who, palettized, gradients = SIDES[side]
    package = runtime_networks.package(network, args.cache, os.environ["PALETTIZER_BIN"], 4 if palettized else None)
    order = {"side": who, "network": network, "package": str(package), "threads": THREADS, "runs": args.calls, "gradients": gradients}
    if network in runtime_networks.NETWORKS:
        source = runtime_networks.package(network, args.cache, None)
        order |= {"name": "x", "input": str(source.with_suffix(".npy"))}
    else:
        _, onnx, x = runtime_networks.twin()
        given = args.scratch / "x.npy"
        np.save(given, x)
        order |= {"name": "input_2", "input": str(given), "onnx": str(onnx)}
    result = args.scratch / "result.json"
    threads = dict.fromkeys(("OMP_NUM_THREADS", "RAYON_NUM_THREADS"), str(THREADS))
    measure.run([sys.executable, HERE / "runtime_process.py", json.dumps(order), result], threads)
    return SimpleNamespace(**json.loads(result.read_text())), np.load(result.with_suffix(".npy"))


def row(args, network):
    """Prints the rows of a network; what is kept of them for --json."""
    runs, outputs = {side: [] for side in NETWORKS[network] if side in args.sides}, {}
    for _ in range(args.runs):
        for side in runs:
            found, outputs[side] = run(args, network, side)
            runs[side].append(found)
    medians = {side: SimpleNamespace(**{name: statistics.median(getattr(one, name) for one in each) for name in vars(each[0])})
               for side, each in runs.items()}
    good, peer = True, NETWORKS[network][0]
    for side, found in medians.items():
        base, limit = {"ours": (peer, FORWARD), "4 bits": ("ours", EXPANDING),
                       "ours, gradients": ("torch, gradients", GRADIENTS)}.get(side, (None, None))
        cells = [network, side, f"{found.cpu:.3f}", f"{found.wall:.3f}", f"{found.peak:.0f}"]
        ratios = ["", ""]
        if base in medians:
            ratio, memory = found.cpu / medians[base].cpu, found.peak / medians[base].peak
            ratios = [f"{ratio:.2f} (≤ {limit})", f"{memory:.2f}"]
            good &= ratio <= limit
            good &= side == "4 bits" or memory <= 1
        print("| " + " | ".join(cells + ratios) + " |", flush=True)
    for side in ("ours", "ours, gradients"):
        if side in outputs and peer in outputs:
            wrong = np.abs(outputs[side] - outputs[peer]).max() / np.abs(outputs[peer]).max()
            if wrong > CLOSE:
                sys.exit(f"{network}: the outputs of {side} and {peer} differ by {wrong:.1e} of the largest")
    return {"network": network, "good": bool(good), **{side: vars(found) for side, found in medians.items()}}


def parse():
    home = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--networks", nargs="+", choices=NETWORKS, default=list(NETWORKS))
    parser.add_argument("--sides", nargs="+", choices=SIDES, default=list(SIDES))
    parser.add_argument("--runs", type=int, default=3, help="processes of each side (3)")
    parser.add_argument("--calls", type=int, default=5, help="calls that a process takes the median of (5)")
    parser.add_argument("--json", type=Path, help="a file that gets every figure")
    parser.add_argument("--cache", type=Path, default=home / "palettizer/bench")
    args = parser.parse_args()
    args.scratch = args.cache / f"scratch-{os.getpid()}"
    args.scratch.mkdir(parents=True)
    return args


def main():
    args = parse()
    print("| network | side | CPU s | wall s | peak MB | CPU time, times the other's | peak, times the other's |\n|---|---|---|---|---|---|---|")
    try:
        rows = [row(args, network) for network in args.networks]
    finally:
        shutil.rmtree(args.scratch, ignore_errors=True)
    if args.json:
        args.json.write_text(json.dumps(rows, indent=1) + "\n")
    if not all(row["good"] for row in rows):
        sys.exit("a ratio above its target: see the table")


if __name__ == "__main__":
    main()
