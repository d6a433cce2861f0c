"""The pages that users read, as programs: their code blocks, in order, run in a folder that has what the page talks about."""

import contextlib
import io
import os
import re
import shlex
import subprocess
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
# Rust blocks are compiled and run by cargo, where they stand word for word
RUST = ROOT / "crates/cli/tests/pages.rs"


def blocks(page):
    """(line number, language, text) of each fenced block."""
    found, fence = [], None
    for number, line in enumerate((ROOT / page).read_text(encoding="utf-8").splitlines(), 1):
        if fence is None and line.startswith("```"):
            fence = (number, line[3:].strip(), [])
        elif fence is not None and line == "```":
            found.append((fence[0], fence[1], "\n".join(fence[2]) + "\n"))
            fence = None
        elif fence is not None:
            fence[2].append(line)
    assert fence is None, f"{page}:{fence[0]}: this block has no end"
    return found


def in_the_repository(line):
    """What stands for a line that builds or installs: these are checked to name what there is, and not run.

    `cargo run --release -- ARGS` is the command itself with ARGS.
    """
    def manifest(path):
        return tomllib.loads((ROOT / path / "Cargo.toml").read_text(encoding="utf-8"))

    crates = {manifest(folder)["package"]["name"]: folder for folder in (ROOT / "crates").iterdir()}
    match shlex.split(line):
        case ["cargo", "run", "--release", "--", *arguments]:
            (default,) = manifest(ROOT)["workspace"]["default-members"]
            assert manifest(default)["bin"][0]["name"] == "palettizer"
            return shlex.join(["palettizer", *arguments])
        case ["cargo", "run", "--release", "--manifest-path", path]:
            assert (ROOT / path).with_name("src").joinpath("main.rs").is_file(), f"{path} is no program"
        case ["cargo", "install", "--path", folder]:
            assert manifest(folder)["bin"][0]["name"] == "palettizer"
        case ["cargo", "install", name]:
            assert manifest(crates[name])["bin"][0]["name"] == "palettizer"
        case ["cargo", "add", name]:
            assert manifest(crates[name])["package"].get("publish", True)
        case ["cargo", "xtask", task]:
            assert f'"{task}" => tasks::' in (ROOT / "xtask/src/main.rs").read_text(encoding="utf-8")
        case ["pip", "install", what]:
            project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
            name, *extras = re.split(r"[][,]", what.rstrip("]"))
            assert name in (".", project["name"]), what
            assert set(extras) <= set(project["optional-dependencies"]), what
        case _:
            raise AssertionError(f"nothing says what {line!r} stands for in the tests")
    return ":"


def without_times(text):
    """Output with every duration replaced: the rest is the same in every run."""
    return re.sub(r"\d[\d,.]* ?(ms|µs|s)\b", "…", text).strip()


class Page:
    """A page that is being run in a folder."""

    def __init__(self, page, folder, binary, names):
        self.page, self.folder, self.names = page, folder, dict(names)
        programs = folder.parent / f"{folder.name}-programs"
        programs.mkdir()
        (programs / ("palettizer" + binary.suffix)).symlink_to(binary)
        self.path = f"{programs}{os.pathsep}{os.environ['PATH']}"
        self.printed = ""

    def run(self):
        """Runs every block; how many there were of each language."""
        count = {}
        for line, language, text in blocks(self.page):
            step = getattr(self, f"_{language}", None)
            assert step, f"{self.page}:{line}: no way to run a block of {language!r}"
            try:
                step(text)
            except Exception as error:
                raise AssertionError(f"{self.page}:{line}: {error}") from error
            count[language] = count.get(language, 0) + 1
        return count

    def shell(self, script, check=True):
        done = subprocess.run(["bash", "-euo", "pipefail", "-c", script], cwd=self.folder, capture_output=True, text=True,
                              env={**os.environ, "PATH": self.path}, stdin=subprocess.DEVNULL, timeout=300)
        assert not check or done.returncode == 0, f"exit code {done.returncode}\n{script}\n{done.stdout}{done.stderr}"
        return done

    def _sh(self, text):
        outside = re.compile(r"(cargo|pip|git) ")
        lines = [in_the_repository(line.split(" #")[0]) if outside.match(line) else line for line in text.splitlines()]
        self.printed = self.shell("\n".join(lines)).stdout

    def _text(self, text):
        assert without_times(text) == without_times(self.printed)

    def _python(self, text):
        out, home = io.StringIO(), Path.cwd()
        os.chdir(self.folder)
        try:
            with contextlib.redirect_stdout(out):
                exec(compile(text, self.page, "exec"), self.names)
        finally:
            os.chdir(home)
        self.printed = out.getvalue()

    def _yaml(self, text):
        """A file of the name that its first line, a comment, says."""
        name = text.splitlines()[0].removeprefix("# ")
        assert re.fullmatch(r"[\w.]+\.yaml", name), "the first line of a file is a comment with its name"
        (self.folder / name).write_text(text, encoding="utf-8")

    def _rust(self, text):
        kept = "\n".join(line.removeprefix("    ") for line in RUST.read_text(encoding="utf-8").splitlines())
        assert text in kept, f"{RUST.name} has another block; it is what compiles and runs"

    def _swift(self, text):
        """Cannot run here. The page says so."""
        assert text.count("{") == text.count("}") and text.count("(") == text.count(")")
