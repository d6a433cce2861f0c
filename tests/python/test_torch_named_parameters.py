"""Parameters that are no layer's weights: palettized where module_name_configs has their name, and only there."""

import pytest
import torch
from safetensors import safe_open
from torch import nn
from torch_support import converted, dkm
from torch_support.sides import ours
from torch_support.told import about, listening

import judge
from palettizer import estimate_memory
from palettizer.torch import load_safetensors, save_safetensors


class Table(nn.Module):
    """A linear layer with a table of positions, a dict of matrices, and a vector."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.positions = nn.Parameter(torch.randn(16, 32))
        self.mixes = nn.ParameterDict({name: nn.Parameter(torch.randn(32, 32) / 6) for name in ("first", "last")})
        self.gain = nn.Parameter(torch.randn(32))
        self.inner = nn.Linear(32, 32)

    def forward(self, x):
        x = (x + self.positions) * self.gain
        for mix in self.mixes.values():
            x = torch.tanh(x @ mix)
        return self.inner(x)


class Model(nn.Module):
    def __init__(self):
        super().__init__()
        self.body = Table()

    def forward(self, x):
        return self.body(x)


NAMES = {"body.positions": {"n_bits": 3}, r".*mixes\.(first|last)": {"n_bits": 2}}
PALETTIZED = {"body.positions": 8, "body.mixes.first": 4, "body.mixes.last": 4, "body.inner.weight": 16}


def config(cls, **more):
    settings = {**more, "n_bits": 4}
    return cls.from_dict({
        "global_config": settings, "module_name_configs": {name: {**settings, **value} for name, value in NAMES.items()}})


def distinct(model):
    return {name: len(parameter.unique()) for name, parameter in model.named_parameters() if parameter.dim() > 1}


def test_a_name_palettizes_a_parameter():
    palettizer = ours.PostTrainingPalettizer(Model(), config(ours.PostTrainingPalettizerConfig))
    assert distinct(palettizer.compress()) == PALETTIZED
    assert palettizer.report()["body.gain"]["reason"] == "Table is not a kind of module that is palettized"


def test_patterns_for_modules_leave_parameters_alone():
    """As with the peer, which knows no parameters but those of its layers."""
    for pattern in (".*", r"body(\..*)?", "body"):
        by = ours.PostTrainingPalettizerConfig.from_dict({"module_name_configs": {pattern: {"n_bits": 4}}})
        done = ours.PostTrainingPalettizer(Model(), by).compress()
        assert distinct(done)["body.positions"] == 512


def test_a_vector_that_is_named_is_told_of():
    by = ours.PostTrainingPalettizerConfig.from_dict({"module_name_configs": {"body.gain": {"n_bits": 4}}})
    dkm_by = ours.DKMPalettizerConfig.from_dict({"module_name_configs": {"body.gain": {"n_bits": 2}}})
    for run in (ours.PostTrainingPalettizer(Model(), by).compress, ours.DKMPalettizer(Model(), dkm_by).prepare):
        with listening() as said:
            run()
        assert about(said, "body.gain", "has one dimension")


def test_a_name_that_nothing_has_is_told_of():
    by = ours.PostTrainingPalettizerConfig.from_dict({"module_name_configs": {"body.position": {"n_bits": 4}}})
    with listening() as said:
        ours.PostTrainingPalettizer(Model(), by).compress()
    assert about(said, "body.position", "no module and no parameter")


def loss(model, data):
    return model(data).square().mean()


def test_sensitivities_are_of_named_parameters_too(tmp_path):
    palettizer = ours.SKMPalettizer(Model(), config(ours.SKMPalettizerConfig))
    data = [torch.randn(2, 16, 32) for _ in range(2)]
    palettizer.compute_sensitivity(data, loss, str(tmp_path / "s.safetensors"))
    done = palettizer.compress(sensitivity_path=str(tmp_path / "s.safetensors"))
    assert distinct(done) == PALETTIZED
    assert set(PALETTIZED) <= set(safe_open(tmp_path / "s.safetensors", "pt").keys())


def test_a_compact_file_holds_them(tmp_path):
    done = ours.PostTrainingPalettizer(Model(), config(ours.PostTrainingPalettizerConfig)).compress()
    save_safetensors(done, tmp_path / "small.safetensors")
    again = Model()
    load_safetensors(again, tmp_path / "small.safetensors")
    state = done.state_dict()
    assert state.keys() == again.state_dict().keys()
    assert all(torch.equal(value, state[name]) for name, value in again.state_dict().items())


def trained():
    palettizer = ours.DKMPalettizer(Model(), config(ours.DKMPalettizerConfig, weight_threshold=0))
    model = palettizer.prepare(inplace=True)
    optimizer = torch.optim.SGD(model.parameters(), 0.01)
    for _ in range(3):
        optimizer.zero_grad()
        loss(model, torch.randn(2, 16, 32)).backward()
        assert all(parameter.grad is not None for parameter in model.parameters())
        optimizer.step()
        palettizer.step()
    return palettizer, model


def test_they_are_trained_with_palettes():
    palettizer, model = trained()
    assert set(dkm.fakes(model)) == {name + "_fake_quant" for name in PALETTIZED}
    assert isinstance(model.body.positions, nn.Parameter), "outside of a forward pass they are themselves"
    sample = torch.randn(1, 16, 32)
    hard = model.eval()(sample)
    done = palettizer.finalize()
    assert type(done.body) is Table and distinct(done) == PALETTIZED
    torch.testing.assert_close(done(sample), hard)
    assert estimate_memory(Model(), config(ours.DKMPalettizerConfig, weight_threshold=0), sample) > 0


@pytest.mark.parametrize("how", ["traced", "exported"])
@pytest.mark.parametrize("make", ["post-training", "trained"])
def test_they_convert_to_compressed_operations(make, how, tmp_path):
    if make == "trained":
        done = trained()[0].finalize()
    else:
        done = ours.PostTrainingPalettizer(Model(), config(ours.PostTrainingPalettizerConfig)).compress()
    package = converted.convert(done.eval(), torch.randn(1, 16, 32), "iOS18", how, tmp_path / "m.mlpackage")
    variables = converted.palettized(package)
    assert variables.keys() == {name.replace(".", "_") for name in PALETTIZED}
    for name in PALETTIZED:
        stored = torch.from_numpy(judge.value(variables[name.replace(".", "_")]))
        assert torch.equal(stored, done.get_parameter(name).detach())
