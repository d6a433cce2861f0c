"""Compiles the kernels of Triton for soft k-means, as they are launched, for GPUs that need not be here.

A program of its own, for Triton is told what the machine's GPU is: `python -m torch_support.soft_compiled FILE` writes there,
as JSON, the registers and the bytes of stack, which are those that spilled registers take, of each kernel.
"""

import json
import re
import subprocess
import sys
import tempfile
from pathlib import Path

import torch
import triton
from palettizer.torch.palettization._soft.settings import SoftSettings
from palettizer.torch.palettization._soft.triton_k_means import TritonSoftKMeans
from triton.backends.compiler import GPUTarget
from triton.runtime.jit import JITFunction

HOPPER, AMPERE = 90, 80
FLOAT, BRAIN = torch.float32, torch.bfloat16

RUNS = {
    "2 bits": (HOPPER, FLOAT, SoftSettings(2)),
    "4 bits, bf16": (HOPPER, BRAIN, SoftSettings(4)),
    "8 bits": (HOPPER, FLOAT, SoftSettings(8)),
    "8 bits with noise": (HOPPER, FLOAT, SoftSettings(8, mode="gsm")),
    "8 bits on Ampere, zeros kept": (AMPERE, BRAIN, SoftSettings(8, enforce_zero=True, prune_threshold=0.0)),
    "vectors of 2, scale, pruning": (
        HOPPER, FLOAT, SoftSettings(4, cluster_dim=2, prune_threshold=1e-7, scale_scheme="abs", lut_dtype="int8")
    ),
    "8 bits, vectors of 8": (HOPPER, FLOAT, SoftSettings(8, cluster_dim=8)),
}  # fmt: skip


class Driver:
    """That of a GPU that is not here."""

    capability = HOPPER

    def get_current_target(self):
        return GPUTarget("cuda", self.capability, 32)

    def get_current_device(self):
        return self.capability  # what is compiled is kept for each device

    def get_current_stream(self, device):
        return 0


def compiled(kernels, dtype, settings):
    """The kernels of a forward, a backward and an evaluation, which compute nothing."""
    kernels.clear()
    shape = (32 * settings.cluster_dim, 64)
    kmeans = TritonSoftKMeans(dtype, shape, **settings.arguments())
    weight, centroids = torch.ones(shape, dtype=dtype), torch.ones(1, kmeans.clusters, kmeans.cluster_dim)
    centroids, scale = centroids.to(kmeans.real), kmeans.channel_scale(weight)
    temperatures = torch.ones(1)
    _, _, saved = kmeans.forward(weight, centroids, scale, temperatures, 0)
    saved[0] = 2
    kmeans.backward(weight, scale, temperatures, 0, saved, weight)
    kmeans.assign(weight, centroids, scale)
    return {kernel.hash: kernel for kernel in kernels}.values()


def usage(kernel):
    """The kernel's name, its registers, and its bytes of stack."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "kernel.cubin"
        path.write_bytes(kernel.asm["cubin"])
        tool = Path(triton.__file__).parent / "backends/nvidia/bin/cuobjdump"
        text = subprocess.run([tool, "-res-usage", path], capture_output=True, text=True, check=True).stdout
    found = re.search(r"REG:(\d+) STACK:(\d+)", text)
    return kernel.metadata.name, int(found[1]), int(found[2])


def main(path):
    """Compiles all of them."""
    triton.runtime.driver.set_active(Driver())
    launch, kernels = JITFunction.run, []

    def compile_only(self, *args, grid, warmup, **kwargs):
        kernels.append(launch(self, *args, grid=grid, warmup=True, **kwargs))

    JITFunction.run = compile_only
    made = {}
    for name, (Driver.capability, dtype, settings) in RUNS.items():
        made[name] = [usage(kernel) for kernel in compiled(kernels, dtype, settings)]
    Path(path).write_text(json.dumps(made), encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1])
