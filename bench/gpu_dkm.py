"""A step of differentiable k-means of one weight on a GPU: in kernels of Triton, in torch operations, and beside the CPU.

    cargo xtask python bench/gpu_dkm.py                          # needs a GPU that torch knows; a minute or two
    cargo xtask python bench/gpu_dkm.py --device cpu --size 256  # no GPU: torch operations alone, to see that it runs

For each number of bits and each way: ms of a forward with its backward (median), the highest memory above the weight, and
how far the soft weight and the gradient are from those of the native kernel, relative to their largest number.
"""

import argparse
import statistics
import time

import torch
from palettizer.torch.palettization._soft.kernels import NativeSoftKMeans, kernel
from palettizer.torch.palettization._soft.k_means import TorchSoftKMeans
from palettizer.torch.palettization._soft.settings import SoftSettings


def step(kmeans, weight, centroids, temperatures, grad):
    """The soft weight, and the gradient."""
    out, _, saved = kmeans.forward(weight, centroids, None, temperatures, 0)
    return out, kmeans.backward(weight, None, temperatures, 0, saved, grad)


def timed(device, runs, *work):
    """Seconds of a step (median), the bytes above what was there, and what came out."""
    made = step(*work)  # compiles what is to be compiled
    seconds, cuda = [], device == "cuda"
    if cuda:
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
    for _ in range(runs):
        start = time.perf_counter()
        step(*work)
        if cuda:
            torch.cuda.synchronize()
        seconds.append(time.perf_counter() - start)
    above = torch.cuda.max_memory_allocated() - before if cuda else 0
    return statistics.median(seconds), above, made


def far(ours, theirs):
    return float((ours.cpu().double() - theirs.double()).abs().max() / theirs.double().abs().max())


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--size", type=int, default=4096, help="rows and columns of the weight")
    parser.add_argument("--bits", type=lambda text: [int(bits) for bits in text.split(",")], default=[2, 4, 8])
    parser.add_argument("--group-size", type=int, default=None)
    parser.add_argument("--dtype", type=lambda name: getattr(torch, name), default=torch.float32)
    parser.add_argument("--runs", type=int, default=5)
    args = parser.parse_args()
    shape = (args.size, args.size)
    torch.manual_seed(0)
    weight, grad = (torch.randn(shape) * by for by in (0.02, 1))
    weight, grad = weight.to(args.dtype), grad.to(args.dtype)
    print("| bits | way | ms | MB above | soft weight off by | gradient off by |\n|---|---|---|---|---|---|")
    for bits in args.bits:
        settings = SoftSettings(bits, group_size=args.group_size, temperature=1e-4)
        native = NativeSoftKMeans(args.dtype, shape, **settings.arguments())
        centroids, temperatures = native.seed_centroids(weight, None), torch.empty(0)
        exact = step(native, weight, centroids, temperatures, grad)
        ways = [kernel(args.device, args.dtype, shape, settings), TorchSoftKMeans(args.dtype, shape, **settings.arguments())]
        for way in {type(way): way for way in ways}.values():
            there = [tensor.to(args.device) for tensor in (weight, centroids, temperatures, grad)]
            seconds, above, made = timed(args.device, args.runs, way, *there)
            differences = [far(a, b) for a, b in zip(made, exact)]
            print(f"| {bits} | {type(way).__name__} | {seconds * 1e3:.1f} | {above / 1e6:.0f} | "
                  + " | ".join(f"{by:.1e}" for by in differences) + " |", flush=True)


if __name__ == "__main__":
    main()
