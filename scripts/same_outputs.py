#!/usr/bin/env python3
"""Proves that a rebuilding changed nothing: what two commits make of the same inputs is compared byte for byte.

Some hundred runs of the command and calls of the Python package: packages, checkpoints and state dicts, reports (without
the seconds), listings, texts of errors and exit codes, over formats, settings and threads. Run it with the Python tests'
environment (`cargo xtask environment`); it exits with 1 and the first differences if there are any.

    python scripts/same_outputs.py                      # HEAD~1 and HEAD, each built in a temporary worktree
    python scripts/same_outputs.py v0.1.0 main --profile release
    python scripts/same_outputs.py --before old/palettizer:old/packages --after target/debug/palettizer:target/python/packages
    python scripts/same_outputs.py --after target/debug/palettizer --write results.json
    python scripts/same_outputs.py --before results.json --after target/debug/palettizer --quick
"""

import argparse
import difflib
import json
import sys
import tempfile
from collections import Counter
from contextlib import ExitStack
from pathlib import Path

from outputs import builds, inputs, results, runs

QUICK = 20  # one in so many


def arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("commits", nargs="*", help="the commit before, and the one after [default: HEAD~1 HEAD]")
    parser.add_argument("--before", metavar="BUILD", help="a build BIN[:PACKAGES], or a file of --write, in place of a commit")
    parser.add_argument("--after", metavar="BUILD", help="a build BIN[:PACKAGES], in place of a commit")
    parser.add_argument("--profile", default="dev", help="the cargo profile of what is built [default: dev]")
    parser.add_argument("--inputs", type=Path, help="where the inputs are, or are to be kept")
    parser.add_argument("--keep", type=Path, help="an empty folder for all outputs")
    parser.add_argument("--write", type=Path, metavar="FILE", help="keep the results of the build after; alone, nothing is compared")
    parser.add_argument("--quick", action="store_true", help=f"one run in {QUICK} of each kind")
    parser.add_argument("--only", default="", metavar="TEXT", help="the runs whose name (kind/name) holds this")
    parser.add_argument("--most", type=int, default=10, help="differences to show [default: 10]")
    return parser.parse_args()


def differences(before, after, most):
    """The parts of a run that differ, and how their texts do."""
    for part in sorted({*before, *after}):
        one, other = before.get(part, "(missing)"), after.get(part, "(missing)")
        if one != other:
            lines = difflib.unified_diff(one.splitlines(), other.splitlines(), "before", "after", n=0, lineterm="")
            yield "\n".join([f"  {part}:", *(f"    {line[:300]}" for line in list(lines)[2:2 + most])])


def compare(before, after, commands, most):
    """Prints a line for each kind and the first differences; gives the names of the runs that differ."""
    names = [*after, *(name for name in before if name not in after)]
    different = [name for name in names if before.get(name) != after.get(name)]
    total, wrong = (Counter(name.split("/")[0] for name in some) for some in (names, different))
    width = max(map(len, total))
    for kind, count in total.items():
        print(f"{kind:{width}}  {count:4}  {'equal' if not wrong[kind] else f'{wrong[kind]} DIFFERENT'}")
    for name in different[:most]:
        print(f"\n{name}", *(f"  palettizer {' '.join(command)}" for command in commands.get(name, ())), sep="\n")
        print("\n".join(differences(before.get(name, {}), after.get(name, {}), most)))
    return different


def summary(after, listed, different):
    """One line with what was compared."""
    made = [run for run in listed if f"{run.kind}/{run.name}" in after]
    formats = {run.format for run in made if run.format} | ({"module"} if any("Python, p" in name for name in after) else set())
    outputs = sum(len(run.commands) for run in made) + sum(name.startswith("Python") for name in after)
    settings, threads = {run.setting for run in made if run.setting}, sorted({run.threads for run in made if run.threads})
    said = "all equal" if not different else f"{len(different)} runs DIFFERENT"
    return (f"{outputs} outputs of {len(after)} runs over {len(formats)} formats, {len(settings)} settings, "
            f"threads {', '.join(map(str, threads))}: {said}")


def main():
    options = arguments()
    share = QUICK if options.quick else 1
    commits = dict(zip(("before", "after"), [*options.commits, "HEAD~1", "HEAD"][:1] + [*options.commits[1:], "HEAD"][:1]))
    sides = ("after",) if options.write and not options.before and not options.commits else ("before", "after")
    with ExitStack() as stack:
        scratch = options.keep or Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="same-outputs-")))
        given = (options.inputs or scratch / "inputs").resolve()
        through_python = ":" in (options.after or ":")
        needed = None if through_python else {Path(word).name for run in results.chosen(options.only, share) for line in run.commands for word in line}
        made = inputs.make(given, runs.zoo_ops(), needed)
        found = {}
        for side in sides:
            stated, folder = getattr(options, side), (scratch / side).resolve()
            if stated and stated.endswith(".json"):
                kept = json.loads(Path(stated).read_text())
                if not made.items() <= kept["inputs"].items():
                    sys.exit(f"{stated} is of other inputs than those in {given}")
                found[side] = kept["results"]
                continue
            folder.mkdir(parents=True)
            build = builds.ready(stated) if stated else stack.enter_context(builds.of_commit(commits[side], options.profile, folder))
            (folder / "in").symlink_to(given)
            found[side] = results.of(build, folder / "out", options.only, share)
    after, listed = found["after"], list(results.listed())
    if options.write:
        options.write.write_text(json.dumps({"inputs": made, "results": after}))
    if "before" not in found:
        print(f"{len(after)} runs")
        return 0
    narrowed = options.only or options.quick
    before = {name: parts for name, parts in found["before"].items() if not narrowed or name in after}
    different = compare(before, after, {f"{run.kind}/{run.name}": run.commands for run in listed}, options.most)
    print(f"\n{summary(after, listed, different)}")
    return 1 if different else 0


if __name__ == "__main__":
    sys.exit(main())
