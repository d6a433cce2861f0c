"""The command and the Python package of a commit, built in a temporary worktree; or those that are built already."""

import os
import subprocess
import sys
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from outputs import ROOT


@dataclass(frozen=True)
class Build:
    command: Path
    packages: Path | None  # what PYTHONPATH is to be; without it nothing is called through Python


def ready(text):
    """BIN[:PACKAGES]."""
    command, _, packages = text.partition(":")
    build = Build(Path(command).resolve(), Path(packages).resolve() if packages else None)
    for path in (build.command, build.packages):
        if path is not None and not path.exists():
            sys.exit(f"{path} does not exist")
    return build


@contextmanager
def of_commit(commit, profile, folder):
    """Builds a commit. Both sides share a target folder, so that what they depend on is compiled once."""
    tree = folder / "tree"
    target = Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target")) / "same_outputs"
    environment = {**os.environ, "CARGO_TARGET_DIR": str(target), "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}

    def run(*command, cwd=tree):
        subprocess.run([str(word) for word in command], cwd=cwd, env=environment, check=True)

    run("git", "worktree", "add", "--quiet", "--detach", tree, commit, cwd=ROOT)
    try:
        run("cargo", "build", "--quiet", "--workspace", "--bin", "palettizer", "--profile", profile)
        built = target / ("debug" if profile == "dev" else profile) / "palettizer"
        command = built.rename(folder / "palettizer")
        pip = sys.executable, "-m", "pip"
        run(*pip, "wheel", "--quiet", "--no-deps", "--no-build-isolation", "--config-settings", f"build-args=--profile {profile}",
            "--wheel-dir", folder / "wheels", ".")
        (wheel,) = (folder / "wheels").glob("*.whl")
        run(*pip, "install", "--quiet", "--no-deps", "--no-index", "--target", folder / "packages", wheel)
        yield Build(command, folder / "packages")
    finally:
        run("git", "worktree", "remove", "--force", tree, cwd=ROOT)
