"""The command on Core AI programs: as on every model, in the package; the binary alone says what to install."""

import json
import subprocess
import sys

import pytest
from coreai_support import cnn

import palettizer.coreai as core_ai


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return cnn(tmp_path_factory.mktemp("model"))


@pytest.fixture
def command(tmp_path):
    """`command("inspect", path)`: what it did, in the folder of the test."""
    def run(*args, code=0):
        done = subprocess.run([sys.executable, "-m", "palettizer._cli", *map(str, args)], capture_output=True, text=True, cwd=tmp_path)
        assert done.returncode == code, done.stdout + done.stderr
        return done
    return run


def size(path):
    return (path / "main.mlirb").stat().st_size


def test_compress_inspect_decompress(model, command, tmp_path):
    small, back = tmp_path / "small.aimodel", tmp_path / "back.aimodel"
    done = command("compress", model, "-o", small, "--nbits", 4, "--op-type", "conv=6", "--op-name", "main.conv_0=skip",
                   "--weight-threshold", 100, "--report", "report.json")
    report = json.loads((tmp_path / "report.json").read_text())
    rows = {row["name"]: row for row in report["weights"]}
    assert {name: row["nbits"] for name, row in rows.items()} == {
        "main.conv_1": 6, "main.conv_2": 6, "main.conv_transpose_0": 4, "main.conv_3": 6, "main.linear_0": 4}
    assert report["bytes_after"] == size(small) < report["bytes_before"] == size(model)
    assert "5 weights palettized, 0 skipped" in done.stdout and "main.linear_0" in done.stdout
    listed = json.loads(command("inspect", small, "--json", "--weight-threshold", 0).stdout)["weights"]
    palettes = {weight["name"]: weight["compression"] and weight["compression"]["palette"]["nbits"] for weight in listed}
    assert palettes == {"main.conv_0": None} | {name: row["nbits"] for name, row in rows.items()}
    assert "4 bits, 1 LUT of float32: lut_to_dense" in command("inspect", small).stdout
    assert "back.aimodel" in command("decompress", small, "-o", back).stdout
    old, new = core_ai.get_weights_metadata(small, 0), core_ai.get_weights_metadata(back, 0)
    assert all((old[name].val == new[name].val).all() for name in old)
    assert "nothing to do" in command("decompress", model, "-o", back, "--force").stdout


def test_the_command_does_what_python_does(model, command, tmp_path):
    command("compress", model, "-o", "small.aimodel", "--nbits", 3, "--group-size", 2, "--threads", 1)
    config = core_ai.OptimizationConfig(global_config=core_ai.OpPalettizerConfig(nbits=3, granularity="per_grouped_channel", group_size=2))
    core_ai.palettize_weights(model, config, progress=False).save(tmp_path / "python.aimodel")
    assert (tmp_path / "small.aimodel/main.mlirb").read_bytes() == (tmp_path / "python.aimodel/main.mlirb").read_bytes()


def test_a_page(model, command, tmp_path):
    command("compress", model, "-o", "small.aimodel", "--nbits", 2, "--weight-threshold", 100, "--report", "page.html")
    page = (tmp_path / "page.html").read_text()
    assert "main.conv_2" in page and '"centroids":[' in page


def test_sizes(model, command, tmp_path):
    whole = size(model)
    command("compress", model, "-o", "small.aimodel", "--target-size", whole // 3, "--recipe", "r.yaml", "--curves", "c.json")
    assert size(tmp_path / "small.aimodel") <= whole // 3
    command("compress", model, "-o", "again.aimodel", "--config", "r.yaml")
    assert (tmp_path / "again.aimodel/main.mlirb").read_bytes() == (tmp_path / "small.aimodel/main.mlirb").read_bytes()
    table = command("recommend", model, "--curves", "c.json").stdout
    assert "-o Small.aimodel --curves c.json --target-size" in table
    assert "the least that can be had is" in command("compress", model, "-o", "no.aimodel", "--target-size", 900, code=1).stderr
    assert not (tmp_path / "no.aimodel").exists()


@pytest.mark.parametrize("args, code, said", [
    (("compress", "MODEL", "-o", "x.mlpackage", "--nbits", 4), 1, "must end in .aimodel"),
    (("compress", "MODEL", "-o", "MODEL", "--nbits", 4), 1, "exists already: use --force to replace it"),
    (("compress", "none.aimodel", "-o", "x.aimodel", "--nbits", 4), 1, "there is no none.aimodel"),
    (("compress", "MODEL", "-o", "x.aimodel", "--nbits", 4, "--group-size", 7, "--strict"), 3, "does not divide"),
    (("compress", "MODEL", "-o", "x.aimodel", "--nbits", 4, "--verify", "x.npz"), 2, "--verify is for Core ML models"),
    (("compress", "MODEL", "-o", "x.aimodel", "--target-size", "20kB", "--inputs", "x.npz"), 2, "--inputs is for Core ML models"),
    (("compress", "MODEL", "-o", "x.aimodel", "--nbits", 4, "--minimum-deployment-target", "iOS18"), 2, "is for one system"),
    (("compress", "MODEL", "-o", "x.aimodel", "--nbits", 4, "--report", "MODEL/r.json"), 2, "--report must not lie in IN"),
    (("run", "MODEL", "--random"), 2, "is a Core AI program, which Apple's wheel runs"),
    (("compare", "MODEL", "MODEL", "--random"), 2, "is a Core AI program"),
    (("sensitivity", "MODEL", "--random", "-o", "s.safetensors"), 2, "is a Core AI program"),
    (("recommend", "MODEL", "--inputs", "x.npz"), 2, "--inputs is for Core ML models"),
])  # fmt: skip
def test_what_cannot_be(model, command, tmp_path, args, code, said):
    before = (model / "main.mlirb").read_bytes()
    done = command(*(str(arg).replace("MODEL", str(model)) for arg in args), code=code)
    assert said.replace("MODEL", str(model)) in done.stderr, done.stderr
    assert list(tmp_path.iterdir()) == [] and (model / "main.mlirb").read_bytes() == before


def test_in_place(model, command, tmp_path):
    import shutil

    copy = tmp_path / "m.aimodel"
    shutil.copytree(model, copy)
    command("compress", copy, "-o", copy, "--nbits", 4, "--force")
    assert size(copy) < size(model) and [path.name for path in tmp_path.iterdir()] == ["m.aimodel"]


def test_the_binary_says_what_to_install(model, palettizer, tmp_path):
    for args in (("inspect", model), ("compress", model, "-o", tmp_path / "x.aimodel", "--nbits", "4"), ("decompress", model, "-o", "x")):
        done = palettizer(*args, check=False)
        assert done.returncode == 1 and "pip install 'palettizer[coreai]'" in done.stderr
