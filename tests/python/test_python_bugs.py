"""Faults of ours are ordinary errors that ask for a report; numbers that do not fit are the caller's, and named."""

import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import palettizer.coreml as cto
from palettizer import _native

ROOT = Path(__file__).parents[2]
VALUES = np.arange(64, dtype=np.float32).view(np.uint8)


@pytest.mark.parametrize("helped", [False, True])
def test_a_panic_asks_for_a_report(helped, capfd, monkeypatch):
    monkeypatch.delenv("RUST_BACKTRACE", raising=False)
    with pytest.raises(RuntimeError) as caught:
        _native.panic_for_tests(helped)
    assert type(caught.value) is RuntimeError
    text = str(caught.value)
    assert f"palettizer {_native.__version__}" in text and "number 1000 is too large" in text
    assert "report" in text and "work.rs:" in text and "\n" not in text
    assert capfd.readouterr() == ("", "")
    _native.palettize(VALUES, "f32", (8, 8), nbits=2)  # the pool works as before


def test_a_panic_is_caught_by_except_exception():
    script = """
from palettizer import _native
try:
    _native.panic_for_tests(True)
except Exception as error:
    print("caught", type(error).__name__)
"""
    env = {name: value for name, value in os.environ.items() if name != "RUST_BACKTRACE"}
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60, env=env)
    assert (done.returncode, done.stdout, done.stderr) == (0, "caught RuntimeError\n", "")


def test_all_work_goes_through_the_room_that_catches():
    """The GIL is released in one file alone, where panics are caught; the command looks after its own."""
    sources = (ROOT / "crates" / "python" / "src").glob("*.rs")
    releasing = {path.name for path in sources if re.search(r"\bdetach\(", path.read_text())}
    assert releasing == {"work.rs", "command.rs"}


GROUPED = {"granularity": "per_grouped_channel", "group_size": 2, "output_axis": 0}


@pytest.mark.parametrize("name", ["nbits", "group_size", "channel_axis", "output_axis", "cluster_dim", "seed", "threads"])
@pytest.mark.parametrize("value", [-(2**70), 2**70])
def test_numbers_out_of_range_are_named(name, value):
    with pytest.raises(ValueError, match=rf"^{name} is {value}; expected a whole number from -?\d+ to \d+"):
        _native.palettize(VALUES, "f32", (8, 8), **{"nbits": 2, **GROUPED, name: value})


@pytest.mark.parametrize("value", [-1, 2**64])
def test_numbers_out_of_range_in_a_configuration_are_named(value):
    config = cto.OptimizationConfig(cto.OpPalettizerConfig(nbits=4))
    for name in ("seed", "threads"):
        with pytest.raises(ValueError, match=f"^{name} is {value}; expected a whole number from 0 to "):
            cto.palettize_weights(cto.demo(), config, progress=False, **{name: value})
    fields = {"granularity": "per_grouped_channel", "group_size": 2}
    for name in ("group_size", "cluster_dim", "weight_threshold"):
        with pytest.raises(ValueError, match=f"{name} is {value}; expected"):
            op = cto.OpPalettizerConfig(**{"nbits": 4, **fields, name: value})
            cto.palettize_weights(cto.demo(), cto.OptimizationConfig(op), progress=False)


@pytest.mark.parametrize("threads", [0, 1025, 2**63])
def test_as_many_threads_as_no_machine_has(threads):
    with pytest.raises(ValueError, match=f"threads is {threads}; expected 1 to 1024"):
        _native.palettize(VALUES, "f32", (8, 8), nbits=2, threads=threads)


def test_what_is_no_number_is_a_type_error():
    with pytest.raises(TypeError, match="seed"):
        _native.palettize(VALUES, "f32", (8, 8), nbits=2, seed="1")
