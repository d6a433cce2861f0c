"""The command against coremltools 9.0: whole processes, in turn, on the same packages.

    cargo xtask bench                                   # ResNet-50 fp16, all settings, three runs
    cargo xtask bench --quick                           # one run of one setting
    cargo xtask bench --models gpt2-fp16 --settings 4bits --runs 5
    cargo xtask bench --no-peer                         # our side alone
    cargo xtask bench --big                             # a 6 GB package: memory, and weights beyond 4 GB

CPU time is user and system time of the whole process, its start and (for the peer) its imports among it.
Both sides run in turn, so that a ratio is of the same minutes of the same machine; medians are printed.
"""

import argparse
import json
import os
import shutil
import statistics
import sys
from pathlib import Path

# numpy 2.4's AVX-512 sort of float16 is wrong, and the peer's clustering sorts: give it one that works
os.environ.setdefault("NPY_DISABLE_CPU_FEATURES", "AVX512_ICL AVX512_SPR")
os.environ.setdefault("TQDM_DISABLE", "1")
HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent / "tests/python")]

import judge
import measure
import models

GROUPS = {"granularity": "per_grouped_channel"}
SETTINGS = {  # name -> the peer's options; the flags are the same words
    "4bits": {"nbits": 4},
    "8bits": {"nbits": 8},
    "4bits-groups16": {"nbits": 4, **GROUPS, "group_size": 16},
    "4bits-groups1": {"nbits": 4, **GROUPS, "group_size": 1},
    "8bits-dim4": {"nbits": 8, "cluster_dim": 4},
}
ONE_THREAD = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
THRESHOLD = 2048


def flags(setting):
    return [word for k, v in SETTINGS[setting].items() for word in (f"--{k.replace('_', '-')}", v)]


def ours(args, package, setting, *more):
    out = args.scratch / "ours.mlpackage"
    return measure.run([args.binary, "compress", package, "-o", out, "--force", *flags(setting), *more]), out


def peers(args, package, setting):
    out = args.scratch / "peer.mlpackage"
    shutil.rmtree(out, ignore_errors=True)
    command = [sys.executable, HERE / "peer_process.py", package, out, json.dumps(SETTINGS[setting])]
    return measure.run(command, ONE_THREAD), out


def compare(before, out, other=None):
    """(our total squared error, the peer's, the tensors where ours is above) over the weights both have."""
    mine = judge.weights(out, THRESHOLD)
    theirs = judge.weights(other, THRESHOLD) if other else {}
    total, peer_total, worse, shown = 0.0, 0.0, [], set()
    for key, original in before.items():
        if id(original) in shown:
            continue
        shown.add(id(original))
        error = judge.squared_error(original, mine[key])
        total += error
        if other:
            peer_error = judge.squared_error(original, theirs[key])
            peer_total += peer_error
            if error > peer_error * (1 + 1e-4) and peer_error > 0:
                worse.append((key[2], error / peer_error))
    return total, peer_total, worse


def row(args, name, package, before, setting):
    costs, peer_costs, other = [], [], None
    for _ in range(args.runs):
        cost, out = ours(args, package, setting)
        costs.append(cost)
        if args.peer:
            cost, other = peers(args, package, setting)
            peer_costs.append(cost)
    median = lambda costs, what: statistics.median(getattr(c, what) for c in costs)
    error, peer_error, worse = compare(before, out, other)
    largest = max(w.nbytes for w in before.values())
    limit = 64 + 4 * largest / 1e6
    cells = [name, setting, f"{median(costs, 'cpu'):.2f}", f"{median(costs, 'wall'):.2f}",
             f"{median(costs, 'peak'):.0f} (≤ {limit:.0f})", f"{measure.size(out) / 1e6:.2f}", f"{error:.6g}"]
    if args.peer:
        ratios = [theirs.cpu / mine.cpu for mine, theirs in zip(costs, peer_costs)]
        cells += [f"{median(peer_costs, 'cpu'):.1f}", f"{median(peer_costs, 'peak'):.0f}",
                  f"{measure.size(other) / 1e6:.2f}", f"{peer_error:.6g}", f"{statistics.median(ratios):.0f}×",
                  f"{len(worse)}" + (f" (worst {max(r for _, r in worse):.4f})" if worse else "")]
    print("| " + " | ".join(cells) + " |", flush=True)
    return median(costs, "peak") <= limit and not worse


def table(args):
    head = ["model", "setting", "CPU s", "wall s", "peak MB", "MB", "squared error"]
    if args.peer:
        head += ["peer CPU s", "peer peak MB", "peer MB", "peer squared error", "CPU ratio", "tensors above the peer"]
    print("| " + " | ".join(head) + " |\n|" + "---|" * len(head))
    good = True
    for name in args.models:
        package = models.make(name, args.cache)
        before = judge.weights(package, THRESHOLD)
        for setting in args.settings:
            good &= row(args, name, package, before, setting)
    return good


def threads(args):
    print("\n| model | setting | 1 thread, wall s | 2 threads, wall s | ratio |\n|---|---|---|---|---|")
    for name in args.models:
        package = models.make(name, args.cache)
        for setting in args.settings:
            walls = [[ours(args, package, setting, "--threads", n)[0].wall for n in (1, 2)]
                     for _ in range(args.runs + 2)]
            one, two = (statistics.median(column) for column in zip(*walls))
            ratio = statistics.median(a / b for a, b in walls)
            print(f"| {name} | {setting} | {one:.3f} | {two:.3f} | {ratio:.2f}× |", flush=True)


def parse():
    home = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    names = lambda known: lambda text: [n if n in known else parser.error(f"{n} is none of {', '.join(known)}")
                                        for n in text.split(",")]
    parser.add_argument("--models", type=names(models.MODELS), default=["resnet50-fp16"])
    parser.add_argument("--settings", type=names(SETTINGS), default=list(SETTINGS))
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--quick", action="store_true", help="one run of 4 bits")
    parser.add_argument("--peer", action=argparse.BooleanOptionalAction, default=True)
    parser.add_argument("--threads", action=argparse.BooleanOptionalAction, default=True, help="thread scaling too")
    parser.add_argument("--big", action="store_true", help="only the 6 GB package (needs 15 GB of disk)")
    parser.add_argument("--binary", default=os.environ.get("PALETTIZER_BIN"), help="palettizer's release binary")
    parser.add_argument("--cache", type=Path, default=home / "palettizer/bench")
    args = parser.parse_args()
    if not args.binary or not Path(args.binary).is_file():
        parser.error("--binary or PALETTIZER_BIN must name the release binary; `cargo xtask bench` does")
    if args.quick:
        args.settings, args.runs = ["4bits"], 1
    args.scratch = args.cache / f"scratch-{os.getpid()}"
    args.scratch.mkdir(parents=True)
    return args


def main():
    args = parse()
    try:
        if args.big:
            import big
            big.check(args.binary, args.cache)
            return
        good = table(args)
        if args.threads:
            threads(args)
    finally:
        shutil.rmtree(args.scratch, ignore_errors=True)
    if not good:
        sys.exit("a peak above its limit, or an error above the peer's: see the table")


if __name__ == "__main__":
    main()
