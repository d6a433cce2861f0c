"""coremltools, where it is installed: what it has and Palettizer has not.

Nothing of it is imported before it is asked for.
"""

from __future__ import annotations

import importlib
import sys
from types import ModuleType
from typing import Any

from palettizer._settings import Fields


def attribute(ours: str, peer: str, name: str) -> Any:
    """`name` of the module `peer`, which `ours` gives as its own."""
    return getattr(_imported(peer, f"{ours}.{name}"), name)


def stand_for(ours: str, peer: str) -> None:
    """Makes the module `peer`, and the modules in it, importable under the name of `ours` too."""
    module = _imported(peer, ours)
    for name in [name for name in sys.modules if name.startswith(f"{peer}.")]:
        sys.modules[ours + name.removeprefix(peer)] = sys.modules[name]
    sys.modules[ours] = module


def _imported(peer: str, asked: str) -> ModuleType:
    try:
        return importlib.import_module(peer)
    except ImportError as error:
        raise ImportError(
            f"{asked} is coremltools' own, and Palettizer passes it on; importing {peer} failed: {error}. "
            "Install it with: pip install coremltools"
        ) from error


class Counterpart(Fields):
    """What coremltools takes for an object of its own class of the same name, once that is imported.

    coremltools asks `isinstance`; so a configuration of ours goes wherever one of its own goes, into a pass pipeline
    too, without coremltools being imported for it.
    """

    @property  # type: ignore[misc]
    def __class__(self) -> Any:
        return getattr(sys.modules.get("coremltools.optimize.coreml._config"), type(self).__name__, type(self))

    def __reduce__(self) -> Any:
        # pickle compares the class with `__class__` if it is left to itself
        return _made, (type(self), {name: getattr(self, name) for name in self._settings})

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, type(self)):
            return NotImplemented
        return all(getattr(self, name) == getattr(other, name) for name in self._settings)

    __hash__ = None  # type: ignore[assignment]  # fields change


def _made(kind: Any, fields: dict[str, Any]) -> Any:
    return kind(**fields)
