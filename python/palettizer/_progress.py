"""Progress bars, where tqdm is installed."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, TypeVar

T = TypeVar("T")


class Bar:
    """Bytes of weights done, of all, as the native module tells them; nothing if no bar is wanted or there is no tqdm."""

    def __init__(self, title: str, progress: bool) -> None:
        self._title, self._tqdm, self._bar = title, _tqdm() if progress else None, None

    def start(self, weights: int, bytes: int) -> None:
        if self._tqdm is not None:
            self._bar = self._tqdm(total=bytes, desc=self._title, unit="B", unit_scale=True)

    def advance(self, name: str, bytes: int) -> None:
        if self._bar is not None:
            self._bar.update(bytes)

    def finish(self) -> None:
        if self._bar is not None:
            self._bar.close()
            self._bar = None


def shown(items: Iterable[T], progress: bool, what: str, total: int | None = None) -> Iterator[T]:
    """The items, with a bar on the terminal while they are taken; without a terminal or tqdm just the items.

    >>> list(shown([1, 2], progress=False, what="counting"))
    [1, 2]
    """
    tqdm = _tqdm() if progress else None
    return iter(items if tqdm is None else tqdm(items, desc=what, total=total, disable=None, leave=False))


def _tqdm() -> Any:
    """Tqdm itself, or `None` where it is not installed."""
    try:
        from tqdm import tqdm
    except ImportError:
        return None
    return tqdm
