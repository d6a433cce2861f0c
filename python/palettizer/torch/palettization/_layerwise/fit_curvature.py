"""The second moments of a layer's inputs, made ready as in the native kernel: damped, in descending order, with their factor."""

from __future__ import annotations

import torch
from torch import Tensor

from palettizer import _native

_FLOOR = 1e-6
"""A column whose diagonal is below this part of the mean is dead: no input of the samples reached it. It is raised to that."""
_FIRST, _STEP, _MOST = 1e-6, 10.0, 100.0
"""The damping that is tried after none, how much it is raised each time, and the most."""
LOST = 1e-13
"""A pivot that is no larger than this part of the diagonal has been lost to rounding."""


class Curvature:
    """A damped H in its own order of columns.

    Args:
        moments: a symmetric matrix, of which the upper triangle is read.
        damping: what is added to the diagonal, as a part of its mean; more where H is not positive definite.
        number: which of the matrices of a weight it is.

    Raises:
        Refusal: a ValueError: it is not positive definite, however much it is damped.
    """

    def __init__(self, moments: Tensor, damping: float, number: int = 0) -> None:
        whole = moments.double()
        raw = whole.diagonal().clamp_min(0)
        mean = raw.mean()
        mean = torch.where(mean > 0, mean, 1.0)  # where nothing counts, everything counts alike
        self.order = raw.argsort(descending=True, stable=True)
        whole = torch.triu(whole, 1)
        self.matrix = (whole + whole.T)[self.order][:, self.order]
        floored = raw.clamp_min(_FLOOR * mean)[self.order]
        self.damping = damping
        while True:
            self.diagonal = floored + self.damping * mean
            self.matrix.diagonal().copy_(self.diagonal)
            # H = R Rᵀ with R upper triangular is the usual factor of H from its last column to the first.
            factor, failed = torch.linalg.cholesky_ex(self.matrix.flip(0, 1))
            self.factor = factor.flip(0, 1)
            if not failed and bool((self.factor.diagonal().square() > LOST * self.diagonal).all()):
                return
            if self.damping >= _MOST:
                raise _native.Refusal(
                    f"matrix {number} of second moments is not positive definite, even with a damping of {self.damping}"
                )
            self.damping = min(max(self.damping * _STEP, _FIRST), _MOST)
