"""A Ray cluster as a bounded queue: so many tasks are under way, and the next is made when one is done."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from itertools import islice
from typing import Any


@contextmanager
def cluster(address: str | None) -> Iterator[Any]:
    """The Ray that runs, or else one that is joined, or started here, and left at the end."""
    try:
        import ray
    except ImportError as error:
        raise ImportError("palettizer.distributed.ray needs the package ray: pip install ray") from error
    if ray.is_initialized():
        yield ray
        return
    ray.init(address=address, include_dashboard=False, log_to_driver=False, logging_level=logging.WARNING)
    try:
        yield ray
    finally:
        ray.shutdown()


def spread(
    ray: Any, function: Callable[..., Any], jobs: Iterable[tuple[Any, tuple[Any, ...]]], cpus: int
) -> Iterator[tuple[Any, Any]]:
    """Calls a function for each (key, arguments) on the cluster, and gives (key, result) as they come.

    Twice as many tasks are under way as the cluster can run, so that arguments are made while others are worked on.
    What a task raises is raised here; the others are cancelled then.
    """
    slots = max(1, int(ray.cluster_resources().get("CPU", 1)) // cpus)
    remote = ray.remote(num_cpus=cpus, max_retries=3)(function)
    under_way: dict[Any, Any] = {}
    waiting = iter(jobs)
    try:
        while True:
            for key, arguments in islice(waiting, 2 * slots - len(under_way)):
                under_way[remote.remote(*arguments)] = key
            if not under_way:
                return
            done, _ = ray.wait(list(under_way), num_returns=1)
            key = under_way.pop(done[0])
            try:
                result = ray.get(done[0])
            except ray.exceptions.RayTaskError as error:
                raise (error.cause if isinstance(error.cause, Exception) else error) from None
            yield key, result
    finally:
        for task in under_way:
            ray.cancel(task)
