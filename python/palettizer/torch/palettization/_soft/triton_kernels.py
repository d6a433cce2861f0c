"""The passes of soft k-means over the vectors of all groups, each one kernel of Triton.

A program works on tiles of vectors of one group. A tile's attention is [clusters, vectors] and lives in registers: lanes
go along the vectors and registers and warps along the clusters, so that most of a softmax is done within a thread. Sums over
vectors are kept for each lane and added up once, at the end; each program writes its own, and whoever launches adds those in
a fixed order. There are no atomics: the same numbers give the same result.

Pointers: `values`, `grad` and `out` are (groups, vectors, dim), `scale` (groups, vectors / cols, dim), tables (groups,
clusters, dim), `temperature` and `seeds` (groups). What is computed in is the dtype of the tables. K are the clusters, B the
vectors of a tile; D is `dim` or the power of two above, where coordinates that are not there are zeros. The grid has
`programs` for each group.

The formulas are those of `blocks.Batch`, which does the same in torch operations (Cho et al., "DKM: Differentiable k-means
clustering layer for neural network compression", ICLR 2022). The module needs Triton, which comes with PyTorch on Linux.
"""

# Annotations are read by Triton, which does not know them as text: no `from __future__ import annotations`.

import triton
import triton.language as tl


@triton.jit
def _place(programs):
    """The group of this program, and which one of the group it is."""
    return (tl.program_id(0) // programs).to(tl.int64), tl.program_id(0) % programs


@triton.jit
def _span(program, programs, vectors, B: tl.constexpr):
    """Where the tiles of a program begin and end: they follow each other, so that they share lines of the cache."""
    length = tl.cdiv(tl.cdiv(vectors, B), programs) * B
    return program * length, tl.minimum(vectors, (program + 1) * length)


@triton.jit
def _vectors(values, scale, at, here, dim, cols, DIVIDE: tl.constexpr, D: tl.constexpr, REAL: tl.constexpr):
    """(D, B): the vectors `at` of a group, divided by the scale of their rows, or multiplied; zeros where not `here`."""
    e = tl.arange(0, D)[:, None]
    inside = here[None, :] & (e < dim)
    x = tl.load(values + at[None, :] * dim + e, mask=inside, other=0.0).to(REAL)
    if scale is not None:
        factors = tl.load(scale + (at // cols)[None, :] * dim + e, mask=inside, other=1.0)
        if not DIVIDE:
            x *= factors
        elif REAL == tl.float32:
            x = tl.div_rn(x, factors)  # the plain division of float32 is off by more than a rounding
        else:
            x /= factors
    return x


@triton.jit
def _table(table, dim, K: tl.constexpr, D: tl.constexpr):
    """(D, K): the table of a group, coordinate by coordinate."""
    e = tl.arange(0, D)[:, None]
    return tl.load(table + tl.arange(0, K)[None, :] * dim + e, mask=e < dim, other=0.0)


@triton.jit
def _distances(x, c, PRUNE: tl.constexpr, BARRED: tl.constexpr, K: tl.constexpr):
    """(K, B): squared distances; the first cluster is favoured, or barred for what is not zero."""
    j = tl.arange(0, K)
    way = x[:, None, :] - c[:, :, None]
    distances = tl.sum(way * way, 0)
    if PRUNE > 0:
        distances -= tl.where(j == 0, tl.full((), PRUNE, x.dtype), 0.0)[:, None]
    if BARRED is not None:
        barred = (j == 0)[:, None] & _any(x)[None, :]
        distances = tl.where(barred, tl.full((), BARRED, x.dtype), distances)
    return distances


@triton.jit
def _any(x):
    """Which vectors are not zero."""
    return tl.max((x != 0).to(tl.int32), 0) > 0


@triton.jit
def _nearest(distances, K: tl.constexpr):
    """The first cluster of those that are nearest, and its distance."""
    least = tl.min(distances, 0)
    place = tl.where(distances <= least[None, :], tl.arange(0, K)[:, None], K - 1)
    return tl.min(place, 0), least


@triton.jit
def _mix(z):
    """SplitMix64's (Steele, Lea and Flood 2014)."""
    z = (z ^ (z.to(tl.uint64) >> 30).to(tl.int64)) * -0x40A7B892E31B1A47
    z = (z ^ (z.to(tl.uint64) >> 27).to(tl.int64)) * -0x6B2FB644ECCEEE15
    return z ^ (z.to(tl.uint64) >> 31).to(tl.int64)


@triton.jit
def _gumbel(seed, at, K: tl.constexpr, REAL: tl.constexpr):
    """(K, B): noise, a function of seed, vector and cluster."""
    DIGITS: tl.constexpr = 53 if REAL == tl.float64 else 23
    place = at.to(tl.int64)[None, :] * 257 + tl.arange(0, K)[:, None]
    bits = _mix((place * -0x61C8864680B583EB) ^ seed).to(tl.uint64) >> (64 - DIGITS)
    unit = (bits.to(REAL) + 0.5) * 2.0**-DIGITS
    # The fast logarithm may come to zero near one, where it is no less than this.
    return -tl.log(tl.maximum(-tl.log(unit), 2.0 ** -(DIGITS + 1)))


@triton.jit
def _attend(
    x, c, temperature, seeds, group, at, here, K: tl.constexpr, HARD: tl.constexpr, PRUNE: tl.constexpr,
    BARRED: tl.constexpr,
):  # fmt: skip
    """(K, B): the attention before it is raised to the floor, zeros where not `here`; (B): the least distances."""
    distances = _distances(x, c, PRUNE, BARRED, K)
    nearest, least = _nearest(distances, K)
    if HARD:
        attention = ((tl.arange(0, K)[:, None] == nearest[None, :]) & here[None, :]).to(x.dtype)
    else:
        top = least
        if seeds is not None:
            distances -= _gumbel(tl.load(seeds + group), at, K, x.dtype) * temperature
            top = tl.min(distances, 0)
        # A rounding of what is subtracted is the same for the whole softmax, which it does not change.
        sharpness = 1.4426950408889634 / temperature
        attention = tl.exp2((top * sharpness)[None, :] - distances * sharpness)
        attention *= tl.where(here, 1 / tl.sum(attention, 0), 0.0)[None, :]
    return attention, tl.where(here, least, 0.0)


@triton.jit
def _raised(attention, here, FLOOR: tl.constexpr):
    """The attention, raised to the floor."""
    if FLOOR > 0:
        floor = tl.where(here, tl.full((), FLOOR, attention.dtype), 0.0)[None, :]
        attention = tl.maximum(attention, floor, propagate_nan=tl.PropagateNan.ALL)
    return attention


@triton.jit
def _put(table, numbers, dim, K: tl.constexpr, D: tl.constexpr):
    """Writes (D, K) numbers to a table."""
    e = tl.arange(0, D)[:, None]
    tl.store(table + tl.arange(0, K)[None, :] * dim + e, numbers, mask=e < dim)


@triton.jit(do_not_specialize=["cols", "programs"])
def means(
    values, scale, centroids, temperature, seeds, sums, columns, inertia, vectors, dim, cols, programs,
    K: tl.constexpr, D: tl.constexpr, B: tl.constexpr,
    HARD: tl.constexpr, FLOOR: tl.constexpr, PRUNE: tl.constexpr, BARRED: tl.constexpr,
):  # fmt: skip
    """AᵀX, the column sums of A, and the sum of least distances, of each program.

    They go to (groups, programs, clusters, dim), (groups, programs, clusters) and (groups, programs).
    """
    group, program = _place(programs)
    c = _table(centroids + group * K * dim, dim, K, D)
    tau = tl.load(temperature + group)
    if scale is not None:
        scale += group * (vectors // cols) * dim
    to_sums = tl.zeros((D, K, B), c.dtype)
    to_columns = tl.zeros((K, B), c.dtype)
    to_inertia = tl.zeros((B,), c.dtype)
    first, end = _span(program, programs, vectors, B)
    for start in range(first, end, B):
        at = start + tl.arange(0, B)
        here = at < vectors
        x = _vectors(values + group * vectors * dim, scale, at, here, dim, cols, True, D, c.dtype)
        attention, least = _attend(x, c, tau, seeds, group, at, here, K, HARD, PRUNE, BARRED)
        attention = _raised(attention, here, FLOOR)
        to_sums += attention[None, :, :] * x[:, None, :]
        to_columns += attention
        to_inertia += least
    place = group * programs + program
    _put(sums + place * K * dim, tl.sum(to_sums, 2), dim, K, D)
    tl.store(columns + place * K + tl.arange(0, K), tl.sum(to_columns, 1))
    tl.store(inertia + place, tl.sum(to_inertia, 0))


@triton.jit(do_not_specialize=["cols", "programs"])
def product(
    values, scale, centroids, temperature, seeds, after, out, vectors, dim, cols, programs,
    K: tl.constexpr, D: tl.constexpr, B: tl.constexpr,
    HARD: tl.constexpr, FLOOR: tl.constexpr, PRUNE: tl.constexpr, BARRED: tl.constexpr,
):  # fmt: skip
    """A·C with the centroids `after`, times the scale: the soft weight."""
    group, program = _place(programs)
    c = _table(centroids + group * K * dim, dim, K, D)
    to = _table(after + group * K * dim, dim, K, D)
    tau = tl.load(temperature + group)
    if scale is not None:
        scale += group * (vectors // cols) * dim
    e = tl.arange(0, D)[:, None]
    first, end = _span(program, programs, vectors, B)
    for start in range(first, end, B):
        at = start + tl.arange(0, B)
        here = at < vectors
        x = _vectors(values + group * vectors * dim, scale, at, here, dim, cols, True, D, c.dtype)
        attention, _ = _attend(x, c, tau, seeds, group, at, here, K, HARD, PRUNE, BARRED)
        soft = tl.sum(_raised(attention, here, FLOOR)[None, :, :] * to[:, :, None], 1)
        inside = here[None, :] & (e < dim)
        if scale is not None:
            soft *= tl.load(scale + (at // cols)[None, :] * dim + e, mask=inside, other=1.0)
        place = out + group * vectors * dim + at[None, :] * dim + e
        tl.store(place, soft.to(out.dtype.element_ty), mask=inside)


@triton.jit(do_not_specialize=["cols", "programs"])
def through_product(
    values, scale, centroids, temperature, seeds, grad, sums, vectors, dim, cols, programs,
    K: tl.constexpr, D: tl.constexpr, B: tl.constexpr,
    HARD: tl.constexpr, FLOOR: tl.constexpr, PRUNE: tl.constexpr, BARRED: tl.constexpr,
):  # fmt: skip
    """AᵀG of each program, (groups, programs, clusters, dim): the gradient of the centroids A was multiplied with."""
    group, program = _place(programs)
    c = _table(centroids + group * K * dim, dim, K, D)
    tau = tl.load(temperature + group)
    if scale is not None:
        scale += group * (vectors // cols) * dim
    to_sums = tl.zeros((D, K, B), c.dtype)
    first, end = _span(program, programs, vectors, B)
    for start in range(first, end, B):
        at = start + tl.arange(0, B)
        here = at < vectors
        x = _vectors(values + group * vectors * dim, scale, at, here, dim, cols, True, D, c.dtype)
        g = _vectors(grad + group * vectors * dim, scale, at, here, dim, cols, False, D, c.dtype)
        attention, _ = _attend(x, c, tau, seeds, group, at, here, K, HARD, PRUNE, BARRED)
        to_sums += _raised(attention, here, FLOOR)[None, :, :] * g[:, None, :]
    _put(sums + (group * programs + program) * K * dim, tl.sum(to_sums, 2), dim, K, D)


@triton.jit(do_not_specialize=["cols", "programs"])
def gradient(
    values, scale, centroids, temperature, seeds, of_sums, of_columns, grad, after, out, sums, vectors, dim, cols, programs,
    K: tl.constexpr, D: tl.constexpr, B: tl.constexpr,
    HARD: tl.constexpr, FLOOR: tl.constexpr, PRUNE: tl.constexpr, BARRED: tl.constexpr,
):  # fmt: skip
    """From the gradients of AᵀX and of the column sums to those of the centroids and of the vectors, through the attention.

    `grad` is the gradient of A·C, `after` is its C; both are None where it does not count. What comes to the centroids
    goes to `sums`, (groups, programs, clusters, dim); what comes to the vectors is added to `out`, unless that is None.
    """
    group, program = _place(programs)
    c = _table(centroids + group * K * dim, dim, K, D)
    of_sums = _table(of_sums + group * K * dim, dim, K, D)
    of_columns = tl.load(of_columns + group * K + tl.arange(0, K))
    if grad is not None:
        after = _table(after + group * K * dim, dim, K, D)
    tau = tl.load(temperature + group)
    if scale is not None:
        scale += group * (vectors // cols) * dim
    e = tl.arange(0, D)[:, None]
    to_centroids = tl.zeros((D, K, B), c.dtype)
    first, end = _span(program, programs, vectors, B)
    for start in range(first, end, B):
        at = start + tl.arange(0, B)
        here = at < vectors
        x = _vectors(values + group * vectors * dim, scale, at, here, dim, cols, True, D, c.dtype)
        attention, _ = _attend(x, c, tau, seeds, group, at, here, K, HARD, PRUNE, BARRED)
        to_x = tl.sum(_raised(attention, here, FLOOR)[None, :, :] * of_sums[:, :, None], 1)
        if not HARD:
            change = tl.sum(x[:, None, :] * of_sums[:, :, None], 0) + of_columns[:, None]
            if grad is not None:
                g = _vectors(grad + group * vectors * dim, scale, at, here, dim, cols, False, D, c.dtype)
                change += tl.sum(g[:, None, :] * after[:, :, None], 0)
            if FLOOR > 0:
                change = tl.where(attention < tl.full((), FLOOR, attention.dtype), 0.0, change)
            change = attention * (change - tl.sum(attention * change, 0)[None, :])
            if BARRED is not None:
                change = tl.where((tl.arange(0, K) == 0)[:, None] & _any(x)[None, :], 0.0, change)
            way = (x[:, None, :] - c[:, :, None]) * change[None, :, :]
            to_x -= tl.sum(way, 1) * (2 / tau)  # a distance changes with twice the way
            to_centroids += way
        if out is not None:
            place = out + group * vectors * dim + at[None, :] * dim + e
            inside = here[None, :] & (e < dim)
            tl.store(place, tl.load(place, mask=inside, other=0.0) + to_x, mask=inside)
    to_centroids = tl.sum(to_centroids, 2) * (2 / tau)
    _put(sums + (group * programs + program) * K * dim, to_centroids, dim, K, D)


@triton.jit(do_not_specialize=["cols", "programs"])
def nearest(
    values, scale, entries, numbers, factors, out, vectors, dim, cols, programs,
    K: tl.constexpr, D: tl.constexpr, B: tl.constexpr, PRUNE: tl.constexpr, ROUNDED: tl.constexpr,
):  # fmt: skip
    """The number for the nearest entry, times the factor of the row, rounded to a dtype."""
    group, program = _place(programs)
    c = _table(entries + group * K * dim, dim, K, D)
    if scale is not None:
        scale += group * (vectors // cols) * dim
    if factors is not None:
        factors += group * (vectors // cols) * dim
    e = tl.arange(0, D)[:, None]
    first, end = _span(program, programs, vectors, B)
    for start in range(first, end, B):
        at = start + tl.arange(0, B)
        here = at < vectors
        x = _vectors(values + group * vectors * dim, scale, at, here, dim, cols, True, D, c.dtype)
        place, _ = _nearest(_distances(x, c, PRUNE, None, K), K)
        inside = here[None, :] & (e < dim)
        found = tl.load(numbers + group * K * dim + place[None, :] * dim + e, mask=inside, other=0.0)
        if factors is not None:
            found *= tl.load(factors + (at // cols)[None, :] * dim + e, mask=inside, other=1.0)
        to = out + group * vectors * dim + at[None, :] * dim + e
        tl.store(to, found.to(ROUNDED).to(out.dtype.element_ty), mask=inside)
