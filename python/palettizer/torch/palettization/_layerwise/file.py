"""Statistics in a safetensors file, which other settings, and the command `palettizer`, read again.

For a weight `W` it has `W.second_moments`, and where known `W.fisher`, the squared gradients of its elements, or
`W.frequency`, how often each row of an embedding was looked up.
"""

from __future__ import annotations

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

_MARK, _FORMAT, _GUIDED = "palettizer.statistics", "1", "guided"
_MOMENTS, _FISHER, _FREQUENCY, _AXIS = "second_moments", "fisher", "frequency", "output_axis"
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

    Raises:
        ValueError: the file is no file of statistics, or one of another model.
    """
    entries, strings = safetensors.contents(path)
    where = os.fspath(path)
    if strings.get(_MARK, _FORMAT) != _FORMAT:
        raise ValueError(f"{where} has statistics of format {strings[_MARK]}; this version reads format {_FORMAT}")
    names: dict[str, str] = {}
    missing, different = [], []
    for weight in weights:
        fields = (_MOMENTS, _FREQUENCY)
        known = (o.name for o in weight.owners if any(f"{o.name}.{field}" in entries for field in fields))
        name = next(known, None)
        if name is None and f"{weight.name}.{_UNSEEN}" in strings:
            continue
        if name is None:
            missing.append(weight.name)
            continue
        names[weight.name] = name
        problem = _misfit(weight, name, {key: entry.shape for key, entry in entries.items()}, strings)
        if problem:
            different.append(problem)
    if missing or different:
        lacks = [f"none for {_some(missing)}"] if missing else []
        raise ValueError(
            f"{where} does not hold the statistics of this model: it has {', and '.join(lacks + different)}; "
            "nothing was changed. Compute them again with compute_statistics"
        )

    def of(weight: Weight) -> Statistics:
        name = names.get(weight.name)
        if name is None:
            return Statistics(why_not=strings[f"{weight.name}.{_UNSEEN}"])
        found = {f: _read(path, entries, f"{name}.{f}") for f in (_MOMENTS, _FISHER, _FREQUENCY)}
        moments = found[_MOMENTS]
        if moments is not None:
            moments = moments.reshape(((1,) * (4 - moments.dim()) if moments.dim() == 2 else ()) + moments.shape)
            moments = moments[:, None] if moments.dim() == 3 else moments
        return Statistics(moments, found[_FISHER], found[_FREQUENCY])

    return strings.get(_GUIDED) == "true", of


def _misfit(weight: Weight, name: str, shapes: Mapping[str, tuple[int, ...]], strings: Mapping[str, str]) -> str:
    """What of a weight's statistics does not fit it, or nothing."""
    facts, axis = weight.owners[0].facts, weight.owners[0].axes[0]
    rows, columns = facts.shape[axis], facts.numel // facts.shape[axis]
    said = strings.get(f"{name}.{_AXIS}", "0")
    if said != str(axis) and f"{name}.{_MOMENTS}" in shapes:
        return f"the output channels of {name} along axis {said}, they are along axis {axis}"
    moments = shapes.get(f"{name}.{_MOMENTS}")
    if moments is not None:
        runs, blocks = ((1, 1), (1, 1), (moments[0], 1), moments[:2])[max(0, min(3, len(moments) - 1))]
        square = 2 <= len(moments) <= 4 and moments[-1] == moments[-2]
        if not square or blocks * moments[-1] != columns or not 1 <= runs <= rows:
            return f"moments {list(moments)} for {name}, which has {rows} rows and {columns} columns"
    for field, wanted in ((_FISHER, facts.shape), (_FREQUENCY, (facts.shape[0],))):
        shape = shapes.get(f"{name}.{field}", wanted)
        if shape != wanted:
            return f"{field} {list(shape)} for {name}, expected {list(wanted)}"
    return ""


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
