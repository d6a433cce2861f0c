"""What a budget takes of time and memory for a large checkpoint: 1.5 billion weights of bfloat16 in the shapes of a small Llama.

    cargo xtask python bench/budget_checkpoint.py
    cargo xtask python bench/budget_checkpoint.py --rows 4     # one table for each row, without a budget

The values are normal, each row with its own scale. PALETTIZER_BIN is the command of a release build.
"""

import argparse
import os
import tempfile
from pathlib import Path

import torch
from safetensors.torch import save_file

import measure

WIDTH, INNER, SMALL, WORDS = 2048, 8192, 512, 32000
SHAPES = {"q": (WIDTH, WIDTH), "k": (SMALL, WIDTH), "v": (SMALL, WIDTH), "o": (WIDTH, WIDTH),
          "gate": (INNER, WIDTH), "up": (INNER, WIDTH), "down": (WIDTH, INNER)}


def checkpoint(layers):
    """The tensors by name."""
    random = torch.Generator().manual_seed(0)
    tensors = {}
    for layer in range(layers):
        for name, shape in SHAPES.items():
            scale = 0.02 * (1 + torch.rand(shape[0], 1, generator=random))
            tensors[f"model.layers.{layer}.{name}.weight"] = (torch.randn(shape, generator=random) * scale).bfloat16()
    tensors["model.embed_tokens.weight"] = (torch.randn((WORDS, WIDTH), generator=random) * 0.02).bfloat16()
    return tensors


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--layers", type=int, default=24)
    parser.add_argument("--bits", type=float, default=3.5, help="bits for each weight, on the average")
    parser.add_argument("--rows", type=int, metavar="BITS", help="one table for each row at so many bits, in place of a budget")
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        whole, small = Path(scratch) / "whole.safetensors", Path(scratch) / "small.safetensors"
        tensors = checkpoint(args.layers)
        weights = sum(tensor.numel() for tensor in tensors.values())
        save_file(tensors, whole)
        del tensors
        form = ["--nbits", args.rows, "--group-size", 1] if args.rows else ["--target-bpw", args.bits]
        flags = [*form, "--threads", args.threads, "--quiet"]
        cost = measure.run([os.environ["PALETTIZER_BIN"], "compress", whole, "-o", small, *flags])
        print(f"{weights:,} weights: {cost.cpu:.0f} CPU s, {cost.wall:.0f} s, peak {cost.peak:.0f} MB; "
              f"{small.stat().st_size * 8 / weights:.3f} bits a weight")


if __name__ == "__main__":
    main()
