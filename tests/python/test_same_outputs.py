"""`scripts/same_outputs.py` finds the builds alike that are, and says of a build that is not where it differs."""

import importlib
import subprocess
import sys

import pytest
from pages import ROOT

OTHER = """#!/bin/sh
# the binary with another seed, and a word less in what it says
for word do
    shift
    [ "$word" = "$last" ] && word=11
    case "$word" in --seed) last=5;; *) last=none;; esac
    set -- "$@" "$word"
done
BINARY "$@" 2>errors
code=$?
sed 's/expected //' errors >&2
rm errors
exit $code
"""


@pytest.fixture(scope="module")
def compare(binary, tmp_path_factory):
    """`compare(build, *options)`: the command that compares the binary under test with a build, on one folder of inputs."""
    folder = tmp_path_factory.mktemp("same")

    def run(build, *options):
        command = [ROOT / "scripts/same_outputs.py", "--inputs", folder / "in", "--before", binary, "--after", build, *options]
        return list(map(str, command))
    return run


def test_a_build_is_equal_to_itself(binary, compare):
    done = subprocess.run([sys.executable, *compare(binary, "--quick")], capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "threads 1, 2, 7: all equal" in done.stdout and "DIFFERENT" not in done.stdout


def test_what_differs_is_shown(binary, compare, tmp_path, monkeypatch, capsys):
    """In this process, which has imported already what the script imports."""
    monkeypatch.syspath_prepend(ROOT / "scripts")
    same_outputs = importlib.import_module("same_outputs")

    def shown(*options):
        monkeypatch.setattr(sys, "argv", compare(other, *options))
        assert same_outputs.main() == 1
        return capsys.readouterr().out

    other = tmp_path / "palettizer"
    other.write_text(OTHER.replace("BINARY", str(binary)))
    other.chmod(0o755)
    said = shown("--only", "settings/00")
    assert "out.mlpackage/Data/com.apple.CoreML/weights/weight.bin" in said, said
    assert "--cluster-dim 2" in said, "the command line is shown"
    said = shown("--only", "refusals, usage")
    assert "stderr 0" in said and "expected" in said
