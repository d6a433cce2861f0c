"""Prepared layers compute what the layers of torch do, with every option that a layer has."""

import copy
import pickle

import pytest
import torch
from torch import nn
from torch_support import dkm

from palettizer.torch.palettization import FakePalettize
from palettizer.torch.palettization._dkm.layers import DKMLayer, prepared_class

LAYER_CASES = {
    "linear": (lambda: nn.Linear(6, 8), (4, 6)),
    "linear without bias": (lambda: nn.Linear(6, 8, bias=False), (2, 3, 6)),
    "embedding": (lambda: nn.Embedding(12, 4), None),
    "embedding with padding": (lambda: nn.Embedding(12, 4, padding_idx=3), None),
    "embedding with a largest norm": (lambda: nn.Embedding(12, 4, max_norm=0.7, norm_type=1.5), None),
    "embedding scaled by frequency": (lambda: nn.Embedding(12, 4, scale_grad_by_freq=True), None),
    "sparse embedding": (lambda: nn.Embedding(12, 4, sparse=True), None),
    "norm": (lambda: nn.LayerNorm(8, eps=1e-3), (3, 8)),
    "norm without bias": (lambda: nn.LayerNorm((4, 2), bias=False), (3, 4, 2)),
    "conv1d": (lambda: nn.Conv1d(4, 6, 3, stride=2, padding=1, dilation=2), (2, 4, 11)),
    "conv1d reflect": (lambda: nn.Conv1d(4, 6, 3, padding=2, padding_mode="reflect"), (4, 11)),
    "conv1d same": (lambda: nn.Conv1d(4, 6, 4, padding="same", padding_mode="replicate"), (2, 4, 11)),
    "conv2d": (lambda: nn.Conv2d(4, 6, (3, 2), groups=2, bias=False), (2, 4, 7, 6)),
    "conv2d circular": (lambda: nn.Conv2d(4, 6, 3, padding=(1, 2), padding_mode="circular"), (2, 4, 7, 6)),
    "conv2d same": (lambda: nn.Conv2d(4, 6, 3, padding="same"), (4, 7, 6)),
    "conv3d": (lambda: nn.Conv3d(2, 4, 2, stride=(1, 2, 1), padding=1), (1, 2, 4, 5, 4)),
    "conv3d replicate": (lambda: nn.Conv3d(2, 4, 3, padding=1, padding_mode="replicate"), (2, 4, 4, 4)),
    "transposed 1d": (lambda: nn.ConvTranspose1d(4, 6, 3, stride=2, output_padding=1), (2, 4, 5)),
    "transposed 2d": (lambda: nn.ConvTranspose2d(4, 6, 3, padding=1, groups=2, dilation=2), (2, 4, 5, 5)),
    "transposed 3d": (lambda: nn.ConvTranspose3d(2, 4, 2, bias=False), (2, 3, 3, 3)),
}


def twins(make, milestone=9):
    """A layer in a model, and the same one prepared."""
    torch.manual_seed(0)
    plain = nn.Sequential(make())
    with torch.no_grad():
        for parameter in plain.parameters():
            parameter.normal_(std=0.5)
    palettizer, prepared = dkm.prepared(plain, n_bits=1, milestone=milestone)
    assert type(prepared[0]) is prepared_class(type(plain[0])), palettizer.report()
    return plain, prepared


def inputs(shape):
    generator = torch.Generator().manual_seed(1)
    if shape is None:
        return torch.randint(0, 12, (2, 5), generator=generator)
    return torch.randn(*shape, generator=generator)


def expect_same(plain, prepared, call):
    """The same output and the same gradients, to the bit."""
    outputs = [call(model) for model in (plain, prepared)]
    assert torch.equal(*outputs)
    for output in outputs:
        output.square().sum().backward()
    for (name, mine), theirs in zip(prepared.named_parameters(), plain.parameters(), strict=True):
        assert mine.grad.layout == theirs.grad.layout
        assert torch.equal(mine.grad.to_dense(), theirs.grad.to_dense()), name


@pytest.mark.parametrize("case", LAYER_CASES)
def test_before_its_milestone_a_layer_is_that_of_torch(case):
    make, shape = LAYER_CASES[case]
    plain, prepared = twins(make)
    expect_same(plain, prepared, lambda model: model(inputs(shape)))


@pytest.mark.parametrize("case", LAYER_CASES)
def test_a_palettized_layer_is_that_of_torch_with_the_palettized_weight(case):
    make, shape = LAYER_CASES[case]
    plain, prepared = twins(make, milestone=0)
    made = prepared(inputs(shape))
    fake, weight = prepared[0].weight_fake_quant, prepared[0].weight
    with torch.no_grad():
        plain[0].weight.copy_(fake(weight))
        assert not torch.equal(plain[0].weight, weight)
    torch.testing.assert_close(made, plain(inputs(shape)), rtol=0, atol=0)
    made.square().sum().backward()
    assert weight.grad.layout == torch.strided and weight.grad.abs().sum() > 0
    with torch.no_grad():
        hard = prepared.eval()(inputs(shape))
        plain[0].weight.copy_(fake(weight))
        assert len(plain[0].weight.unique()) == 2
        assert torch.equal(hard, plain(inputs(shape)))


@pytest.mark.parametrize("kind, size", [(nn.ConvTranspose1d, [12]), (nn.ConvTranspose2d, [12, 11]),
                                        (nn.ConvTranspose3d, [11, 12, 12])])
def test_a_transposed_convolution_takes_an_output_size(kind, size):
    plain, prepared = twins(lambda: kind(2, 4, 3, stride=2))
    values = inputs((1, 2, *[5] * len(size)))
    expect_same(plain, prepared, lambda model: model[0](values, output_size=size))


def test_a_transposed_convolution_refuses_what_torch_refuses():
    layer = nn.ConvTranspose1d(2, 4, 3)
    layer.padding_mode = "reflect"
    plain, prepared = twins(lambda: layer)
    for model in (plain, prepared):
        with pytest.raises(ValueError, match="Only `zeros` padding mode is supported for ConvTranspose1d"):
            model(inputs((1, 2, 5)))


ATTENTION_CASES = [
    {}, {"batch_first": True}, {"bias": False}, {"add_bias_kv": True}, {"add_zero_attn": True, "batch_first": True},
    {"kdim": 6, "vdim": 4}, {"kdim": 6, "vdim": 4, "batch_first": True, "bias": False, "add_bias_kv": True},
]
MASK = torch.tensor([[False, True, False, False, False], [False] * 5, [True, False, False, False, True]])
CALLS = {
    "plain": {}, "no weights": {"need_weights": False}, "weights of heads": {"average_attn_weights": False},
    "padding": {"key_padding_mask": MASK},
    "float padding": {"key_padding_mask": torch.zeros(3, 5).masked_fill(MASK, -torch.inf), "need_weights": False},
    "mask": {"attn_mask": torch.ones(5, 5).triu(1).bool()},
    "causal": {"attn_mask": torch.full((5, 5), -torch.inf).triu(1), "is_causal": True, "need_weights": False},
    "mask of heads": {"attn_mask": torch.linspace(-1, 1, 150).reshape(6, 5, 5)},
}


def parts(layer, batch=3):
    """Query, key and value; one tensor if the layer takes that."""
    generator = torch.Generator().manual_seed(2)
    lead = ((batch, 5) if layer.batch_first else (5, batch)) if batch else (5,)
    if layer.kdim == layer.embed_dim:
        return (torch.randn(*lead, 8, generator=generator),) * 3
    return tuple(torch.randn(*lead, width, generator=generator) for width in (8, layer.kdim, layer.vdim))


def attend(model, call, batch=3):
    output, weights = model[0](*parts(model[0], batch), **call)
    return output if weights is None else torch.cat([output.flatten(), weights.flatten()])


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize("options", ATTENTION_CASES, ids=str)
def test_attention_is_that_of_torch(options, call):
    plain, prepared = twins(lambda: nn.MultiheadAttention(8, 2, **options))
    if "bias_k" in dict(plain[0].named_parameters()) and call == "causal":
        call = "mask"  # torch itself refuses the hint there without a mask that fits
    expect_same(plain, prepared, lambda model: attend(model, CALLS[call]))


@pytest.mark.parametrize("options", ATTENTION_CASES, ids=str)
def test_attention_without_a_batch_and_in_evaluation(options):
    plain, prepared = twins(lambda: nn.MultiheadAttention(8, 2, **options))
    expect_same(plain, prepared, lambda model: attend(model, {}, batch=0))
    with torch.no_grad():
        torch.testing.assert_close(attend(plain.eval(), {}), attend(prepared.eval(), {}))


def test_attention_to_something_else_takes_its_query_alone():
    plain, prepared = twins(lambda: nn.MultiheadAttention(8, 2, batch_first=True))
    query, key = inputs((3, 4, 8)), inputs((3, 5, 8))
    expect_same(plain, prepared, lambda model: model[0](query, key, key)[0])
    expect_same(plain, prepared, lambda model: model[0](query, key, key + 1)[0])


def test_the_dropout_of_attention_draws_what_torch_draws():
    plain, prepared = twins(lambda: nn.MultiheadAttention(8, 2, dropout=0.5))

    def call(model):
        torch.manual_seed(5)
        return attend(model.train(), {})

    expect_same(plain, prepared, call)


@pytest.mark.parametrize("options", ATTENTION_CASES, ids=str)
def test_attention_palettizes_all_its_projections(options):
    plain, prepared = twins(lambda: nn.MultiheadAttention(8, 2, **options), milestone=0)
    made = attend(prepared.eval(), {})
    with torch.no_grad():
        for name, fake in dkm.fakes(prepared).items():
            weight = prepared.get_parameter(name.removesuffix("_fake_quant"))
            plain.get_parameter(name.removesuffix("_fake_quant")).copy_(fake(weight))
        assert len(dkm.fakes(prepared)) == (2 if plain[0]._qkv_same_embed_dim else 4)
    torch.testing.assert_close(made, attend(plain, {}))


@pytest.mark.parametrize("padded", [False, True])
def test_the_fused_encoder_of_torch_does_not_pass_by_the_palettes(padded):
    """In evaluation it reads the weights itself, and it packs padded batches."""
    torch.manual_seed(0)
    layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True, dropout=0.0)
    palettizer, prepared = dkm.prepared(nn.TransformerEncoder(layer, 2, enable_nested_tensor=True), n_bits=1)
    values = inputs((3, 5, 8))
    mask = torch.arange(5) >= torch.tensor([[3], [5], [4]]) if padded else None
    with torch.no_grad():
        prepared(values)
        soft = prepared.eval()(values, src_key_padding_mask=mask)
        finalized = palettizer.finalize()
        assert finalized.use_nested_tensor
        with_fused = finalized(values, src_key_padding_mask=mask)
        kept = torch.ones(3, 5, dtype=torch.bool) if mask is None else ~mask
        torch.testing.assert_close(soft[kept], with_fused[kept], rtol=1e-4, atol=1e-5)
        dense = nn.TransformerEncoder(layer, 2).eval()
        assert (dense(values, src_key_padding_mask=mask)[kept] - soft[kept]).abs().max() > 0.01


def test_preparing_keeps_layers_parameters_names_and_hooks():
    model, heard = dkm.mlp(), []
    model[0].register_forward_hook(lambda *_: heard.append("layer"))
    model[0].weight.register_hook(lambda _: heard.append("weight"))
    layers, parameters = list(model), dict(model.named_parameters())
    names = list(model.state_dict())
    palettizer = dkm.ours.DKMPalettizer(model, dkm.config(dkm.ours, n_bits=2))
    prepared = palettizer.prepare(inplace=True)
    assert prepared is model and prepared.training
    assert all(one is other for one, other in zip(model, layers))
    assert all(parameter is parameters[name] for name, parameter in model.named_parameters())
    assert list(parameters) == [name for name, _ in model.named_parameters()]
    assert set(names) <= set(model.state_dict())
    assert all(isinstance(layer, (DKMLayer, nn.Tanh)) and isinstance(layer, type(layer).__mro__[2]) for layer in model)
    model(inputs((2, 16))).sum().backward()
    assert heard == ["layer", "weight"]


def test_a_prepared_model_can_be_copied_and_pickled():
    palettizer, model = dkm.prepared(dkm.mlp(), n_bits=2)
    steps = dkm.batches(4)
    dkm.train(model, steps[:2], palettizer=palettizer)
    twins = [copy.deepcopy(model), pickle.loads(pickle.dumps(model))]
    dkm.train(model, steps[2:])
    for twin in twins:
        dkm.train(twin, steps[2:])
        for name, value in model.state_dict().items():
            assert torch.equal(value, twin.state_dict()[name]), name


def test_a_fake_says_what_it_is():
    _, model = dkm.prepared(dkm.mlp(), n_bits=2, milestone=3, granularity="per_grouped_channel", group_size=2)
    fake = model[0].weight_fake_quant
    assert isinstance(fake, FakePalettize)
    for word in ("n_bits=2", "group_size=2", "milestone=3", "mode=dkm", "enabled=False"):
        assert word in repr(fake)
