"""Differentiable k-means together with coremltools' MagnitudePruner, and with torch.nn.utils.prune."""

import copy

import pytest
import torch
from coremltools.optimize.torch.pruning import MagnitudePruner, MagnitudePrunerConfig
from torch import nn
from torch.nn.utils import prune
from torch_support import converted, dkm
from torch_support.sides import ours

import judge


def net():
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 32, 3), nn.ReLU(), nn.Flatten(), nn.Linear(32 * 36, 64))


def pruner_of(model, sparsity=0.7):
    config = {"global_config": {"target_sparsity": sparsity, "scheduler": {"begin_step": 0}}}
    return MagnitudePruner(model, MagnitudePrunerConfig.from_dict(config))


def trained(steps=4, **options):
    """A model in the order that coremltools prescribes, up to the end of training."""
    palettizer = ours.DKMPalettizer(net(), dkm.config(ours, **options))
    model = palettizer.prepare(inplace=True)
    pruner = pruner_of(model)
    model = pruner.prepare(inplace=True)
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-2)
    for _ in range(steps):
        palettizer.step()
        pruner.step()
        optimizer.zero_grad()
        model(torch.randn(4, 3, 8, 8)).square().mean().backward()
        assert all(parameter.grad is not None for parameter in model.parameters())
        optimizer.step()
    return palettizer, pruner, model


FORMS = [{"n_bits": 4}, {"n_bits": 2}, {"n_bits": 3, "granularity": "per_grouped_channel", "group_size": 8},
         {"n_bits": 4, "lut_dtype": "int8"}, {"n_bits": 4, "enable_per_channel_scale": True}]


@pytest.mark.parametrize("how", ["traced", "exported"])
@pytest.mark.parametrize("options", FORMS, ids=str)
def test_a_pruned_model_keeps_its_sparsity_and_its_palette_and_converts(options, how, tmp_path):
    palettizer, pruner, model = trained(**options)
    hard = copy.deepcopy(model).eval()
    sample = torch.randn(1, 3, 8, 8)
    done = palettizer.finalize(inplace=True)
    done = pruner.finalize(inplace=True)
    assert [type(layer) for layer in done] == [type(layer) for layer in net()]
    with torch.no_grad():
        torch.testing.assert_close(done(sample), hard(sample), rtol=1e-4, atol=1e-5)
    assert set(dict(done.named_parameters())) == set(dict(net().named_parameters()))
    variables = converted.palettized(converted.convert(done, sample, "iOS18", how, tmp_path / "m.mlpackage")) or {
        name: var for name, var in judge.constants(tmp_path / "m.mlpackage").items() if "lut_to_sparse" in judge.chain(var)}
    assert len(variables) == 2
    by_shape = {tuple(var.shape): var for var in variables.values()}
    for layer in (done[0], done[3]):
        weight = layer.weight.detach()
        assert float((weight == 0).float().mean()) == pytest.approx(0.7, abs=0.01)
        groups = weight.shape[0] // options.get("group_size", weight.shape[0])
        if "enable_per_channel_scale" not in options:
            assert all(len(group.unique()) <= 2 ** options["n_bits"] for group in weight.chunk(groups))
        assert layer.get_buffer("_COREML_/weight/compression_type").tolist() == [1, 2]
        assert torch.equal(torch.from_numpy(judge.value(by_shape[tuple(weight.shape)])), weight)
        assert not any("mask" in name or "orig" in name or "amount" in name for name in layer.state_dict())


def test_the_report_goes_on_while_a_model_is_pruned():
    palettizer, pruner, model = trained(n_bits=2)
    before = palettizer.report()
    assert before["0"]["error"] > 0 and before["3"]["#params"] == 64 * 32 * 36
    palettizer.finalize(inplace=True)
    assert palettizer.report()["0"]["error"] == before["0"]["error"]
    assert pruner.report()["global"]["#params"] == 32 * 27 + 64 * 32 * 36


def test_the_other_order_is_refused_by_name_before_anything_changes():
    model = net()
    pruner_of(model).prepare(inplace=True)
    state = {name: value.clone() for name, value in model.state_dict().items()}
    palettizer = ours.DKMPalettizer(model, dkm.config(ours, n_bits=2))
    with pytest.raises(RuntimeError, match="0, 3: prepared for pruning already. Prepare the palettizer first"):
        palettizer.prepare(inplace=True)
    assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())
    assert [type(layer) for layer in model] == [type(layer) for layer in net()]
    config = ours.DKMPalettizerConfig(module_name_configs={"1": None})  # none of the pruned layers is palettized
    ours.DKMPalettizer(model, config).prepare(inplace=True)


def test_the_pruner_is_not_to_be_finalized_first():
    palettizer, pruner, _ = trained(steps=1, n_bits=2)
    with pytest.raises(RuntimeError, match="first finalize quantizer / palettizer"):
        pruner.finalize(inplace=True)
    palettizer.finalize(inplace=True)
    pruner.finalize(inplace=True)


def test_what_torch_prunes_is_permanent_in_the_end():
    palettizer, model = dkm.prepared(dkm.mlp(), n_bits=2)
    model(torch.randn(2, 16)).sum().backward()  # seeded without zeros
    prune.l1_unstructured(model[2], "weight", 0.5)
    zeros = model[2].weight_mask == 0
    model(torch.randn(2, 16)).sum().backward()
    assert model[2].weight_orig.grad is not None
    done = palettizer.finalize(inplace=True)
    assert torch.equal(done[2].weight == 0, zeros) and isinstance(done[2].weight, nn.Parameter)
    assert not prune.is_pruned(done) and len(done[2].weight.unique()) == 4


def test_layers_that_one_module_shares_stay_shared():
    shared = nn.Linear(32, 32)
    model = nn.Sequential(shared, nn.Tanh(), shared)
    palettizer, model = dkm.prepared(model, n_bits=2)
    pruner = pruner_of(model)
    pruner.prepare(inplace=True)
    pruner.step()
    model(torch.randn(2, 32)).sum().backward()
    palettizer.finalize(inplace=True)
    done = pruner.finalize(inplace=True)
    assert done[0] is done[2] and type(done[0]) is nn.Linear
