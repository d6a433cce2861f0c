"""A progress bar, where tqdm is installed."""

from __future__ import annotations

from typing import Any


class Bar:
    """Bytes of weights done, of all: what the native module tells of its progress."""

    def __init__(self, title: str, tqdm: Any) -> None:
        self._title, self._tqdm, self._bar = title, tqdm, None

    def start(self, weights: int, bytes: int) -> None:
        self._bar = self._tqdm(total=bytes, desc=self._title, unit="B", unit_scale=True)

    def advance(self, name: str, bytes: int) -> None:
        if self._bar is not None:
            self._bar.update(bytes)

    def finish(self) -> None:
        if self._bar is not None:
            self._bar.close()
            self._bar = None


def bar(title: str, progress: bool) -> Bar | None:
    """A bar, or `None` if it is not wanted or there is no tqdm."""
    if not progress:
        return None
    try:
        from tqdm import tqdm
    except ImportError:
        return None
    return Bar(title, tqdm)
