"""`scripts/same_outputs.py` finds the builds alike that are, and says of a build that is not where it differs."""

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
    """`compare(build, *options)`: of the binary under test with a build, on one folder of inputs."""
    folder = tmp_path_factory.mktemp("same")

    def run(build, *options):
        command = [sys.executable, ROOT / "scripts/same_outputs.py", "--inputs", folder / "in", "--before", binary, "--after", build, *options]
        return subprocess.run(list(map(str, command)), capture_output=True, text=True, timeout=600)
    return run


def test_a_build_is_equal_to_itself(binary, compare):
    done = compare(binary, "--quick")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "threads 1, 2, 7: all equal" in done.stdout and "DIFFERENT" not in done.stdout


def test_what_differs_is_shown(binary, compare, tmp_path):
    other = tmp_path / "palettizer"
    other.write_text(OTHER.replace("BINARY", str(binary)))
    other.chmod(0o755)
    done = compare(other, "--only", "settings/00")
    assert done.returncode == 1 and "out.mlpackage/Data/com.apple.CoreML/weights/weight.bin" in done.stdout, done.stdout + done.stderr
    assert "--cluster-dim 2" in done.stdout, "the command line is shown"
    done = compare(other, "--only", "refusals, usage")
    assert done.returncode == 1 and "stderr 0" in done.stdout and "expected" in done.stdout
