"""Perplexity of SmolLM2-135M-Instruct after palettization: k-means, sensitive k-means, layer-wise, tables tuned.

    cargo xtask python bench/quality_llm.py                                             # 4, 3 and 2 bits, a table per channel
    cargo xtask python bench/quality_llm.py --bits 3 --methods layerwise --steps 0 64   # tables tuned by KL, too
    cargo xtask python bench/quality_llm.py --bits 4 3 --methods skm layerwise --layouts group16-scale tensor-scale
    cargo xtask python bench/quality_llm.py --bits 3 --methods layerwise --seeds 0 1 2  # other calibration samples
    cargo xtask python bench/quality_llm.py --bits 3 --methods layerwise layerwise-mixed          # bits chosen by weight, at the same size

The linear layers of the blocks are palettized; the embedding, which is the head too, stays float. The float weights are a
file of 4-bit blocks, dequantized, which flatters 4 bits. The text is a handbook: pages are shuffled, a third is for testing.
A sample is 512 tokens; the seed chooses which. Perplexity is over the same ten windows of 512 tokens for all.

Tables are tuned by the divergence from the float model's outputs, on four windows a step that no row is tested with;
products of matrices are in bfloat16 there, which halves the time on a CPU that has its instructions.
"""

import handbook
import quality
import smollm
import torch
from torch.nn import functional

TESTED = 10  # windows
BATCH = 4  # windows of a step of tuning
TUNED = 192  # windows that tables are tuned on


def samples(seed, count):
    """Windows for calibration, in an order that the seed chooses."""
    windows, _ = handbook.windows(smollm.tokenizer())
    order = torch.randperm(len(windows), generator=torch.Generator().manual_seed(seed))
    return windows[order[:count]]


def loss(model, tokens):
    """The sum over the tokens, so that it does not depend on how they are cut into samples."""
    logits = model(tokens).logits
    return functional.cross_entropy(logits[:, :-1].flatten(0, 1).float(), tokens[:, 1:].flatten(), reduction="sum")


def forward(model, tokens):
    return model.model(tokens)  # without the head


def tuning_forward(model, tokens):
    with torch.autocast("cpu", torch.bfloat16):
        return model(tokens)


def subject(seed, count):
    windows = samples(seed, max(count, TUNED))
    return quality.Subject(
        smollm.model(), list(windows[:count, None]), loss, forward, "smollm2", skip=("model.embed_tokens", "lm_head"),
        tuning=list(windows[:TUNED].split(BATCH)), tuning_forward=tuning_forward)


@torch.no_grad()
def score(model):
    _, windows = handbook.windows(smollm.tokenizer())
    total = sum(float(loss(model, window[None])) for window in windows[:TESTED])
    return {"perplexity": float(torch.tensor(total / (TESTED * (windows.shape[1] - 1))).exp())}


if __name__ == "__main__":
    quality.main(quality.Bench(__file__, subject, score, samples=64, figures={"perplexity": ".2f"}), __doc__)
