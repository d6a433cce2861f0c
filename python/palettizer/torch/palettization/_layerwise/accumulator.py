"""Sums of x xᵀ over the inputs x of a weight, in float32 where the inputs are.

With importances, each input counts as much as the loss depends on the outputs that it makes: the mean, over a run of
rows, of the squared gradients (GuidedQuant, arXiv 2505.07004).
"""

from __future__ import annotations

import torch

from palettizer.torch.palettization._layerwise.operations import Operation

_STRIP = 1024

Key = tuple[str, int, int]
"""A weight's name, and a range of its rows."""


class Accumulator:
    """The second moments of one input: [row runs, blocks along the diagonal, columns, columns]."""

    def __init__(self, shape: tuple[int, ...], device: torch.device) -> None:
        self.total = torch.zeros(shape, dtype=torch.float32, device=device)
        self.tokens = 0
        self.additions = 0
        self.members: set[Key] = set()
        """Those that have this very input."""

    def add(self, used: Operation, importances: torch.Tensor | None = None, sign: int = 1) -> None:
        """Adds the inputs of an operation, or takes them away. Importances are [row runs or fewer, inputs]."""
        start = 0
        for part in used.columns():
            count = part.shape[1]
            if importances is None:
                _add_products(self.total.view(part.shape[0], *self.total.shape[2:]), part, sign)
            else:
                roots = importances[:, start : start + count].to(part.device, torch.float32).sqrt()
                self._add_weighted(used, part, roots, sign)
            start += count
        self.tokens += sign * start
        self.additions += sign

    def _add_weighted(self, used: Operation, part: torch.Tensor, roots: torch.Tensor, sign: int) -> None:
        if used.groups > used.blocks:  # the groups are runs of rows themselves
            part = part * roots.repeat_interleave(used.groups // roots.shape[0], 0)[..., None]
            _add_products(self.total[:, 0], part, sign)
            return
        for total, root in zip(self.total, roots):
            scaled = part * root[:, None]
            _add_products(total, scaled, sign)

    def mirror(self) -> None:
        """Makes the matrices symmetric: of large ones, half is added up."""
        columns = self.total.shape[-1]
        for start in range(0, columns, _STRIP):
            stop = min(start + _STRIP, columns)
            square = self.total[..., start:stop, start:stop]
            square.copy_((square + square.transpose(2, 3)) / 2)
            self.total[..., start:stop, stop:] = self.total[..., stop:, start:stop].transpose(2, 3)

    def separate(self) -> Accumulator:
        """The same, on its own."""
        twin = Accumulator((), self.total.device)
        twin.total, twin.tokens, twin.additions = self.total.clone(), self.tokens, self.additions
        return twin


def _add_products(total: torch.Tensor, inputs: torch.Tensor, sign: int) -> None:
    """Adds xᵀ x of each group; of a large matrix the part on the diagonal and below, by strips."""
    if total.shape[0] > 1:
        total.baddbmm_(inputs.transpose(1, 2), inputs, alpha=sign)
        return
    for start in range(0, total.shape[1], _STRIP):
        stop = start + _STRIP
        total[0, start:stop, :stop].addmm_(inputs[0, :, start:stop].t(), inputs[0, :, :stop], alpha=sign)


def importance(used: Operation, gradient: torch.Tensor, runs: int) -> torch.Tensor:
    """How much each input matters: [runs, inputs], the mean over each run of rows of the squared gradients."""
    rows = used.rows_of(gradient.detach()).float()
    # The groups of a transposed convolution lie along the columns of its weight: each row has an output in all of them.
    blocks, channels = used.blocks, rows.shape[1]
    return rows.reshape(len(rows), blocks, runs, channels // (blocks * runs)).square().mean((1, 3)).t().contiguous()


def guided_runs(used: Operation, rows: int, wanted: int) -> int:
    """Into how many runs the rows of a weight fall: as many as wanted, or fewer, so that they are equal.

    Where H has blocks there is one, as the fit of a table takes no more.
    """
    if used.blocks > 1:
        return 1
    among = used.groups if used.groups > used.blocks else rows
    return next(runs for runs in range(min(wanted, among), 0, -1) if among % runs == 0)


def shape_of(used: Operation, rows: int, elements: int, runs: int) -> tuple[int, int, int, int]:
    """The shape of the second moments of a weight, or of some rows of it, with so many elements."""
    columns = elements // rows // used.blocks
    return used.groups if used.groups > used.blocks else runs, used.blocks, columns, columns
