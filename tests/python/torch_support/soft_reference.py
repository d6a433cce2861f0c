"""Soft k-means by its formula, n × k matrices and all, in differentiable operations: what the others are judged by."""

from dataclasses import dataclass, replace

import torch


@dataclass(frozen=True)
class Settings:
    """The settings of a soft k-means, as the classes under test take them."""

    nbits: int
    cluster_dim: int = 1
    group_size: int | None = None
    iterations: int = 3
    temperature: float | None = 1e-4
    epsilon: float = 1e-4
    floor: float | None = 1e-7
    prune_threshold: float | None = 1e-7
    enforce_zero: bool = False
    mode: str = "dkm"
    lut_dtype: str | None = None
    scale_scheme: str | None = None
    enabled: float = 1.0
    cluster_tolerance: float = 0.0
    implicit: bool = False


def forward(settings, weight, centroids, scale=None, noise=None):
    """The soft weight and the centroids (groups, k, d) after the last step, with gradients to `weight`.

    `noise` holds (groups, steps, vectors, k) numbers for mode "gsm".
    """
    settings = thresholds(settings)
    x = to_vectors(settings, weight if scale is None else weight / column(scale, weight))
    soft = max(1, int(settings.enabled * len(x)))
    made = [soft_group(tempered(settings, x[g], centroids[g]), x[g], centroids[g], None if noise is None else noise[g])
            for g in range(soft)]
    made += [(nearest(settings, x[g], centroids[g]).detach(), centroids[g]) for g in range(soft, len(x))]
    out = to_weight(settings, torch.stack([out for out, _ in made]), weight.shape)
    return out if scale is None else out * column(scale, weight), torch.stack([c for _, c in made])


def assign(settings, weight, centroids, scale=None):
    """The hard weight of the float32 palette that it ends as."""
    settings = thresholds(settings)
    x = to_vectors(settings, weight if scale is None else weight / column(scale, weight))
    tables = torch.stack([entries(settings, c) for c in centroids])
    if not folds(settings):
        out = to_weight(settings, torch.stack(list(map(nearest, [settings] * len(x), x, tables))), weight.shape)
        return out if scale is None else (out * column(scale, weight)).float().to(out.dtype)
    # One integer table for each row, whose scale is that of the group times that of the channel.
    rows = len(weight) // len(x)
    own = torch.stack([table_scale(settings, c) for c in centroids]).repeat_interleave(rows)
    steps = [nearest(settings, v, t) / table_scale(settings, c) for v, t, c in zip(x, tables, centroids)]
    steps = to_weight(settings, torch.stack(steps), weight.shape).round()
    return (steps * column(half_above(own * scale), weight)).float().to(weight.dtype)


def thresholds(settings):
    """With numbers where they are found."""
    least = 2.0**-126 if settings.enforce_zero else 0.0
    return replace(settings, floor=1e-9 if settings.floor is None else settings.floor,
                   prune_threshold=least if settings.prune_threshold is None else settings.prune_threshold)


def tempered(settings, x, c):
    """With the temperature of a group where it is found: half of the mean squared error of an element, in float32."""
    if settings.temperature is not None:
        return settings
    if settings.enforce_zero and settings.prune_threshold == 0:
        x, c = x[(x != 0).any(1)], c[1:]
    error = (x[:, None] - c).square().mean(-1).amin(1).mean()
    return replace(settings, temperature=float((0.5 * error).float()))


def channel_scale(settings, weight):
    """What rows are divided by."""
    rows = weight.flatten(1)
    scale = rows.abs().amax(1) if settings.scale_scheme == "abs" else (rows.amax(1) - rows.amin(1)) / 2
    scale = torch.where(scale == 0, 1.0, scale).float().to(weight.dtype)
    return scale if folds(settings) else half_above(scale)


def fixed_point(settings, weight, centroids, scale=None, steps=1000):
    """The soft weight of centroids that no step changes, after so many steps that autograd goes back through."""
    x = to_vectors(settings, weight if scale is None else weight / column(scale, weight))
    made = []
    for vectors, c in zip(x, centroids):
        c = start(settings, c)
        for _ in range(steps):
            c, _ = settled_step(settings, vectors, c)
        made.append(attention(settings, vectors, c)[0] @ c)
    out = to_weight(settings, torch.stack(made), weight.shape)
    return out if scale is None else out * column(scale, weight)


def soft_group(settings, x, c, noise=None):
    """One group: x is (n, d), c is (k, d)."""
    c, last = start(settings, c), None
    for step in range(settings.iterations):
        a, inertia = attention(settings, x, c, None if noise is None else noise[step])
        c = settled(settings, means(a, x, c))
        if last is not None and last != 0 and abs(last - inertia) <= settings.epsilon:
            break
        last = inertia
    if settings.mode == "ste":
        return nearest(settings, x, c).detach() + x - x.detach(), c.detach()
    return a @ c, c.detach()


def start(settings, c):
    """The centroids with duplicates moved apart."""
    c = c.clone()
    unique, inverse, counts = torch.unique(c, dim=0, return_inverse=True, return_counts=True)
    if len(unique) < len(c) * (1 - settings.cluster_tolerance):
        for j in range(len(unique)):
            if counts[j] > 1:
                c[inverse.tolist().index(j)] = (unique[j] + unique[(j + 1) % len(unique)]) / 2
    if settings.enforce_zero and settings.prune_threshold == 0:
        c[0] = 0
    return c


def settled_step(settings, x, c):
    a, inertia = attention(settings, x, c)
    return settled(settings, means(a, x, c)), inertia


def attention(settings, x, c, noise=None):
    """(n, k), and the sum of least distances."""
    distances = (x[:, None] - c).square().sum(-1)
    first, others = distances[:, :1], distances[:, 1:]
    if settings.prune_threshold > 0:
        first = first - settings.prune_threshold
    elif settings.enforce_zero:
        first = torch.where((x != 0).any(1, keepdim=True), 1 / settings.floor, first)
    distances = torch.cat([first, others], 1)
    inertia = distances.amin(1).sum().item()
    if settings.mode in ("hard", "ste"):
        return torch.nn.functional.one_hot(distances.argmin(1), len(c)).to(x.dtype), inertia
    logits = -distances / settings.temperature
    if settings.mode == "gsm":
        return torch.softmax(logits + noise, 1), inertia
    return torch.softmax(logits, 1).clamp(min=settings.floor), inertia


def means(a, x, c):
    """The weighted means; a cluster that nothing attends to stays."""
    columns = a.sum(0)[:, None]
    return torch.where(columns == 0, c.detach(), a.T @ x / torch.where(columns == 0, 1.0, columns))


def settled(settings, c):
    """Means as the centroids that they become; rounding passes the gradient straight through."""
    if settings.lut_dtype is not None:
        c = c + (entries(settings, c.detach()) - c.detach())
    return torch.cat([torch.zeros_like(c[:1]), c[1:]]) if settings.enforce_zero else c


def entries(settings, c):
    """Centroids as the table of a float32 weight holds them."""
    if settings.lut_dtype in ("int8", "uint8"):
        scale = table_scale(settings, c)
        return ((c / scale).round() * scale).float().to(c.dtype)
    floats = torch.float16 if settings.scale_scheme else torch.float32
    dtypes = {None: floats, "f16": torch.float16, "bf16": torch.bfloat16}
    return c.to(dtypes[settings.lut_dtype]).to(c.dtype)


def table_scale(settings, c):
    """What the integers of a table are multiplied by."""
    scale = (c.abs().max() / 127).float().to(c.dtype)
    return scale if folds(settings) else half_above(scale)


def folds(settings):
    """Whether per-channel scales go into those of integer tables."""
    return settings.lut_dtype in ("int8", "uint8") and settings.scale_scheme is not None and settings.cluster_dim == 1


def half_above(scale):
    """The least numbers of float16 that are not below some float32 numbers; those themselves where there are none."""
    halves = torch.arange(1, 0x7C00, dtype=torch.int16).view(torch.float16).to(scale.dtype)  # all positive, finite ones
    place = torch.searchsorted(halves, scale.float().to(scale.dtype))
    return torch.where((scale < halves[0]) | (place == len(halves)), scale, halves[place.clamp(max=len(halves) - 1)])


def nearest(settings, x, c):
    """The nearest entry for each vector."""
    distances = (x[:, None] - c).square().sum(-1)
    distances[:, 0] -= settings.prune_threshold
    return c[distances.argmin(1)]


def column(scale, weight):
    return scale.reshape(-1, *[1] * (weight.dim() - 1))


def to_vectors(settings, weight):
    """(groups, n, d): of a group's rows, d that follow each other at one place of the other dims."""
    rows = settings.group_size or len(weight)
    blocks = weight.reshape(len(weight) // rows, rows // settings.cluster_dim, settings.cluster_dim, -1)
    return blocks.transpose(2, 3).flatten(1, 2)


def to_weight(settings, vectors, shape):
    rows = settings.group_size or shape[0]
    blocks = vectors.reshape(len(vectors), rows // settings.cluster_dim, -1, settings.cluster_dim)
    return blocks.transpose(2, 3).reshape(shape)
