"""What a side makes of every run: exit codes, texts, and digests of files, by the name of the run."""

import hashlib
import os
import re
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

from outputs import ROOT, refusals, runs

LONGEST_TEXT = 100_000  # longer ones, and what is no text, are kept as a digest
DURATION = r"\d+(\.\d+)? (ms|s)\b|\d+ min( \d+ s)?"


def listed():
    """All runs of the command."""
    for make in (runs.core_ml_settings, runs.graphs, runs.special_values, runs.compressed_already, runs.checkpoints,
                 runs.configurations, refusals.refusals, refusals.said):
        yield from make()


def chosen(only, share):
    """The runs whose name holds a text; of each kind, evenly spread, one in so many."""
    kinds = {}
    for run in listed():
        if only in f"{run.kind}/{run.name}":
            kinds.setdefault(run.kind, []).append(run)
    return [run for of_kind in kinds.values() for run in of_kind[::share]]


def normalised(text):
    """A text without how long something took: all else must be the same."""
    text = re.sub(r'("?seconds"?\'?: )[-+.e\d]+', r"\1…", text)
    text = re.sub(rf" *({DURATION})", " …", text)
    # the demo's column of durations is as wide as the longest
    return re.sub(" +time  size", "  time  size", re.sub(" +-  █", "  -  █", text))


def content(path):
    data = path.read_bytes()
    try:
        text = normalised(data.decode())
    except UnicodeDecodeError:
        text = None
    if text is None or len(text) > LONGEST_TEXT:
        return f"sha256 {hashlib.sha256(data if text is None else text.encode()).hexdigest()}, {len(data)} bytes"
    return text


def files(folder):
    """Path -> content of everything below a folder, its folders and links too."""
    found = {}
    for path in sorted(folder.rglob("*")):
        name = str(path.relative_to(folder))
        if path.is_symlink():
            found[name] = f"link to {os.readlink(path)}"
        else:
            found[name] = "folder" if path.is_dir() else content(path)
    return found


def perform(run, build, folder):
    """Runs the command lines of one run; name of the part -> what it came to."""
    folder = folder / run.kind / run.name
    folder.mkdir(parents=True)
    quiet = {key: value for key, value in os.environ.items()
             if not key.startswith(("CLICOLOR", "RAYON_", "RUST_", "PALETTIZER_")) and key not in ("NO_COLOR", "COLUMNS")}
    found = {}
    for number, command in enumerate(run.commands):
        # the name by which it is called is in what it says of its usage
        done = subprocess.run(["palettizer", *command], executable=build.command, cwd=folder, env=quiet, stdin=subprocess.DEVNULL, capture_output=True)
        found[f"exit code {number}"] = str(done.returncode)
        for name in ("stdout", "stderr"):
            found[f"{name} {number}"] = normalised(getattr(done, name).decode())
    return {**found, **files(folder)}


def through_python(build, folder, only, share):
    """What the Python package gives, called in a process of its own; nothing without a package."""
    if build.packages is None:
        return {}
    folder.mkdir(parents=True)
    environment = {**os.environ, "PYTHONPATH": f"{build.packages}:{ROOT / 'scripts'}", "CUDA_VISIBLE_DEVICES": ""}
    command = [sys.executable, "-m", "outputs.in_python", "../../../../in", folder, build.packages, only, str(share)]
    done = subprocess.run(command, cwd=folder, env=environment, stdin=subprocess.DEVNULL, capture_output=True, text=True)
    if done.returncode != 0:
        sys.exit(f"{' '.join(map(str, command))}\n{done.stdout}{done.stderr}")
    return {f"{kind.name}/{each.name}": files(each) for kind in sorted(folder.iterdir()) for each in sorted(kind.iterdir())}


def of(build, folder, only, share):
    """All results of a build. The inputs are `in` beside the folder: no result shows their path."""
    wanted = chosen(only, share)
    with ThreadPoolExecutor(2) as pool:
        python = pool.submit(through_python, build, folder / "python", only, share)
        found = {f"{run.kind}/{run.name}": made for run, made in zip(
            wanted, pool.map(lambda run: perform(run, build, folder), wanted))}
        return {**found, **python.result()}
