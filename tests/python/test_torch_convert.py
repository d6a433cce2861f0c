"""Palettized modules through coremltools' own converter: the ops that carry a palette, and the same values to the bit."""

import pytest
import torch
import coremltools as ct
from torch_support import converted, layers, palettes, settings, sides, trained
from torch_support.settings import Setting
from torch_support.told import about, listening

import judge
from palettizer import coreml

FULL = [  # what a palette can be, on two kinds of layer and both ways
    {"n_bits": 1}, {"n_bits": 3}, {"n_bits": 4}, {"n_bits": 8},
    {"group_size": 8}, {"group_size": 8, "channel_axis": 1}, {"group_size": 1, "n_bits": 2},
    {"cluster_dim": 2}, {"cluster_dim": 4, "channel_axis": 1, "n_bits": 6}, {"cluster_dim": 2, "group_size": 16},
    {"lut_dtype": "int8"}, {"lut_dtype": "uint8"}, {"lut_dtype": "uint8", "group_size": 8, "channel_axis": 1},
    {"scale": True}, {"scale": True, "group_size": 16}, {"scale": True, "group_size": 8, "channel_axis": 1},
    {"scale": True, "lut_dtype": "int8"}, {"scale": True, "lut_dtype": "uint8", "group_size": 8},
    {"scale": True, "lut_dtype": "int8", "group_size": 8, "channel_axis": 1},
]
SHORT = [{"n_bits": 4}, {"group_size": 8, "lut_dtype": "uint8"}, {"cluster_dim": 2}, {"scale": True, "lut_dtype": "int8"}]
WAYS = ("traced", "exported")


IOS18 = [(Setting(kind=kind, **options), how) for kind, how in (("linear", "exported"), ("conv2d", "traced"))
         for options in FULL]
IOS18 += [(Setting(kind=kind, **options), known.ways[(row + column) % len(known.ways)])
          for row, (kind, known) in enumerate(layers.KINDS.items()) if known.ways and kind not in ("linear", "conv2d")
          for column, options in enumerate(SHORT)]
IOS16 = [(Setting(kind=kind, n_bits=bits), how) for kind, bits in (
    ("linear", 1), ("linear", 2), ("linear", 4), ("linear", 6), ("linear", 8), ("embedding", 4), ("conv1d", 4),
    ("conv2d", 2), ("conv2d", 8), ("conv2d-grouped", 4), ("conv3d", 4), ("conv_transpose1d", 6),
    ("conv_transpose2d", 4), ("conv_transpose3d", 4), ("attention", 4), ("attention-apart", 4), ("gpt2-conv1d", 4),
    ("rnn", 4), ("rnn-cell", 4),
) for how in layers.KINDS[kind].ways]


def expect(setting, target, done, package):
    """Every palettized parameter is behind a table of the right form, and has the module's values."""
    variables = converted.palettized(package)
    assert variables.keys() == {name.replace(".", "_") for name, *_ in layers.weights(setting.kind, done)}
    for name, module, parameter in layers.weights(setting.kind, done):
        var, weight = variables[name.replace(".", "_")], module.get_parameter(parameter).detach()
        assert torch.equal(torch.from_numpy(judge.value(var)), weight)
        bits, stored, shape = judge.table(var)
        assert bits == setting.n_bits
        scaled = setting.lut_dtype is not None or setting.scale
        assert judge.chain(var) == (["lut_to_dense", "blockwise_shift_scale"] if scaled else ["lut_to_dense"])
        assert stored == (setting.lut_dtype or setting.dtype)
        tables = palettes.grid(setting, weight.shape)
        if setting.scale:  # the converter's passes scale the tables rather than the weights: one for each channel
            tables[layers.KINDS[setting.kind].output_dim] = weight.shape[layers.KINDS[setting.kind].output_dim]
        assert shape == ((2**bits,) if target == "iOS16" else (*tables, 2**bits, setting.vector))


def convert(setting, target, how, path, precision="FLOAT32"):
    model = layers.model(setting.kind, setting.dtype)
    done = sides.post_training(sides.ours, model, **setting.options)
    return done, converted.convert(done, converted.sample(setting.kind, setting.dtype), target, how, path, precision)


@pytest.mark.parametrize("setting, how", IOS18, ids=str)
def test_at_ios18(setting, how, tmp_path):
    expect(setting, "iOS18", *convert(setting, "iOS18", how, tmp_path / "m.mlpackage"))


@pytest.mark.parametrize("setting, how", IOS16, ids=str)
def test_at_ios16(setting, how, tmp_path):
    expect(setting, "iOS16", *convert(setting, "iOS16", how, tmp_path / "m.mlpackage"))


STRANGE = ("bilinear", "embedding-bag", "lstm-cell", "gru-cell", "lstm-projected")


@pytest.mark.parametrize("kind", STRANGE)
@pytest.mark.parametrize("how", WAYS)
def test_what_the_converter_does_not_know_is_told_before(kind, how, tmp_path):
    """Without palettes it fails as well."""
    model = layers.model(kind)
    with pytest.raises((NotImplementedError, ValueError)):
        converted.convert(model, converted.sample(kind), "iOS18", how, tmp_path / "m.mlpackage")
    with listening() as said:
        palettizer = sides.ours.PostTrainingPalettizer(model)
        palettizer.compress(progress=False)
    for name, *_ in layers.weights(kind, model):
        assert about(said, name, "coremltools.convert does not know such a layer")
        assert "does not know" in palettizer.report()[name]["conversion"]


@pytest.mark.parametrize("options", SHORT, ids=str)
@pytest.mark.parametrize("kind", ["lstm", "gru"])
def test_what_the_converter_only_takes_dense_is_told_and_stays_convertible(kind, options, tmp_path):
    """The converted program is palettized by us without a loss."""
    model = layers.model(kind)
    setting = Setting(kind=kind, **options)
    with listening() as said:
        done = sides.post_training(sides.ours, model, **setting.options)
    for name, *_ in layers.weights(kind, model):
        assert about(said, name, "makes it dense", "unique")
    package = converted.convert(done, converted.sample(kind), "iOS18", "traced", tmp_path / "m.mlpackage")
    assert not converted.palettized(package)
    if options != {"n_bits": 4}:
        return
    config = coreml.OptimizationConfig(coreml.OpPalettizerConfig(mode="unique", weight_threshold=0))
    small = coreml.palettize_weights(ct.models.MLModel(str(package), skip_model_load=True), config)
    small.save(str(tmp_path / "small.mlpackage"))
    before, after = (judge.weights(path, 1) for path in (package, tmp_path / "small.mlpackage"))
    assert before.keys() == after.keys() and all((before[name] == after[name]).all() for name in before)
    assert len(converted.palettized(tmp_path / "small.mlpackage")) >= len(layers.KINDS[kind].weights)


def test_every_kind_is_converted_or_told_of():
    assert set(STRANGE) | {"lstm", "gru"} | {setting.kind for setting, _ in IOS18} == set(layers.KINDS)


def test_a_traced_attention_is_beyond_the_converter_without_us_too(tmp_path):
    model = layers.model("attention")
    with pytest.raises(TypeError):
        converted.convert(model, converted.sample("attention"), "iOS18", "traced", tmp_path / "m.mlpackage")


@pytest.mark.parametrize("kind", ["linear", "conv2d"])
@pytest.mark.parametrize("options", [*SHORT, {"scale": True}, {"lut_dtype": "int8"}], ids=str)
def test_half_precision_modules(options, kind, tmp_path):
    """An fp16 module in an fp16 program: what is stored is what the module has, scales and integers too."""
    setting = Setting(kind=kind, dtype="fp16", **options)
    expect(setting, "iOS18", *convert(setting, "iOS18", "exported", tmp_path / "m.mlpackage", "FLOAT16"))


@pytest.mark.parametrize("options", [*SHORT, {"scale": True}, {"lut_dtype": "int8"}, {"group_size": 8}], ids=str)
def test_single_precision_modules_in_half_precision_programs(options, tmp_path):
    """The converter's default: tables, integers and scales are rounded to fp16, and the products are the module's."""
    setting = Setting(kind="conv2d", **options)
    done, package = convert(setting, "iOS18", "traced", tmp_path / "m.mlpackage", "FLOAT16")
    ((_, var),) = converted.palettized(package).items()
    stored = torch.from_numpy(judge.value(var))
    assert stored.dtype == torch.float16 and torch.equal(stored, done.layer.weight.detach().half())


@pytest.mark.parametrize("how", WAYS)
def test_vectors_of_integers_need_one_pass_less(how, tmp_path):
    """A pass of the converter forgets the vector axis when it moves the scale of a table; without it all is well."""
    setting = Setting(lut_dtype="int8", cluster_dim=2)
    with pytest.raises(ValueError, match="vector_axis"):
        convert(setting, "iOS18", how, tmp_path / "m.mlpackage")
    done = sides.post_training(sides.ours, layers.model(setting.kind), **setting.options)
    package = converted.convert(done, converted.sample(setting.kind), "iOS18", how, tmp_path / "m.mlpackage",
                                without=["common::canonicalize_quantized_lut_pattern"])
    ((_, var),) = converted.palettized(package).items()
    assert torch.equal(torch.from_numpy(judge.value(var)), done.layer.weight.detach())
    assert judge.table(var) == (4, "int8", (1, 1, 16, 2))


@pytest.mark.parametrize("options", [{}, {"group_size": 8, "lut_dtype": "uint8"}, {"scale": True}], ids=str)
def test_our_command_reads_the_converted_package(options, tmp_path, dense, inspect):
    """Decompressed and inspected by `palettizer`: the module's weights, and the bits that they are stored in."""
    setting = Setting(kind="conv2d", n_bits=6, **options)
    done, package = convert(setting, "iOS18", "exported", tmp_path / "m.mlpackage")
    values = list(judge.weights(dense(package), 2048).values())
    assert len(values) == 1 and torch.equal(torch.from_numpy(values[0]), done.layer.weight.detach())
    ((_, seen),) = inspect(package).items()
    assert "6" in str(seen), seen


@pytest.mark.parametrize("how", WAYS)
def test_a_sensitive_palette_converts_alike(how, tmp_path):
    setting = Setting(kind="conv2d", n_bits=3, group_size=8)
    model = layers.model(setting.kind)
    torch.save(layers.sensitivities(setting.kind, model), tmp_path / "s.pt")
    done = sides.sensitive(sides.ours, model, tmp_path / "s.pt", **setting.options)
    package = converted.convert(done, converted.sample(setting.kind), "iOS18", how, tmp_path / "m.mlpackage")
    expect(setting, "iOS18", done, package)


@pytest.mark.parametrize("name, how", [("cnn", "traced"), ("cnn", "exported"), ("mlp", "traced"), ("mlp", "exported"),
                                       ("transformer", "exported")])
def test_whole_nets(name, how, tmp_path):
    """Mixed settings by module type; every weight of the program is the module's."""
    torch.manual_seed(0)
    model = trained.NETS[name]().eval()
    by = sides.ours.ModulePostTrainingPalettizerConfig
    config = sides.ours.PostTrainingPalettizerConfig(global_config=by(n_bits=6), module_type_configs={
        "Conv2d": by(n_bits=3, cluster_dim=2), "MultiheadAttention": by(n_bits=2, granularity="per_grouped_channel",
                                                                        group_size=16)})
    done = sides.ours.PostTrainingPalettizer(model, config).compress()
    package = converted.convert(done, torch.zeros(1, 1, 8, 8), "iOS18", how, tmp_path / "m.mlpackage")
    variables = converted.palettized(package)
    names = palettes.palettized(done)
    assert variables.keys() == {name.replace(".", "_") for name in names}
    for parameter in names:
        stored = torch.from_numpy(judge.value(variables[parameter.replace(".", "_")]))
        assert torch.equal(stored, done.get_parameter(parameter).detach())


def test_every_bit_width_is_converted_somewhere():
    assert {s.n_bits for s, _ in IOS18 + IOS16} == set(settings.FACTORS["n_bits"])
