"""Post-training and sensitive palettization of torch modules against coremltools 9.0: both sides in turn.

    cargo xtask python bench/vs_coremltools_torch.py                     # every row, three runs (the peer takes an hour)
    cargo xtask python bench/vs_coremltools_torch.py --quick             # one run of one row
    cargo xtask python bench/vs_coremltools_torch.py --models resnet50 --settings 4bits,8bits --runs 5
    cargo xtask python bench/vs_coremltools_torch.py --no-peer           # our side alone
    cargo xtask python bench/vs_coremltools_torch.py --llama             # Llama-2-7B's layer shapes, projected
    cargo xtask python bench/vs_coremltools_torch.py --billion           # memory of a model with 10⁹ weights (15 GB)

Each run is a process of its own. CPU time is user and system time of `compress` alone, with one torch thread; ours
may use every core. The peak is what the call adds to the memory that is resident before it, the model among it; the
model is compressed in place. The error is relative to the energy of the weights, weighted for SKM. Medians are printed.
"""

import argparse
import json
import math
import os
import shutil
import statistics
import sys
from pathlib import Path
from types import SimpleNamespace

# numpy 2.4's AVX-512 sort of float16 is wrong, and the peer's clustering sorts: give it one that works
os.environ.setdefault("NPY_DISABLE_CPU_FEATURES", "AVX512_ICL AVX512_SPR")
os.environ.setdefault("TQDM_DISABLE", "1")
HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))

import measure
import torch_models

GROUPS = {"granularity": "per_grouped_channel"}
SETTINGS = {  # name -> (method, options of the module config)
    "4bits": ("PTP", {"n_bits": 4}),
    "8bits": ("PTP", {"n_bits": 8}),
    "4bits-groups16": ("PTP", {"n_bits": 4, **GROUPS, "group_size": 16}),
    "4bits-groups1": ("PTP", {"n_bits": 4, **GROUPS, "group_size": 1}),
    "4bits-unrounded": ("PTP", {"n_bits": 4, "enable_fast_kmeans_mode": False}),
    "4bits-dim4": ("PTP", {"n_bits": 4, "cluster_dim": 4}),
    "skm-4bits": ("SKM", {"n_bits": 4}),
}
ROWS = {  # what is compared when nothing is asked for, and how many times less CPU time is our target
    ("resnet50", "4bits"): 15, ("resnet50", "8bits"): 40, ("resnet50", "4bits-groups16"): 40,
    ("resnet50", "4bits-groups1"): 30, ("bert-base", "4bits"): 30, ("bert-base", "4bits-groups16"): None,
    ("linear", "4bits-unrounded"): None, ("linear", "4bits-dim4"): None,
    ("linear", "skm-4bits"): 100, ("resnet18", "skm-4bits"): 100, ("bert-small", "skm-4bits"): 100,
}
ALIKE = 1e-4  # of two errors: what is promised for fp32
MISSED = "a peak above its limit, an error above the peer's, or a ratio below its target: see the table"
ONE_THREAD = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}


def run(args, side, model, setting):
    """One process; what it measured."""
    method, options = SETTINGS[setting]
    order = {"side": side, "model": model, "method": method, "options": options}
    if method == "SKM":
        order["sensitivity"] = str(sensitivity(args, model))
    result = args.scratch / "result.json"
    measure.run([sys.executable, HERE / "torch_process.py", json.dumps(order), result], {**ONE_THREAD, **args.surroundings})
    return SimpleNamespace(**json.loads(result.read_text()))


def sensitivity(args, model):
    """The file of the model's sensitivities, the same one for both sides."""
    path = args.scratch / f"{model}.pt"
    if not path.exists():
        import torch

        torch.save(torch_models.sensitivities(model, torch_models.make(model)), path)
    return path


def decibels(result):
    return 10 * math.log10(result.error / result.energy)


def row(args, model, setting):
    mine, theirs = [], []
    for _ in range(args.runs):
        mine.append(run(args, "ours", model, setting))
        if args.peer:
            theirs.append(run(args, args.peer, model, setting))
    median = lambda results, what: statistics.median(getattr(r, what) for r in results)
    limit = 2 * mine[0].largest
    cells = [model, setting, f"{median(mine, 'cpu'):.3f}", f"{median(mine, 'wall'):.3f}",
             f"{median(mine, 'peak'):.0f} (≤ {limit:.0f})", f"{decibels(mine[0]):.4f}"]
    good = median(mine, "peak") <= limit
    if args.peer:
        ratio, target = statistics.median(b.cpu / a.cpu for a, b in zip(mine, theirs)), args.rows.get((model, setting))
        cells += [f"{median(theirs, 'cpu'):.1f}", f"{median(theirs, 'peak'):.0f}", f"{decibels(theirs[0]):.4f}",
                  f"{ratio:.0f}×" + (f" (≥ {target})" if target else "")]
        good &= mine[0].error <= theirs[0].error * (1 + ALIKE) and ratio >= (target or 0)
    print("| " + " | ".join(cells) + " |", flush=True)
    return good


def table(args):
    head = ["model", "setting", "CPU s", "wall s", "peak MB above the model", "error dB"]
    if args.peer:
        head += [f"{args.peer}: CPU s", "peak MB", "error dB", "CPU ratio"]
    print("| " + " | ".join(head) + " |\n|" + "---|" * len(head))
    rows = [(model, setting) for model, setting in args.rows
            if (not args.models or model in args.models) and (not args.settings or setting in args.settings)]
    if args.models and args.settings:
        rows = [(model, setting) for model in args.models for setting in args.settings]
    return all([row(args, *each) for each in rows])  # noqa: C419 (every row, after a failure too)


def parse():
    home = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    names = lambda known: lambda text: [n if n in known else parser.error(f"{n} is none of {', '.join(known)}")
                                        for n in text.split(",")]
    parser.add_argument("--models", type=names(torch_models.MODELS))
    parser.add_argument("--settings", type=names(SETTINGS))
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--quick", action="store_true", help="one run of ResNet-50 at 4 bits")
    parser.add_argument("--no-peer", dest="peer", action="store_const", const=None, default="coremltools", help="our side alone")
    parser.add_argument("--llama", action="store_true", help="only Llama-2-7B's shapes, our side")
    parser.add_argument("--billion", action="store_true", help="only the model with 10⁹ weights, our side")
    parser.add_argument("--cache", type=Path, default=home / "palettizer/bench")
    args = parser.parse_args()
    args.rows, args.surroundings = ROWS, {}
    if args.quick:
        args.models, args.settings, args.runs = ["resnet50"], ["4bits"], 1
    args.scratch = args.cache / f"scratch-{os.getpid()}"
    args.scratch.mkdir(parents=True)
    return args


def main():
    args = parse()
    try:
        if args.llama:
            import torch_llama
            torch_llama.table()
            return
        if args.billion:
            import torch_billion
            torch_billion.check(args.scratch)
            return
        good = table(args)
    finally:
        shutil.rmtree(args.scratch, ignore_errors=True)
    if not good:
        sys.exit(MISSED)


if __name__ == "__main__":
    main()
