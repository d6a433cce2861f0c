"""A checkpoint on a cluster: each task palettizes some of its weights to a part; the parts are put together here."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from itertools import chain
from pathlib import Path
from typing import Any

from palettizer import _native
from palettizer._progress import Bar
from palettizer.coreml._report import Report
from palettizer.coreml._weights import _fields, _ours
from palettizer.distributed._cluster import cluster, spread
from palettizer.distributed._parts import part_name, parts_folder


def compress_checkpoint(
    source: Path,
    config: Any,
    about: dict[str, Any],
    out: Path | None,
    overwrite: bool,
    part_bytes: int,
    cpus: int,
    address: str | None,
    progress: bool,
) -> Report:
    """Palettizes a checkpoint that all machines can read to a place that all can write.

    `about` are fields of the native configuration that are no part of an `OptimizationConfig`.
    """
    if out is None:
        raise TypeError("a checkpoint needs out, where the palettized one goes")
    fields = {**_fields(_ours(config), False), **about}
    with cluster(address) as ray:
        bar = Bar("Palettizing weights", progress)
        checkpoint = _native.Checkpoint.open(source)
        source, identity = source.resolve(), _identity(source)
        settings = _stable(fields, ray.cloudpickle.dumps)
        with parts_folder(out.resolve()) as folder:
            jobs = checkpoint.jobs(fields)
            batches = {
                folder / part_name(identity, settings, json.dumps(names)): names
                for names in _batches(jobs, part_bytes)
            }
            done = [part for part in batches if part.exists()]
            missing = [part for part in batches if part not in done]
            tasks = ((part, (str(source), batches[part], fields, str(part), cpus)) for part in missing)
            sizes = dict(jobs)
            bar.start(len(jobs), sum(sizes.values()))
            for part in chain(done, (part for part, _ in spread(ray, _make_part, tasks, cpus))):
                for name in batches[part]:
                    bar.advance(name, sizes[name])
            bar.finish()
            return Report(checkpoint.assemble(fields, list(batches), out, overwrite=overwrite))


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
