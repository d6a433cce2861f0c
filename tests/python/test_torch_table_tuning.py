"""Tables trained with fixed indices: gradients, what stays as it is, what converters and files make of it, and errors."""

import copy

import numpy as np
import pytest
import torch
import torch.multiprocessing as mp
from torch import nn
from torch.func import functional_call
from torch_support import converted, palettes

import judge

from palettizer.torch.palettization import (
    DKMPalettizer,
    DKMPalettizerConfig,
    LayerwisePalettizer,
    LayerwisePalettizerConfig,
    PostTrainingPalettizer,
    PostTrainingPalettizerConfig,
    load_safetensors,
    save_safetensors,
    tune_tables,
)
from palettizer.torch.palettization._plan import metadata
from palettizer.torch.palettization._tuning.layout import bucket_sums, masked_sums
from palettizer.torch.palettization._tuning.parameters import Trained

GROUPS = {"granularity": "per_grouped_channel", "group_size": 4}
LAYOUTS = {
    "per tensor": {"n_bits": 3},
    "1 bit": {"n_bits": 1},
    "6 bits": {"n_bits": 6},
    "8 bits": {"n_bits": 8},
    "groups": GROUPS,
    "per channel": {**GROUPS, "group_size": 1, "n_bits": 2},
    "input groups": {**GROUPS, "channel_axis": 1},
    "scale": {**GROUPS, "enable_per_channel_scale": True},
    "input groups, scale": {**GROUPS, "channel_axis": 1, "enable_per_channel_scale": True, "n_bits": 2},
    "vectors": {"cluster_dim": 2, "n_bits": 2},
    "vectors in groups": {"cluster_dim": 2, "n_bits": 2, **GROUPS},
    "input vectors": {"cluster_dim": 4, "channel_axis": 1, "n_bits": 2, **GROUPS},
    "int8": {"lut_dtype": "int8"},
    "uint8, groups": {"lut_dtype": "uint8", **GROUPS},
    "int8, scale": {"lut_dtype": "int8", "enable_per_channel_scale": True, **GROUPS},
}
LAYERS = {
    "linear": (lambda: nn.Linear(8, 12), (5, 8)),
    "conv": (lambda: nn.Conv2d(8, 12, 3), (2, 8, 5, 5)),
    "transposed": (lambda: nn.ConvTranspose1d(8, 12, 3), (2, 8, 5)),
}


def palettize(model, **settings):
    config = PostTrainingPalettizerConfig.from_dict({"global_config": settings})
    return PostTrainingPalettizer(model, config).compress(progress=False)


def explicit(weight, record):
    """Table entries and scales as leaves, and the weight gathered from them; indices found by comparing all."""
    lut, rank = record["lut"].double(), weight.dim()
    scale = record.get("palettization_scale", torch.ones([1] * rank)).double()
    *groups, entries, dim = lut.shape
    at = torch.from_numpy(np.indices(weight.shape))
    blocks = [at[a] // (size // count) for a, (size, count) in enumerate(zip(weight.shape, groups))]
    element = at[int(record["vector_axis"])] % dim if dim > 1 else torch.zeros(weight.shape, dtype=torch.long)
    channel = [at[a] // (size // count) for a, (size, count) in enumerate(zip(weight.shape, scale.shape))]
    candidates = lut[tuple(blocks)].gather(-1, element[..., None, None].expand(*weight.shape, entries, 1)).squeeze(-1)
    same = (candidates * scale[tuple(channel)].unsqueeze(-1)).float() == weight.float().unsqueeze(-1)
    if dim > 1:
        axis = int(record["vector_axis"])
        same = same.unflatten(axis, (-1, dim)).all(axis + 1).repeat_interleave(dim, axis)
    assert same.any(-1).all()
    index = same.double().argmax(-1)
    lut, scale = lut.requires_grad_(), scale.requires_grad_()
    return lut, scale, lut[(*blocks, index, element)] * scale[tuple(channel)]


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("layer", LAYERS)
def test_gradients_of_tables_are_those_of_a_gather(layer, layout):
    torch.manual_seed(0)
    make, shape = LAYERS[layer]
    model = palettize(make(), **LAYOUTS[layout]).double()
    record, x = palettes.buffers(model, "weight"), torch.randn(shape, dtype=torch.float64)
    lut, scale, gathered = explicit(model.weight.detach(), record)
    functional_call(model, {"weight": gathered}, (x,)).pow(3).sum().backward()

    trained = Trained(model, model, norms=False, biases=True, scales=True)
    with trained.gradients(model):
        model(x).pow(3).sum().backward()
        assert model.weight.grad is None
    tables, bias = trained.tables[0], trained.plain[0]
    wanted = lut.grad.reshape(tables.before.shape) * tables.unit
    # A change is of 32 bits, and so is its gradient.
    assert torch.allclose(tables.change.grad.double(), wanted, rtol=1e-6, atol=1e-6 * float(wanted.abs().max()))
    if "palettization_scale" in record:
        assert torch.allclose(tables.scale_change.grad.double(), scale.grad * scale.detach() * tables.scale_unit, rtol=1e-5)
    else:
        assert tables.scale_change is None
    assert torch.allclose(bias.change.grad, model.bias.grad, rtol=1e-9)


@pytest.mark.parametrize("dim", [1, 3])
def test_sums_by_index_are_the_same_by_masks(dim):
    torch.manual_seed(0)
    indices, values = torch.randint(0, 5, (4, 50), dtype=torch.uint8), torch.randn(4, 50, dim)
    naive = torch.zeros(4, 8, dim, dtype=torch.float64)
    for table in range(4):
        for position in range(50):
            naive[table, int(indices[table, position])] += values[table, position].double()
    assert torch.allclose(bucket_sums(values, indices, 8), naive, rtol=1e-12)
    assert torch.allclose(masked_sums(values, indices, 8), naive, rtol=1e-12)


@pytest.mark.parametrize("layout", ["per tensor", "groups", "vectors in groups", "scale"])
def test_large_weights_are_done_in_pieces(layout, monkeypatch):
    torch.manual_seed(0)
    model, data = palettize(nn.Linear(16, 20), **LAYOUTS[layout]), [torch.randn(8, 16)]
    loss = lambda model, x: (model(x) - 1).square().mean()
    whole = tune_tables(model, data, loss, steps=3, progress=False)
    monkeypatch.setattr("palettizer.torch.palettization._tuning.layout._CHUNK", 24)
    parts = tune_tables(model, data, loss, steps=3, progress=False)
    assert torch.allclose(whole.weight, parts.weight, atol=1e-6) and not torch.equal(whole.weight, model.weight)


class Net(nn.Module):
    """A tied weight, packed attention, norms of two kinds, convolutions, and a layer that is not palettized."""

    def __init__(self):
        super().__init__()
        self.embed, self.head = nn.Embedding(32, 16), nn.Linear(16, 32)
        self.head.weight = self.embed.weight
        self.attention, self.norm = nn.MultiheadAttention(16, 2, batch_first=True), nn.LayerNorm(16)
        self.conv, self.batch_norm = nn.Conv1d(16, 16, 3, padding=1), nn.BatchNorm1d(16)
        self.drop, self.left = nn.Dropout(0.5), nn.Linear(16, 16)

    def forward(self, tokens):
        x = self.embed(tokens)
        x = self.norm(x + self.attention(x, x, x, need_weights=False)[0])
        x = x + self.batch_norm(self.conv(x.mT)).mT
        return self.head(self.drop(x + self.left(x)))


def net(seed=0, **settings):
    torch.manual_seed(seed)
    original = Net()
    nn.init.normal_(original.embed.weight, std=0.3)
    config = {"global_config": {"n_bits": 2, **settings}, "module_name_configs": {"left": None}}
    model = PostTrainingPalettizer(original, PostTrainingPalettizerConfig.from_dict(config)).compress(progress=False)
    return original, model


def batches(count=4):
    generator = torch.Generator().manual_seed(1)
    return [torch.randint(0, 32, (8, 6), generator=generator) for _ in range(count)]


def tuned(original, model, **arguments):
    losses = []
    arguments = {"steps": 12, "reference": original, "losses": losses, "progress": False, **arguments}
    return tune_tables(model, batches(), **arguments), losses


def values(model):
    return {name: value.clone() for name, value in model.state_dict().items()}


def equal(one, other):
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16, torch.float64], ids=str)
@pytest.mark.parametrize("layout", ["groups", "scale", "input vectors", "int8", "uint8, groups", "int8, scale"])
def test_the_loss_falls_and_the_model_stays_palettized(layout, dtype, tmp_path):
    torch.manual_seed(0)
    original = Net().to(dtype)
    nn.init.normal_(original.embed.weight, std=0.3)
    model = palettize(original, **{**LAYOUTS[layout], "n_bits": 2})
    before = values(model)
    result, losses = tuned(original, model)
    assert len(losses) == 12 and sum(losses[-4:]) < sum(losses[:4])
    assert equal(before, values(model)), "the model was to be left alone"
    assert palettes.palettized(result) == palettes.palettized(model)
    for name in palettes.palettized(result):
        module, parameter = result.get_submodule(name.rpartition(".")[0]), name.rpartition(".")[2]
        record, weight = palettes.buffers(module, parameter), module.get_parameter(parameter)
        assert weight.dtype == record["lut"].dtype == dtype
        assert not torch.equal(weight, before[name])
        if layout == "groups" and dtype == torch.float32:
            assert len(weight.unique()) == len(before[name].unique())
        if "quantization_scale" in record:
            integers = record["lut"].double() / record["quantization_scale"].double()
            assert (integers - integers.round()).abs().max() < 127 * torch.finfo(dtype).eps and integers.abs().max() < 127.5
    assert result.head.weight is result.embed.weight
    # A file finds each value of a weight among its table's entries, bit for bit.
    save_safetensors(result, tmp_path / "tuned.safetensors")
    again = copy.deepcopy(original)
    load_safetensors(again, tmp_path / "tuned.safetensors")
    assert equal(values(again), values(result))


def test_only_what_is_asked_for_is_trained():
    original, model = net()
    result, _ = tuned(original, model, tune_norms=False, tune_biases=False)
    palettized = palettes.palettized(model) | {"head.weight"}
    changed = {name for name, p in result.named_parameters(remove_duplicate=False)
               if not torch.equal(p, model.get_parameter(name))}
    assert changed == palettized
    result, _ = tuned(original, model, tune_biases=False)
    changed = {name for name, p in result.named_parameters() if not torch.equal(p, model.get_parameter(name))}
    assert {"norm.weight", "norm.bias", "batch_norm.weight", "batch_norm.bias"} <= changed
    assert not {"head.bias", "left.bias", "left.weight"} & changed
    result, _ = tuned(original, model, tune_norms=False)
    changed = {name for name, p in result.named_parameters() if not torch.equal(p, model.get_parameter(name))}
    assert {"head.bias", "left.bias", "attention.in_proj_bias"} <= changed and not any("norm" in name for name in changed)
    original, model = net(**LAYOUTS["scale"])
    for tune_scales in (True, False):
        result, _ = tuned(original, model, tune_scales=tune_scales)
        same = torch.equal(*(palettes.buffers(m.conv, "weight")["palettization_scale"] for m in (result, model)))
        assert same != tune_scales


def test_frozen_weights_stay():
    original, model = net()
    model.conv.weight.requires_grad_(False)
    model.norm.weight.requires_grad_(False)
    result, _ = tuned(original, model)
    assert torch.equal(result.conv.weight, model.conv.weight) and torch.equal(result.norm.weight, model.norm.weight)
    assert not torch.equal(result.embed.weight, model.embed.weight)
    assert not result.conv.weight.requires_grad and result.embed.weight.requires_grad


def test_modes_gradients_and_statistics_are_left():
    original, model = net()
    model.train()
    model.conv.eval()
    original.train()
    model.left.weight.grad = torch.ones(16, 16)
    statistics = model.batch_norm.running_mean.clone()
    result, _ = tuned(original, model, inplace=True)
    assert result is model and model.training and not model.conv.training and model.drop.training and original.training
    assert torch.equal(model.left.weight.grad, torch.ones(16, 16)) and model.conv.weight.grad is None
    assert torch.equal(model.batch_norm.running_mean, statistics)
    assert all(p.requires_grad for p in model.parameters())


def test_the_same_tables_each_time_and_with_any_unit_of_the_loss():
    original, model = net(**GROUPS)
    first, again = (tuned(original, model)[0] for _ in range(2))
    assert equal(values(first), values(again))

    def loss(factor):
        return lambda model, data: factor * (model(data) - original.eval()(data).detach()).square().mean()

    one, tiny = (tuned(original, model, reference=None, loss_fn=loss(factor))[0] for factor in (1, 2.0**-20))
    for name, value in values(one).items():
        assert torch.allclose(value.float(), values(tiny)[name].float(), atol=1e-5), name


def test_rates_are_relative_to_the_weights():
    torch.manual_seed(0)
    small = nn.Sequential(nn.Linear(16, 16, bias=False))
    large = copy.deepcopy(small)
    with torch.no_grad():
        large[0].weight *= 1024
    data, results = [torch.randn(8, 16) for _ in range(4)], []
    for original, factor in ((small, 1), (large, 1024)):
        model = palettize(original, n_bits=2)
        loss = lambda m, x, o=original, f=factor: ((m(x) - o(x).detach()) / f).square().mean()
        results.append(tune_tables(model, data, loss, steps=8, progress=False)[0].weight)
    assert torch.allclose(results[0] * 1024, results[1], rtol=1e-5)


def test_deep_models_do_not_leap_at_first():
    torch.manual_seed(0)
    original = nn.Sequential(*[layer for _ in range(8) for layer in (nn.Linear(24, 24), nn.LayerNorm(24), nn.Tanh())])
    model, data = palettize(original, n_bits=2), [torch.randn(32, 24) for _ in range(4)]

    def distance(m):
        with torch.no_grad():
            return sum(float((m(x) - original(x)).square().mean()) for x in data)
    losses = []
    result = tune_tables(model, data, reference=original, distance="mse", steps=32, losses=losses, progress=False)
    assert max(losses[:4]) < 1.2 * losses[0]
    assert distance(result) < 0.85 * distance(model)


def test_steps_go_round_the_data_and_take_several_items():
    seen = []

    def loss(model, data):
        seen.append(int(data[0, 0]))
        return model(data).square().mean()

    model, data = palettize(nn.Linear(4, 4), n_bits=1), [torch.full((2, 4), float(i)) for i in range(3)]
    tune_tables(model, data, loss, steps=4, accumulation_steps=2, progress=False)
    assert seen == [0, 1, 2, 0, 1, 2, 0, 1]
    with pytest.raises(ValueError, match="ended after 3 items and cannot begin anew; pass a list"):
        tune_tables(model, iter(data), loss, steps=4, progress=False)
    with pytest.raises(ValueError, match="the dataloader has no samples"):
        tune_tables(model, [], loss, progress=False)


def test_accumulated_steps_are_those_of_a_batch():
    torch.manual_seed(0)
    model, data = palettize(nn.Linear(8, 8), n_bits=2), torch.randn(4, 8)
    loss = lambda model, x: model(x).square().sum(1).mean()
    at_once = tune_tables(model, [data], loss, steps=3, progress=False)
    in_turn = tune_tables(model, list(data[:, None]), loss, steps=3, accumulation_steps=4, progress=False)
    assert torch.allclose(at_once.weight, in_turn.weight, atol=1e-6)


def test_entries_that_mean_pruned_stay_zero():
    torch.manual_seed(0)
    model = nn.Linear(16, 16)
    with torch.no_grad():
        model.weight.copy_(torch.randint(0, 4, (16, 16)))
    model.register_buffer(metadata.buffer_name(model, "weight", "compression_type"), torch.tensor([metadata.PRUNING]))
    model = palettize(model, n_bits=2)
    zeros, data = model.weight == 0, [torch.randn(8, 16)]
    assert zeros.any()
    result = tune_tables(model, data, lambda m, x: (m(x) - x).square().mean(), steps=5, progress=False)
    assert torch.equal(result.weight == 0, zeros) and not torch.equal(result.weight, model.weight)


def test_an_integer_grid_grows_for_entries_beyond_it():
    torch.manual_seed(0)
    model, data = palettize(nn.Linear(16, 16), n_bits=2, lut_dtype="int8"), [torch.randn(32, 16)]
    wanted = 3 * model.weight.detach()
    result = tune_tables(model, data, lambda m, x: (m(x) - x @ wanted.T).square().mean(), 64, learning_rate=0.4, progress=False)
    assert result.weight.abs().max() > 1.5 * model.weight.abs().max()
    before, after = (palettes.buffers(m, "weight")["quantization_scale"] for m in (model, result))
    assert after > 1.5 * before
    assert save_and_load(result, nn.Linear(16, 16))


def save_and_load(model, other):
    import os
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "model.safetensors")
        save_safetensors(model, path)
        load_safetensors(other, path)
    return equal(values(model), values(other))


def test_a_model_that_was_trained_by_dkm():
    torch.manual_seed(0)
    original = nn.Sequential(nn.Linear(16, 32), nn.ReLU(), nn.Linear(32, 8))
    config = DKMPalettizerConfig.from_dict({"global_config": {"n_bits": 2, "cluster_dim": 2, "weight_threshold": 0}})
    palettizer = DKMPalettizer(copy.deepcopy(original), config)
    prepared = palettizer.prepare()
    prepared(torch.randn(4, 16))
    palettizer.step()
    prepared(torch.randn(4, 16))
    model, losses = palettizer.finalize(), []
    assert palettes.palettized(model)
    data = [torch.randn(16, 16) for _ in range(4)]
    result = tune_tables(model, data, reference=original, distance="mse", steps=16, losses=losses, progress=False)
    assert losses[-1] < losses[0] and save_and_load(result, copy.deepcopy(original))


def test_a_model_that_was_fitted_to_what_its_layers_compute():
    torch.manual_seed(0)
    original, data, losses = nn.Sequential(nn.Linear(16, 32), nn.ReLU(), nn.Linear(32, 8)), [torch.randn(16, 16) for _ in range(4)], []
    config = LayerwisePalettizerConfig.from_dict({"global_config": {"n_bits": 2, **GROUPS, "enable_per_channel_scale": True}})
    model = LayerwisePalettizer(original, config).compress(data, progress=False)
    result = tune_tables(model, data, reference=original, distance="mse", steps=32, losses=losses, progress=False)
    assert losses[-1] < losses[0] and save_and_load(result, copy.deepcopy(original))


@pytest.mark.parametrize("layer", [nn.LSTM, nn.GRU])
def test_recurrent_layers(layer):
    torch.manual_seed(0)
    original = layer(8, 16, 2, dropout=0.5)
    model, losses = palettize(original, n_bits=2), []
    data = [torch.randn(5, 3, 8) for _ in range(3)]
    result = tune_tables(model, data, reference=original, distance="mse", steps=12, losses=losses, progress=False)
    assert losses[-1] < losses[0] and result.dropout == 0.5 and result.training
    assert save_and_load(result, copy.deepcopy(original))


@pytest.mark.parametrize("layout", ["groups", "scale", "int8"])
def test_a_tuned_model_converts_with_its_weights(layout, tmp_path):
    original, model = net(**{**LAYOUTS[layout], "n_bits": 2})
    result = tuned(original, model)[0].eval()
    package = converted.convert(result, batches(1)[0].int(), "iOS18", "exported", tmp_path / "tuned.mlpackage")
    found = [judge.value(var) for var in converted.palettized(package).values()]
    for weight in (result.conv.weight, result.attention.in_proj_weight, result.embed.weight):
        weight = weight.detach().numpy()
        assert any(value.size == weight.size and np.array_equal(value.reshape(weight.shape), weight) for value in found)


def test_what_padding_computes_does_not_count():
    class Logits(nn.Linear):
        def forward(self, input_ids, attention_mask):
            return {"aside": None, "logits": super().forward(input_ids)}

    torch.manual_seed(0)
    original, results = Logits(4, 8), []
    model = palettize(original, n_bits=1)
    mask, x = torch.tensor([[1, 1, 0], [1, 0, 0]]), torch.randn(2, 3, 4)
    for rest in (0.0, 100.0):
        data = {"input_ids": torch.where(mask[..., None] == 1, x, torch.tensor(rest)), "attention_mask": mask}
        results.append(tune_tables(model, [data], reference=original, steps=3, progress=False))
    assert torch.equal(results[0].weight, results[1].weight) and not torch.equal(results[0].weight, model.weight)


@pytest.mark.parametrize("error", [KeyboardInterrupt, RuntimeError])
def test_whatever_ends_it_the_model_is_as_it_was(error):
    original, model = net(**LAYOUTS["scale"])
    before, count = values(model), 0

    def loss(model, data):
        nonlocal count
        count += 1
        if count == 4:
            raise error
        return (model(data) - original(data).detach()).square().mean()

    with pytest.raises(error):
        tune_tables(model, batches(), loss, inplace=True, progress=False)
    assert equal(before, values(model)) and model.training and all(p.grad is None for p in model.parameters())
    assert not any(p._post_accumulate_grad_hooks for p in model.parameters())


def test_a_loss_that_is_no_number():
    original, model = net()
    before, count = values(model), 0

    def loss(model, data):
        nonlocal count
        count += 1
        return (model(data) - original(data).detach()).square().mean() * (float("nan") if count == 3 else 1)

    with pytest.raises(ValueError, match="the loss of step 3 is nan; the model is as it was"):
        tune_tables(model, batches(), loss, inplace=True, progress=False)
    assert equal(before, values(model))
    root = lambda model, data: (model(data) - model(data)).square().sum().sqrt()
    with pytest.raises(ValueError, match="a gradient of step 1 is NaN or infinite; the model is as it was"):
        tune_tables(model, batches(), root, inplace=True, progress=False)
    assert equal(before, values(model))


def test_half_precision_loses_neither_small_gradients_nor_large_ones():
    torch.manual_seed(0)
    original, data, results = nn.Linear(16, 16), [torch.randn(8, 16) for _ in range(4)], []
    model = palettize(original, **GROUPS, n_bits=1)
    far = lambda one: sum(float((one.float()(x) - original(x)).square().mean()) for x in data)
    for dtype, factor in ((torch.float32, 1), (torch.float16, 1e-6), (torch.float16, 1e4)):
        wanted = copy.deepcopy(original).to(dtype)
        loss = lambda m, x, w=wanted, f=factor: (m(x.to(w.bias.dtype)) - w(x.to(w.bias.dtype)).detach()).float().square().mean() * f
        results.append(far(tune_tables(copy.deepcopy(model).to(dtype), data, loss, steps=48, learning_rate=0.2, norm_learning_rate=2e-3, progress=False)))
    single, small, large = (far(model) - result for result in results)
    assert single > 0.01 and small == pytest.approx(single, rel=0.2) and large == pytest.approx(single, rel=0.2)


ERRORS = {
    "nothing": (TypeError, "needs loss_fn, or reference .the float model.; found neither", {"loss_fn": None}),
    "both": (TypeError, "found both", {"reference": nn.Linear(4, 4)}),
    "data": (TypeError, "dataloader must be iterable, found int", {"dataloader": 3}),
    "function": (TypeError, "loss_fn must be a function of the model and a sample, found int", {"loss_fn": 3}),
    "reference": (TypeError, "reference must be a torch.nn.Module, found int", {"loss_fn": None, "reference": 3}),
    "forward": (TypeError, "forward_fn must be a function of the model and an item, found int", {"forward_fn": 3}),
    "model": (TypeError, "model must be a torch.nn.Module, found int", {"model": 3}),
    "float model": (ValueError, "no weight of the model is palettized; palettize it first", {"model": nn.Linear(4, 4)}),
    "distance": (ValueError, 'distance is .l1.; allowed: "kl" and "mse"', {"distance": "l1"}),
    "steps": (ValueError, "steps is 0; expected at least 1", {"steps": 0}),
    "steps of a kind": (TypeError, "steps must be int, found 2.5", {"steps": 2.5}),
    "rate": (ValueError, "learning_rate is -1; expected zero or more", {"learning_rate": -1}),
    "rate, NaN": (ValueError, "norm_learning_rate is nan", {"norm_learning_rate": float("nan")}),
    "loss": (TypeError, "must return a scalar tensor, found float", {"loss_fn": lambda model, data: 1.0}),
    "vector": (ValueError, "found one of shape .2, 4.", {"loss_fn": lambda model, data: model(data)}),
    "apart": (ValueError, "the loss depends on no table", {"loss_fn": lambda model, data: model(data).detach().sum()}),
}


@pytest.mark.parametrize("case", ERRORS)
def test_errors(case):
    error, text, changed = ERRORS[case]
    arguments = {"model": palettize(nn.Linear(4, 4), n_bits=1), "dataloader": [torch.ones(2, 4)],
                 "loss_fn": lambda model, data: model(data).sum(), "progress": False, **changed}  # fmt: skip
    with pytest.raises(error, match=text):
        tune_tables(**arguments)


def test_models_that_cannot_be_tuned():
    model, data = palettize(nn.Linear(4, 4), n_bits=1), [torch.ones(2, 4)]
    with pytest.raises(ValueError, match="reference is the model itself"):
        tune_tables(model, data, reference=model)
    with pytest.raises(ValueError, match=r"outputs of shape \(2, 3\), the model of \(2, 4\)"):
        tune_tables(model, data, reference=nn.Linear(4, 3), progress=False)
    with pytest.raises(ValueError, match="no palettized weight requires a gradient; call requires_grad_"):
        tune_tables(copy.deepcopy(model).requires_grad_(False), data, reference=nn.Linear(4, 4))
    with torch.no_grad():
        model.weight[1, 2] += 1
    with pytest.raises(ValueError, match=r"weight is not what its lookup table says: .* at \[1, 2\] .* Palettize it again"):
        tune_tables(model, data, reference=nn.Linear(4, 4), progress=False)


def _rank(rank, folder):
    torch.distributed.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=2)
    torch.set_num_threads(1)
    original, model = net(**GROUPS)
    result, losses = tuned(original, model, steps=3)
    torch.save((values(result), losses), f"{folder}/{rank}")
    with pytest.raises(ValueError, match="give model.module"):
        tuned(original, nn.parallel.DistributedDataParallel(model))
    torch.distributed.destroy_process_group()


def test_processes_share_the_samples(tmp_path):
    mp.start_processes(_rank, (str(tmp_path),), nprocs=2, start_method="spawn")
    (first, losses), (second, _) = (torch.load(tmp_path / str(rank)) for rank in range(2))
    assert equal(first, second)
    original, model = net(**GROUPS)
    alone, same = tuned(original, model, steps=3, accumulation_steps=2)
    assert np.allclose(losses, same, rtol=1e-5)
    assert all(torch.allclose(value, values(alone)[name], atol=1e-5) for name, value in first.items())
