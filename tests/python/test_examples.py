"""The scripts in `examples/`, run as a user runs them."""

import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import pytest
from torch_support import converted

import judge

SCRIPT = Path(__file__).resolve().parents[2] / "examples/dkm_fashion_mnist.py"


def run(*args):
    return subprocess.run([sys.executable, SCRIPT, *map(str, args)], capture_output=True, text=True, timeout=300,
                          stdin=subprocess.DEVNULL)


@pytest.fixture(scope="module")
def quick(fashion_mnist, tmp_path_factory):
    """(the output folder, what was printed) of a smoke run."""
    out = tmp_path_factory.mktemp("fashion")
    done = run("--data", fashion_mnist, "--output", out, "--bits", "2,1", "--quick")
    assert done.returncode == 0, done.stderr
    return out, done.stdout


def rows(printed):
    """Model -> the cells of its row in the table."""
    table = printed.split("\n\n")[1].splitlines()[1:]
    return {line[:8].strip(): line[8:].split() for line in table}


def test_the_table_compares_accuracies_and_sizes(quick):
    out, printed = quick
    found = rows(printed)
    assert list(found) == ["float", "2 bits", "1 bit"]
    for name, cells in found.items():
        package = out / f"{name.replace(' ', '-')}.mlpackage"
        size = sum(file.stat().st_size for file in package.rglob("*") if file.is_file())
        assert float(cells[-2]) == pytest.approx(size / 1000, abs=0.051)
    assert float(found["float"][0]) >= 50, "it has learnt something, if little"
    assert all(float(found[name][0]) >= float(found["float"][0]) - 3 for name in ("2 bits", "1 bit"))
    assert float(found["2 bits"][-1].rstrip("×")) > 6 and float(found["1 bit"][-1].rstrip("×")) > 10


@pytest.mark.parametrize("name, bits", [("2-bits", 2), ("1-bit", 1)])
def test_the_packages_hold_lookup_tables(name, bits, quick):
    held = converted.palettized(quick[0] / f"{name}.mlpackage")
    assert {key.split("_")[0] for key in held} == {"3", "8"}, "the layers with more than 2048 weights"
    for var in held.values():
        assert judge.chain(var) == ["lut_to_dense", "blockwise_shift_scale"]
        assert judge.table(var)[0] == bits
    assert not converted.palettized(quick[0] / "float.mlpackage")


def test_the_plot_is_an_image_with_a_line_for_each_model(quick):
    root = ElementTree.parse(quick[0] / "accuracy.svg").getroot()
    assert root.tag == "{http://www.w3.org/2000/svg}svg"
    lines = root.findall("{http://www.w3.org/2000/svg}polyline")
    labels = [text.text for text in root.findall("{http://www.w3.org/2000/svg}text")]
    assert len(lines) == 3
    for name, cells in rows(quick[1]).items():
        assert any(label.startswith(f"{name}, {float(cells[-2]):.0f}") for label in labels), labels


def test_what_is_missing_is_said(tmp_path):
    done = run("--data", tmp_path)
    assert done.returncode == 1 and "train-images-idx3-ubyte.gz" in done.stderr and str(tmp_path) in done.stderr
    done = run("--data", tmp_path, "--bits", "two")
    assert done.returncode == 2 and "'two'" in done.stderr
