"""Training steps with differentiable k-means against coremltools 9.0: no palettization, both sides, in turn.

    cargo xtask python bench/vs_coremltools_dkm.py                       # every row, three runs (the peer takes an hour)
    cargo xtask python bench/vs_coremltools_dkm.py --cases resnet18 --bits 2,4 --runs 1
    cargo xtask python bench/vs_coremltools_dkm.py --no-peer             # our side alone
    cargo xtask python bench/vs_coremltools_dkm.py --half-billion        # a transformer of 513 million parameters, our side

Each run is a process of its own, with one torch thread; both sides use as many as torch. A step is forward, backward, and
the steps of the optimizer (SGD) and of the palettizer; the median over some steps after the first one, which seeds the
centroids. CPU time is user and system time, and what a side adds is its time less that of the step without palettization.

The peak is how far resident memory rises above what it is before the step; what a side adds is its peak less that of
the step without palettization, also as a multiple of the palettized weights' bytes. A process that wants to map more than
--limit GB beyond the model and its libraries is out of memory. The peer is told to seed once instead of ten times where
it is not the seeding that is measured. Medians over the runs are printed.
"""

import argparse
import json
import os
import shutil
import statistics
import sys
from pathlib import Path
from types import SimpleNamespace

os.environ.setdefault("TQDM_DISABLE", "1")
HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))

import measure

CASES = {"linear-4096": (2, 4, 8), "resnet18": (2, 4, 8)}
OURS_ALONE = {("resnet18", 8), ("linear-4096", 8)}  # the peer would take minutes to run out of memory, or swap
TARGETS = {("linear-4096", 2): 15, ("resnet18", 2): 15, ("resnet18", 4): 15}  # how many times less CPU time
MEMORY = 3  # how many times the palettized weights' bytes a step may add
SEEDING = ("linear-768", 2, 100)  # case, bits, how many times less CPU time
NUMBERS = {"palett_tau": 1e-4, "prune_threshold": 1e-7, "zero_threshold": 1e-7}  # the peer's, so that both do the same sums
SIDES = ("none", "ours", "peer")


def run(args, side, case, bits, **more):
    """One process; what it measured, and what it failed with (None)."""
    steps = 1 if side == "peer" else 5
    order = {"side": side, "case": case, "bits": bits, "steps": steps, "limit": args.limit * 1000, **more}
    order["options"] = {**NUMBERS, **more.get("options", {})}
    result = args.scratch / "result.json"
    threads = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    measure.run([sys.executable, HERE / "torch_dkm_process.py", json.dumps(order), result], threads)
    return SimpleNamespace(**{"failed": None, **json.loads(result.read_text())})


def medians(runs):
    """The medians of what the runs measured, or the run that failed."""
    failed = [each for each in runs if each.failed]
    if failed:
        return failed[0]
    return SimpleNamespace(**{name: value if name == "failed" else statistics.median(getattr(each, name) for each in runs)
                              for name, value in vars(runs[0]).items()})


def sides(args, case, bits):
    """Side -> what its steps take, with the sides in turn; the peer is not among them where it is not asked."""
    asked = SIDES[:3 if args.peer and (case, bits) not in OURS_ALONE else 2]
    runs = {side: [] for side in asked}
    for _ in range(args.runs):
        for side in asked:
            if not any(each.failed for each in runs[side]):
                more = {"options": {"kmeans_n_init": 1}} if side == "peer" else {}
                runs[side].append(run(args, side, case, bits, **more))
    return {side: medians(each) for side, each in runs.items()}


def row(args, case, bits):
    """Prints a row; what is kept of it for --json."""
    found = sides(args, case, bits)
    none, ours, peer = (found.get(side) for side in SIDES)
    added, memory = ours.cpu - none.cpu, ours.peak - none.peak
    target = TARGETS.get((case, bits))
    good = memory <= MEMORY * none.weights
    cells = [case, str(bits), f"{none.weights:.1f}", f"{none.cpu:.3f}", f"{ours.cpu:.3f}"]
    their_cells = ["", "", "", ""]
    if peer is not None and peer.failed:
        their_cells = [peer.failed, "", peer.failed, ""]
    elif peer is not None:
        ratio, theirs = (peer.cpu - none.cpu) / added, peer.peak - none.peak
        good &= ratio >= (target or 0)
        their_cells = [f"{peer.cpu:.2f}", f"{ratio:.0f}×" + (f" (≥ {target})" if target else ""), f"{peer.peak:.0f}",
                       f"{theirs:.0f} ({theirs / none.weights:.0f}×)"]
    cells += [*their_cells[:2], f"{none.peak:.0f}", f"{ours.peak:.0f}", their_cells[2],
              f"{memory:.0f} ({memory / none.weights:.2f}×)", their_cells[3]]
    print("| " + " | ".join(cells) + " |", flush=True)
    return {"case": case, "bits": bits, "good": good, **{side: vars(each) for side, each in found.items()}}


def steps(args):
    head = ["case", "bits", "weights MB", "CPU s without", "CPU s", "peer CPU s", "ratio of what is added",
            "peak MB without", "peak MB", "peer peak MB", f"added MB (≤ {MEMORY}× weights)", "peer added MB"]
    print("| " + " | ".join(head) + " |\n|" + "---|" * len(head))
    return [row(args, case, bits) for case in args.cases for bits in CASES[case] if bits in args.bits]


def seeding(args):
    """The seeding of a Linear 768 × 3072: the first step's CPU time less the later ones'."""
    case, bits, target = SEEDING
    asked = ("ours", "peer") if args.peer else ("ours",)
    runs = {side: [] for side in asked}
    for _ in range(args.runs):
        for side in asked:
            runs[side].append(run(args, side, case, bits))
    times = {side: statistics.median(each.first_cpu - each.cpu for each in found) for side, found in runs.items()}
    print(f"\n| seeding | bits | CPU s |{' peer CPU s | ratio |' if args.peer else ''}\n|{'---|' * (5 if args.peer else 3)}")
    cells, good = [case, str(bits), f"{times['ours']:.3f}"], True
    if args.peer:
        ratio = times["peer"] / times["ours"]
        good = ratio >= target
        cells += [f"{times['peer']:.1f}", f"{ratio:.0f}× (≥ {target})"]
    print("| " + " | ".join(cells) + " |", flush=True)
    return [{"case": f"{case} seeding", "bits": bits, "good": good, **times}]


def half_billion(args):
    """A decoder with 513 million parameters: batch 1, 32 tokens, 4 bits."""
    rows, found = [], {side: run(args, side, "half-billion", 4, steps=2, limit=20000) for side in SIDES[:2]}
    head = ["step", "parameters", "weights MB", "resident MB before", "peak MB above", "CPU s", "wall s", "first step CPU s"]
    print("| " + " | ".join(head) + " |\n|" + "---|" * len(head))
    for side, seen in found.items():
        name = "4 bits" if side == "ours" else "without"
        print(f"| {name} | {seen.parameters / 1e6:.0f} × 10⁶ | {seen.weights:.0f} | {seen.before:.0f} "
              f"| {seen.peak:.0f} | {seen.cpu:.1f} | {seen.wall:.1f} | {seen.first_cpu:.1f} |", flush=True)
        rows.append({"case": "half-billion", "side": side, "good": True, **vars(seen)})
    more = found["ours"].peak - found["none"].peak
    print(f"\nPalettization adds {more:.0f} MB, {more / found['none'].weights:.2f} times the weights.")
    rows[-1]["good"] = more <= MEMORY * found["none"].weights
    return rows


def parse():
    home = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    known = lambda kind, names: lambda text: [kind(n) if n in map(str, names) else parser.error(
        f"{n} is none of {', '.join(map(str, names))}") for n in text.split(",")]
    parser.add_argument("--cases", type=known(str, CASES), default=list(CASES))
    parser.add_argument("--bits", type=known(int, (2, 4, 8)), default=[2, 4, 8])
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--limit", type=float, default=10, help="GB that a process may take beside the model (10)")
    parser.add_argument("--peer", action=argparse.BooleanOptionalAction, default=True)
    parser.add_argument("--seeding", action=argparse.BooleanOptionalAction, default=True)
    parser.add_argument("--half-billion", action="store_true", help="only the transformer, our side")
    parser.add_argument("--json", type=Path, help="a file that gets every figure")
    parser.add_argument("--cache", type=Path, default=home / "palettizer/bench")
    args = parser.parse_args()
    args.scratch = args.cache / f"scratch-{os.getpid()}"
    args.scratch.mkdir(parents=True)
    return args


def main():
    args = parse()
    try:
        if args.half_billion:
            rows = half_billion(args)
        else:
            rows = steps(args) + (seeding(args) if args.seeding else [])
    finally:
        shutil.rmtree(args.scratch, ignore_errors=True)
    if args.json:
        args.json.write_text(json.dumps(rows, indent=1) + "\n")
    if not all(row["good"] for row in rows):
        sys.exit("a step that adds too much memory, or a ratio below its target: see the tables")


if __name__ == "__main__":
    main()
