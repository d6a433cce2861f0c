"""Watches a model while it runs: which weight is multiplied by which input.

Functions are intercepted, not modules: so weights that are used without calling their module are seen too, and those
that several modules share are seen wherever they are used.
"""

from __future__ import annotations

import types
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import lru_cache
from typing import Any

import torch
from torch.overrides import TorchFunctionMode

from palettizer.torch.palettization._layerwise.operations import LookUp, Operation, operation
from palettizer.torch.palettization._layerwise.places import Part, Places
from palettizer.torch.palettization._plan.plan import Weight

Seen = Callable[[Part, Operation | LookUp, torch.Tensor], torch.Tensor | None]
"""Hears of a use of a weight and of its output, and may return another output."""


class Watch(TorchFunctionMode):
    """Tells of each use of some weights. Uses that do not fit the weight's output axis are told of in `strange`."""

    def __init__(self, weights: Sequence[Weight], seen: Seen) -> None:
        super().__init__()
        self._places, self._seen = Places(weights), seen
        self.strange: dict[str, str] = {}

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Runs a function, and tells of it."""
        kwargs = kwargs or {}
        if _is_made_of_others(func):
            with self:  # the others are to be seen
                return _inside(func)(*args, **kwargs)
        output = func(*args, **kwargs)
        used = operation(func, args, kwargs)
        part = None if used is None else self._places.find(used.weight)
        if used is None or part is None:
            return output
        axis = 0 if isinstance(used, LookUp) else used.output_axis
        axis = 1 - axis if part.turned else axis
        shape, wanted = part.weight.owners[0].facts.shape, part.weight.owners[0].axes[0]
        if axis != wanted or (axis != 0 and part.stop - part.start != shape[0]):
            self.strange[part.weight.name] = f"is used with its output channels along axis {axis}, not {wanted}"
            return output
        part = part if axis == 0 else part._replace(start=0, stop=shape[axis])
        instead = self._seen(part, used, output[0] if isinstance(output, tuple) else output)
        return output if instead is None else instead


def _is_made_of_others(function: Any) -> bool:
    """Whether it is Python of torch.nn.functional. Pooling is not: it is chosen elsewhere, and what is chosen asks again."""
    return isinstance(function, types.FunctionType) and function.__globals__ is vars(torch.nn.functional)


@lru_cache(maxsize=256)
def _inside(function: types.FunctionType) -> Any:
    """A function of torch.nn.functional that does its work, rather than asking once more who wants to do it."""
    nobody = {name: _no for name in _QUESTIONS if name in function.__globals__}
    twin = types.FunctionType(
        function.__code__, {**function.__globals__, **nobody}, function.__name__, function.__defaults__,
        function.__closure__,
    )  # fmt: skip
    twin.__kwdefaults__ = function.__kwdefaults__
    return twin


_QUESTIONS = ("has_torch_function", "has_torch_function_unary", "has_torch_function_variadic")


def _no(*tensors: Any) -> bool:
    return False


@contextmanager
def without_fast_paths() -> Iterator[None]:
    """Lets attention and transformer layers use the functions that are watched, rather than one of their own."""
    before = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        yield
    finally:
        torch.backends.mha.set_fastpath_enabled(before)
