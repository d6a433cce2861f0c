"""A small GPT over characters, trained where the tests run, on the help texts that come with Python."""

import torch
from pydoc_data.topics import topics
from torch import nn
from torch.nn import functional

CONTEXT = 64


def text():
    """(training characters, characters for testing) as numbers; the last tenth is for testing."""
    words = "".join(topics[name] for name in sorted(topics))
    codes = torch.tensor([min(ord(c), 127) for c in words])
    cut = len(codes) * 9 // 10
    return codes[:cut], codes[cut:]


class Scaled(nn.Linear):
    """A linear layer whose weight is smaller by a factor than what it computes with."""

    by = 1.0

    def forward(self, x):
        return functional.linear(x, self.weight, None) * self.by + self.bias


class Block(nn.Module):
    """A pre-norm block of a decoder."""

    def __init__(self, width, heads=4):
        super().__init__()
        self.heads = heads
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.out = Scaled(width, 3 * width), Scaled(width, width)
        self.wide, self.narrow = Scaled(width, 4 * width), Scaled(4 * width, width)

    def forward(self, x):
        batch, length, width = x.shape
        q, k, v = self.qkv(self.norm1(x)).view(batch, length, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        y = functional.scaled_dot_product_attention(q, k, v, is_causal=True)
        x = x + self.out(y.transpose(1, 2).reshape(batch, length, width))
        return x + self.narrow(functional.gelu(self.wide(self.norm2(x))))


class Gpt(nn.Module):
    """Characters to logits of the next; `Scaled` layers hold nearly all weights."""

    def __init__(self, width=128, layers=2):
        super().__init__()
        self.embed = nn.Embedding(128, width)
        self.position = nn.Parameter(torch.randn(CONTEXT, width) * 0.02)
        self.blocks = nn.Sequential(*[Block(width) for _ in range(layers)])
        self.norm, self.head = nn.LayerNorm(width), Scaled(width, 128)

    def forward(self, codes):
        return self.head(self.norm(self.blocks(self.embed(codes) + self.position)))


@torch.no_grad()
def scaled_down(model, by):
    """Makes the weights of linear layers smaller, in place, and their outputs as before."""
    for layer in model.modules():
        if isinstance(layer, Scaled):
            layer.weight /= by
            layer.by = layer.by * by
    return model


def train(model, codes, steps, rate, seed=0, batch=16, step=lambda: None):
    """Adam with a falling rate; for weights that are scaled down the rate is, too, so that the function learns the same."""
    generator = torch.Generator().manual_seed(seed)
    linear = [m for m in model.modules() if isinstance(m, Scaled)]
    scaled = {id(m.weight) for m in linear}
    others = [p for p in model.parameters() if id(p) not in scaled]
    groups = [{"params": [m.weight], "lr": rate / m.by, "eps": 1e-8 * m.by} for m in linear]
    optimizer = torch.optim.Adam([{"params": others}, *groups], rate)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps, eta_min=0)
    model.train()
    for _ in range(steps):
        optimizer.zero_grad()
        loss(model, codes, torch.randint(len(codes) - CONTEXT, (batch,), generator=generator)).backward()
        optimizer.step()
        schedule.step()
        step()
    return model.eval()


def loss(model, codes, starts):
    """The mean cross entropy of the next characters of some windows."""
    index = starts[:, None] + torch.arange(CONTEXT + 1)
    window = codes[index]
    return functional.cross_entropy(model(window[:, :-1]).flatten(0, 1), window[:, 1:].flatten())


@torch.no_grad()
def tested(model, codes, windows=128):
    """The same of evenly spread windows."""
    return float(loss(model, codes, torch.linspace(0, len(codes) - CONTEXT - 1, windows).long()))


def fine_tuned(side, model, codes, steps, rate, by=1, seed=0, **options):
    """A copy of a trained model, its weights scaled down, trained on with differentiable k-means."""
    config = side.DKMPalettizerConfig(module_type_configs={Scaled: side.ModuleDKMPalettizerConfig(**options)})
    palettizer = side.DKMPalettizer(model, config)
    return train(scaled_down(palettizer.prepare(), by), codes, steps, rate, seed, step=palettizer.step)
