"""Llama-2-7B's layer shapes, weighted k-means to 4 bits with one table for each output channel, projected to the whole.

One layer of each shape is made (fp16 weights, fp32 sensitivities, random), clustered exactly, and counted as often as it
occurs. The best published time for this is 38 s on 24 cores (SqueezeLLM's, by an approximate algorithm).
"""

import os
import time

import numpy as np
import weights
from palettizer import _native

SHAPES = {  # (rows, columns) -> how often it occurs
    (4096, 4096): 4 * 32, (11008, 4096): 2 * 32, (4096, 11008): 32, (32000, 4096): 2,
}


def cluster(values, sensitivity, threads):
    """(CPU seconds, wall-clock seconds, the palette)."""
    start, before = time.perf_counter(), os.times()
    palette = _native.palettize(
        values.view(np.uint8).reshape(-1), "f16", list(values.shape), nbits=4, granularity="per_grouped_channel",
        group_size=1, channel_axis=0, output_axis=0, exact=True, sensitivity=sensitivity.reshape(-1), threads=threads)
    wall, after = time.perf_counter() - start, os.times()
    return sum(after[:2]) - sum(before[:2]), wall, palette


def table():
    print("| shape | layers | weights | CPU s, 1 thread | CPU s, 2 threads | wall s, 2 threads | error dB, weighted |")
    print("|---|---|---|---|---|---|---|")
    totals = np.zeros(4)
    for shape, count in SHAPES.items():
        values = weights.draw(f"llama {shape}", shape).astype(np.float16)
        sensitivity = np.square(weights.draw(f"llama {shape} gradients", shape))
        one, _, _ = cluster(values, sensitivity, 1)
        two, wall, palette = cluster(values, sensitivity, 2)
        size = shape[0] * shape[1]
        decibels = -palette.error["snr_db"]
        print(f"| {shape[0]} × {shape[1]} | {count} | {size * count / 1e9:.2f} × 10⁹ | {one:.2f} | {two:.2f} | {wall:.2f} "
              f"| {decibels:.2f} |", flush=True)
        totals += np.array([size, one, two, wall]) * count
    size, one, two, wall = totals
    print(f"| all | {sum(SHAPES.values())} | {size / 1e9:.2f} × 10⁹ | {one:.0f} | {two:.0f} | {wall:.0f} | |")
