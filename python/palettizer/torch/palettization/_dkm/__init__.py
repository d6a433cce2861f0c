"""Differentiable k-means of a model: its settings, its plan, the layers in training, and what they end as."""
