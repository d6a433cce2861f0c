"""Soft k-means, in torch operations and in Rust, against its formula, and the formula against coremltools."""

from dataclasses import asdict, replace

import coremltools.optimize.torch.palettization as peer
import numpy as np
import pytest
import torch
from palettizer.torch.palettization._soft import blocks, k_means
from palettizer.torch.palettization._soft.k_means import TorchSoftKMeans
from torch_support import optimum, soft_reference
from torch_support.largest import Largest
from torch_support.soft_cases import CASES, DTYPES, SEED, Case, Native, close, found, rounded, soft, table_eps
from torch_support.soft_reference import Settings

def table(names=CASES):
    return pytest.mark.parametrize("case", [pytest.param(CASES[name], id=name) for name in names])


def formula(case, numbers, scale=None):
    """The same by the formula and autograd."""
    weight, centroids, grad = numbers
    weight = weight.clone().requires_grad_()
    if scale is None and case.settings.scale_scheme:
        scale = soft_reference.channel_scale(case.settings, weight.detach())
    noise = None
    if case.settings.mode == "gsm":
        noise = noise_of(TorchSoftKMeans(torch.float64, case.shape, **asdict(case.settings)))
    out, following = soft_reference.forward(case.settings, weight, centroids, scale, noise)
    out.backward(grad)
    hard = soft_reference.assign(case.settings, weight.detach(), centroids, scale)
    return {"out": out.detach(), "next": following, "back": weight.grad, "hard": hard}


def noise_of(kmeans):
    """(groups, steps, vectors, k): the noise that it makes block by block."""
    empty = torch.empty(kmeans.groups, kmeans.vectors, kmeans.cluster_dim, dtype=kmeans.real)
    batch = blocks.Batch(kmeans.attention, 0, empty, None, 1.0, SEED)
    steps = [torch.full((kmeans.groups,), step) for step in range(kmeans.settings.iterations)]
    return torch.stack([batch.gumbel(slice(0, kmeans.vectors), at) for at in steps], 1)


@table()
@pytest.mark.parametrize("block", [2**22, 50], ids=["one block", "small blocks"])
def test_as_the_formula(case, block, monkeypatch):
    monkeypatch.setattr(blocks, "BLOCK", block)
    close(found(TorchSoftKMeans, case, case.numbers()), formula(case, case.numbers()), 1e-9)


@table()
def test_the_kernel_is_as_the_formula(case):
    close(found(Native, case, case.numbers()), formula(case, case.numbers()), 1e-9)



NARROW = ["2 bits", "groups of vectors", "scale, vectors", "hard", "gsm", "zeros kept", "high floor", "f16",
          "early stop of groups", "one group enabled"]
dtypes = pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16], ids=["f32", "f16", "bf16"])
sides = pytest.mark.parametrize("side", [TorchSoftKMeans, Native], ids=["torch", "native"])


@table(NARROW)
@dtypes
def test_narrow_dtypes(case, dtype):
    """On the same numbers, float64 differs by the arithmetic of float32, and roundings to the dtype at the end."""
    numbers = rounded(case, dtype)
    scale = TorchSoftKMeans(dtype, case.shape, **asdict(case.settings)).channel_scale(numbers[0])
    ours = found(TorchSoftKMeans, case, numbers, scale)
    exact = found(TorchSoftKMeans, case, [x.double() for x in numbers], scale)
    close(ours, exact, max(5e-6, table_eps(case, dtype)), ["next"])
    close(ours, exact, torch.finfo(dtype).eps + 1e-5)


@table([name for name, case in CASES.items() if name != "many clusters"])
@dtypes
def test_the_kernel_has_narrow_dtypes(case, dtype):
    """Scales and integer tables are rounded alike, too."""
    numbers = rounded(case, dtype)
    ours, theirs = (found(side, case, numbers) for side in (TorchSoftKMeans, Native))
    close(ours, theirs, max(1e-5, table_eps(case, dtype)), ["next"])
    close(ours, theirs, torch.finfo(dtype).eps + 2e-5)


@pytest.mark.parametrize("name, without", [
    ("early stop", {"epsilon": 0}), ("early stop of groups", {"epsilon": 0}), ("high floor", {"floor": 0}),
    ("pruning", {"prune_threshold": 0}), ("zero held", {"enforce_zero": False}),
    ("zeros kept", {"prune_threshold": 1e-7}), ("int8", {"lut_dtype": None}), ("uint8", {"lut_dtype": None}),
    ("f16", {"lut_dtype": None}), ("bf16", {"lut_dtype": None}), ("gsm", {"mode": "dkm"}), ("hard", {"mode": "dkm"}),
    ("some groups enabled", {"enabled": 1}), ("duplicates tolerated", {"cluster_tolerance": 0}),
    ("scale", {"scale_scheme": "abs"}),
])
def test_a_setting_counts(name, without):
    """The cases are what their names say: without the setting, something else comes out."""
    case = CASES[name]
    other = replace(case, settings=replace(case.settings, **without))
    ours, others = (found(TorchSoftKMeans, c, case.numbers())["out"] for c in (case, other))
    assert float((ours - others).abs().max()) > 1e-6


IMPLICIT = {
    "plain": Case(soft(2, 2e-4, implicit=True, iterations=2000, epsilon=0)),
    "groups of vectors": Case(soft(2, 2e-4, implicit=True, iterations=2000, epsilon=0, cluster_dim=2, group_size=4)),
    "scale": Case(soft(2, 2e-2, implicit=True, iterations=2000, epsilon=0, scale_scheme="min_max")),
    "zeros kept": Case(soft(2, 2e-4, implicit=True, iterations=2000, epsilon=0, enforce_zero=True, prune_threshold=0)),
}
implicit = pytest.mark.parametrize("case", IMPLICIT.values(), ids=IMPLICIT)


@implicit
@sides
def test_the_implicit_gradient(case, side):
    """Autograd back through many steps, all from the fixed point to itself, comes to the same."""
    weight, centroids, grad = case.numbers()
    ours = found(side, case, (weight, centroids, grad))
    again = found(side, case, (weight, ours["next"], grad))
    close(again, ours, 1e-11, ["next"])  # it is a fixed point
    weight.requires_grad_()
    scale = soft_reference.channel_scale(case.settings, weight.detach()) if case.settings.scale_scheme else None
    out = soft_reference.fixed_point(case.settings, weight, ours["next"], scale)
    out.backward(grad)
    close(ours, {"out": out.detach(), "back": weight.grad}, 1e-9, ["out", "back"])
    explicit = replace(case, settings=replace(case.settings, implicit=False, iterations=1))
    differs = found(side, explicit, (weight.detach(), ours["next"], grad))["back"] - ours["back"]
    assert float(differs.abs().max()) > 1e-6 * float(ours["back"].abs().max())


SMOOTH = ["2 bits", "groups of vectors", "scale, vectors", "hard", "zero held", "zeros kept", "no floor"]


@pytest.mark.parametrize("case", [*map(CASES.get, SMOOTH), *IMPLICIT.values()], ids=[*SMOOTH, *IMPLICIT])
@sides
def test_finite_differences(case, side):
    """The gradient along a direction is what the soft weight changes by, with the scale as it was."""
    weight, centroids, grad = case.numbers()
    direction = torch.randn_like(weight).masked_fill(weight == 0, 0)  # a zero that is kept would jump
    kmeans = side(torch.float64, case.shape, **asdict(case.settings))
    scale, step = kmeans.channel_scale(weight), 1e-6
    moved = [kmeans.forward(weight + way * direction, centroids, scale, None, 0)[0] for way in (step, -step)]
    loss = [float((out * grad).sum()) for out in moved]
    saved = kmeans.forward(weight, centroids, scale, None, 0)[2]
    along = float((kmeans.backward(weight, scale, None, 0, saved, grad) * direction).sum())
    assert along == pytest.approx((loss[0] - loss[1]) / (2 * step), rel=1e-6, abs=1e-7)


PEERS = {
    "plain": Case(soft(2), (16, 8)),
    "default temperature": Case(Settings(3), (16, 8)),
    "groups": Case(soft(2, group_size=4), (16, 8)),
    "vectors": Case(soft(2, cluster_dim=2), (16, 8)),
    "convolution of vectors": Case(soft(2, cluster_dim=2), (16, 3, 2, 2)),
    "scale": Case(soft(2, 1e-2, scale_scheme="min_max"), (16, 8)),
    "largest as scale": Case(soft(2, 1e-2, scale_scheme="abs"), (16, 8)),
    "high floor": Case(soft(2, floor=1e-3), (16, 8)),
    "pruning": Case(soft(2, prune_threshold=1e-3), (16, 8)),
    "zero held": Case(soft(2, enforce_zero=True), (16, 8)),
    "zeros kept": Case(soft(2, enforce_zero=True, prune_threshold=0), (16, 8)),
    "early stop": Case(soft(2, iterations=20), (16, 8)),
    "duplicates": Case(soft(3), (16, 8), duplicates=True),
}


@pytest.mark.parametrize("case", PEERS.values(), ids=PEERS)
def test_the_formula_is_coremltools(case):
    """From the same centroids, in float32: the soft weight, the next centroids, and the gradient."""
    settings = case.settings
    weight, centroids, grad = rounded(case, torch.float32)
    weight[1] += torch.randn_like(weight[1])  # it divides by a scale of zero
    theirs = peer.FakePalettize(
        torch.ao.quantization.MovingAverageMinMaxObserver, settings.nbits, settings.cluster_dim,
        settings.scale_scheme is not None, settings.group_size, dtype=torch.qint8,
        advanced_options={
            "kmeans_max_iter": settings.iterations, "palett_tau": settings.temperature,
            "palett_epsilon": settings.epsilon, "zero_threshold": settings.floor,
            "prune_threshold": settings.prune_threshold, "enforce_zero": settings.enforce_zero,
            "per_channel_scaling_factor_scheme": settings.scale_scheme or "min_max",
        },
    )
    theirs.create_partitions(weight)
    theirs.centroids = list(centroids.clone())
    theirs.enable_fake_palett()
    leaf = weight.clone().requires_grad_()
    out = theirs.train()(leaf)
    out.backward(grad)
    made = {"out": out.detach().double(), "next": torch.stack(theirs.centroids).double(), "back": leaf.grad.double()}
    theirs.centroids = list(centroids.clone())
    made["hard"] = theirs.eval()(weight).double()
    scale = None
    if settings.scale_scheme:
        scale = theirs.per_channel_scaling_factor[:, 0].double()
    ours = formula(case, [weight.double(), centroids.double(), grad.double()], scale)
    close(made, ours, 1e-4, ["out", "next", "back"])
    close(made, ours, 1e-4 if scale is None else 1e-3)  # with a scale, entries are numbers of float16 in the end


@pytest.mark.parametrize("settings", [
    {}, {"group_size": 8}, {"group_size": 16, "cluster_dim": 2}, {"mode": "gsm"}, {"mode": "hard"},
    {"scale_scheme": "min_max", "enforce_zero": True, "prune_threshold": 0}, {"implicit": True, "iterations": 30},
    {"enabled": 0.5, "group_size": 8}, {"lut_dtype": "int8"},
], ids=str)
def test_memory(settings, monkeypatch):
    """Nothing is larger than a block or the weight; a matrix of vectors by clusters would be, 16 times or more."""
    settings = soft(4, 2e-4, **settings)
    case = Case(settings, (64, 48))
    weight, centroids, grad = case.numbers()
    monkeypatch.setattr(blocks, "BLOCK", weight.numel())
    monkeypatch.setattr(k_means, "_ROUNDS", 3)
    kmeans = TorchSoftKMeans(torch.float64, case.shape, **asdict(settings))
    with Largest() as largest:
        scale = kmeans.channel_scale(weight)
        _, _, saved = kmeans.forward(weight, centroids, scale, None, SEED)
        kmeans.backward(weight, scale, None, SEED, saved, grad)
        kmeans.assign(weight, centroids, scale)
    assert saved.nbytes <= largest.bytes == weight.nbytes


WEIGHTS = {
    "scalars": (soft(2), torch.float32),
    "scalars in groups, f16": (soft(3, group_size=2), torch.float16),
    "scalars, bf16": (soft(2), torch.bfloat16),
    "scalars, f64": (soft(2, group_size=4), torch.float64),
    "scaled scalars": (soft(2, scale_scheme="abs"), torch.float32),
}


@sides
@pytest.mark.parametrize("settings, dtype", WEIGHTS.values(), ids=WEIGHTS)
def test_seeds_of_scalars_are_optimal(side, settings, dtype):
    torch.manual_seed(1)
    weight = torch.randn(8, 12).to(dtype)
    kmeans = side(dtype, weight.shape, **asdict(settings))
    scale = kmeans.channel_scale(weight)
    centroids = kmeans.seed_centroids(weight, scale).double()
    values = weight.double() if scale is None else weight.double() / scale.double()[:, None]
    for group, c in zip(values.reshape(len(centroids), -1), centroids[..., 0]):
        error = float((group[:, None] - c).square().amin(1).sum())
        assert error == pytest.approx(optimum.least_error(group.numpy(), len(c)), rel=1e-5)


@sides
@pytest.mark.parametrize("cluster_dim", [1, 2])
def test_seeds_of_few_values(side, cluster_dim):
    """Values that have their own entries; the last repeats. The group of negative values has no zero for an entry."""
    rows = torch.tensor([[1.0, 2, -1], [-3, -2, -3]])
    weight = rows.repeat_interleave(4, 0).repeat(1, 2)
    kmeans = side(torch.float32, (8, 6), **asdict(soft(3, group_size=4, cluster_dim=cluster_dim)))
    centroids = kmeans.seed_centroids(weight, None)
    assert centroids.shape == (2, 8, cluster_dim)
    for table, distinct in zip(centroids, ([-1, 1, 2], [-3, -2])):
        used = len(distinct)
        assert sorted(table[:used].tolist()) == [[value] * cluster_dim for value in distinct]
        assert torch.equal(table[used:], table[used - 1 : used].expand(8 - used, cluster_dim))


@sides
@pytest.mark.parametrize("cluster_dim", [1, 2])
def test_seeds_with_a_zero(side, cluster_dim):
    """The centroid nearest zero changes places with the first, and becomes zero."""
    torch.manual_seed(2)
    weight = torch.randn(8, 12)
    plain, held = (
        side(torch.float32, (8, 12), **asdict(soft(3, group_size=4, cluster_dim=cluster_dim, enforce_zero=zero)))
        .seed_centroids(weight, None) for zero in (False, True)
    )
    assert not torch.equal(plain, held)
    for before, after in zip(plain, held):
        nearest = int(before.norm(dim=1).argmin())
        before[nearest] = before[0]
        before[0] = 0
        assert torch.equal(before, after)


@sides
@pytest.mark.parametrize("scheme", ["min_max", "abs"])
@pytest.mark.parametrize("dtype", DTYPES, ids=DTYPES.values())
def test_channel_scale(side, scheme, dtype):
    """That of a weight of 32 bits or more is the least number of float16 that is not below, if there is one."""
    torch.manual_seed(3)
    weight = torch.randn(9, 6)
    weight[0], weight[1] = 0, torch.tensor([0.5, -0.5, 0, 0, 0, 0])
    if dtype != torch.float16:
        weight[2] *= 1e6
        weight[3] *= 1e-9
    weight = weight.to(dtype)
    settings = soft(2, scale_scheme=scheme)
    scale = side(dtype, (9, 6), **asdict(settings)).channel_scale(weight)
    least, most = weight.double().aminmax(dim=1)
    exact = torch.maximum(-least, most) if scheme == "abs" else (most - least) / 2
    exact = torch.where(exact == 0, 1.0, exact)
    if dtype in (torch.float16, torch.bfloat16):
        assert torch.allclose(scale.double(), exact, rtol=1e-7, atol=0)
        return
    halves = torch.arange(1, 0x7C00, dtype=torch.int16).view(torch.float16).double()  # all that are positive and finite
    for ours, value in zip(scale.tolist(), exact.tolist()):
        if halves[0] <= value <= halves[-1]:
            assert ours == float(halves[halves >= value * (1 - 1e-7)][0])
        else:
            assert ours == pytest.approx(value, rel=1e-7)


def test_noise():
    """It is Gumbel's, the same for the same seed, and different for another, another step, and another group."""
    kmeans = TorchSoftKMeans(torch.float64, (64, 64), **asdict(soft(3, mode="gsm", group_size=32)))
    noise = noise_of(kmeans)
    assert noise.shape == (2, 3, 2048, 8)
    assert noise.unique().numel() == noise.numel()
    assert float(noise.mean()) == pytest.approx(np.euler_gamma, abs=0.01)
    assert float(noise.var()) == pytest.approx(np.pi**2 / 6, abs=0.03)
    weight, centroids, grad = Case(soft(3, mode="gsm", group_size=32), (64, 64)).numbers()
    runs = [kmeans.forward(weight, centroids, None, None, seed)[0] for seed in (SEED, SEED, SEED + 1)]
    assert torch.equal(runs[0], runs[1]) and not torch.equal(runs[0], runs[2])
    narrow = TorchSoftKMeans(torch.float32, (64, 64), **asdict(soft(3, mode="gsm", group_size=32)))
    uniform = [x.double().neg().exp().neg().exp() for x in (noise_of(narrow), noise)]
    assert float((uniform[0] - uniform[1]).abs().max()) < 2**-22


def test_nothing_is_recorded():
    """By autograd, whoever asks; and the arguments stay as they were."""
    case = CASES["duplicates and a held zero"]
    weight, centroids, grad = case.numbers()
    kept = weight.clone(), centroids.clone(), grad.clone()
    kmeans = TorchSoftKMeans(torch.float64, case.shape, **asdict(case.settings))
    out, following, saved = kmeans.forward(weight.requires_grad_(), centroids, None, None, 0)
    back = kmeans.backward(weight, None, None, 0, saved, grad)
    hard = kmeans.assign(weight, centroids, None)
    assert not any(tensor.requires_grad for tensor in (out, following, saved, back, hard))
    assert all(torch.equal(*pair) for pair in zip(kept, (weight, centroids, grad)))
    assert saved.shape == (kmeans.saved_len,)


@pytest.mark.parametrize("settings, says", [
    ({"group_size": 3}, "group_size 3"), ({"cluster_dim": 3}, "cluster_dim 3"), ({"mode": "soft"}, "mode is soft"),
    ({"group_size": 2, "cluster_dim": 4}, "cluster_dim 4"), ({"lut_dtype": "int4"}, "lut_dtype is int4"),
    ({"scale_scheme": "max"}, "scale_scheme is max"), ({"temperature": 0}, "temperature is 0"), ({"nbits": 5}, "nbits"),
], ids=str)
@sides
def test_refusals(side, settings, says):
    with pytest.raises(ValueError, match=says):
        side(torch.float32, (8, 8), **{**asdict(soft(2)), **settings})


def test_a_dtype_of_no_use():
    with pytest.raises(ValueError, match="torch.complex64"):
        TorchSoftKMeans(torch.complex64, (8, 8), nbits=2)
