"""A progress bar where tqdm is installed."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TypeVar

T = TypeVar("T")


def progress(items: Iterable[T], shown: bool, what: str, total: int | None = None) -> Iterator[T]:
    """The items, with a bar on the terminal while they are taken; without a terminal or tqdm just the items.

    >>> list(progress([1, 2], shown=False, what="counting"))
    [1, 2]
    """
    if shown:
        try:
            from tqdm import tqdm  # type: ignore[import-untyped,unused-ignore]
        except ImportError:
            pass
        else:
            return iter(tqdm(items, desc=what, total=total, disable=None, leave=False))
    return iter(items)
