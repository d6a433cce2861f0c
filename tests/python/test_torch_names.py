"""The names that scripts written for coremltools' PyTorch side import, and what a class is a subclass of there."""

import importlib
import subprocess
import sys

import numpy as np
import pytest
import torch
from torch import nn

import palettizer.torch.palettization as ours
from torch_support.dkm import THE_PEERS_NUMBERS

MODULES = ("palettization.palettization_config", "palettization.palettizer", "palettization.fake_palettize",
           "palettization.post_training_palettization", "palettization.sensitive_k_means", "base_model_optimizer",
           "optimization_config")


@pytest.mark.parametrize("name", MODULES)
def test_a_module_has_the_public_names_of_the_peers(name):
    mine, theirs = (importlib.import_module(f"{package}.{name}") for package in
                    ("palettizer.torch", "coremltools.optimize.torch"))
    public = {key for key, value in vars(theirs).items()
              if key[0].isupper() and isinstance(value, type) and value.__module__ == theirs.__name__}
    assert public and not {key for key in public if not hasattr(mine, key)}


def test_the_defaults_by_type_are_the_peers():
    mine, theirs = (importlib.import_module(f"{package}.palettization.palettization_config") for package in
                    ("palettizer.torch", "coremltools.optimize.torch"))
    for cls, scheme in theirs.DEFAULT_PALETTIZATION_SCHEME.items():
        found = mine.DEFAULT_PALETTIZATION_SCHEME[cls]
        assert {found[name] for name in THE_PEERS_NUMBERS} == {"auto"}
        assert {**found, **THE_PEERS_NUMBERS} == scheme
    assert mine.SUPPORTED_PYTORCH_QAT_MODULES == theirs.SUPPORTED_PYTORCH_QAT_MODULES


@pytest.mark.parametrize("base, optimizer", [
    ("BaseTrainingTimeModelOptimizer", "DKMPalettizer"), ("BasePostTrainingModelOptimizer", "PostTrainingPalettizer"),
    ("BaseDataCalibratedModelOptimizer", "SKMPalettizer"),
])  # fmt: skip
def test_the_bases_are_the_peers(base, optimizer):
    bases = importlib.import_module("palettizer.torch.base_model_optimizer")
    for kind in (base, "BaseModelOptimizer"):
        assert issubclass(getattr(ours, optimizer), getattr(bases, kind))
    assert isinstance(getattr(ours, optimizer)(nn.Linear(4, 4)), getattr(bases, base))


@pytest.mark.parametrize("inplace", [True, False])
@pytest.mark.parametrize("base", ["BasePostTrainingModelOptimizer", "BaseDataCalibratedModelOptimizer"])
def test_an_optimizer_of_ones_own(base, inplace):
    class Zero(getattr(importlib.import_module("palettizer.torch.base_model_optimizer"), base)):
        def report(self):
            return {}

        def compress(self, *args, inplace, **kwargs):
            super().compress(*args, inplace=inplace, **kwargs)
            nn.init.zeros_(self._model.weight)
            return self._model

    model = nn.Linear(4, 4)
    done = Zero(model).compress(None, inplace=inplace)
    assert (done is model) == inplace and (model.weight == 0).all() == inplace and (done.weight == 0).all()


@pytest.mark.parametrize("value", [torch.int8, np.int8, np.dtype("int8"), "int8", "torch.int8", "INT8"], ids=repr)
def test_a_table_of_integers_by_any_name(value):
    for config in (ours.ModulePostTrainingPalettizerConfig, ours.ModuleSKMPalettizerConfig):
        assert config(lut_dtype=value).lut_dtype == torch.int8
        assert config.from_dict({"lut_dtype": value}).lut_dtype == torch.int8
    assert ours.ModuleDKMPalettizerConfig(lut_dtype=value).native_lut_dtype == "int8"


MISSING = {
    "torch": "import palettizer.torch",
    "torch, at the root": "import palettizer; palettizer.estimate_memory",
    "ray": "from palettizer.distributed.ray import compress; import torch; compress(torch.nn.Linear(64, 64), progress=False)",
    "coremltools": "import palettizer.torch.optimization_config as o; o.QuantizationGranularity",
}


@pytest.mark.parametrize("case", MISSING)
def test_a_missing_package_is_named_with_the_command_that_installs_it(case):
    package = case.partition(",")[0]
    code = f"import sys; sys.modules[{package!r}] = None; {MISSING[case]}"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert done.returncode == 1 and "ImportError" in done.stderr.splitlines()[-1]
    assert f"pip install {package}" in done.stderr.splitlines()[-1]
