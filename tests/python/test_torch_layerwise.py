"""Palettes fitted to outputs: what the report says is what the layers do, whatever the layer and the setting."""

import copy
import math

import pairwise
import pytest
import torch
from torch import nn
from torch_support import converted, layers, palettes, settings

import judge
from palettizer.torch.palettization import (
    LayerwisePalettizer,
    LayerwisePalettizerConfig,
    ModuleLayerwisePalettizerConfig,
    PostTrainingPalettizer,
    PostTrainingPalettizerConfig,
    load_safetensors,
    save_safetensors,
)
from palettizer.torch.palettization._layerwise import fitting

FITTED = ("linear", "conv1d", "conv2d", "conv2d-grouped", "conv3d", "conv_transpose1d", "conv_transpose2d",
          "conv_transpose3d", "attention", "attention-apart", "gpt2-conv1d")  # fmt: skip
FACTORS = {**settings.FACTORS, "guided": (0, 1, 3), "algorithm": ("lnq", "gptq"), "rounds": (0, 1, 3), "damping": (None, 1e-4)}


def items(kind, dtype="fp32", count=3):
    if kind.startswith("embedding"):
        return [torch.arange(start, start + 12).reshape(2, 6) % 40 for start in range(count)]
    shape = layers.KINDS[kind].input_shape
    return [layers.values(f"item {index} {kind}", (4 * shape[0], *shape[1:])).to(layers.DTYPES[dtype]) for index in range(count)]


def loss(model, item):
    return model(item).float().square().sum()


def palettizer(model, guided=0, nsamples=128, containers=None, **options):
    config = LayerwisePalettizerConfig(
        ModuleLayerwisePalettizerConfig(**options), calibration_nsamples=nsamples, guided_groups=max(1, guided),
        **(containers or {}))  # fmt: skip
    return LayerwisePalettizer(model, config)


def compress(model, data, guided=0, loss_fn=None, **options):
    """The palettized copy, and the report."""
    made = palettizer(model, guided, **options)
    return made.compress(data, loss_fn or (loss if guided else None), progress=False), made.report()


@pytest.mark.parametrize("row", pairwise.rows(FACTORS, settings.RULES, {})[0], ids=lambda row: "-".join(map(str, row.values())))
def test_every_kind_and_setting(row):
    """A weight is fitted, and no worse than what the fit starts from; or the report says why not."""
    row = dict(row)
    guided, algorithm, rounds, damping = (row.pop(name) for name in ("guided", "algorithm", "rounds", "damping"))
    setting = settings.Setting(**row)
    model = layers.model(setting.kind, setting.dtype)
    data = items(setting.kind, setting.dtype)
    done, report = compress(model, data, guided, algorithm=algorithm, rounds=rounds, damping=damping, **setting.options)
    inward = setting.channel_axis == 1 and setting.group_size is not None
    fits = setting.kind in FITTED and not setting.cluster_dim and not inward
    for name, module, parameter in layers.weights(setting.kind, done):
        line = report[name]
        assert line["reason"] == "" and f"num_clusters={2**setting.n_bits}" in line["palettization_mode"]
        assert (line["fallback"] == "") == fits, line
        if fits:
            # Tables of integers are rounded last, and the k-means that the fit starts from is not.
            assert line["output_snr"] >= line["output_snr_start"] - 0.05 or setting.lut_dtype
        elif setting.kind in FITTED:
            assert "layer-wise fitting needs" in line["fallback"]
        else:
            assert "embedding" in line["fallback"] or "was seen to use it" in line["fallback"]
        assert palettes.buffers(module, parameter).keys() >= {"lut", "compression_type"}
        assert not torch.equal(module.get_parameter(parameter), model.get_parameter(name))


@pytest.mark.parametrize("n_bits", [2, 3, 4])
@pytest.mark.parametrize("kind", FITTED[:8])
def test_the_reported_ratio_is_that_of_the_outputs(kind, n_bits):
    """On the samples themselves, with next to no damping."""
    model, data = layers.model(kind), items(kind)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(parameter.dim() > 1)  # no biases, which are no part of the energy
    options = {"granularity": "per_grouped_channel", "group_size": 4, "n_bits": n_bits, "damping": 1e-7}
    done, report = compress(model, data, **options)
    plain = PostTrainingPalettizerConfig.from_dict({"global_config": {
        key: value for key, value in options.items() if key != "damping"}})  # fmt: skip
    plain = PostTrainingPalettizer(model, plain).compress(progress=False)
    measured, of_k_means = (ratio(model, other, data) for other in (done, plain))
    assert math.isclose(report["layer.weight"]["output_snr"], measured, abs_tol=0.05)
    assert measured > of_k_means + 1


def ratio(model, other, data):
    """Signal to noise of the outputs in decibels."""
    with torch.no_grad():
        pairs = [(model(item).double(), other(item).double()) for item in data]
    signal, noise = (sum(part.square().sum() for part in parts) for parts in zip(*((a, a - b) for a, b in pairs)))
    return 10 * math.log10(signal / noise)


class Odd(nn.Module):
    """A model with what is seldom thought of."""

    def __init__(self):
        super().__init__()
        self.dead, self.unused, self.zero = nn.Linear(6, 8), nn.Linear(8, 8), nn.Linear(8, 8)
        self.norm, self.tail = nn.BatchNorm1d(8), nn.Linear(8, 1)
        with torch.no_grad():
            self.dead.weight[:4], self.dead.bias[:4] = 0, -1

    def forward(self, x):
        x = self.norm(self.dead(x.abs()).relu())
        return self.tail(x) + self.zero(x * 0).sum(1, keepdim=True)


@pytest.mark.parametrize("guided", [0, 1])
@pytest.mark.parametrize("count", [1, 7])
def test_dead_channels_unused_layers_and_few_samples(guided, count):
    torch.manual_seed(0)
    model = Odd().train()
    data = [torch.randn(1, 6) for _ in range(count)]
    done, report = compress(model, data, guided, n_bits=2, granularity="per_grouped_channel", group_size=1)
    assert "was seen to use it" in report["unused.weight"]["fallback"]
    assert "zero in all samples" in report["zero.weight"]["fallback"]
    assert report["dead.weight"]["fallback"] == report["tail.weight"]["fallback"] == ""
    assert all(torch.isfinite(value).all() for value in done.state_dict().values())
    assert torch.equal(done.dead.weight[:4], torch.zeros(4, 6))


@pytest.mark.parametrize("name", ["MaxPool2d", "AdaptiveMaxPool2d", "FractionalMaxPool2d", "AvgPool2d", "LPPool2d"])
@pytest.mark.parametrize("guided", (0, 1))
def test_layers_around_pooling(name, guided):
    """Pooling takes its way through several functions of torch, some of which call each other in a circle when watched."""
    options = {"AdaptiveMaxPool2d": (4,), "FractionalMaxPool2d": (2, 4), "LPPool2d": (2, 2)}.get(name, (2,))
    model = nn.Sequential(nn.Conv2d(2, 8, 3, padding=1), getattr(nn, name)(*options), nn.Conv2d(8, 8, 3)).eval()
    _, report = compress(model, [torch.randn(2, 2, 8, 8) for _ in range(4)], guided, n_bits=2)
    assert [report[name]["fallback"] for name in ("0.weight", "2.weight")] == ["", ""]


def test_shared_weights_count_all_their_uses():
    class Shared(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b = nn.Linear(6, 6, bias=False), nn.Linear(6, 6, bias=False)
            self.b.weight = self.a.weight

        def forward(self, x):
            return self.b(self.a(x).relu())

    torch.manual_seed(0)
    model, x = Shared(), torch.randn(9, 6)
    found = palettizer(model).compute_statistics([x], progress=False)
    assert list(found) == ["a.weight.second_moments"]
    inner = (x @ model.a.weight.T).relu().detach()
    torch.testing.assert_close(found["a.weight.second_moments"][0, 0], (x.T @ x + inner.T @ inner) / 18)
    done, report = compress(model, [x], n_bits=2)
    assert done.a.weight is done.b.weight and report["b.weight"]["reason"] == "is a.weight"


def test_a_table_of_tokens_that_is_the_head_too_is_fitted_as_the_head():
    model = nn.ModuleDict({"table": nn.Embedding(12, 4), "head": nn.Linear(4, 12, bias=False)})
    model["head"].weight = model["table"].weight
    model.forward = lambda x: model["head"](model["table"](x))
    _, report = compress(model, [torch.arange(8).reshape(2, 4)], n_bits=3)
    assert report["table.weight"]["fallback"] == "" and report["table.weight"]["output_snr"] > 0


def test_rows_of_an_embedding_count_as_often_as_they_are_looked_up():
    torch.manual_seed(0)
    model, data = nn.Sequential(nn.Embedding(64, 16)), [torch.tensor([[1, 1, 2, 63]]), torch.tensor([[1, 5]])]
    with torch.no_grad():
        model[0].weight[[1, 2, 5, 63]] *= 0.1
    made = palettizer(model, n_bits=2)
    frequency = made.compute_statistics(data, progress=False)["0.weight.frequency"]
    assert frequency[[1, 2, 5, 63]].tolist() == [3, 1, 1, 1] and frequency.sum() == 6
    done = made.compress(data, progress=False)
    plain = PostTrainingPalettizer(model, PostTrainingPalettizerConfig.from_dict({"global_config": {"n_bits": 2}}))
    errors = [((other[0].weight - model[0].weight).square().sum(1) * frequency).sum()
              for other in (done, plain.compress(progress=False))]
    assert errors[0] < 0.5 * errors[1]


def test_pruned_weights_keep_their_zeros():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(16, 16))
    with torch.no_grad():
        model[0].weight[model[0].weight.abs() < 0.15] = 0
    model[0].register_buffer("_COREML_/weight/compression_type", torch.tensor([1]))
    done, report = compress(model, [torch.randn(9, 16)], n_bits=4)
    assert "zeros" in report["0.weight"]["fallback"]
    assert torch.equal(done[0].weight == 0, model[0].weight == 0)


def test_a_parameter_that_is_named_is_fitted_where_it_is_used_as_a_linear_layer():
    class Bare(nn.Module):
        def __init__(self):
            super().__init__()
            self.right, self.left = nn.Parameter(torch.randn(6, 8)), nn.Parameter(torch.randn(8, 6))

        def forward(self, x):
            return (x @ self.right.t()) @ self.left.t() + nn.functional.linear(x, self.left.T.contiguous()) @ self.left.t()

    torch.manual_seed(0)
    config = {"module_name_configs": {"right": {"n_bits": 2}, "left": {"n_bits": 2}}}
    made = LayerwisePalettizer(Bare(), LayerwisePalettizerConfig.from_dict(config))
    made.compress([torch.randn(5, 8)], progress=False)
    assert made.report()["right"]["fallback"] == made.report()["left"]["fallback"] == ""

    class Turned(Bare):
        def forward(self, x):
            return x @ self.left

    made = LayerwisePalettizer(Turned(), LayerwisePalettizerConfig.from_dict(config))
    made.compress([torch.randn(5, 8)], progress=False)
    assert "output channels along axis 1, not 0" in made.report()["left"]["fallback"]


def before_and_after(model, run):
    """Runs something that may fail, and checks that the model is as it was."""
    gradients = [p.grad for p in model.parameters()]
    asks = [p.requires_grad for p in model.parameters()]
    modes = [m.training for m in model.modules()]
    state = copy.deepcopy(model.state_dict())
    fast = torch.backends.mha.get_fastpath_enabled()
    run()
    assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())
    assert state.keys() == model.state_dict().keys()
    assert modes == [m.training for m in model.modules()] and asks == [p.requires_grad for p in model.parameters()]
    assert all(mine is theirs for mine, theirs in zip([p.grad for p in model.parameters()], gradients))
    assert torch.backends.mha.get_fastpath_enabled() == fast
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())


def failing(bad):
    """A data loader that breaks off."""
    yield torch.randn(2, 6)
    if bad == "error":
        raise OSError("the disk is gone")
    yield {"nan": torch.full((2, 6), math.nan), "shape": torch.randn(2, 5), "fine": torch.randn(2, 6)}[bad]


@pytest.mark.parametrize("guided", [0, 1])
@pytest.mark.parametrize("bad", ["nan", "error", "shape", "fine"])
def test_the_model_is_as_it_was(bad, guided, tmp_path):
    torch.manual_seed(0)
    model = Odd().train()
    model.norm.eval()
    model.tail.requires_grad_(False)
    model.dead.weight.grad = torch.ones(8, 6)

    def run():
        made = palettizer(model, guided, n_bits=2)
        arguments = {"dataloader": failing(bad), "loss_fn": loss if guided else None, "progress": False}
        path = tmp_path / "s.safetensors"
        if bad == "fine":
            made.compress(**arguments, statistics_path=path)
            assert path.exists()
            return
        with pytest.raises((ValueError, OSError, RuntimeError)) as caught:
            made.compress(**arguments, statistics_path=path, inplace=True)
        assert bad != "nan" or "NaN or infinite" in str(caught.value)
        assert not list(tmp_path.iterdir()) and made.report() == {}

    before_and_after(model, run)


def test_a_failed_fit_leaves_the_model_untouched(monkeypatch):
    from palettizer.torch.palettization import layerwise_palettization as module

    model, fitted, made = Odd(), module.fitted, []

    def failing(*arguments):
        made.append(arguments)
        if len(made) == 3:
            raise MemoryError("no room")
        return fitted(*arguments)

    monkeypatch.setattr(module, "fitted", failing)

    def run():
        with pytest.raises(MemoryError):
            palettizer(model).compress([torch.randn(2, 6)], progress=False, inplace=True)

    before_and_after(model, run)


@pytest.mark.parametrize("data, loss_fn, forward_fn, error, text", [
    (None, None, None, TypeError, "dataloader, or statistics_path"),
    (3, None, None, TypeError, "dataloader must be iterable, found int"),
    ([], None, None, ValueError, "no samples"),
    ([torch.ones(2, 6)], "loss", None, TypeError, "loss_fn must be a function"),
    ([torch.ones(2, 6)], None, 5, TypeError, "forward_fn must be a function"),
    ([torch.ones(2, 6)], loss, loss, TypeError, "either loss_fn or forward_fn"),
    ([torch.ones(2, 6)], lambda m, x: m(x), None, ValueError, "scalar tensor"),
    ([torch.ones(2, 6)], lambda m, x: 1.0, None, TypeError, "scalar tensor, found float"),
    ([torch.ones(2, 6)], lambda m, x: m(x).sum().detach(), None, ValueError, "does not depend"),
    ([torch.ones(2, 6)], lambda m, x: m(x).sum() * math.inf, None, ValueError, "NaN or infinite|is the loss finite"),
    ([(torch.ones(2, 6), torch.ones(2))], None, None, TypeError, "forward_fn"),
    ([{"y": torch.ones(2, 6)}], None, None, TypeError, "a dict"),
])  # fmt: skip
def test_wrong_calls(data, loss_fn, forward_fn, error, text):
    with pytest.raises(error, match=text):
        palettizer(Odd()).compress(data, loss_fn, forward_fn=forward_fn, progress=False)


def test_items_of_any_kind():
    torch.manual_seed(0)
    model, inputs = Odd().eval(), [torch.randn(3, 6) for _ in range(2)]
    expected = palettizer(model).compute_statistics(inputs, progress=False)
    for data, forward_fn in (
        ([(x,) for x in inputs], None), ([[x] for x in inputs], None), ([{"x": x} for x in inputs], None),
        ([(x, "label") for x in inputs], lambda model, item: model(item[0])), (iter(inputs), None),
    ):  # fmt: skip
        found = palettizer(model).compute_statistics(data, forward_fn=forward_fn, progress=False)
        assert found.keys() == expected.keys() and all(torch.equal(found[name], expected[name]) for name in found)


def test_a_compiled_model_is_watched():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 2))
    compiled, x = torch.compile(model, backend="eager"), torch.randn(5, 6)
    compiled(x)
    expected, found = (palettizer(m).compute_statistics([x], progress=False) for m in (model, compiled))
    assert len(expected) == 2
    for name, value in expected.items():
        assert torch.equal(found[f"_orig_mod.{name}"], value)


@pytest.mark.parametrize("kind", FITTED)
def test_where_torch_fits_the_outputs_are_as_good(kind, monkeypatch):
    """As for weights on a GPU, by operations of torch; here on the CPU."""
    model, data, options = layers.model(kind), items(kind), {"n_bits": 3, "granularity": "per_grouped_channel", "group_size": 4}
    _, expected = compress(model, data, guided=1, **options)
    monkeypatch.setattr(fitting, "_on_gpu", lambda values: True)
    _, report = compress(model, data, guided=1, **options)
    for name, row in report.items():
        if "palettization_mode" in row and row["palettization_mode"] != -1:
            assert row["fallback"] == "" and abs(row["output_snr"] - expected[name]["output_snr"]) < 0.3
    _, report = compress(model, data, **options, channel_axis=1)
    assert "layer-wise fitting needs groups" in report[next(layers.weights(kind, model))[0]]["fallback"]


def test_only_the_first_samples_are_looked_at():
    torch.manual_seed(0)
    inputs = [torch.randn(3, 6) for _ in range(4)]
    model = Odd().eval()
    two, all_of_two = (palettizer(model, nsamples=n).compute_statistics(data, progress=False)
                       for n, data in ((2, inputs), (9, inputs[:2])))  # fmt: skip
    assert torch.equal(two["tail.weight.second_moments"], all_of_two["tail.weight.second_moments"])
    with pytest.raises(ValueError, match="at least one sample"):
        palettizer(Odd(), nsamples=0).compress(inputs, progress=False)


@pytest.mark.parametrize("field, value, error", [
    ("algorithm", "awq", ValueError), ("rounds", -1, ValueError), ("damping", -0.1, ValueError), ("damping", "much", TypeError),
    ("rounds", 1.5, TypeError), ("damping", math.nan, ValueError), ("n_bits", None, TypeError),
])  # fmt: skip
def test_settings_of_modules_that_cannot_be(field, value, error):
    with pytest.raises(error, match=field):
        ModuleLayerwisePalettizerConfig(**{field: value})


@pytest.mark.parametrize("field, value, error", [
    ("guided_groups", 0, ValueError), ("layers", [], ValueError), ("layers", 3, TypeError), ("layers", [3], ValueError),
    ("max_cached_bytes", -1, ValueError), ("max_cached_bytes", "1 GB", TypeError), ("calibration_nsamples", "7", TypeError),
])  # fmt: skip
def test_settings_of_all_that_cannot_be(field, value, error):
    with pytest.raises(error, match=field):
        LayerwisePalettizerConfig(**{field: value})


@pytest.mark.parametrize("names, text", [
    (["nothing"], "no module"), (["("], "not a regular expression"), ([r"0", r"0\..*"], "within it"),
])  # fmt: skip
def test_blocks_that_cannot_be(names, text):
    model = nn.Sequential(nn.Sequential(nn.Linear(6, 6)), nn.Linear(6, 6))
    with pytest.raises(ValueError, match=text):
        palettizer(model, containers={"layers": names}).compress([torch.ones(2, 6)], progress=False)


def test_a_config_of_yaml(tmp_path):
    path = tmp_path / "config.yaml"
    path.write_text("""
global_config: {n_bits: 3, algorithm: gptq, damping: 1}
module_name_configs:
  head: null
  'blocks\\..*': {n_bits: 2, granularity: per_grouped_channel, group_size: 4, rounds: 5}
calibration_nsamples: 16
guided_groups: 4
layers: 'blocks\\.\\d+'
max_cached_bytes: 1000
""")
    config = LayerwisePalettizerConfig.from_yaml(path)
    assert config.layers == [r"blocks\.\d+"] and config.guided_groups == 4 and config.max_cached_bytes == 1000
    assert config.global_config == ModuleLayerwisePalettizerConfig(n_bits=3, algorithm="gptq", damping=1.0)
    assert LayerwisePalettizerConfig.from_dict(config.as_dict()) == config
    with pytest.raises(ValueError, match="enable_fast_kmeans_mode"):
        LayerwisePalettizerConfig.from_dict({"global_config": {"enable_fast_kmeans_mode": True}})


def test_threads_change_nothing():
    model, data = layers.model("conv2d"), items("conv2d")
    states = [palettizer(model, n_bits=2).compress(data, num_kmeans_workers=n, progress=False).state_dict() for n in (1, 2, 5)]
    assert all(torch.equal(states[0][name], state[name]) for state in states for name in states[0])


@pytest.mark.parametrize("kind, options, how", [
    ("linear", {"n_bits": 3, "granularity": "per_grouped_channel", "group_size": 1}, "traced"),
    ("conv2d", {"n_bits": 4, "enable_per_channel_scale": True}, "traced"),
    ("conv2d-grouped", {"n_bits": 2, "lut_dtype": "int8"}, "exported"),
    ("attention", {"n_bits": 4, "granularity": "per_grouped_channel", "group_size": 8}, "exported"),
    ("gpt2-conv1d", {"n_bits": 2, "granularity": "per_grouped_channel", "group_size": 16}, "traced"),
    ("conv_transpose1d", {"n_bits": 6}, "traced"),
])  # fmt: skip
def test_what_is_converted_has_the_weights_of_the_module(kind, options, how, tmp_path):
    model = layers.model(kind)
    done, report = compress(model, items(kind), **options)
    package = converted.convert(done, converted.sample(kind), "iOS18", how, tmp_path / "m.mlpackage")
    variables = converted.palettized(package)
    for name, module, parameter in layers.weights(kind, done):
        var = variables[name.replace(".", "_")]
        assert "lut_to_dense" in judge.chain(var) and report[name]["fallback"] == ""
        assert torch.equal(torch.from_numpy(judge.value(var)), module.get_parameter(parameter).detach())
    path = tmp_path / "small.safetensors"
    save_safetensors(done, path)
    load_safetensors(model, path)
    assert all(torch.equal(value, done.state_dict()[name]) for name, value in model.state_dict().items())

