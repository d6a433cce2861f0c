"""Sentence embeddings of all-MiniLM-L6-v2 after palettization: k-means, sensitive k-means, layer-wise. Weights as they were trained.

    cargo xtask python bench/quality_embeddings.py                                   # 4, 3 and 2 bits, a table per channel
    cargo xtask python bench/quality_embeddings.py --bits 3 --layouts group16-scale --seeds 0 1 2

The linear layers of the encoder are palettized; embeddings stay float. A sample is a sentence or two of a handbook's
paragraphs; those that are tested are of other pages. `cosine` is the mean over 200 of them, of float against palettized;
`worst` is the least. There is no label: what guides is the squared distance between the embeddings of two sentences.
"""

import os
import random
import sys
from pathlib import Path

import handbook
import quality
import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests/python"))
from torch_support import nets

TESTED, LONGEST = 200, 300  # sentences, characters
BATCH = 8  # sentences of a sample


def sentences(which):
    """The beginnings of paragraphs, up to the last whole word."""
    texts = [line for page in handbook.pages()[which] for line in page.split("\n\n")]
    return [text[:LONGEST].rsplit(" ", 1)[0] for text in texts]


def tokens(texts):
    """What the network takes; characters that its vocabulary does not have are left out."""
    read = nets.Tokens(Path(os.environ["PALETTIZER_MODELS"]))
    known = [" ".join("".join(c if c.isascii() and c.isalnum() else " " for c in text).split()) for text in texts]
    return [read(text)[:, :128] for text in known if text]


def network():
    return nets.minilm(Path(os.environ["PALETTIZER_MODELS"]))


def forward(model, sample):
    return torch.cat([model(sentence) for sentence in sample])


def loss(model, sample):
    """How far apart the sentences of a sample are: it depends on the embeddings, and is not at its least."""
    found = forward(model, sample)
    return (found @ found.T).square().sum()


def subject(seed, count):
    chosen = sentences(0)
    random.Random(seed).shuffle(chosen)
    parts = tokens(chosen[:count * BATCH])
    samples = [parts[start:start + BATCH] for start in range(0, len(parts), BATCH)]
    skip = (r"embeddings\..*", r"pooler\..*")
    return quality.Subject(network(), samples, loss, forward, "minilm", skip=skip)


@torch.no_grad()
def score(model):
    chosen = sentences(1)
    random.Random(0).shuffle(chosen)
    reference = network()
    found = torch.cat([(reference(one) * model(one)).sum(1) for one in tokens(chosen[:TESTED])])
    return {"cosine": float(found.mean()), "worst": float(found.min())}


if __name__ == "__main__":
    quality.main(quality.Bench(
        __file__, subject, score, samples=32, methods=("float", "k-means", "skm", "layerwise", "plain"),
        figures={"cosine": ".4f", "worst": ".4f"}), __doc__)
