"""Logits of EfficientNet-lite0 after palettization: k-means, sensitive k-means, layer-wise.

    cargo xtask python bench/quality_cnn.py                                         # 4, 3 and 2 bits, a table per channel
    cargo xtask python bench/quality_cnn.py --bits 3 --methods skm plain --seeds 0 1 2
    cargo xtask python bench/quality_cnn.py --methods skm skm-mixed                  # bits chosen by weight, at the same size

Real weights; 14 images are for calibration, random crops of them that the seed chooses, 6 others are held out. All
convolutions and the classifier are palettized. SNR is that of the logits of the float network over all held-out crops;
`same` is the share of crops that are put into the same class.
"""

import efficientnet
import quality
import torch
from torch.nn import functional

BATCH = 12  # crops of one image are one sample


def samples(seed, count):
    """Crops of one image, and their class."""
    crops, _ = efficientnet.split(seed, each=BATCH)
    _, classes = efficientnet.images()
    return list(zip(crops.split(BATCH), classes[efficientnet.HELD_OUT:]))[:count]


def loss(model, sample):
    """The sum over the crops."""
    crops, kind = sample
    return functional.cross_entropy(model(crops), kind.expand(len(crops)), reduction="sum")


def forward(model, sample):
    return model(sample[0])


def subject(seed, count):
    return quality.Subject(efficientnet.model(), samples(seed, count), loss, forward, "efficientnet")


@torch.no_grad()
def score(model):
    _, held_out = efficientnet.split(0)
    wanted, found = efficientnet.model()(held_out), model(held_out)
    error = (wanted - found).square().sum()
    return {"SNR dB": float(10 * torch.log10(wanted.square().sum() / error.clamp_min(1e-30))),
            "same %": float(100 * (wanted.argmax(1) == found.argmax(1)).float().mean())}


if __name__ == "__main__":
    quality.main(quality.Bench(
        __file__, subject, score, samples=14, methods=("float", "k-means", "skm", "layerwise", "plain"),
        figures={"SNR dB": ".1f", "same %": ".0f"}), __doc__)
