"""Soft k-means in kernels of Triton: as Triton's interpreter runs them, against the Rust kernel; and as they are compiled."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from palettizer.torch.palettization._soft import kernels
from palettizer.torch.palettization._soft.k_means import TorchSoftKMeans
from palettizer.torch.palettization._soft.settings import SoftSettings
from torch_support import soft_compiled, soft_interpreted
from torch_support.soft_cases import Native, close, found, rounded, table_eps

HERE = Path(__file__).parent


def child(module, path, **environment):
    """Runs one of the programs that write what Triton made, with a cache of its own, and gives the path."""
    environment = {**os.environ, "TRITON_CACHE_DIR": str(path.parent / "cache"), **environment}
    run = subprocess.run(
        [sys.executable, "-m", f"torch_support.{module}", path], cwd=HERE, env=environment, capture_output=True, text=True
    )
    assert run.returncode == 0, run.stderr
    return path


@pytest.fixture(scope="module")
def interpreted(tmp_path_factory):
    path = tmp_path_factory.mktemp("interpreted") / "made.pt"
    return torch.load(child("soft_interpreted", path, TRITON_INTERPRET="1"))


@pytest.fixture(scope="module")
def compiled(tmp_path_factory):
    path = tmp_path_factory.mktemp("compiled") / "made.json"
    return json.loads(child("soft_compiled", path, TRITON_INTERPRET="0").read_text(encoding="utf-8"))


@pytest.mark.parametrize("name", soft_interpreted.RUNS)
def test_as_the_kernel(interpreted, name):
    """In float64 only the order of sums differs; else the arithmetic of float32 does, and roundings to the dtype at the end."""
    run = soft_interpreted.RUNS[name]
    ours, theirs = interpreted["cases"][name], found(Native, run.case, rounded(run.case, run.dtype))
    if run.dtype == torch.float64:
        close(ours, theirs, 1e-9)
    else:
        close(ours, theirs, max(1e-5, table_eps(run.case, run.dtype)), ["next"])
        close(ours, theirs, torch.finfo(run.dtype).eps + 2e-5)


def test_training_is_as_on_the_cpu(interpreted):
    """With a checkpoint and autocast, through the operators."""
    for ours, theirs in zip(interpreted["trained"], soft_interpreted.trained(), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-6)


def test_memory(interpreted):
    """Nothing is larger than the weight; a matrix of vectors by clusters would be, 16 times."""
    largest, weight = interpreted["largest"]
    assert largest == weight


def test_a_fault_is_found_when_triton_is_tried_out(interpreted):
    """Of any of the kernels; of those that are right, nothing is said."""
    faults = dict(interpreted["faults"])
    assert faults.pop("none") is None and faults.pop("none, vectors") is None
    assert len(faults) == 5 and all("not close" in said for said in faults.values())


@pytest.mark.parametrize("name", soft_compiled.RUNS)
def test_nothing_is_spilled(compiled, name):
    """Tiles stay in registers, on the GPUs that they are made for."""
    assert {kernel for kernel, _, _ in compiled[name]} == {"means", "product", "through_product", "gradient", "nearest"}
    for kernel, registers, stack in compiled[name]:
        assert 16 < registers < 256 and stack == 0, kernel


@pytest.fixture
def on_a_gpu(monkeypatch):
    """Triton works."""
    kernels.kernel.cache_clear()
    monkeypatch.setattr(kernels, "_has_triton", lambda: True)
    monkeypatch.setattr(kernels, "_works", lambda nbits, cluster_dim: True)
    yield
    kernels.kernel.cache_clear()


def made(device, dtype=torch.float32, shape=(64, 64), nbits=4, **settings):
    return type(kernels.kernel(device, dtype, shape, SoftSettings(nbits, **settings))).__name__


def test_who_computes(on_a_gpu, monkeypatch):
    assert made("cpu") == "NativeSoftKMeans"
    assert made("mps") == "TorchSoftKMeans"
    for dtype in (torch.float32, torch.bfloat16, torch.float16, torch.float64):
        assert made("cuda", dtype) == "TritonSoftKMeans"
    monkeypatch.setattr(kernels, "_has_triton", lambda: False)
    kernels.kernel.cache_clear()
    assert made("cuda") == "TorchSoftKMeans"


def test_what_is_too_large_for_the_kernels(on_a_gpu):
    """Tables that leave no room in registers, and weights with more elements than 32 bits count."""
    assert made("cuda", shape=(256, 64), nbits=8, cluster_dim=8) == "TritonSoftKMeans"
    assert made("cuda", shape=(256, 128), nbits=8, cluster_dim=16) == "TorchSoftKMeans"
    assert made("cuda", torch.float64, shape=(256, 64), nbits=8, cluster_dim=8) == "TorchSoftKMeans"
    assert made("cuda", shape=(2**15, 2**15)) == "TritonSoftKMeans"
    assert made("cuda", shape=(2**15, 2**15 + 1)) == "TorchSoftKMeans"


@pytest.fixture
def nvidia(monkeypatch):
    """A GPU of NVIDIA, as far as torch says."""
    forget()
    monkeypatch.setattr(torch.version, "cuda", "12.8")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda: (9, 0))
    yield
    forget()


def forget():
    """What was found out about Triton, and what was made of it."""
    for cached in (kernels._has_triton, kernels._works, kernels.kernel):
        cached.cache_clear()


def test_triton_is_tried_out(nvidia, monkeypatch):
    """Where it does not work for tables of a size, torch operations do, and a warning says why, once."""
    from palettizer.torch.palettization._soft import triton_k_means

    def fails(nbits, cluster_dim):
        if (nbits, cluster_dim) == (3, 2):
            raise RuntimeError("no C compiler")

    monkeypatch.setattr(triton_k_means, "try_out", fails)
    assert made("cuda", nbits=3) == made("cuda", nbits=4, cluster_dim=2) == "TritonSoftKMeans"
    with pytest.warns(UserWarning, match="no C compiler") as said:
        assert made("cuda", nbits=3, cluster_dim=2) == made("cuda", shape=(32, 32), nbits=3, cluster_dim=2) == "TorchSoftKMeans"
    assert len(said) == 1


@pytest.mark.parametrize("lacking", [
    (torch.version, "cuda", None), (torch.cuda, "is_available", lambda: False),
    (torch.cuda, "get_device_capability", lambda: (7, 5)), (kernels.importlib.util, "find_spec", lambda name: None),
], ids=["NVIDIA", "GPU", "Ampere", "Triton"])  # fmt: skip
def test_without_what_triton_needs(nvidia, monkeypatch, lacking, recwarn):
    assert kernels._has_triton()
    kernels._has_triton.cache_clear()
    monkeypatch.setattr(*lacking)
    assert made("cuda") == "TorchSoftKMeans" and not recwarn.list


def test_tracing_does_not_ask_for_a_gpu(monkeypatch):
    """Shapes of results are known before a kernel is launched, and none is launched for them."""
    from palettizer.torch.palettization._soft import operators

    asked = []
    monkeypatch.setattr(kernels, "_has_triton", lambda: asked.append("whether there is Triton"))
    settings = SoftSettings(2)
    with torch.device("meta"):
        state = [torch.empty(size) for size in ((8, 8), (1, 4, 1), (1, 4, 1), (0,), (0,), (), ())]
    out, *_, saved = operators.soft_weight(*state, settings.text())
    assert out.shape == (8, 8) and not asked
    assert len(saved) == TorchSoftKMeans(torch.float32, (8, 8), **settings.arguments()).saved_len
