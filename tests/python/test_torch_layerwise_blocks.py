"""Statistics do not depend on the way taken: in one pass, block by block, from memory or from disk, block-wise over the
whole model."""

import gc
import glob
import os
import tempfile

import pytest
import torch
import transformers
from torch import nn

from palettizer.torch.palettization import LayerwisePalettizer, LayerwisePalettizerConfig
from palettizer.torch.palettization._layerwise import collect
from palettizer.torch.palettization._layerwise import statistics as sums


class Block(nn.Module):
    """A block whose way through depends on what it is given beside its input."""

    def __init__(self, size=8, inplace=False):
        super().__init__()
        self.norm, self.up, self.gate = nn.LayerNorm(size), nn.Linear(size, 2 * size), nn.Linear(size, 2 * size)
        self.down, self.inplace = nn.Linear(2 * size, size), inplace

    def forward(self, x, mask=None, *, scale=1.0):
        y = self.norm(x)
        y = self.down(self.up(y) * self.gate(y).sigmoid()) * scale
        y = y if mask is None else y * mask
        if self.inplace:
            return x.add_(y), "something"
        return x + y


class Net(nn.Module):
    """Blocks between a stem and a head."""

    def __init__(self, way="chained", blocks=3):
        super().__init__()
        self.way = way
        self.stem = nn.Embedding(16, 8)
        self.blocks = nn.ModuleList([Block(inplace=way == "in place") for _ in range(blocks)])
        self.head = nn.Linear(8, 16, bias=False)
        if way == "tied":
            self.head.weight = self.stem.weight
        if way == "shared weight":
            self.blocks[1].up.weight = self.blocks[0].up.weight

    def forward(self, tokens, factor=2.0):
        h, mask = self.stem(tokens), (tokens % 3 > 0)[..., None].float()
        order = reversed(self.blocks) if self.way == "backwards" else [*self.blocks]
        if self.way == "twice":
            order = [*self.blocks, *self.blocks]
        if self.way == "not all":
            order = self.blocks[: 1 + int(tokens.sum()) % 3]
        for index, block in enumerate(order):
            mask = mask + 1 if self.way == "own masks" else mask
            h = block(h, mask, scale=factor / (index + 1))
            h = h[0] if isinstance(h, tuple) else h
            if self.way == "changed between":
                h = h * 2
            if self.way == "changed in place between":
                h.mul_(2)
        if self.way == "used outside":
            h = h + self.blocks[0].down(h.repeat(1, 1, 2))
        return self.head(h)


def data(count=4):
    torch.manual_seed(1)
    return [torch.randint(0, 16, (2, 5)) for _ in range(count)]


def loss(model, item):
    return model(item).log_softmax(-1)[..., 3].square().sum()


def statistics(model, items, loss_fn=None, **config):
    config = LayerwisePalettizerConfig(calibration_nsamples=len(items), **config)
    return LayerwisePalettizer(model, config).compute_statistics(items, loss_fn, progress=False)


def same(mine, theirs, rtol=2e-5):
    assert mine.keys() == theirs.keys()
    for name, value in mine.items():
        scale = value.abs().max().item()
        torch.testing.assert_close(theirs[name], value, rtol=rtol, atol=rtol * scale, msg=lambda text: f"{name}: {text}")


@pytest.fixture
def ways(monkeypatch):
    """The ways that were taken: in each block, whether it was run by itself."""
    taken = []
    block = collect.Collector._block

    def spying(self, weights, chain, place, spill):
        taken.append("alone" if place is not None else "whole")
        return block(self, weights, chain, place, spill)

    monkeypatch.setattr(collect.Collector, "_block", spying)
    return taken


WAYS = {"chained": "alone", "in place": "alone", "backwards": "alone", "tied": "alone", "own masks": "alone",
        "shared weight": "alone", "twice": "whole", "not all": "whole", "changed between": "whole",
        "changed in place between": "whole", "used outside": "whole"}  # fmt: skip


@pytest.mark.parametrize("budget", [0, 2000, 1 << 30], ids=["on disk", "some on disk", "in memory"])
# Autograd needs what a block that works in place overwrites.
@pytest.mark.parametrize("way, guided", [(way, n) for way in WAYS for n in (0, 1, 2) if way != "in place" or not n])
def test_blocks_give_what_one_pass_gives(way, guided, budget, ways):
    torch.manual_seed(0)
    model, loss_fn = Net(way), loss if guided else None
    expected = statistics(model, data(), loss_fn, guided_groups=max(1, guided))
    assert not ways
    found = statistics(model, data(), loss_fn, guided_groups=max(1, guided), layers=r"blocks\.\d", max_cached_bytes=budget)
    assert ways == [WAYS[way]] * 3
    same(expected, {name: found[name] for name in expected})


def test_blocks_are_found_where_statistics_are_large(ways):
    model = Net()
    expected = statistics(model, data())
    same(expected, reordered(statistics(model, data(), max_cached_bytes=4096), expected))
    assert ways == ["alone"] * 3


def reordered(found, like):
    assert found.keys() == like.keys()
    return {name: found[name] for name in like}


def test_nothing_stays_on_the_disk(ways):
    before = set(glob.glob(os.path.join(tempfile.gettempdir(), "palettizer-inputs-*")))
    model = Net()
    statistics(model, data(), max_cached_bytes=0)
    model.blocks[1].forward = lambda x, mask, scale: x / "1"
    with pytest.raises(TypeError):
        statistics(model, data(), max_cached_bytes=0)
    gc.collect()
    assert set(glob.glob(os.path.join(tempfile.gettempdir(), "palettizer-inputs-*"))) == before


def tokens(count=3, length=6):
    torch.manual_seed(1)
    return [{"input_ids": torch.randint(0, 32, (2, length)), "attention_mask": torch.ones(2, length).long()} for _ in range(count)]


def llama():
    return transformers.LlamaForCausalLM(transformers.LlamaConfig(
        vocab_size=32, hidden_size=16, intermediate_size=24, num_hidden_layers=3, num_attention_heads=4,
        num_key_value_heads=2, max_position_embeddings=32))  # fmt: skip


def gemma():
    return transformers.Gemma3ForCausalLM(transformers.Gemma3TextConfig(
        vocab_size=32, hidden_size=16, intermediate_size=24, num_hidden_layers=4, num_attention_heads=4, head_dim=4,
        num_key_value_heads=2, max_position_embeddings=32, sliding_window=3,
        layer_types=["sliding_attention", "full_attention"] * 2))  # fmt: skip


def gpt2():
    return transformers.GPT2LMHeadModel(transformers.GPT2Config(vocab_size=32, n_embd=16, n_layer=3, n_head=2, n_positions=16))


def t5():
    return transformers.T5ForConditionalGeneration(transformers.T5Config(
        vocab_size=32, d_model=16, d_kv=4, d_ff=24, num_layers=3, num_heads=2, decoder_start_token_id=0))  # fmt: skip


def vit():
    return transformers.ViTForImageClassification(transformers.ViTConfig(
        hidden_size=16, num_hidden_layers=3, num_attention_heads=2, intermediate_size=24, image_size=8, patch_size=4))  # fmt: skip


def mixtral():
    return transformers.MixtralForCausalLM(transformers.MixtralConfig(
        vocab_size=32, hidden_size=16, intermediate_size=24, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, num_local_experts=3, num_experts_per_tok=1, max_position_embeddings=32))  # fmt: skip


def torch_encoder():
    layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)
    return nn.Sequential(nn.Linear(4, 8), nn.TransformerEncoder(layer, 3))


def items_of(model):
    torch.manual_seed(2)
    if isinstance(model, nn.Sequential):
        return [torch.randn(2, 5, 4) for _ in range(3)]
    if hasattr(model, "vit"):
        return [torch.randn(2, 3, 8, 8) for _ in range(3)]
    labels = {"labels": torch.randint(0, 32, (2, 6))} if isinstance(model, transformers.T5ForConditionalGeneration) else {}
    return [{**item, **labels} for item in tokens()]


def any_loss(model, item):
    out = model(**item) if isinstance(item, dict) else model(item)
    return getattr(out, "logits", out).float().square().sum()


@pytest.mark.parametrize("guided", [False, True])
@pytest.mark.parametrize("make", [llama, gemma, gpt2, t5, vit, mixtral, torch_encoder], ids=lambda make: make.__name__)
def test_models_of_others_are_run_block_by_block(make, guided, ways):
    torch.manual_seed(0)
    model = make()
    expected = statistics(model, items_of(model), any_loss if guided else None)
    found = statistics(model, items_of(model), any_loss if guided else None, max_cached_bytes=0)
    assert ways and set(ways) == {"alone"}
    same(expected, reordered(found, expected), rtol=1e-4)
    assert getattr(getattr(model, "config", None), "use_cache", True)


def test_weights_with_the_same_input_share_a_sum(monkeypatch):
    made = []

    class Counting(sums.Accumulator):
        def __init__(self, *arguments):
            super().__init__(*arguments)
            made.append(self)

    monkeypatch.setattr(sums, "Accumulator", Counting)
    statistics(Net(), data())
    assert len(made) == 3 * 2 + 1  # up and gate, down; head


class Fickle(nn.Module):
    """Two layers that have one input in some samples, and others not; or that see it more than once."""

    def __init__(self, how):
        super().__init__()
        self.a, self.b, self.c, self.how = nn.Linear(4, 4), nn.Linear(4, 4), nn.Linear(4, 4), how

    def forward(self, x):
        apart = x[0, 0] < 0
        if self.how == "changed in place":
            x = x.clone()
            y = self.a(x)
            x.mul_(2)
            return y + self.b(x) + self.c(x)
        if self.how == "twice":
            return self.a(x) + self.a(x) + self.b(x) + self.c(self.b(x) if apart else x)
        if self.how == "later":
            return self.a(x) + self.b(x) + self.a(x.sin()) + self.c(x)
        return self.a(x) + self.b(x * 3 if apart else x) + (0 if apart else self.c(x))


@pytest.mark.parametrize("how", ["changed in place", "twice", "later", "some missing"])
def test_sharing_ends_where_inputs_differ(how):
    """Against each layer's own sum of what a hook sees."""
    torch.manual_seed(3)
    model, items = Fickle(how), [torch.randn(3, 4) for _ in range(8)]
    assert len({bool(item[0, 0] < 0) for item in items}) == 2
    inputs_of = {}
    for name, layer in model.named_children():
        layer.register_forward_pre_hook(
            lambda _, args, name=name: inputs_of.setdefault(name, []).append(args[0].detach().double().clone())
        )
    for item in items:
        model(item)
    expected = {name: torch.cat(inputs) for name, inputs in inputs_of.items()}
    found = statistics(model, items)
    for name, inputs in expected.items():
        moments = found[f"{name}.weight.second_moments"][0, 0].double()
        torch.testing.assert_close(moments, inputs.T @ inputs / len(inputs), rtol=1e-5, atol=1e-6)
