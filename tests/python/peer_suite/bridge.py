"""The bridge: a pytest plugin that puts palettizer in the place of `coremltools.optimize.coreml` and of
`coremltools.optimize.torch.palettization` before a test of coremltools is imported, as changing the import does in a script.

What is not palettization (pruning, quantization, converting, the passes) stays coremltools' own, and reaches the tests
through our modules where a script would find it there.
"""

import contextlib
import importlib
import importlib.machinery
import importlib.util
import json
import pkgutil
import platform
import sys
import types
from pathlib import Path

import pytest

import palettizer.coreml
import palettizer.torch
import palettizer.torch.palettization
from palettizer.torch.palettization._dkm.layers import prepared_class
from peer_suite.suite import belongs

_TESTS = Path(importlib.util.find_spec("coremltools").origin).parent / "test" / "optimize"

# what the tests' helpers import for models that no test of the set makes
_STAND_INS = ("PIL", "PIL.Image", "peft", "torchvision", "torchvision.datasets", "torchvision.transforms")


def _unused(attribute):
    if attribute.startswith("__"):
        raise AttributeError(attribute)
    return type(attribute, (), {})


def _stand_in(name):
    """A module that can be imported, and no more: whatever is used of it fails where it is used."""
    module = types.ModuleType(name, "Not installed; stands in for an import that is not used.")
    module.__spec__ = importlib.machinery.ModuleSpec(name, None, is_package=True)
    module.__path__ = []
    module.__getattr__ = _unused
    sys.modules[name] = module
    parent, _, child = name.rpartition(".")
    if parent:
        setattr(sys.modules[parent], child, module)


def _replace(name, ours):
    sys.modules[name] = ours
    parent, _, child = name.rpartition(".")
    setattr(sys.modules[parent], child, ours)


def _bridge_coreml():
    peer = importlib.import_module("coremltools.optimize.coreml")
    for name in dir(peer):  # what we have from the peer is fetched while the peer can be found under its name
        with contextlib.suppress(AttributeError):
            getattr(palettizer.coreml, name)
    _replace("coremltools.optimize.coreml", palettizer.coreml)
    palettizer.coreml._quantization_passes = peer._quantization_passes  # tests of the passes themselves import it
    # one test imports it from the file that it is in
    sys.modules["coremltools.optimize.coreml._post_training_quantization"].CoreMLWeightMetaData = (
        palettizer.coreml.CoreMLWeightMetaData
    )


def _bridge_torch():
    peer = importlib.import_module("coremltools.optimize.torch")
    for name in dir(peer):
        with contextlib.suppress(AttributeError):
            getattr(palettizer.torch, name)
    for name in [name for name in sys.modules if name.startswith("coremltools.optimize.torch.palettization.")]:
        if not name.rpartition(".")[2].startswith("_"):
            sys.modules[name] = None  # a public module that we lack fails to import
    _replace("coremltools.optimize.torch.palettization", palettizer.torch.palettization)
    for module in pkgutil.iter_modules(palettizer.torch.palettization.__path__):
        if not module.name.startswith("_"):
            ours = importlib.import_module(f"palettizer.torch.palettization.{module.name}")
            sys.modules[f"coremltools.optimize.torch.palettization.{module.name}"] = ours
    # a helper of the tests asks for the classes of prepared layers there
    registry = importlib.import_module("coremltools.optimize.torch.palettization._supported_modules")
    registry.DKMPalettizerModulesRegistry.get_palettizer_module = lambda layer: prepared_class(type(layer))
    for name in ("base_model_optimizer", "optimization_config"):
        _replace(f"coremltools.optimize.torch.{name}", importlib.import_module(f"palettizer.torch.{name}"))


def _newest_opset():
    """The tests run for the opsets that the machine can execute; here nothing is executed, and grouped tables, vectors,
    scales and joint compression are there from iOS18 on."""
    reqs = importlib.import_module("coremltools.converters.mil.testing_reqs")
    newest = reqs.BackendConfig(backend="mlprogram", precision="fp16", opset_version=reqs.ct.target.iOS18)
    importlib.import_module("coremltools.converters.mil.mil.ops.tests.iOS16").backends = [newest]


def pytest_load_initial_conftests():
    """Before a conftest of the tests imports anything."""
    absent = {name for name in _STAND_INS if "." not in name and importlib.util.find_spec(name) is None}
    for name in _STAND_INS:
        if name.partition(".")[0] in absent:
            _stand_in(name)
    _bridge_coreml()
    _bridge_torch()
    _newest_opset()


def pytest_addoption(parser):
    parser.addoption("--suite", required=True, help="the suite that is run: coreml or torch")
    parser.addoption("--outcomes", required=True, help="where the outcomes go, as JSON")


def _name(nodeid, config):
    return (config.rootpath / nodeid.partition("::")[0]).relative_to(_TESTS).as_posix() + nodeid[nodeid.index("::") :]


class _Outcomes:
    """Keeps to the suite, and writes down what becomes of each test."""

    def __init__(self, config):
        self._config, self._outcomes = config, {}

    def pytest_collection(self):
        # conversions to iOS18 are skipped where macOS cannot run them; these here run nothing
        if self._config.getoption("--suite") == "torch":
            importlib.import_module("coremltools.models.utils")._macos_version = lambda: (15, 0)

    def pytest_collection_modifyitems(self, config, items):
        suite = config.getoption("--suite")
        mine = [item for item in items if belongs(_name(item.nodeid, config), suite)]
        config.hook.pytest_deselected(items=[item for item in items if item not in mine])
        items[:] = mine

    def pytest_runtest_logreport(self, report):
        name = _name(report.nodeid, self._config)
        if report.outcome == "failed" or name not in self._outcomes or self._outcomes[name] == "passed":
            self._outcomes[name] = report.outcome

    def pytest_sessionfinish(self):
        Path(self._config.getoption("--outcomes")).write_text(json.dumps(self._outcomes))


def pytest_configure(config):
    config.pluginmanager.register(_Outcomes(config))


@pytest.fixture(autouse=True)
def _any_machine(monkeypatch):
    """Tests that give up on x86-64 do so for what runs the model, and nothing runs it here."""
    monkeypatch.setattr(platform, "machine", lambda: "arm64")
