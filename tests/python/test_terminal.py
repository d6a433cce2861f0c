"""What the command looks like on a terminal: nothing wraps, and names that differ stay different."""

import fcntl
import os
import pty
import re
import struct
import subprocess
import termios
import unicodedata

import numpy as np
import pytest
from safetensors.numpy import save_file

WIDTHS = (60, 80, 100, 160)


def columns(text):
    """The columns of a terminal that a text takes, by another table than the command's."""
    def one(char):
        if unicodedata.combining(char) or unicodedata.category(char) == "Cf":
            return 0
        return 2 if unicodedata.east_asian_width(char) in "WF" else 1

    return sum(map(one, text))


@pytest.fixture
def terminal(binary):
    """Runs the command on a terminal so many columns wide; gives the lines of stdout, without colours."""
    def run(width, *args):
        ours, its = pty.openpty()
        fcntl.ioctl(its, termios.TIOCSWINSZ, struct.pack("HHHH", 40, width, 0, 0))
        child = subprocess.Popen([str(binary), *map(str, args)], stdin=subprocess.DEVNULL, stdout=its,
                                 stderr=subprocess.PIPE)
        os.close(its)
        output = b""
        while True:
            try:
                some = os.read(ours, 65536)
            except OSError:  # Linux says so when the other side is closed
                some = b""
            if not some:
                break
            output += some
        os.close(ours)
        errors = child.stderr.read().decode()
        child.stderr.close()
        assert child.wait() == 0, errors
        text = output.decode().replace("\r\n", "\n")
        return re.sub(r"\x1b\[[0-9;]*m", "", text).splitlines()
    return run


def names(lines):
    """The first cells of the table, if there is one."""
    if not lines[0].startswith(("weight ", "tensor ")):
        return []
    rows = lines[1:lines.index("")]
    return [row.split("  ")[0] for row in rows]


def check(terminal, args, distinct=None):
    for width in WIDTHS:
        lines = terminal(width, *args)
        too_wide = [line for line in lines if columns(line) > width]
        assert not too_wide, (width, too_wide[:3])
        if distinct is not None:
            shown = names(lines)
            assert len(set(shown)) == len(shown) == distinct, width


def test_real_models(terminal, palettizer, real_models, tmp_path):
    for name, path in real_models.items():
        settings = ("--nbits", 4, "--minimum-deployment-target", "iOS16")
        for args in [settings, (*settings, "--op-type", "conv=skip")]:
            out = tmp_path / f"{len(args)}-{name}.mlpackage"
            report = tmp_path / "report.json"
            whole = palettizer("compress", path, "-o", out, *args, "--report", report, "--force").stdout.splitlines()
            check(terminal, ("compress", path, "-o", out, "--force", *args), len(names(whole)))
            check(terminal, ("inspect", out))
            check(terminal, ("decompress", out, "-o", tmp_path / "dense.mlpackage", "--force"))


def checkpoint(path):
    rng = np.random.default_rng(0)
    tensors = {}
    for block in range(12):
        for part in ("self_attn.q_proj", "self_attn.k_proj", "mlp.gate_up_proj"):
            name = f"model.decoder.layers.{block}.{part}.weight"
            tensors[name] = rng.standard_normal((48, 64)).astype(np.float16)
        tensors[f"model.decoder.layers.{block}.input_layernorm.weight"] = np.ones(48, np.float16)
    tensors["重み.層.前処理." * 6 + "w"] = rng.standard_normal((48, 64)).astype(np.float16)
    tensors["e\u0301" * 50] = rng.standard_normal((48, 64)).astype(np.float16)
    tensors["a.name.without.end." * 12] = rng.standard_normal((48, 64)).astype(np.float16)
    save_file(tensors, path)
    return tensors


def test_checkpoints(terminal, palettizer, tmp_path):
    path, out = tmp_path / "in.safetensors", tmp_path / "out.safetensors"
    tensors = checkpoint(path)
    weights = [name for name, tensor in tensors.items() if tensor.ndim == 2]
    check(terminal, ("compress", path, "-o", out, "--nbits", 4, "--force"), len(weights))
    check(terminal, ("inspect", out), len(weights))
    check(terminal, ("decompress", out, "-o", tmp_path / "dense.safetensors", "--force"))

    # a pipe gets all of it
    whole = palettizer("compress", path, "-o", out, "--nbits", 4, "--force").stdout
    assert whole.splitlines()[0].split() == ["weight", "shape", "dtype", "bits", "LUTs", "before", "after", "SNR", "dB"]
    assert all(name in whole for name in tensors)
    assert "…" not in whole


def test_columns_go_before_names_do(terminal, tmp_path):
    path, out = tmp_path / "in.safetensors", tmp_path / "out.safetensors"
    checkpoint(path)
    command = ("compress", path, "-o", out, "--nbits", 4, "--force", "--op-name", "[^m].*=skip")
    titles = {width: terminal(width, *command)[0] for width in WIDTHS}
    assert titles[160].split() == ["weight", "shape", "dtype", "bits", "LUTs", "before", "after", "SNR", "dB"]
    assert titles[80].split() == ["weight", "bits", "before", "after", "SNR", "dB"]
    assert "skipped: one-dimensional" in "\n".join(terminal(60, *command))


def test_the_demo(terminal):
    check(terminal, ("demo",))


def test_quiet(palettizer, tmp_path):
    path, out = tmp_path / "in.safetensors", tmp_path / "out.safetensors"
    checkpoint(path)
    for args in [
        ("compress", path, "-o", out, "--nbits", 4, "--op-name", "nothing=8"),
        ("inspect", out),
        ("decompress", out, "-o", tmp_path / "dense.safetensors"),
        ("demo",),
    ]:
        for flag in ("--quiet", "-q"):
            done = palettizer(*args, flag, *(["--force"] if "-o" in args else []))
            assert (done.stdout, done.stderr) == ("", ""), args
    assert palettizer("inspect", out, "--json", "--quiet").stdout.startswith("{")
    failed = palettizer("inspect", tmp_path / "missing.mlpackage", "--quiet", check=False)
    assert failed.returncode == 1 and failed.stdout == "" and "missing.mlpackage" in failed.stderr
