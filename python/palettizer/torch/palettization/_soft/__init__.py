"""Differentiable k-means of one weight: the native kernel, its twin in torch operations, and their operators."""
