"""Bits chosen by what they do to the outputs of a model: what is measured, what is taken, and that nothing of it stays."""

import copy
import math

import pytest
import torch
from palettizer import _native
from palettizer.torch.palettization import Budget, LayerwisePalettizer, LayerwisePalettizerConfig
from palettizer.torch.palettization._layerwise.outputs import Outputs
from palettizer.torch.palettization._layerwise.samples import Samples, calibrating
from palettizer.torch.palettization._plan.palettize import native_arguments
from palettizer.torch.palettization._plan.plan import make_plan
from palettizer.torch.palettization._plan.tensors import to_native
from test_torch_budget import loss, model, weights
from torch import nn


class Bottleneck(nn.Module):
    """A layer whose outputs hardly matter to those of the model, and one of the same shape on which all depends."""

    def __init__(self):
        super().__init__()
        self.loud, self.vital, self.head = nn.Linear(64, 64), nn.Linear(64, 64), nn.Linear(64, 16)

    def forward(self, x):
        return self.head(1e-3 * self.loud(x) + torch.tanh(self.vital(x)))


def bottleneck():
    torch.manual_seed(3)
    return Bottleneck().eval(), [torch.randn(8, 64) for _ in range(6)]


def compress(dense, samples, budget, **options):
    palettizer = LayerwisePalettizer(dense, options.pop("config", None))
    return palettizer.compress(samples, budget=budget, progress=False, **options), palettizer.report()


def palette(weight):
    with torch.no_grad(), weight.owners[0].values() as values:
        return _native.palettize(**native_arguments(weight, to_native(values), None))


@torch.no_grad()
def snr(dense, small, samples):
    error = sum((dense(x) - small(x)).double().square().sum() for x in samples)
    return 10 * math.log10(sum(dense(x).double().square().sum() for x in samples) / error)


@pytest.mark.parametrize("kind", ["cnn", "half", "bfloat16", "double", "tied"])
@pytest.mark.parametrize("bits", [3, 6])
def test_harms_are_what_runs_find(kind, bits):
    """One probe for each sample of a few outputs: within some decibels, and on average nearer."""
    dense, samples = model(kind)
    plan = make_plan(dense, LayerwisePalettizerConfig.from_dict({"global_config": {"n_bits": bits, "weight_threshold": 0}}))
    palettes = {weight.name: palette(weight) for weight in plan.weights}
    before = copy.deepcopy(dense.state_dict())
    off = []
    with calibrating(dense):
        outputs = Outputs(dense, Samples(samples, 6, None, None, False))
        assert outputs.noise() == 0.0
        harms = outputs.harms(plan.weights, {name: [made] for name, made in palettes.items()})
        for weight in plan.weights:
            with outputs.changed([weight], palettes):
                off.append(10 * math.log10(harms[weight.name][0] / outputs.noise()))
            assert outputs.noise() == 0.0
    assert all(torch.equal(value, before[name]) for name, value in dense.state_dict().items())
    # rounding of bfloat16 is about as large as the error of 6 bits
    room = 9 if kind == "bfloat16" and bits == 6 else 4
    assert len(off) >= 3 and max(map(abs, off)) < room and abs(sum(off) / len(off)) < 0.7 * room, off


def test_each_output_counts_by_its_own_energy():
    class Two(nn.Module):
        def __init__(self):
            super().__init__()
            self.small, self.large = nn.Linear(32, 32, bias=False), nn.Linear(32, 32, bias=False)

        def forward(self, x):
            return {"large": 1e3 * self.large(x), "more": [self.small(x), torch.tensor([1])]}

    torch.manual_seed(0)
    dense = Two().eval()
    dense.large.weight.data.copy_(dense.small.weight.data)
    plan = make_plan(dense, LayerwisePalettizerConfig.from_dict({"global_config": {"n_bits": 3, "weight_threshold": 0}}))
    palettes = {weight.name: palette(weight) for weight in plan.weights}
    with calibrating(dense):
        outputs = Outputs(dense, Samples([torch.randn(64, 32) for _ in range(4)], 4, None, None, False))
        harms = outputs.harms(plan.weights, {name: [made] for name, made in palettes.items()})
        for weight in plan.weights:
            with outputs.changed([weight], palettes):
                assert 0.6 < harms[weight.name][0] / outputs.noise() < 1.6


def test_bits_go_where_the_outputs_of_the_model_depend_on_them(tmp_path):
    dense, samples = bottleneck()
    budget = Budget(target_bpw=3.5, choices={"nbits": [1, 2, 3, 4, 6], "group_size": [None]})
    path = tmp_path / "statistics.safetensors"
    small, report = compress(dense, samples, budget, statistics_path=path)
    bits = {name: int(row["form"].split(",")[0].removeprefix("n_bits=")) for name, row in weights(report).items()}
    assert bits["loud.weight"] + 2 <= bits["vital.weight"], bits
    assert report.budget["measure"] == "calibrated"
    assert abs(report.budget["measured_snr_db"] - report.budget["expected_snr_db"]) < 2
    # without samples nothing tells the two layers apart
    blind, same = compress(dense, None, budget, statistics_path=path)
    assert same.budget["measure"] == "work" and same.budget["measured_snr_db"] is None
    assert snr(dense, small, samples) > snr(dense, blind, samples) + 3


@pytest.mark.parametrize("kind", ["cnn", "tied"])
@pytest.mark.parametrize("bits", [2, 3, 4])
def test_it_is_never_worse_than_the_same_bits_for_all(kind, bits):
    dense, samples = model(kind)
    alike = LayerwisePalettizerConfig.from_dict({"global_config": {"n_bits": bits, "algorithm": "gptq"}})
    uniform = LayerwisePalettizer(dense, alike).compress(samples, progress=False)
    size = 0
    for name, row in compress(dense, samples, Budget(target_bpw=8, choices={"nbits": [bits], "group_size": [None]}))[1].items():
        size += row["bytes"] if isinstance(row["form"], str) else 0 * len(name)
    elements = sum(row["#params"] for row in compress(dense, samples, Budget(target_bpw=8))[1].values() if isinstance(row["form"], str))
    config = LayerwisePalettizerConfig.from_dict({"global_config": {"algorithm": "gptq"}})
    small, report = compress(dense, samples, Budget(target_bpw=8 * size / elements + 0.01), config=config)
    assert snr(dense, small, samples) >= snr(dense, uniform, samples) - 1e-3, report.budget
    assert abs(snr(dense, small, samples) - report.budget["measured_snr_db"]) < 0.01


def test_a_quality_is_measured():
    dense, samples = model("cnn")
    config = LayerwisePalettizerConfig.from_dict({"global_config": {"algorithm": "gptq"}})
    sizes = []
    for asked in (28, 38, 48):
        small, report = compress(dense, samples, Budget(min_snr=asked), config=config)
        assert asked <= snr(dense, small, samples) < asked + 6 and report.budget["asked"] == asked
        sizes.append(report.budget["bytes"])
    assert sizes == sorted(sizes) and sizes[0] < sizes[2] / 2
    with pytest.raises(ValueError, match=r"min_snr is 90; the best that .* dB"):
        compress(dense, samples, Budget(min_snr=90, choices={"nbits": [4]}))


@pytest.mark.parametrize("inplace", [False, True])
def test_a_model_is_otherwise_as_it_was(inplace):
    """Frozen weights, gradients that are somebody's, a mode of training, hooks."""
    dense, samples = model("cnn")
    dense[0].requires_grad_(False)
    dense[3].weight.grad = torch.ones_like(dense[3].weight)
    dense.train()
    wanted, _ = compress(model("cnn")[0], samples, Budget(target_bpw=3))
    before = copy.deepcopy(dense.state_dict())
    small, _ = compress(dense, samples, Budget(target_bpw=3), inplace=inplace)
    assert (small is dense) == inplace
    assert not dense[0].weight.requires_grad and dense[4].weight.requires_grad and dense.training
    assert torch.equal(dense[3].weight.grad, torch.ones_like(dense[3].weight)) and dense[4].weight.grad is None
    assert not dense._forward_hooks and not dense[4].weight._post_accumulate_grad_hooks
    if not inplace:
        assert all(torch.equal(value, before[name]) for name, value in dense.state_dict().items())
    assert all(torch.equal(small.get_parameter(name), value) for name, value in wanted.named_parameters())


def test_whatever_runs_the_model_gives_its_outputs():
    """A function that returns them, one that returns nothing, and a loss: the same outputs are measured."""
    found = []
    for options in ({}, {"forward_fn": lambda model, x: model(x)}, {"forward_fn": lambda model, x: model(x) is None}):
        dense, samples = model("cnn")
        found.append(compress(dense, samples, Budget(target_bpw=3), **options)[1].data)
    assert found[0] == found[1] == found[2]
    dense, samples = model("cnn")
    config = LayerwisePalettizerConfig.from_dict({"global_config": {"algorithm": "gptq"}})
    small, report = compress(dense, samples, Budget(target_bpw=3), loss_fn=loss, config=config)
    assert abs(snr(dense, small, samples) - report.budget["measured_snr_db"]) < 0.01, "of the outputs, and not of the loss"


def test_more_samples_than_are_kept():
    dense, samples = model("cnn")
    many = [sample + at for at, sample in enumerate(samples * 4)]
    assert len(many) > 16
    small, report = compress(dense, iter(many), Budget(target_bpw=3))
    again, same = compress(dense, many, Budget(target_bpw=3))
    assert same.data == report.data and all(torch.equal(a, b) for a, b in zip(small.parameters(), again.parameters()))


def test_outputs_without_a_way_back_are_measured_by_runs(caplog):
    class Shut(nn.Module):
        def __init__(self, of):
            super().__init__()
            self.of = of

        @torch.no_grad()
        def forward(self, x):
            return self.of(x)

    inner, samples = bottleneck()
    dense = Shut(inner).eval()
    _, report = compress(dense, samples, Budget(target_bpw=3))
    assert "no gradients come from the outputs to the weights" in caplog.text
    assert report.budget["measure"] == "work" and report.budget["measured_snr_db"] > 0


def test_outputs_that_are_no_floats_leave_the_choice_to_the_layers(caplog):
    class Classes(Bottleneck):
        def forward(self, x):
            return super().forward(x).argmax(1)

    torch.manual_seed(3)
    _, report = compress(Classes().eval(), bottleneck()[1], Budget(target_bpw=3))
    assert "no tensor of finite floats" in caplog.text and report.budget["measured_snr_db"] is None


def test_what_fails_meanwhile_leaves_the_model_whole(monkeypatch):
    dense, samples = bottleneck()
    before = copy.deepcopy(dense.state_dict())
    calls = []

    def fail(self, model, item):
        calls.append(1)
        if len(calls) > 6 and not torch.equal(dense.vital.weight, before["vital.weight"]):
            raise KeyboardInterrupt
        return outputs(self, model, item)

    outputs = Samples.outputs
    monkeypatch.setattr(Samples, "outputs", fail)
    with pytest.raises(KeyboardInterrupt):
        compress(dense, samples, Budget(target_bpw=3), inplace=True)
    assert all(torch.equal(value, before[name]) for name, value in dense.state_dict().items())


def test_outputs_that_break_are_the_worst(monkeypatch):
    """A NaN is no number that is smaller than others."""
    dense, samples = bottleneck()
    with calibrating(dense):
        outputs = Outputs(dense, Samples(samples, 6, None, None, False))
        monkeypatch.setattr(Samples, "outputs", lambda self, model, item: [model(item) * math.nan])
        assert outputs.noise() == math.inf


def test_telling_errors():
    assert _native.telling_errors([]) == [] and _native.telling_errors([0.0, math.nan, math.inf]) == []
    assert _native.telling_errors([0.5, 0.2, 0.04, 0.01, 0.002, 1e-4]) == [0, 1, 2, 3, 4]
