"""Statistics in a safetensors file, which other settings, and the command `palettizer`, read again.

For a weight `W` it has `W.second_moments`, and where known `W.fisher`, the squared gradients of its elements, or
`W.frequency`, how often each row of an embedding was looked up.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager

import torch

from palettizer import __version__
from palettizer.torch.palettization._io import safetensors
from palettizer.torch.palettization._io.safetensors import Path
from palettizer.torch.palettization._io.streamed import Streamed, streamed
from palettizer.torch.palettization._layerwise.statistics import Statistics
from palettizer.torch.palettization._plan.plan import Weight

_logger = logging.getLogger(__name__)

_MARK, _FORMAT, _GUIDED = "palettizer.statistics", "1", "guided"
_MOMENTS, _FISHER, _FREQUENCY, _AXIS = "second_moments", "fisher", "frequency", "output_axis"
_STRIP = 512
_UNSEEN = "unseen"
"""Why there is nothing of a weight."""


def tensors(weight: Weight, found: Statistics) -> dict[str, torch.Tensor]:
    """The tensors of a weight by the names that they have in a file."""
    fields = {_MOMENTS: found.moments, _FISHER: found.fisher, _FREQUENCY: found.frequency}
    return {f"{weight.name}.{field}": value for field, value in fields.items() if value is not None}


class Writer:
    """An open file of statistics."""

    def __init__(self, file: Streamed, strings: dict[str, str]) -> None:
        self._file, self._strings = file, strings

    def written(self, of: Callable[[Weight], Statistics], weight: Weight) -> Statistics:
        """The statistics of a weight, which are in the file then."""
        found = of(weight)
        for name, tensor in tensors(weight, found).items():
            self._file.add(name, tensor)
        if found.why_not:
            self._strings[f"{weight.name}.{_UNSEEN}"] = found.why_not
        return found


@contextmanager
def writing(path: Path, weights: Sequence[Weight], guided: bool) -> Iterator[Writer]:
    """Writes a file of statistics, whole or not at all."""
    strings = {_MARK: _FORMAT, _GUIDED: str(guided).lower(), "source": f"palettizer {__version__}"}
    strings.update({f"{w.name}.{_AXIS}": str(w.owners[0].axes[0]) for w in weights if w.owners[0].axes[0] != 0})
    names = [f"{w.name}.{field}" for w in weights for field in (_MOMENTS, _FISHER, _FREQUENCY, _AXIS, _UNSEEN)]
    with streamed(path, names, strings) as file:
        yield Writer(file, strings)


def reading(path: Path, weights: Sequence[Weight]) -> tuple[bool, Callable[[Weight], Statistics]]:
    """Whether the statistics in a file are guided, and what reads those of one weight.

    A weight that the file has nothing of, or nothing that fits, is palettized by k-means, with a reason and a warning.

    Raises:
        ValueError: the file is no file of statistics, or has none that fit the model.
    """
    entries, strings = safetensors.contents(path)
    where = os.fspath(path)
    if strings.get(_MARK, _FORMAT) != _FORMAT:
        raise ValueError(f"{where} has statistics of format {strings[_MARK]}; this version reads format {_FORMAT}")
    shapes = {key: entry.shape for key, entry in entries.items()}
    names: dict[str, str] = {}
    reasons: dict[str, str] = {}
    for weight in weights:
        name = _name(weight, shapes)
        problem = "there is nothing about it in the file" if name is None else _misfit(weight, name, shapes, strings)
        if name is not None and not problem:
            names[weight.name] = name
        else:
            reasons[weight.name] = strings.get(f"{weight.name}.{_UNSEEN}", problem)
    wrong = [f"{name} ({reason})" for name, reason in reasons.items() if f"{name}.{_UNSEEN}" not in strings]
    if weights and not names and wrong:
        raise ValueError(
            f"{where} does not hold the statistics of this model: {_some(wrong)}; nothing was changed. Compute them again "
            "with compute_statistics"
        )
    if wrong:
        _logger.warning("%s: palettized by k-means, as %s does not fit: %s", len(wrong), where, _some(wrong))

    def of(weight: Weight) -> Statistics:
        if weight.name in reasons:
            return Statistics(why_not=reasons[weight.name])
        name = names[weight.name]
        found = {f: _read(path, entries, f"{name}.{f}") for f in (_MOMENTS, _FISHER, _FREQUENCY)}
        moments = found[_MOMENTS]
        if moments is not None:
            moments = moments.reshape(((1,) * (4 - moments.dim()) if moments.dim() == 2 else ()) + moments.shape)
            moments = moments[:, None] if moments.dim() == 3 else moments
            _check_moments(moments, f"{name}.{_MOMENTS} in {where}")
        return Statistics(moments, found[_FISHER], found[_FREQUENCY])

    return strings.get(_GUIDED) == "true", of


def _name(weight: Weight, shapes: Mapping[str, tuple[int, ...]]) -> str | None:
    """The name of that owner of a weight which a file knows something of."""
    fields = (_MOMENTS, _FISHER, _FREQUENCY)
    return next((o.name for o in weight.owners if any(f"{o.name}.{field}" in shapes for field in fields)), None)


def _misfit(weight: Weight, name: str, shapes: Mapping[str, tuple[int, ...]], strings: Mapping[str, str]) -> str:
    """What of a weight's statistics does not fit it, or nothing: texts as the reasons of a report."""
    facts, axis = weight.owners[0].facts, weight.owners[0].axes[0]
    rows, columns = facts.shape[axis], facts.numel // facts.shape[axis]
    said = strings.get(f"{name}.{_AXIS}", "0")
    if said != str(axis) and f"{name}.{_MOMENTS}" in shapes:
        return f"the file has its output channels along axis {said}, and they are along axis {axis}"
    moments = shapes.get(f"{name}.{_MOMENTS}")
    if moments is not None:
        runs, blocks = ((1, 1), (1, 1), (moments[0], 1), moments[:2])[max(0, min(3, len(moments) - 1))]
        square = 2 <= len(moments) <= 4 and moments[-1] == moments[-2]
        if not square or blocks * moments[-1] != columns or not 1 <= runs <= rows:
            return f"the file has second moments {list(moments)} for its {rows} rows and {columns} columns"
    for field, wanted in ((_FISHER, facts.shape), (_FREQUENCY, (facts.shape[0],))):
        shape = shapes.get(f"{name}.{field}", wanted)
        if shape != wanted:
            return f"the file has a {field} of shape {list(shape)}, expected {list(wanted)}"
    return ""


def _check_moments(moments: torch.Tensor, what: str) -> None:
    """Refuses what are no second moments; the tolerance is that of crates/pipeline/src/statistics."""
    diagonal = moments.diagonal(dim1=2, dim2=3)
    if bool((diagonal < 0).any()):
        raise ValueError(f"{what} have {diagonal.min():.3g} on the diagonal; second moments are not negative there")
    for start in range(0, moments.shape[2], _STRIP):
        rows = moments[:, :, start : start + _STRIP]
        columns = moments[:, :, :, start : start + _STRIP].transpose(2, 3)
        if bool(((rows - columns).abs() > 1e-3 * (rows.abs() + columns.abs()) + 1e-5 * diagonal.max()).any()):
            raise ValueError(f"{what} are not symmetric; second moments are H = (1/T) Σ x xᵀ over the inputs x")


def _read(path: Path, entries: Mapping[str, safetensors.Entry], name: str) -> torch.Tensor | None:
    if name not in entries:
        return None
    tensor = safetensors.read(path, entries[name]).float()
    least, most = (bound.item() for bound in torch.aminmax(tensor))
    if not -float("inf") < least <= most < float("inf"):
        raise ValueError(f"{name} in {os.fspath(path)} has NaN or infinite values")
    return tensor


def _some(names: list[str]) -> str:
    shown = ", ".join(names[:8])
    return shown if len(names) <= 8 else f"{shown} and {len(names) - 8} more"
