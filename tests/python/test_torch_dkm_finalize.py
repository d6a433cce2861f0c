"""What training leaves: ordinary modules, hard weights, the buffers of a converter, and its compressed operations."""

import copy

import pytest
import torch
from torch import nn
from torch.nn import functional
from torch_support import converted, dkm, layers, palettes, sides
from torch_support.settings import Setting
from torch_support.sides import ours

import judge
from palettizer.torch import load_safetensors, save_safetensors

LUT_DTYPES = {None: "f32", "int8": "i8", "uint8": "u8"}


def options(setting):
    """A setting in the words of differentiable k-means."""
    grouped = {"granularity": "per_grouped_channel", "group_size": setting.group_size} if setting.group_size else {}
    return {"n_bits": setting.n_bits, "cluster_dim": setting.cluster_dim, "enable_per_channel_scale": setting.scale,
            "lut_dtype": LUT_DTYPES[setting.lut_dtype], **grouped}


def trained(setting, steps=2, **more):
    """The palettizer and a model of one layer after some steps."""
    palettizer, model = dkm.prepared(layers.model(setting.kind, setting.dtype), **options(setting), **more)
    optimizer = torch.optim.SGD(model.parameters(), 1e-3)
    for _ in range(steps):
        optimizer.zero_grad()
        model(converted.sample(setting.kind, setting.dtype)).float().square().mean().backward()
        optimizer.step()
        palettizer.step()
    return palettizer, model


FORMS = [{"n_bits": 1}, {"n_bits": 4}, {"group_size": 8, "n_bits": 2}, {"group_size": 1, "n_bits": 2},
         {"cluster_dim": 2}, {"cluster_dim": 4, "n_bits": 3}, {"cluster_dim": 2, "group_size": 16}, {"scale": True},
         {"scale": True, "group_size": 8, "n_bits": 2}, {"lut_dtype": "int8"}, {"lut_dtype": "uint8", "group_size": 8},
         {"lut_dtype": "int8", "cluster_dim": 2}]


@pytest.mark.parametrize("form", FORMS, ids=str)
@pytest.mark.parametrize("kind", layers.KINDS)
def test_every_layer_keeps_the_contract(kind, form):
    setting = Setting(kind=kind, **form)
    palettizer, model = trained(setting)
    done = palettizer.finalize()
    assert not done.training and palettes.palettized(done) == {name for name, *_ in layers.weights(kind, done)}
    assert int(done.state_dict()["_COREML_/metadata_version"]) == 1
    for name, module, parameter in layers.weights(kind, done):
        palettes.check(setting, module, parameter)
        fake = model.get_submodule(name + "_fake_quant").eval()
        assert torch.equal(module.get_parameter(parameter), fake(model.get_parameter(name)))
    for name, module in done.named_modules():
        assert type(module).__module__.startswith(("torch.nn", "transformers")) or name == ""
    sample = converted.sample(kind)
    with torch.no_grad():
        torch.testing.assert_close(done(sample), model.eval()(sample))


@pytest.mark.parametrize("dtype", ["fp16", "bf16"])
@pytest.mark.parametrize("form", [{}, {"scale": True}, {"lut_dtype": "int8"}, {"cluster_dim": 2}], ids=str)
def test_half_precision_layers(form, dtype):
    setting = Setting(kind="linear", dtype=dtype, **form)
    palettizer, _ = trained(setting)
    done = palettizer.finalize()
    palettes.check(setting, done.layer, "weight")
    assert done.layer.weight.dtype == layers.DTYPES[dtype]


def test_double_precision_layers_have_tables_of_single_precision():
    palettizer, model = dkm.prepared(dkm.mlp(dtype=torch.float64), n_bits=2)
    dkm.train(model, dkm.batches(2, dtype=torch.float64), palettizer=palettizer)
    done = palettizer.finalize()
    weight, lut = done[0].weight, palettes.buffers(done[0], "weight")["lut"]
    assert weight.dtype == lut.dtype == torch.float64
    assert set(weight.unique().tolist()) <= set(lut.flatten().tolist()) and torch.equal(weight, weight.float().double())


@pytest.mark.parametrize("bias", [True, False])
def test_norms(bias):
    """The peer fails here with a bias."""
    palettizer, model = dkm.prepared(nn.Sequential(nn.LayerNorm(48, bias=bias)), n_bits=2)
    with torch.no_grad():
        model[0].weight.normal_()
    functional.mse_loss(model(torch.randn(4, 48)), torch.zeros(4, 48)).backward()
    done = palettizer.finalize()
    assert type(done[0]) is nn.LayerNorm and (done[0].bias is not None) == bias
    assert len(done[0].weight.unique()) == 4 and palettes.buffers(done[0], "weight")["lut"].shape == (1, 4, 1)


@pytest.mark.parametrize("names", [{}, {"head": None}], ids=str)
def test_tied_weights_stay_tied(names):
    net = nn.Sequential()
    net.words, net.head = nn.Embedding(64, 16), nn.Linear(16, 64)
    net.head.weight = net.words.weight
    config = ours.DKMPalettizerConfig.from_dict({"global_config": {"weight_threshold": 0, "n_bits": 2},
                                                 "module_name_configs": names})
    palettizer = ours.DKMPalettizer(net, config)
    model = palettizer.prepare(inplace=True)
    model.head(model.words(torch.arange(64))).sum().backward()
    done = palettizer.finalize()
    assert done.head.weight is done.words.weight and len(done.head.weight.unique()) == 4
    assert palettes.palettized(done) == {"head.weight", "words.weight"}
    assert type(done.head) is nn.Linear and type(done.words) is nn.Embedding
    assert torch.equal(*(palettes.buffers(layer, "weight")["lut"] for layer in (done.head, done.words)))


@pytest.mark.parametrize("permute", [(1, 0, 2, 3), (2, 3, 0, 1), (3, 0, 1, 2)])
@pytest.mark.parametrize("form", [
    {}, {"cluster_dim": 2}, {"granularity": "per_grouped_channel", "group_size": 2}, {"enable_per_channel_scale": True},
    {"lut_dtype": "u8", "enable_per_channel_scale": True},
], ids=str)
def test_what_was_permuted_is_turned_back(form, permute):
    """As an equal weight that lies so without a permutation."""
    torch.manual_seed(0)
    weight = torch.randn(4, 6, 8, 10)
    found = []
    for values, order in ((weight, permute), (weight.permute(permute), None)):
        net = nn.Sequential(nn.Conv2d(values.shape[1], values.shape[0], values.shape[2:], bias=False))
        net[0].weight.data = values.contiguous()
        palettizer, model = dkm.prepared(net, n_bits=2, cluster_permute=order, **form)
        model[0].weight_fake_quant(model[0].weight)
        done = palettizer.finalize()[0]
        found.append((done.weight.detach(), palettes.buffers(done, "weight")))
    (mine, carried), (straight, expected) = found
    assert torch.equal(mine.permute(permute), straight)
    assert carried.keys() == expected.keys()
    for name, value in carried.items():
        if name == "vector_axis":
            assert int(value) == permute[int(expected[name])]
        elif value.dim() > 1:
            ends = range(4, value.dim())
            assert torch.equal(value.permute(*permute, *ends), expected[name]), name
        else:
            assert torch.equal(value, expected[name]), name


def test_what_has_not_reached_its_milestone_stays_as_it_is():
    by = {"n_bits": 1, "weight_threshold": 0}
    palettizer = ours.DKMPalettizer(dkm.mlp(), ours.DKMPalettizerConfig.from_dict({
        "module_name_configs": {"0": by, "2": {**by, "milestone": 2}, "4": {**by, "milestone": 9}}}))
    model = palettizer.prepare()
    dkm.train(model, dkm.batches(4), palettizer=palettizer)
    done = palettizer.finalize()
    assert palettes.palettized(done) == {"0.weight", "2.weight"}
    assert torch.equal(done[4].weight, model[4].weight) and type(done[4]) is nn.Linear
    assert palettizer.report()["4"]["reason"] == "is palettized from milestone 9 on"


def test_without_training_the_tables_are_those_of_post_training():
    net = dkm.mlp()
    palettizer, _ = dkm.prepared(net, n_bits=3)
    done, expected = palettizer.finalize(), sides.post_training(ours, net, n_bits=3)
    for index in (0, 2, 4):
        torch.testing.assert_close(done[index].weight, expected[index].weight, rtol=1e-5, atol=1e-6)


def test_finalizing_a_copy_leaves_the_model_in_training():
    palettizer, model = dkm.prepared(dkm.mlp(), n_bits=2)
    steps = dkm.batches(4)
    dkm.train(model, steps[:2], palettizer=palettizer)
    twin = copy.deepcopy(model)
    done = palettizer.finalize()
    assert model.training and not done.training
    assert dkm.train(model, steps[2:], palettizer=palettizer) == dkm.train(twin, steps[2:])
    again = palettizer.finalize(inplace=True)
    assert again is model and type(model[0]) is nn.Linear
    assert not torch.equal(again[0].weight, done[0].weight)
    report = palettizer.report()
    assert report["0"]["error"] > 0 and report["0"]["reason"] == ""


def test_the_report_of_the_finalized_model_is_that_from_before():
    palettizer, model = dkm.prepared(dkm.mlp(), n_bits=2)
    dkm.train(model, dkm.batches(2), palettizer=palettizer)
    before, weight = palettizer.report(), model[0].weight.detach().clone()
    palettizer.finalize(inplace=True)
    assert dict(palettizer.report()) == dict(before)
    error = functional.mse_loss(model[0].weight.double(), weight.double()).sqrt().item()
    assert before["0"]["error"] == pytest.approx(error, rel=1e-4)


def test_another_model_may_be_finalized():
    palettizer, model = dkm.prepared(dkm.mlp(), n_bits=2)
    dkm.train(model, dkm.batches(2))
    average = copy.deepcopy(model)
    with torch.no_grad():
        for parameter in average.parameters():
            parameter.mul_(0.5)
    done = palettizer.finalize(average, inplace=True)
    assert done is average and type(model[0]).__name__ == "DKMLinear"
    assert len(done[0].weight.unique()) <= 4


def test_nothing_changes_where_one_weight_cannot_be_finalized():
    palettizer, model = dkm.prepared(dkm.mlp(), n_bits=2)
    dkm.train(model, dkm.batches(1))
    with torch.no_grad():
        model[4].weight[0, 0] = torch.nan
    before = copy.deepcopy(model.state_dict())
    with pytest.raises(ValueError, match="NaN or infinite values in 4.weight"):
        palettizer.finalize(inplace=True)
    assert model.training and type(model[0]).__name__ == "DKMLinear"
    for name, value in model.state_dict().items():
        torch.testing.assert_close(value, before[name], rtol=0, atol=0, equal_nan=True)


def test_the_finalized_model_is_stored_compactly(tmp_path):
    palettizer, model = trained(Setting(kind="linear"))
    done = palettizer.finalize()
    save_safetensors(done, tmp_path / "small.safetensors")
    again = layers.model("linear")
    load_safetensors(again, tmp_path / "small.safetensors")
    assert torch.equal(again.layer.weight, done.layer.weight)
    assert palettes.palettized(again) == {"layer.weight"}


def test_pruned_zeros_stay_zero():
    net = nn.Sequential(nn.Linear(32, 32))
    with torch.no_grad():
        net[0].weight[torch.rand(32, 32) < 0.5] = 0
    zeros = net[0].weight == 0
    palettizer, model = dkm.prepared(net, n_bits=2, enforce_zero=True, prune_threshold=0.0)
    model[0].weight_fake_quant(model[0].weight)
    assert (palettizer.finalize()[0].weight[zeros] == 0).all()


WAYS = {"linear": "traced", "conv2d": "exported", "embedding": "traced", "conv1d": "exported", "conv3d": "traced",
        "conv_transpose1d": "exported", "conv_transpose2d": "traced", "conv_transpose3d": "exported",
        "attention": "exported", "attention-apart": "exported", "gpt2-conv1d": "exported", "rnn": "traced",
        "rnn-cell": "traced"}
CONVERTED = [(Setting(kind=kind, n_bits=2), how) for kind, how in WAYS.items()]
CONVERTED += [(Setting(kind=kind, n_bits=2, **form), WAYS[kind]) for kind in ("linear", "conv2d", "conv_transpose2d")
              for form in ({"group_size": 8}, {"cluster_dim": 2}, {"scale": True}, {"lut_dtype": "int8"},
                           {"lut_dtype": "uint8", "group_size": 8})]


@pytest.mark.parametrize("setting, how", CONVERTED, ids=str)
def test_the_converter_writes_compressed_operations(setting, how, tmp_path):
    palettizer, _ = trained(setting)
    done = palettizer.finalize()
    package = converted.convert(done, converted.sample(setting.kind), "iOS18", how, tmp_path / "m.mlpackage")
    variables = converted.palettized(package)
    assert variables.keys() == {name.replace(".", "_") for name, *_ in layers.weights(setting.kind, done)}
    for name, module, parameter in layers.weights(setting.kind, done):
        var = variables[name.replace(".", "_")]
        assert torch.equal(torch.from_numpy(judge.value(var)), module.get_parameter(parameter).detach())
        assert judge.table(var)[0] == 2 and judge.chain(var)[0] == "lut_to_dense"


@pytest.mark.parametrize("form", [{"lut_dtype": "int8"}, {"lut_dtype": "uint8", "group_size": 8}], ids=str)
def test_an_integer_table_with_a_scale_is_folded_as_in_post_training(form, tmp_path):
    setting = Setting(kind="linear", scale=True, **form)
    palettizer, _ = trained(setting)
    done = palettizer.finalize()
    palettes.check(setting, done.layer, "weight")
    package = converted.convert(done, converted.sample("linear"), "iOS18", "traced", tmp_path / "m.mlpackage")
    ((_, var),) = converted.palettized(package).items()
    assert torch.equal(torch.from_numpy(judge.value(var)), done.layer.weight.detach())


@pytest.mark.parametrize("name, dtype", [("f16", torch.float16), ("bf16", torch.bfloat16)])
def test_tables_of_halves_have_entries_that_are_halves(name, dtype):
    palettizer, model = dkm.prepared(dkm.mlp(), n_bits=2, lut_dtype=name)
    dkm.train(model, dkm.batches(2))
    weight = palettizer.finalize()[0].weight
    assert torch.equal(weight.to(dtype).float(), weight) and len(weight.unique()) == 4
