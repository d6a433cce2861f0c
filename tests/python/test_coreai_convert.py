"""Palettized PyTorch modules as Core AI programs: every palette is there, with the same values to the bit."""

import copy
import subprocess
import sys
from collections import Counter
from importlib import metadata

import numpy as np
import pairwise
import pytest
import torch
from coreai_support import run
from torch import nn
from torch_support import layers, palettes, trained
from torch_support.settings import FACTORS, RULES, Setting

import palettizer.coreai as coreai
from palettizer.coreai._constants import element
from palettizer.coreai._convert import _loaded
from palettizer.coreai._fold import LOOKUP, SCALE, chains, evaluate
from palettizer.coreai._weights import weights
from palettizer.torch.palettization import (
    DKMPalettizer,
    DKMPalettizerConfig,
    LayerwisePalettizer,
    LayerwisePalettizerConfig,
    PostTrainingPalettizer,
    PostTrainingPalettizerConfig,
    SKMPalettizer,
    SKMPalettizerConfig,
    tune_tables,
)

def palettized(model, **settings):
    config = PostTrainingPalettizerConfig.from_dict({"global_config": settings})
    return PostTrainingPalettizer(model, config).compress(progress=False)


def converted(model, inputs, **more):
    return coreai.convert(model, inputs, progress=False, **more)


def raw(tensor):
    return tensor.detach().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()


def stored(model):
    """The weights with a palette, each once: shapes and bytes."""
    found = {id(model.get_parameter(name)): model.get_parameter(name) for name in palettes.palettized(model)}
    return Counter((tuple(weight.shape), raw(weight)) for weight in found.values())


def unfolded(program):
    """The same of what a program is palettized with."""
    values = [evaluate(op.results[0]) for op in chains(program.program)]
    return Counter((value.shape, np.ascontiguousarray(value).tobytes()) for value in values)


def lookup(op):
    """The lookup of a chain."""
    while op.name != LOOKUP:
        assert op.name == SCALE
        op = op.operands[0].owner
    return op


def dense(program):
    """The elements of the largest weight that is not palettized."""
    return max((int(np.prod(w.op.results[0].type.shape)) for w in weights(program.program) if not w.compressed), default=0)


class Many(nn.Module):
    """Layers of many kinds side by side, each with an input of its own."""

    def __init__(self, settings):
        super().__init__()
        self.layers = nn.ModuleList(layers.model(one.kind, one.dtype, str(place)) for place, one in enumerate(settings))

    def forward(self, *inputs):
        return tuple(layer(x) for layer, x in zip(self.layers, inputs))


def sample(kind, dtype="fp32"):
    shape = layers.KINDS[kind].input_shape
    if shape is None:
        return torch.arange(10).reshape(2, 5)
    return layers.values(f"input of {kind}", shape).mul(10).to(layers.DTYPES[dtype])


KINDS = ("linear", "conv2d", "embedding", "conv1d", "attention", "conv_transpose2d", "conv3d", "conv_transpose1d",
         "attention-apart", "gpt2-conv1d", "conv2d-grouped")
RECURRENT = ("rnn", "rnn-cell", "lstm", "lstm-projected", "lstm-cell", "gru", "gru-cell")
BEYOND = ("conv_transpose3d", "bilinear", "embedding-bag")


ROWS, _ = pairwise.rows({name: values for name, values in FACTORS.items() if name != "kind"}, RULES)
SETTINGS = [Setting(kind=KINDS[place % len(KINDS)], **row) for place, row in enumerate(ROWS)]


@pytest.mark.parametrize("dtype", layers.DTYPES)
def test_each_pair_of_settings_comes_over_bit_for_bit(dtype):
    """All rows of a dtype as layers of one module."""
    settings = [one for one in SETTINGS if one.dtype == dtype]
    config = {f"layers\\.{place}\\..*": one.options for place, one in enumerate(settings)}
    model = PostTrainingPalettizer(
        Many(settings), PostTrainingPalettizerConfig.from_dict({"module_name_configs": config})
    ).compress(progress=False)
    program = converted(model, tuple(sample(one.kind, dtype) for one in settings))
    assert unfolded(program) == stored(model) and len(stored(model)) >= len(settings)
    forms = Counter()
    for one in settings:
        table = {None: {"fp32": "f32", "fp16": "f16", "bf16": "bf16"}[dtype], "int8": "si8", "uint8": "ui8"}[one.lut_dtype]
        forms[(f"ui{one.n_bits}", table)] += len(layers.KINDS[one.kind].weights)
    found = Counter((element(at.operands[0]), element(at.operands[1])) for at in map(lookup, chains(program.program)))
    assert found == forms
    assert dense(program) == 0


def test_every_kind_is_known():
    assert {*KINDS, *RECURRENT, *BEYOND} == set(layers.KINDS)


def test_recurrent_layers_keep_their_palettes():
    settings = [Setting(kind=kind) for kind in RECURRENT]
    model = palettized(Many(settings), n_bits=3)
    program = converted(model, tuple(map(sample, RECURRENT)))
    assert unfolded(program) == stored(model)
    assert len(stored(model)) == sum(len(layers.KINDS[kind].weights) for kind in RECURRENT)


@pytest.mark.parametrize("kind, dtype, words", [
    *((kind, "fp32", ("ConvTranspose3d", "Bilinear", "EmbeddingBag")[place]) for place, kind in enumerate(BEYOND)),
    ("rnn-cell", "bf16", "RNNCell"),
])
def test_what_coreai_torch_cannot_convert_is_named(kind, dtype, words):
    with pytest.raises(ValueError, match=rf"coreai-torch cannot convert the model: layer \({words}\): "):
        converted(palettized(layers.model(kind, dtype)), sample(kind, dtype))


def skm(model, bits):
    config = SKMPalettizerConfig.from_dict({"global_config": {"n_bits": bits, "granularity": "per_grouped_channel", "group_size": 2}})
    loss = lambda model, batch: model(batch).square().mean()
    return SKMPalettizer(model, config).compress([torch.rand(2, 1, 8, 8)], loss, progress=False)


def dkm(model, bits):
    palettizer = DKMPalettizer(model, DKMPalettizerConfig.from_dict({"global_config": {"n_bits": bits, "weight_threshold": 0}}))
    prepared = palettizer.prepare()
    with pytest.raises(ValueError, match="prepared for training with DKMPalettizer and not finished: .* finalize"):
        converted(prepared, torch.rand(1, 1, 8, 8))
    prepared(torch.rand(2, 1, 8, 8)).square().mean().backward()
    palettizer.step()
    return palettizer.finalize()


def layerwise(model, bits):
    config = LayerwisePalettizerConfig.from_dict({"global_config": {"n_bits": bits}, "calibration_nsamples": 2})
    return LayerwisePalettizer(model, config).compress([torch.rand(4, 1, 8, 8)] * 2, progress=False)


def tuned(model, bits):
    images = [torch.rand(4, 1, 8, 8)]
    done = palettized(model, n_bits=bits, enable_per_channel_scale=True)
    return tune_tables(done, images, reference=model, steps=2, progress=False)


@pytest.mark.parametrize("how, bits", [*((how, bits) for how in (skm, dkm, layerwise) for bits in (2, 3, 4, 6)), (tuned, 3)])
def test_what_each_palettizer_makes_is_converted(how, bits):
    torch.manual_seed(bits)
    model = how(trained.Cnn(channels=8), bits)
    program = converted(model, torch.rand(1, 1, 8, 8))
    assert unfolded(program) == stored(model) and len(stored(model)) == 3
    assert {element(lookup(op).operands[0]) for op in chains(program.program)} == {f"ui{bits}"}


class Language(nn.Module):
    """A transformer whose head is its embedding."""

    def __init__(self, width=32, tokens=64):
        super().__init__()
        self.embed, self.norm = nn.Embedding(tokens, width), nn.LayerNorm(width)
        self.block = nn.TransformerEncoderLayer(width, 4, 2 * width, batch_first=True, norm_first=True)
        self.head = nn.Linear(width, tokens, bias=False)
        self.head.weight = self.embed.weight

    def forward(self, tokens):
        return self.head(self.norm(self.block(self.embed(tokens))))


class Tied(nn.Module):
    """A weight under two names: of a layer and of the model itself, or two parameters in one memory."""

    def __init__(self, how):
        super().__init__()
        self.head = nn.Linear(32, 64, bias=False)
        self.table = self.head.weight if how == "one parameter" else nn.Parameter(self.head.weight.data)

    def forward(self, tokens):
        return self.head(nn.functional.embedding(tokens, self.table))


def test_a_tied_weight_is_stored_once():
    model = palettized(Language())
    program = converted(model, torch.arange(12).reshape(2, 6))
    assert unfolded(program) == stored(model) and len(stored(model)) == 5
    assert Counter(use.kind for weight in weights(program.program) for use in weight.uses)["gather"] == 1
    for how in ("one parameter", "one memory"):
        model = Tied(how)
        PostTrainingPalettizer(model).compress(inplace=True, progress=False)
        program = converted(model, torch.arange(12).reshape(2, 6))
        assert sum(unfolded(program).values()) == 1
        assert dense(program) == 0


def test_programs_run_and_give_what_the_modules_give(tmp_path):
    torch.manual_seed(0)
    cases = {}
    images, tokens = torch.rand(2, 1, 8, 8), torch.randint(0, 64, (2, 6))
    cases["cnn"] = palettized(trained.Cnn(channels=8), granularity="per_grouped_channel", group_size=2), images
    cases["language-fp16"] = palettized(Language().half(), n_bits=3, lut_dtype="uint8"), tokens
    cases["lstm"] = palettized(layers.model("lstm"), n_bits=6), sample("lstm")
    cases["attention"] = palettized(layers.model("attention"), enable_per_channel_scale=True), sample("attention")
    cases["vectors"] = palettized(layers.model("conv1d"), cluster_dim=2, n_bits=6), sample("conv1d")
    batch = {"x": {0: torch.export.Dim("batch", min=1, max=8)}}
    cases["dynamic"] = palettized(trained.Cnn(channels=8), n_bits=2), torch.rand(3, 1, 8, 8)
    tasks, wanted = [], []
    for name, (model, inputs) in cases.items():
        more = {"dynamic_shapes": batch} if name == "dynamic" else {}
        program, path = converted(model, inputs, input_names=["given"], output_names=["made"], **more), tmp_path / f"{name}.aimodel"
        program.save(path)
        assert unfolded(coreai.load(path)) == unfolded(program)
        given = torch.cat([inputs, inputs]) if name == "dynamic" else inputs
        tasks.append((path, {"given": given.to(torch.int32) if given.dtype == torch.int64 else given}))
        with torch.no_grad():
            wanted.append(model.eval()(given).float().numpy())
    for name, found, expected in zip(cases, run(tmp_path, *tasks), wanted):
        assert found["made"].shape == expected.shape
        error = np.abs(found["made"] - expected).max() / max(1, np.abs(expected).max())
        assert error <= (2e-2 if "fp16" in name else 1e-5), name


def test_the_module_stays_as_it_is():
    model = palettized(Language())
    model.block.train()
    before, training = copy.deepcopy(model.state_dict()), {name: one.training for name, one in model.named_modules()}
    fused, gradients = torch.backends.mha.get_fastpath_enabled(), torch.is_grad_enabled()
    converted(model, torch.arange(6)[None])
    after = model.state_dict()
    assert before.keys() == after.keys() and all(torch.equal(before[name], after[name]) for name in before)
    assert training == {name: one.training for name, one in model.named_modules()}
    assert (fused, gradients) == (torch.backends.mha.get_fastpath_enabled(), torch.is_grad_enabled())


def test_names_are_those_that_are_given_and_weights_know_their_layer():
    model = palettized(trained.Cnn(channels=8))
    program = converted(model, torch.rand(1, 1, 8, 8), input_names=["image"], output_names=["digit"], entrypoint_name="see")
    assert list(coreai.get_weights_metadata(program, 0))[0].startswith("see.")
    text = str(program.program)
    assert "image" in text and "digit" in text
    places = {str(lookup(op).location) for op in chains(program.program)}
    for name, place in (("conv1_weight", "Conv2d$1"), ("conv2_weight", "Conv2d$2"), ("classifier_weight", "Linear$1")):
        assert any(name in one and f'"call_stack": ["{place}", "Cnn$1"]' in one for one in places)
    bare = converted(model, torch.rand(1, 1, 8, 8), debug_info=False)
    assert not any("call_stack" in str(lookup(op).location) for op in chains(bare.program))


def test_what_is_left_dense_can_be_palettized_after():
    config = PostTrainingPalettizerConfig.from_dict({"module_name_configs": {"conv2": {"n_bits": 4}}})
    model = PostTrainingPalettizer(trained.Cnn(channels=8), config).compress(progress=False)
    program = converted(model, torch.rand(1, 1, 8, 8))
    small = coreai.palettize_weights(
        program, coreai.OptimizationConfig(coreai.OpPalettizerConfig(nbits=4, weight_threshold=0)), progress=False
    )
    assert sum(unfolded(small).values()) == 3 and unfolded(small) & stored(model) == stored(model)


def test_keyword_inputs():
    class Two(nn.Module):
        def __init__(self):
            super().__init__()
            self.linear = nn.Linear(8, 8)

        def forward(self, x, *, y):
            return self.linear(x) + y

    program = converted(palettized(Two()), (torch.rand(1, 8),), example_kwargs={"y": torch.rand(1, 8)})
    assert len(unfolded(program)) == 1


class Kept(nn.Module):
    """A module that uses a tensor in the memory of its weight."""

    def __init__(self):
        super().__init__()
        self.linear, self.other = nn.Linear(8, 8), nn.Linear(8, 8)

    def forward(self, x):
        return self.other(x @ self.transposed)


def test_what_would_be_dense_is_refused():
    model = palettized(Kept())
    model.transposed = model.linear.weight.detach().T
    with pytest.raises(ValueError, match="^linear.weight is palettized, but torch.export takes it for a constant"):
        converted(model, torch.rand(1, 8))


def test_refusals(monkeypatch):
    image = torch.rand(1, 1, 8, 8)
    with pytest.raises(ValueError, match=r"no weight of the model \(Cnn\) is palettized: palettize it first.*coreai_torch"):
        converted(trained.Cnn(), image)
    with pytest.raises(TypeError, match="example_inputs is a dict; expected a tuple"):
        converted(palettized(trained.Cnn()), {"x": image})
    model = palettized(trained.Cnn(channels=8))
    with torch.no_grad():
        model.conv1.weight += 0.01
    with pytest.raises(ValueError, match="conv1.weight is not what its lookup table says"):
        converted(model, image)
    class Idle(nn.Module):
        def __init__(self):
            super().__init__()
            self.linear = nn.Linear(8, 8)

        def forward(self, x):
            return x + 1

    with pytest.raises(ValueError, match=r"uses none of its palettized weights \(linear.weight\)"):
        converted(palettized(Idle()), torch.rand(1, 8))
    monkeypatch.setattr("palettizer.coreai._convert._lost", lambda program, used: [name for name, _ in used])
    with pytest.raises(ValueError, match=r"kept no palette of conv1.weight, conv2.weight, classifier.weight"):
        converted(palettized(trained.Cnn(channels=8)), image)


def test_without_coreai_torch_there_is_advice(monkeypatch):
    import coreai_torch

    advice = r"pip install 'palettizer\[coreai-torch\]' \(it brings coreai-torch==0.4.3\)"
    with monkeypatch.context() as patch:
        patch.delattr(coreai_torch.TorchConverter, "register_torch_lowering")
        with pytest.raises(ImportError, match=f"coreai-torch .* does not have register_torch_lowering; .*{advice}"):
            _loaded()
    def missing(name):
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(metadata, "version", missing)
    with pytest.raises(ImportError, match=f"palettizer.coreai.convert needs coreai-torch, which is not installed: {advice}"):
        _loaded()


def test_only_convert_needs_torch():
    done = subprocess.run(
        [sys.executable, "-c", "import palettizer.coreai, sys; print({'torch', 'coreai_torch'} & set(sys.modules))"],
        capture_output=True, text=True, timeout=60, check=True,
    )
    assert done.stdout.strip() == "set()"
