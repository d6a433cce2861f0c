"""The command around the work: help, demo, completions, the table, the report on standard output."""

import json
import re

import pytest

from zoo_graphs import opset

COMMANDS = ["compress", "inspect", "decompress", "run", "compare", "sensitivity", "demo", "completions"]


@pytest.mark.parametrize("command", COMMANDS)
def test_help_has_an_example(command, palettizer):
    said = palettizer(command, "--help").stdout
    assert f"palettizer {command}" in said.split("Example", 1)[1]


def test_help_names_the_exit_codes(palettizer):
    said = palettizer("--help").stdout
    assert all(command in said for command in COMMANDS) and "Exit codes" in said


def test_version(palettizer):
    assert re.fullmatch(r"palettizer \d+\.\d+\.\d+.*\n", palettizer("--version").stdout)


def test_demo(palettizer, tmp_path):
    """Sizes fall and errors rise from 8 bits to 1, and nothing is written."""
    done = palettizer("demo", cwd=tmp_path)
    rows = [line.split() for line in done.stdout.splitlines() if re.match(r"\s*[864321]\s", line)]
    assert [int(row[0]) for row in rows[:6]] == [8, 6, 4, 3, 2, 1]
    assert list(tmp_path.iterdir()) == []
    assert "\x1b" not in done.stdout


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish", "elvish", "powershell"])
def test_completions(shell, palettizer):
    said = palettizer("completions", shell).stdout
    assert "palettizer" in said and "minimum-deployment-target" in said


def test_the_table(models, palettizer, tmp_path):
    done = palettizer("compress", models(opset, "iOS18"), "-o", tmp_path / "out.mlpackage", "--nbits", 4,
                      "--op-name", "conv_w=skip")
    for word in ("conv_w", "linear_w", "24×1152", "fp32", "110,592", "bits per weight", "skipped"):
        assert word in done.stdout, done.stdout
    assert "\x1b" not in done.stdout + done.stderr, "no colours and no progress bar without a terminal"


REPORT_KEYS = {"version", "bytes_before", "bytes_after", "bits_per_weight", "seconds", "notes", "weights"}
WEIGHT_KEYS = {"name", "shared_with", "op_types", "op_names", "shape", "dtype", "status", "reason", "nbits", "mode",
               "granularity", "group_size", "cluster_dim", "luts", "bytes_before", "bytes_after", "mse", "snr_db"}


def test_the_report_has_the_documented_keys(models, compress):
    _, report = compress(models(opset, "iOS18"), "--nbits", 4, "--op-name", "conv_w=skip")
    assert REPORT_KEYS <= report.keys()
    assert {w["status"] for w in report["weights"]} == {"compressed", "skipped"}
    for weight in report["weights"]:
        assert WEIGHT_KEYS <= weight.keys()
        assert (weight["reason"] is None) == (weight["status"] == "compressed")


def test_the_report_on_standard_output(models, palettizer, tmp_path):
    out = tmp_path / "out.mlpackage"
    done = palettizer("compress", models(opset, "iOS18"), "-o", out, "--nbits", 4, "--report", "-")
    assert REPORT_KEYS <= json.loads(done.stdout).keys()
