"""Runs the kernels of Triton for soft k-means on the CPU, through Triton's interpreter.

A program of its own, for the interpreter is chosen when Triton is imported:
`TRITON_INTERPRET=1 python -m torch_support.soft_interpreted FILE` writes there, with `torch.save`, what comes out of
each case, and of a training.
"""

import sys
from dataclasses import asdict, dataclass, replace

import torch
from palettizer.torch.palettization import DKMPalettizer, DKMPalettizerConfig
from palettizer.torch.palettization._soft import kernels, triton_k_means
from palettizer.torch.palettization._soft.triton_k_means import TritonBatch, TritonSoftKMeans
from torch import nn
from torch.utils.checkpoint import checkpoint
from torch_support.largest import Largest
from torch_support.soft_cases import CASES, Case, found, rounded, soft


@dataclass(frozen=True)
class Run:
    """A case in a dtype, with tiles of so many bytes for each lane, and so many programs."""

    case: Case
    dtype: torch.dtype = torch.float64
    lane: int = 64
    programs: int = 3


def short(case):
    """A case of two steps, which have all that more have."""
    return replace(case, settings=replace(case.settings, iterations=2))


NAMED = (
    "1 bit", "2 bits", "3 bits", "4 bits", "groups", "vectors of 4", "scale, vectors", "hard, vectors",
    "hard, a cluster of none", "gsm, groups of vectors", "zero held, vectors", "zeros kept", "zeros kept, vectors",
    "zeros kept, high floor", "zeros kept, hard", "straight through, scaled groups of vectors", "found, groups",
    "one group enabled", "pruning", "no floor, a cluster of none", "int8, scale", "duplicates and a held zero",
)  # fmt: skip
IMPLICIT = soft(2, 1e-5, implicit=True, iterations=4, cluster_dim=2, group_size=4)
STOPS = soft(2, group_size=4, iterations=8, epsilon=1e-3)
FLOAT, HALF, BRAIN = torch.float32, torch.float16, torch.bfloat16

RUNS = {
    **{name: Run(short(CASES[name]), lane=256) for name in NAMED},
    "6 bits": Run(Case(soft(6, 1e-4), (16, 12)), lane=1024),
    "8 bits": Run(Case(soft(8, 1e-6), (24, 16)), lane=8192),
    "8 bits, vectors of 4": Run(Case(soft(8, 1e-5, cluster_dim=4), (64, 16)), lane=2**16),
    "vectors of 3": Run(Case(soft(2, cluster_dim=3, group_size=6, scale_scheme="abs"), (12, 5))),
    "groups of two elements": Run(Case(soft(1, group_size=2), (6, 1))),
    "a tile but one": Run(Case(soft(), (1, 63))),
    "a tile": Run(Case(soft(), (1, 64)), programs=1),
    "a tile and one": Run(Case(soft(), (1, 65)), programs=1),
    "some tiles for each of two programs": Run(Case(soft(), (5, 65)), programs=2),
    "early stop of groups": Run(Case(STOPS), lane=256),
    "implicit, groups of vectors": Run(Case(IMPLICIT), lane=256),
    "scale, f32": Run(Case(soft(2, 0.1, scale_scheme="min_max")), FLOAT),
    "groups of vectors, f16": Run(short(CASES["groups of vectors"]), HALF),
    "gsm, bf16": Run(short(CASES["gsm"]), BRAIN),
    "zeros kept, vectors, f16": Run(short(CASES["zeros kept, vectors"]), HALF),
    "high floor, f32": Run(short(CASES["high floor"]), FLOAT),
    "early stop of groups, bf16": Run(Case(STOPS), BRAIN, lane=256),
    "hard, f32": Run(short(CASES["hard"]), FLOAT),
    "uint8, scale, vectors, bf16": Run(short(CASES["uint8, scale, vectors"]), BRAIN),
    "6 bits, f32": Run(Case(soft(6, 1e-4), (16, 12)), FLOAT, lane=1024),
    "half of the groups, f16": Run(short(CASES["straight through, half of the groups"]), HALF),
}


def interpreted(run):
    """What the kernels make of a case."""
    triton_k_means.LANE, triton_k_means.PROGRAMS = run.lane, run.programs
    return found(TritonSoftKMeans, run.case, rounded(run.case, run.dtype))


def largest():
    """The bytes of the largest tensor of a step, and of the weight."""
    case = Case(soft(4, 2e-4, group_size=16, iterations=1), (32, 48))
    weight, centroids, grad = case.numbers()
    triton_k_means.LANE, triton_k_means.PROGRAMS = 4096, 2
    kmeans = TritonSoftKMeans(weight.dtype, case.shape, **asdict(case.settings))
    with Largest() as most:
        _, _, saved = kmeans.forward(weight, centroids, None, None, 0)
        kmeans.backward(weight, None, None, 0, saved, grad)
        kmeans.assign(weight, centroids, None)
    return most.bytes, weight.nbytes


def faults():
    """What trying out says of kernels that are right, and of each pass when it does nothing."""
    triton_k_means.LANE, triton_k_means.PROGRAMS = 256, 2
    said = {"none": fault(), "none, vectors": fault(3, 2)}
    for name in ("means", "put_product", "through_product", "gradient", "put_nearest"):
        right = getattr(TritonBatch, name)
        setattr(TritonBatch, name, idle(name))
        said[name] = fault()
        setattr(TritonBatch, name, right)
    return said


def fault(nbits=2, cluster_dim=1):
    try:
        triton_k_means.try_out(nbits, cluster_dim, "cpu")
    except AssertionError as error:
        return str(error)
    return None


def idle(name):
    """The pass without anything done."""
    if name == "means":
        return lambda self, c, at: (c, torch.ones_like(c[..., 0]), c[:, 0, 0])
    if name.startswith("put"):
        return lambda self, out, *rest: out.zero_()
    return lambda self, c, *rest: torch.zeros_like(c)


def trained():
    """The weights of a small model after two steps, with a checkpoint and autocast."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(8, 16), nn.Tanh(), nn.Linear(16, 4))
    inputs = torch.randn(5, 8)
    palettizer = DKMPalettizer(model, DKMPalettizerConfig.from_dict({"global_config": {
        "n_bits": 2, "weight_threshold": 0, "palett_tau": 0.01, "granularity": "per_grouped_channel", "group_size": 4,
    }}))  # fmt: skip
    model = palettizer.prepare(inplace=True)
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    for _ in range(2):
        palettizer.step()
        optimizer.zero_grad()
        with torch.autocast("cpu", torch.bfloat16):
            out = model[2](checkpoint(model[:2], inputs, use_reentrant=False))
        out.float().square().sum().backward()
        optimizer.step()
    return [parameter.detach().clone() for parameter in model.parameters()] + [model.eval()(inputs).detach()]


def main(path):
    """Writes what all of this makes."""
    made = {name: interpreted(run) for name, run in RUNS.items()}
    sizes, said = largest(), faults()
    kernels.NativeSoftKMeans = TritonSoftKMeans
    torch.save({"cases": made, "largest": sizes, "trained": trained(), "faults": said}, path)


if __name__ == "__main__":
    main(sys.argv[1])
