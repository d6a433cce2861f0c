"""One palettized weight whose tables are trained while its indices stay.

The weight stays an ordinary parameter. When autograd has its gradient, that is summed up for each entry and let go, so
there is never more than one; after a step the weight is written again from the tables. What is trained are 32-bit changes
of the entries, in units that go with their distance from each other; the weight has them rounded as they are stored.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from palettizer import _native
from palettizer.torch.palettization._plan import metadata
from palettizer.torch.palettization._plan.tensors import DTYPES, from_bytes
from palettizer.torch.palettization._tuning.layout import Layout, bucket_sums, indices_of, look_up, wide

_MOST = 127
"""The largest integer of a table, as the native module stores them: from -127 to 127 about the zero point."""
_SCALE_PART = 1.0
"""How far the factor of a channel may move, relative to itself, while an entry moves by a standard deviation of the weights: measured."""


class Tables:
    """The tables of one weight, which may belong to several modules.

    Args:
        places: the modules and the names of the parameter in them, of which the first has the record of the palette.
        palette: what the weight is now.
        tune_scales: whether the factors of channels are trained, too.
    """

    def __init__(self, places: Sequence[tuple[nn.Module, str]], palette: _native.Palette, tune_scales: bool) -> None:
        self.parameters = list({id(p): p for p in (module.get_parameter(name) for module, name in places)}.values())
        device, self.dtype = self.parameters[0].device, DTYPES[palette.dtype]
        self.layout = Layout(palette.shape, palette.lut_shape, palette.vector_axis)
        indices = indices_of(palette, self.layout)
        entries = from_bytes(palette.entries(), self.dtype, palette.lut_shape).float()
        before = entries.reshape(self.layout.tables, -1, self.layout.dim)
        # Some third of the distance between entries, as it would be if they lay evenly.
        steps = self.layout.entries ** (1 / self.layout.dim)
        self.unit = _spread(before, indices).div_(steps).to(device)
        self.scale_unit = _SCALE_PART / steps
        self.before, self.indices = before.to(device), indices.to(device)
        self.grid: Tensor | None = None
        self.scale: Tensor | None = None
        self.scale_change: nn.Parameter | None = None
        if palette.lut_scale is not None:
            self.grid = from_bytes(palette.lut_scale, self.dtype, palette.lut_scale_shape).float().to(device)
        if palette.scale is not None:
            self.scale = from_bytes(palette.scale, self.dtype, palette.scale_shape).float().to(device)
        self._scale_dtype = _narrowest(self.grid if self.scale is None else self.scale, self.dtype)
        self.change = nn.Parameter(torch.zeros_like(self.before))
        if self.scale is not None and tune_scales:
            self.scale_change = nn.Parameter(torch.zeros_like(self.scale))
        # A pruned weight is stored without its zeros.
        pruned = metadata.PRUNING in metadata.recorded(*places[0])
        self.fixed = self.before == 0 if pruned else None
        self._records = [_record(module, name) for module, name in places]

    def add_gradient(self, parameter: Tensor) -> None:
        """Takes the gradient of the weight, and frees it."""
        gradient, parameter.grad = parameter.grad, None
        if gradient is None:
            return
        with torch.no_grad():
            dense = gradient.to_dense() if gradient.is_sparse else gradient
            dense = dense if dense.dtype == torch.float64 else dense.float()
            if self.scale is not None and self.scale_change is not None:
                entries = self.layout.whole(look_up(self._entries()[0], self.indices))
                sums = _block_sums(dense * entries, self.scale_change.shape)
                _add_gradient(self.scale_change, sums * self.scale * self.scale_unit)
            scale = self._scale()
            if scale is not None:
                dense = _scaled(dense, scale)
            sums = bucket_sums(self.layout.by_table(dense), self.indices, self.layout.entries)
            if self.fixed is not None:
                sums.masked_fill_(self.fixed, 0)
            _add_gradient(self.change, sums * self.unit)

    @torch.no_grad()
    def write(self) -> None:
        """Writes the weight and the record of its palette."""
        (entries, grid), scale = self._entries(), self._scale()
        dense = self.layout.whole(look_up(entries, self.indices))
        if scale is not None:
            dense = _scaled(dense, scale)
        for parameter in self.parameters:
            parameter.copy_(dense.to(self.dtype))
        # In ascending order, as all scalar tables are stored.
        lut = entries.sort(1).values if self.layout.dim == 1 else entries
        fields = {"lut": lut.reshape(self.layout.lut_shape), "quantization_scale": grid, "palettization_scale": scale}
        for record in self._records:
            for name, value in fields.items():
                if name in record and value is not None:
                    record[name].copy_(value)

    def _entries(self) -> tuple[Tensor, Tensor | None]:
        """The entries as they are stored, in 32 bits, and the step between integers."""
        wanted = self.before + self.change.detach() * self.unit
        if self.grid is None:
            return wanted.to(self.dtype).float(), None
        wanted = wanted.reshape(self.layout.lut_shape)
        shared = [axis for axis, size in enumerate(self.grid.shape) if size == 1]
        # The steps grow when an entry wants to be where no integer is, and else stay.
        needed = wanted.abs().amax(shared, keepdim=True) / _MOST
        grid = torch.maximum(self.grid, needed.to(self._scale_dtype).float())
        integers = (wanted / grid).round_().clamp_(-_MOST, _MOST) + 0.0  # an integer has no negative zero
        return (integers * grid).to(self.dtype).float().reshape(self.before.shape), grid

    def _scale(self) -> Tensor | None:
        if self.scale is None or self.scale_change is None:
            return self.scale
        factor: Tensor = (1 + self.scale_change.detach() * self.scale_unit).clamp_min(0.1)
        return (self.scale * factor).to(self._scale_dtype).float()


def _spread(tables: Tensor, indices: Tensor) -> Tensor:
    """The standard deviation of the weights of each table, without their scales: (tables, 1, 1)."""
    _, entries, dim = tables.shape
    counts = bucket_sums(torch.ones_like(indices, dtype=torch.float32).unsqueeze(-1), indices, entries)
    total, values = counts.sum(1, keepdim=True) * dim, tables.double()
    mean = (values * counts).sum((1, 2), keepdim=True) / total
    spread = ((values - mean).square() * counts).sum((1, 2), keepdim=True).div(total).sqrt()
    # Of a table of one value there is none; then that of all tables, or the values themselves.
    others = spread.square().mean().sqrt()
    return torch.where(spread > 1e-6 * mean.abs(), spread, others if others > 0 else mean.abs()).float()


def _record(module: nn.Module, parameter: str) -> dict[str, Tensor]:
    """The buffers that say how a parameter is palettized, by field; none if the module has none."""
    names = {field: metadata.buffer_name(module, parameter, field) for field in metadata.PALETTE_FIELDS}
    found: dict[str, Any] = {field: module._buffers.get(name) for field, name in names.items()}
    return {field: buffer for field, buffer in found.items() if buffer is not None}


def _narrowest(scale: Tensor | None, dtype: torch.dtype) -> torch.dtype:
    """The dtype that scales are rounded to: half precision where all of them have it already."""
    if scale is not None and dtype == torch.float32 and torch.equal(scale.half().float(), scale):
        return torch.float16
    return dtype


def _add_gradient(parameter: nn.Parameter, gradient: Tensor) -> None:
    gradient = gradient.to(parameter.dtype)
    parameter.grad = gradient if parameter.grad is None else parameter.grad.add_(gradient)


def _split(values: Tensor, counts: Sequence[int]) -> Tensor:
    """Each axis in two: blocks, and what is in one."""
    return values.reshape([part for size, count in zip(values.shape, counts) for part in (count, size // count)])


def _scaled(values: Tensor, scale: Tensor) -> Tensor:
    """Each block of the values times its scale."""
    return (_split(values, scale.shape) * _split(scale, scale.shape)).reshape(values.shape)


def _block_sums(values: Tensor, counts: Sequence[int]) -> Tensor:
    inside = list(range(1, 2 * len(counts), 2))
    return _split(values, counts).sum(inside, dtype=wide(values.device))
