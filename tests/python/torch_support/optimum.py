"""Exact one-dimensional k-means by its definition: the least weighted squared error over all partitions into runs."""

import numpy as np


def least_error(values, k, weights=None):
    """The error of the best k centroids for some values; O(k n²), for small n."""
    order = np.argsort(values, kind="stable")
    x = np.asarray(values, np.float64)[order]
    w = np.ones_like(x) if weights is None else np.asarray(weights, np.float64)[order]
    x = x - np.average(x, weights=w)
    total, first, second = (np.concatenate([[0], np.cumsum(w * x**p)]) for p in (0, 1, 2))
    # cost[i, j]: of one cluster that holds the values i to j − 1
    mass, sums = total[None, :] - total[:, None], first[None, :] - first[:, None]
    with np.errstate(divide="ignore", invalid="ignore"):
        cost = second[None, :] - second[:, None] - sums**2 / mass
    cost = np.where(np.arange(len(x) + 1)[:, None] < np.arange(len(x) + 1)[None, :], np.maximum(cost, 0), np.inf)
    best = cost[0].copy()
    best[0] = 0
    for _ in range(k - 1):
        best = np.minimum(best, (best[:, None] + cost).min(axis=0))
    return float(best[-1])
