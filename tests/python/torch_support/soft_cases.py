"""Cases of soft k-means, and what those who compute it make of them."""

from dataclasses import asdict, dataclass

import torch
from palettizer import _native
from palettizer.torch.palettization._plan.tensors import as_bytes
from torch_support.soft_reference import Settings

SEED = 5


@dataclass(frozen=True)
class Case:
    """Settings, and what the numbers are like."""

    settings: Settings
    shape: tuple[int, ...] = (8, 6, 3)
    duplicates: bool = False
    far: bool = False

    def numbers(self):
        """A weight, centroids (groups, k, d) that are not where k-means would put them, and a gradient."""
        torch.manual_seed(0)
        s = self.settings
        weight, grad = (torch.randn(self.shape, dtype=torch.float64) * by for by in (0.03, 1))
        centroids = torch.randn(self.shape[0] // (s.group_size or self.shape[0]), 2**s.nbits, s.cluster_dim) * 0.03
        if s.scale_scheme:
            weight, centroids = weight * torch.rand(self.shape[0], *[1] * (weight.dim() - 1)).add(1), centroids * 15
            weight[1] = 0  # a row that has no scale
        if self.duplicates:
            centroids[:, -1] = centroids[:, 1]
        if self.far:
            centroids[:, 1] = 1
        if s.enforce_zero:
            weight.view(-1)[::3] = 0
            centroids[:, 0] = 0
        return weight, centroids.double(), grad


def soft(nbits=2, temperature=1e-3, **settings):
    return Settings(nbits, temperature=temperature, **settings)


FOUND = {"temperature": None, "floor": None, "prune_threshold": None}

CASES = {
    "1 bit": Case(soft(1)),
    "2 bits": Case(soft(2)),
    "3 bits": Case(soft(3)),
    "4 bits": Case(soft(4)),
    "default temperature": Case(Settings(4)),
    "one step": Case(soft(iterations=1)),
    "many steps": Case(soft(iterations=9, epsilon=0)),
    "one row": Case(soft(1), shape=(1, 40)),
    "one dimension": Case(soft(2), shape=(48,)),
    "groups": Case(soft(2, group_size=2)),
    "groups of a row": Case(soft(2, group_size=1)),
    "vectors of 2": Case(soft(3, cluster_dim=2)),
    "vectors of 4": Case(soft(2, cluster_dim=4)),
    "groups of vectors": Case(soft(2, cluster_dim=2, group_size=4)),
    "many clusters": Case(soft(8, temperature=1e-6), shape=(32, 40)),
    "scale": Case(soft(2, scale_scheme="min_max", temperature=0.1)),
    "scale, groups": Case(soft(2, scale_scheme="abs", group_size=4, temperature=0.1)),
    "scale, vectors": Case(soft(2, scale_scheme="min_max", cluster_dim=2, group_size=4, temperature=0.1)),
    "hard": Case(soft(2, mode="hard")),
    "hard, vectors": Case(soft(2, mode="hard", cluster_dim=2)),
    "hard, a cluster of none": Case(soft(2, mode="hard"), far=True),
    "gsm": Case(soft(2, mode="gsm")),
    "gsm, groups of vectors": Case(soft(2, mode="gsm", cluster_dim=2, group_size=4)),
    "zero held": Case(soft(2, enforce_zero=True)),
    "zero held, vectors": Case(soft(2, enforce_zero=True, cluster_dim=2)),
    "zeros kept": Case(soft(2, enforce_zero=True, prune_threshold=0)),
    "zeros kept, vectors": Case(soft(2, enforce_zero=True, prune_threshold=0, cluster_dim=2)),
    "zeros kept, high floor": Case(soft(2, enforce_zero=True, prune_threshold=0, floor=1e-3)),
    "zeros kept, hard": Case(soft(2, enforce_zero=True, prune_threshold=0, mode="hard")),
    "straight through": Case(soft(2, mode="ste")),
    "straight through, scaled groups of vectors": Case(
        soft(2, mode="ste", cluster_dim=2, group_size=4, scale_scheme="abs", iterations=5)
    ),
    "straight through, half of the groups": Case(soft(2, mode="ste", group_size=2, enabled=0.5, lut_dtype="int8")),
    "found": Case(Settings(3, **FOUND)),
    "found, groups": Case(Settings(2, group_size=2, **FOUND)),
    "found, scaled groups of vectors": Case(Settings(2, cluster_dim=2, group_size=4, scale_scheme="min_max", **FOUND)),
    "found, gsm": Case(Settings(2, group_size=4, mode="gsm", **FOUND)),
    "found, zero held": Case(Settings(2, enforce_zero=True, **FOUND)),
    "found, zeros kept": Case(Settings(2, enforce_zero=True, **{**FOUND, "prune_threshold": 0})),
    "found, some groups enabled": Case(Settings(2, group_size=2, enabled=0.5, **FOUND)),
    "no pruning": Case(soft(2, prune_threshold=0)),
    "pruning": Case(soft(2, prune_threshold=1e-3)),
    "no floor": Case(soft(2, floor=0)),
    "no floor, a cluster of none": Case(soft(2, floor=0), far=True),
    "high floor": Case(soft(2, floor=1e-3)),
    "int8": Case(soft(3, lut_dtype="int8", group_size=4)),
    "uint8": Case(soft(2, lut_dtype="uint8", cluster_dim=2)),
    "int8, scale": Case(soft(2, lut_dtype="int8", scale_scheme="min_max", temperature=0.1)),
    "int8, zero held": Case(soft(2, lut_dtype="int8", enforce_zero=True)),
    "uint8, scale, vectors": Case(soft(2, lut_dtype="uint8", scale_scheme="abs", cluster_dim=2, temperature=0.1)),
    "f16": Case(soft(2, lut_dtype="f16")),
    "f16, scale": Case(soft(2, lut_dtype="f16", scale_scheme="abs", temperature=0.1)),
    "bf16": Case(soft(2, lut_dtype="bf16", group_size=2)),
    "early stop": Case(soft(2, iterations=30, epsilon=1e-4)),
    "early stop of groups": Case(soft(2, iterations=30, epsilon=3e-5, group_size=2)),
    "early stop, gsm": Case(soft(2, iterations=30, epsilon=1e-4, group_size=2, mode="gsm")),
    "duplicates": Case(soft(3), duplicates=True),
    "duplicates of vectors": Case(soft(2, cluster_dim=2, group_size=4), duplicates=True),
    "duplicates tolerated": Case(soft(3, cluster_tolerance=0.2), duplicates=True),
    "duplicates and a held zero": Case(soft(2, enforce_zero=True, prune_threshold=0), duplicates=True),
    "some groups enabled": Case(soft(2, group_size=2, enabled=0.5, lut_dtype="int8")),
    "some groups enabled, scale": Case(soft(2, 0.1, group_size=2, enabled=0.5, scale_scheme="abs")),
    "one group enabled": Case(soft(2, group_size=2, enabled=0.01)),
}
DTYPES = {torch.float64: "f64", torch.float32: "f32", torch.float16: "f16", torch.bfloat16: "bf16"}


class Native:
    """The Rust class, in the words of the one in torch operations."""

    def __init__(self, dtype, shape, **settings):
        self.of = _native.SoftKMeans(DTYPES[dtype], tuple(shape), **settings)
        self.real = torch.float64 if dtype == torch.float64 else torch.float32
        self.rows, self.scaled = shape[0], settings["scale_scheme"] is not None
        self.centroids = self.of.groups, self.of.clusters, self.of.cluster_dim

    def channel_scale(self, weight):
        if not self.scaled:
            return None
        out = torch.empty(self.rows, dtype=self.real)
        self.of.channel_scale(as_bytes(weight), as_bytes(out))
        return out

    def seed_centroids(self, weight, scale):
        out = torch.empty(self.centroids, dtype=self.real)
        self.of.seed_centroids(as_bytes(weight), optional(scale), as_bytes(out))
        return out

    def temperatures(self, weight, centroids, scale):
        if not self.of.finds_temperature:
            return None
        out = torch.empty(self.of.groups)
        self.of.temperatures(as_bytes(weight), as_bytes(centroids), optional(scale), as_bytes(out))
        return out

    def forward(self, weight, centroids, scale, temperatures, noise):
        out, following = torch.empty_like(weight), torch.empty_like(centroids)
        saved = torch.empty(self.of.saved_len, dtype=self.real)
        self.of.forward(as_bytes(weight), as_bytes(centroids), optional(scale), optional(temperatures), noise,
                        as_bytes(out), as_bytes(following), as_bytes(saved))
        return out, following, saved

    def backward(self, weight, scale, temperatures, noise, saved, grad):
        out = torch.empty_like(weight)
        self.of.backward(as_bytes(weight), optional(scale), optional(temperatures), noise, as_bytes(saved), as_bytes(grad),
                         as_bytes(out))
        return out

    def assign(self, weight, centroids, scale):
        out = torch.empty_like(weight)
        self.of.assign(as_bytes(weight), as_bytes(centroids), optional(scale), as_bytes(out))
        return out


def optional(tensor):
    return None if tensor is None else as_bytes(tensor)


def rounded(case, dtype):
    """The numbers of a case as `dtype` has them."""
    return [numbers.to(dtype) for numbers in case.numbers()]


def found(side, case, numbers, scale=None):
    """Soft weight, next centroids, gradient and hard weight, in double precision."""
    weight, centroids, grad = numbers
    dtype = weight.dtype
    kmeans = side(dtype, case.shape, **asdict(case.settings))
    scale = kmeans.channel_scale(weight) if scale is None else scale.to(kmeans.real)
    centroids = centroids.to(kmeans.real)
    noise = SEED if case.settings.mode == "gsm" else 0
    temperatures = kmeans.temperatures(weight, centroids, scale)
    out, following, saved = kmeans.forward(weight, centroids, scale, temperatures, noise)
    back = kmeans.backward(weight, scale, temperatures, noise, saved, grad)
    hard = kmeans.assign(weight, centroids, scale)
    assert {out.dtype, back.dtype, hard.dtype} == {dtype} and following.dtype == kmeans.real
    return {"out": out.double(), "next": following.double(), "back": back.double(), "hard": hard.double()}


def close(ours, theirs, tolerance, names=("out", "next", "back", "hard")):
    for name in names:
        a, b = ours[name], theirs[name]
        most = float((a - b).abs().max() / b.abs().max().clamp(min=1e-30))
        assert most <= tolerance, f"{name} differs by {most:.2e} of its largest number"


def table_eps(case, dtype):
    """Weights of 16 bits hold tables of floats in their own dtype; a mean near the middle of two goes either way."""
    floats = case.settings.lut_dtype in ("f16", "bf16") and dtype in (torch.float16, torch.bfloat16)
    return torch.finfo(dtype).eps if floats else 0.0
