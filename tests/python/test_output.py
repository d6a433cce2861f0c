"""Where the result goes: existing and read-only targets, a full disk, a signal in the middle."""

import os
import resource
import shutil
import signal
import subprocess
import time

import numpy as np
import pytest
from safetensors.numpy import save_file

import judge
from zoo_graphs import opset
from zoo_large import large


def entries(folder):
    return sorted(str(p.relative_to(folder)) for p in folder.rglob("*"))


@pytest.mark.parametrize("command", ["compress", "decompress"])
@pytest.mark.parametrize("what", ["package", "file", "empty folder"])
def test_an_existing_target_needs_force(command, what, models, palettizer, tmp_path):
    model, out = models(opset, "iOS18"), tmp_path / "out.mlpackage"
    flags = ["--nbits", 4] if command == "compress" else []
    if what == "package":
        palettizer("compress", model, "-o", out, "--nbits", 2)
    elif what == "file":
        out.write_text("mine")
    else:
        out.mkdir()
    before, listed = judge.digest(out), entries(tmp_path)
    done = palettizer(command, model, "-o", out, *flags, check=False)
    assert done.returncode in (1, 2) and "--force" in done.stderr
    assert (judge.digest(out), entries(tmp_path)) == (before, listed)
    if what == "package":
        palettizer(command, model, "-o", out, *flags, "--force")
        assert judge.digest(out) != before
        judge.load(out)
        assert [p.name for p in tmp_path.iterdir()] == [out.name]


@pytest.mark.parametrize("flags", [[], ["--force"]], ids=["plain", "force"])
def test_the_input_is_never_the_output(flags, models, palettizer, tmp_path):
    """In place: refused, or with --force a whole package again; never a mixture."""
    package = tmp_path / "model.mlpackage"
    shutil.copytree(models(opset, "iOS18"), package)
    before = judge.digest(package)
    done = palettizer("compress", package, "-o", package, "--nbits", 4, *flags, check=False)
    if done.returncode == 0:
        assert flags and judge.lut_op(judge.constants(package)[0, "main", "conv", "weight"]) is not None
    else:
        assert judge.digest(package) == before
    assert [p.name for p in tmp_path.iterdir()] == [package.name]


def test_the_output_may_not_lie_inside_the_input(models, palettizer, tmp_path):
    package = tmp_path / "model.mlpackage"
    shutil.copytree(models(opset, "iOS18"), package)
    before = judge.digest(package)
    done = palettizer("compress", package, "-o", package / "Data/out.mlpackage", "--nbits", 4, check=False)
    assert done.returncode in (1, 2) and done.stderr
    assert judge.digest(package) == before


def test_a_missing_folder(models, refuses, tmp_path):
    out = tmp_path / "no/such/folder/out.mlpackage"
    refuses(["no/such/folder"], "compress", models(opset, "iOS18"), "-o", out, "--nbits", 4, codes=(1,))


READ_ONLY = "/proc/palettizer-cannot-write-here"


def test_a_target_that_cannot_be_written(models, palettizer):
    """/proc takes no new folder, not even from root, for whom permission bits mean nothing."""
    model = models(opset, "iOS18")
    before = judge.digest(model)
    done = palettizer("compress", model, "-o", f"{READ_ONLY}/out.mlpackage", "--nbits", 4, check=False)
    assert done.returncode == 1 and READ_ONLY in done.stderr
    assert judge.digest(model) == before


def test_a_read_only_input_is_enough(models, palettizer, tmp_path):
    model = models(opset, "iOS18")
    for path in [model, *model.rglob("*")]:
        path.chmod(0o555 if path.is_dir() else 0o444)
    try:
        palettizer("compress", model, "-o", tmp_path / "out.mlpackage", "--nbits", 4)
    finally:
        for path in [model, *model.rglob("*")]:
            path.chmod(0o755 if path.is_dir() else 0o644)
    for path in (tmp_path / "out.mlpackage").rglob("*"):
        assert os.access(path, os.W_OK)


def limit_files(size):
    """A disk that is full after `size` bytes of one file: writing beyond fails, without a signal."""
    def prepare():
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))
    return prepare


@pytest.mark.parametrize("size", [0, 1000, 30_000, 300_000])
@pytest.mark.parametrize("command", ["compress", "decompress"])
def test_a_disk_that_fills_up(command, size, models, palettizer, tmp_path):
    model = models(large, "iOS18")
    before = judge.digest(model)
    flags = ["--nbits", 4, "--report", tmp_path / "report.json"] if command == "compress" else []
    done = palettizer(command, model, "-o", tmp_path / "out.mlpackage", *flags, check=False,
                      preexec_fn=limit_files(size))
    assert done.returncode == 1, done.stderr
    assert "panicked" not in done.stderr and "out.mlpackage" in done.stderr and ".palettizer-" not in done.stderr
    assert list(tmp_path.iterdir()) == []
    assert judge.digest(model) == before


def slow(binary, model, out, *flags):
    return [str(binary), "compress", str(model), "-o", str(out), "--nbits", "8", "--cluster-dim", "4", "--threads",
            "1", *flags]


def interrupt(binary, model, out, delay, signals):
    """Starts a slow run, waits, signals, and gives the exit code (negative: died of the signal)."""
    run = subprocess.Popen(slow(binary, model, out), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    time.sleep(delay)
    still_running = run.poll() is None
    for number in signals:
        run.send_signal(number)
        time.sleep(0.05)
    _, said = run.communicate(timeout=60)
    return run.returncode, said, still_running


@pytest.mark.parametrize("delay", [0.02, 0.2, 0.5])
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_in_the_middle(delay, number, binary, models, tmp_path):
    model = models(large, "iOS18")
    before = judge.digest(model)
    code, said, was_running = interrupt(binary, model, tmp_path / "out.mlpackage", delay, [number])
    assert was_running, "the model is too small: the run was over before the signal"
    assert list(tmp_path.iterdir()) == [], said
    assert judge.digest(model) == before
    assert "panicked" not in said
    if number == signal.SIGINT and delay > 0.1:
        assert code == 1 and said.strip(), f"exit code {code}: {said}"
    else:
        assert code in (1, -number)


def test_a_signal_leaves_the_old_output(binary, palettizer, models, tmp_path):
    model, out = models(large, "iOS18"), tmp_path / "out.mlpackage"
    palettizer("compress", models(opset, "iOS18"), "-o", out, "--nbits", 4)
    before = judge.digest(out)
    run = subprocess.Popen(slow(binary, model, out, "--force"), stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    time.sleep(0.3)
    assert run.poll() is None
    run.send_signal(signal.SIGINT)
    assert run.wait(60) == 1
    assert judge.digest(out) == before and [p.name for p in tmp_path.iterdir()] == [out.name]


@pytest.mark.parametrize("what", ["package", "in place", "checkpoint"])
def test_killed_at_any_time(what, binary, palettizer, models, tmp_path):
    """SIGKILL tidies nothing up: the output is the old or the new one, whole, and the next run leaves only that. (The tests
    of the crate kill at every single change of the disk.)"""
    if what == "checkpoint":
        source, out = tmp_path / "in.safetensors", tmp_path / "out.safetensors"
        save_file({"a.weight": np.random.default_rng(0).normal(size=(512, 512)).astype(np.float32)}, source)
    else:
        source, out = tmp_path / "in.mlpackage", tmp_path / "out.mlpackage"
        shutil.copytree(models(opset, "iOS18"), source)
    palettizer("compress", source, "-o", out, "--nbits", 8)
    old = judge.digest(out)
    new_of = out if what == "in place" else source
    flags = ["compress", new_of, "-o", out, "--nbits", 2, "--force"]
    palettizer(*flags[:3], tmp_path / f"new{out.suffix}", *flags[4:])
    whole = {old, judge.digest(tmp_path / f"new{out.suffix}")}
    kept, listed = judge.digest(source), sorted(path.name for path in tmp_path.iterdir())
    start = time.monotonic()
    palettizer(*flags)
    took = time.monotonic() - start
    for part in range(12):
        run = subprocess.Popen([str(binary), *map(str, flags)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        time.sleep(took * part / 10)
        run.kill()
        run.wait(60)
        assert judge.digest(out) in whole and judge.digest(source) == kept
    palettizer(*flags)
    assert judge.digest(out) in whole and sorted(path.name for path in tmp_path.iterdir()) == listed
