"""The package: its stub and its types, its examples, a clean installation, the command, what an import brings along."""

import doctest
import importlib
import os
import pkgutil
import subprocess
import sys
import venv
from pathlib import Path

import pytest

import palettizer
from conftest import CORE_AI, _required

FOLDER = Path(palettizer.__file__).parent
ROOT = Path(__file__).parents[2]


def run(*command, **options):
    done = subprocess.run([str(part) for part in command], capture_output=True, text=True, timeout=600, **options)
    assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
    return done.stdout


def test_the_stub_agrees_with_the_binary(tmp_path):
    # torch, which the stub does not have, would be read at each call: a stub test keeps nothing of one for the next
    (tmp_path / "mypy.ini").write_text("[mypy]\n[mypy-torch.*]\nfollow_imports = skip\n")
    said = run(sys.executable, "-m", "mypy.stubtest", "palettizer._native", "--mypy-config-file", "mypy.ini", cwd=tmp_path,
               env={**os.environ, "MYPYPATH": str(FOLDER.parent)})
    assert "no issues found" in said
    assert (FOLDER / "py.typed").is_file()


def test_types_hold():
    # the cache of a plain `mypy`: most of what is checked is torch and numpy
    run(sys.executable, "-m", "mypy", "--config-file", ROOT / "pyproject.toml", "--cache-dir", ROOT / ".mypy_cache",
        FOLDER / "__init__.py", FOLDER / "_cli.py", FOLDER / "coreml", FOLDER / "coreai")


def modules():
    yield "palettizer"
    for found in pkgutil.walk_packages([str(FOLDER)], "palettizer."):
        if CORE_AI or not found.name.startswith("palettizer.coreai"):
            yield found.name


@pytest.mark.parametrize("name", modules())
def test_examples(name, tmp_path, monkeypatch):
    """Every example of every docstring, run in an empty folder."""
    monkeypatch.chdir(tmp_path)
    module = importlib.import_module(name)
    if module.__name__ != name:
        return  # a module of coremltools, passed on as it is
    assert module.__doc__ or name.endswith("_native"), f"{name} says nothing of itself"
    result = doctest.testmod(module, optionflags=doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE)
    assert result.failed == 0


def test_what_users_see_has_examples():
    import palettizer.coreml as cto

    finder, seen = doctest.DocTestFinder(exclude_empty=True), 0
    for name in cto.__all__:
        thing = getattr(cto, name)
        assert thing.__doc__, f"{name} is not documented"
        seen += any(test.examples for test in finder.find(thing, name))
    assert seen >= len(cto.__all__) - 2, "CompressionGranularity and Model may do without"


def test_a_clean_installation(tmp_path):
    """The wheel and numpy alone: no torch, no coremltools, no pyyaml, no tqdm."""
    wheel = _required("PALETTIZER_WHEEL", "the wheel")
    venv.create(tmp_path / "venv", with_pip=False)
    python = tmp_path / "venv" / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
    (packages,) = run(python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))").split()
    clean = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "PYTHONHOME")}
    run(sys.executable, "-m", "pip", "--python", python, "install", "--quiet", "--no-deps", "--no-index", wheel, env=clean)
    import numpy

    numpys = Path(numpy.__file__).parent
    for part in (numpys, *numpys.parent.glob("numpy.libs")):
        os.symlink(part, Path(packages) / part.name, target_is_directory=True)
    script = """
import sys
import palettizer as cto
config = cto.coreml.OptimizationConfig(global_config=cto.coreml.OpPalettizerConfig(nbits=4))
small = cto.coreml.palettize_weights(cto.coreml.demo(), config)
small.save("Small.mlpackage")
assert len(cto.coreml.load("Small.mlpackage").weights()) == 3
assert all(len(weight.val) for weight in cto.coreml.get_weights_metadata(small).values())
for name in ("torch", "coremltools", "yaml", "tqdm"):
    assert name not in sys.modules, name
try:
    cto.torch
except ImportError as error:
    print("torch:", error)
open("c.yaml", "w").write("config_type: OpPalettizerConfig\\nglobal_config: {nbits: 4}")
assert cto.coreml.OptimizationConfig.from_yaml("c.yaml").global_config.nbits == 4
"""
    said = run(python, "-c", script, cwd=tmp_path, env=clean)
    assert "torch" in said
    command = python.parent / "palettizer"
    assert run(command, "--version", env=clean).split() == ["palettizer", palettizer.__version__]
    listed = run(command, "inspect", tmp_path / "Small.mlpackage", env=clean)
    assert "lut_to_dense" in listed
    done = subprocess.run([command, "inspect", tmp_path / "nothing.mlpackage"], capture_output=True, text=True, env=clean)
    assert done.returncode == 1 and "nothing.mlpackage" in done.stderr
    assert subprocess.run([command, "compress"], capture_output=True, env=clean).returncode == 2


def test_the_command_is_the_same(palettizer, binary):
    """The wheel's command and the binary: one code, so one help and one behaviour."""
    for args in (["--help"], ["compress", "--help"], ["--version"]):
        script = f"import sys; from palettizer._cli import main; sys.argv = {['palettizer', *args]}; sys.exit(main())"
        mine = run(sys.executable, "-c", script)
        expected = palettizer(*args).stdout
        assert mine == expected


def test_imports_are_lazy():
    script = """
import sys
import palettizer
assert "torch" not in sys.modules and "palettizer.coreml" not in sys.modules
assert {"coreml", "torch", "distributed"} <= set(dir(palettizer))
import palettizer.coreml as cto
assert "coremltools" not in sys.modules and "torch" not in sys.modules
try:
    palettizer.nothing
except AttributeError as error:
    assert "nothing" in str(error)
else:
    raise AssertionError
"""
    run(sys.executable, "-c", script)


def test_the_names_of_the_peer():
    """`import palettizer as cto` in place of `import coremltools.optimize as cto`."""
    assert palettizer.coreml.palettize_weights and palettizer.torch.palettization.PostTrainingPalettizer
