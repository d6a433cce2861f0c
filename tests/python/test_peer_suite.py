"""The palettization tests of coremltools itself, with palettizer in its place: all pass but those listed, each for a
difference that is documented."""

import importlib.util
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from peer_suite.suite import DIFFERENCES, PASS, SUITES

HERE = Path(__file__).parent


@pytest.fixture(scope="module", params=SUITES)
def outcomes(request, tmp_path_factory):
    """The suite, and test -> what became of it."""
    tests = Path(importlib.util.find_spec("coremltools").origin).parent / "test" / "optimize"
    out = tmp_path_factory.mktemp("outcomes") / "outcomes.json"
    files = sorted({str(tests / name.partition("::")[0]) for name in SUITES[request.param]})
    command = [
        sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "quick_peer", "-p", "peer_suite.bridge", "-W", "ignore",
        "--tb=short", "--no-header", "--continue-on-collection-errors",
        f"--rootdir={tests}", f"--confcutdir={tests}", f"--suite={request.param}", f"--outcomes={out}", *files,
    ]  # fmt: skip
    path = os.pathsep.join([str(HERE), os.environ.get("PYTHONPATH", "")])
    done = subprocess.run(
        command, cwd=out.parent, env={**os.environ, "PYTHONPATH": path}, capture_output=True, text=True, timeout=1800
    )
    assert out.exists(), done.stdout[-5000:] + done.stderr[-5000:]
    return request.param, json.loads(out.read_text()), done.stdout


def test_all_pass_but_the_differences(outcomes):
    suite, found, said = outcomes
    failed, expected = named(found, "failed"), set(DIFFERENCES[suite])
    assert failed == expected, f"fails: {failed - expected}; passes: {expected - failed}\n{said[-20000:]}"


def test_the_suite_is_whole(outcomes):
    """A file that cannot be imported, or a test that is gone, is no test passed."""
    suite, found, _ = outcomes
    missing = [name for name in SUITES[suite] if not any(test.startswith(name) for test in found)]
    assert not missing
    assert len(named(found, "passed")) >= PASS[suite], named(found, "skipped")


def named(found, outcome):
    return {name for name, became in found.items() if became == outcome}


def test_every_difference_is_documented():
    rows = (HERE.parents[1] / "docs" / "differences.md").read_text()
    titles = {title.rstrip(".") for title in re.findall(r"^\d+\. \*\*(.+?)\*\*", rows, re.MULTILINE)}
    wanted = {title for tests in DIFFERENCES.values() for title in tests.values()}
    assert wanted <= titles, wanted - titles
