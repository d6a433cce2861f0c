"""A checkpoint on a cluster: each task palettizes some of its weights to a part; the parts are put together here."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from palettizer import _native
from palettizer.distributed._cluster import spread
from palettizer.distributed._parts import Fingerprint, parts_folder


def compress_checkpoint(
    ray: Any, source: Path, fields: dict[str, Any], out: Path, overwrite: bool, part_bytes: int, cpus: int, bar: Any
) -> str:
    """Palettizes a checkpoint that all machines can read to a place that all can write; the report as JSON."""
    checkpoint = _native.Checkpoint.open(source)
    source, identity = source.resolve(), _identity(source)
    about = _stable(fields, ray.cloudpickle.dumps)
    with parts_folder(out.resolve()) as folder:
        parts, missing = [], []
        jobs = checkpoint.jobs(fields)
        sizes = dict(jobs)
        for names in _batches(jobs, part_bytes):
            part = folder / Fingerprint(identity, about, json.dumps(names)).name
            parts.append(part)
            if not part.exists():
                missing.append((names, (str(source), names, fields, str(part), cpus)))
        if bar is not None:
            bar.start(len(jobs), sum(sizes.values()))
        there = set(sizes).difference(*(names for names, _ in missing)) if missing else set(sizes)
        _advance(bar, sizes, sorted(there))
        for names, _ in spread(ray, _make_part, ((tuple(names), task) for names, task in missing), cpus):
            _advance(bar, sizes, names)
        if bar is not None:
            bar.finish()
        return checkpoint.assemble(fields, parts, out, overwrite=overwrite)


def _make_part(source: str, names: list[str], fields: dict[str, Any], part: str, threads: int) -> None:
    _native.Checkpoint.open(source).compress_part(names, fields, part, overwrite=True, threads=threads)


def _batches(jobs: list[tuple[str, int]], part_bytes: int) -> Iterator[list[str]]:
    """Runs of weights of at most so many bytes; a larger weight is one by itself."""
    names: list[str] = []
    size = 0
    for name, length in jobs:
        if names and size + length > part_bytes:
            yield names
            names, size = [], 0
        names.append(name)
        size += length
    if names:
        yield names


def _identity(source: Path) -> str:
    """What changes when the checkpoint does. Its bytes are not read for it; assembling compares those it uses."""
    files = sorted(source.glob("*.safetensors*")) if source.is_dir() else [source]
    if source.name.endswith(".index.json"):
        files = sorted(source.parent.glob("*.safetensors*"))
    return json.dumps([(file.name, file.stat().st_size, file.stat().st_mtime_ns) for file in files])


def _stable(fields: dict[str, Any], dumps: Callable[[Any], bytes]) -> str:
    """A configuration as text that is the same in every run, and that changes when its sensitivities do.

    A function in it counts by what it does.
    """
    sensitivity: str | None = fields.get("sensitivity")
    about = None if sensitivity is None else os.stat(sensitivity)
    seen = None if about is None else [about.st_size, about.st_mtime_ns]
    return json.dumps([fields, seen], sort_keys=True, default=lambda function: dumps(function).hex())


def _advance(bar: Any, sizes: dict[str, int], names: Any) -> None:
    for name in names:
        if bar is not None:
            bar.advance(name, sizes[name])
