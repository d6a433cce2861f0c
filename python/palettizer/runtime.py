"""Core ML programs run on the CPU of any machine, and differentiated.

>>> import numpy as np
>>> import palettizer.coreml as cto
>>> from palettizer.runtime import Session
>>> digit = np.zeros((1, 1, 8, 8), np.float32)
>>> digit[0, 0, 1:7, 3:5] = 1  # a stroke
>>> before = Session(cto.demo()).predict({"image": digit})
>>> config = cto.OptimizationConfig(global_config=cto.OpPalettizerConfig(nbits=4))
>>> after = Session(cto.palettize_weights(cto.demo(), config)).predict({"image": digit})
>>> bool(np.abs(before["probabilities"] - after["probabilities"]).max() < 0.01)
True
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, overload

import numpy as np

from palettizer import _native
from palettizer.coreml import _mlmodel

if TYPE_CHECKING:
    import os

    from coremltools.models import MLModel

    from palettizer.coreml import Model

__all__ = ["Differentiated", "Session", "State"]

# numpy's types by the names that MIL has for them; what is computed in 32 bits comes as such
_DTYPES: dict[str, Any] = {
    "fp16": np.float16,
    "fp32": np.float32,
    "int8": np.int8,
    "uint8": np.uint8,
    "int16": np.int16,
    "uint16": np.uint16,
    "int32": np.int32,
    "uint32": np.uint32,
    "bool": np.bool_,
}


class State:
    """What the states of a model hold between calls of `Session.predict`; a new one holds zeros. Made by `Session.make_state`."""

    __slots__ = ("_native",)

    def __init__(self, native: _native.RunState) -> None:
        self._native = native

    def read_state(self, name: str) -> np.ndarray:
        """What a state holds.

        Raises:
            ValueError: there is none of this name.
        """
        return _array(self._native.read(name))

    def write_state(self, name: str, value: Any) -> None:
        """Lets a state hold something else.

        Raises:
            ValueError: there is none of this name, or the value does not fit it.
        """
        self._native.write(name, _given(name, value))


class Differentiated(NamedTuple):
    """What `Session.grad` gives."""

    loss: float
    """The loss."""
    outputs: dict[str, Any]
    """The outputs by name, as `Session.predict` gives them."""
    gradients: dict[str, np.ndarray]
    """The gradient with respect to each constant or input, in its shape, as float32."""


class Session:
    """A model made ready to run.

    Args:
        model: a path, a `palettizer.coreml.Model` or an `MLModel`.
        function_name: the function that runs; `None`: the model's default.
        precision: "exact" rounds to fp16 after every operation of an fp16 program, "fast" at casts and outputs alone.
        keep_constants: keep weights in memory once they were read or expanded: later calls are faster.
        max_steps: operations that a call may take, those of loops each time; `None`: 100 million.
        max_memory: bytes that the values of a call may take; `None`: 64 GB.
        threads: threads to work on; `None`: one for each core. The result does not depend on it.

    Raises:
        ValueError: the program has operations that are not known (all are listed), or is damaged.
    """

    def __init__(
        self,
        model: str | os.PathLike[str] | Model | MLModel,
        *,
        function_name: str | None = None,
        precision: Literal["exact", "fast"] = "exact",
        keep_constants: bool = False,
        max_steps: int | None = None,
        max_memory: int | None = None,
        threads: int | None = None,
    ) -> None:
        if precision not in ("exact", "fast"):
            raise ValueError(f'precision is {precision!r}; allowed: "exact" and "fast"')
        if function_name is None and _mlmodel.is_mlmodel(model):
            function_name = getattr(model, "function_name", None)
        self._native = _native.Session(_mlmodel.opened(model), keep_constants=keep_constants)
        self._options: dict[str, Any] = {
            "function": function_name,
            "exact": precision == "exact",
            "max_steps": max_steps,
            "max_memory": max_memory,
            "threads": threads,
        }
        self._kinds = self._native.interface(function_name)

    def make_state(self) -> State:
        """States that hold zeros."""
        return State(self._native.state(self._options["function"]))

    @overload
    def predict(self, data: Mapping[str, Any], state: State | None = None) -> dict[str, Any]: ...

    @overload
    def predict(self, data: list[Mapping[str, Any]], state: None = None) -> list[dict[str, Any]]: ...

    def predict(
        self, data: Mapping[str, Any] | list[Mapping[str, Any]], state: State | None = None
    ) -> dict[str, Any] | list[dict[str, Any]]:
        """Runs the model, as `MLModel.predict` does.

        >>> import numpy as np
        >>> import palettizer.coreml as cto
        >>> from palettizer.runtime import Session
        >>> session = Session(cto.demo())
        >>> digit = np.zeros((1, 1, 8, 8), np.float32)
        >>> digit[0, 0, 1:7, 3:5] = 1  # a stroke
        >>> probabilities = session.predict({"image": digit})["probabilities"]
        >>> int(probabilities.argmax())
        1

        Args:
            data: a value for each input: arrays, or what numpy makes one of; for images those of PIL, of any mode, or arrays of uint8,
                [height, width] or [height, width, 3] with red first. Inputs that may be left out have their defaults. Several at
                once: a list.
            state: what the states hold; it is changed. Without it, they begin with zeros.

        Returns:
            The outputs by name: arrays of the program's types; classes as strings or numbers, their probabilities as dictionaries;
            images as those of PIL if it is installed, else as arrays. For a list a list of these.

        Raises:
            ValueError: inputs are missing or do not fit, or an operation cannot do what it is asked to.
        """
        if isinstance(data, list):
            if state is not None:
                raise ValueError("a state goes with one dictionary of inputs, not with a list of them")
            return [self.predict(one) for one in data]
        held = None if state is None else state._native
        return self._seen(self._native.run(self._all_given(data), state=held, **self._options))

    def _all_given(self, data: Mapping[str, Any]) -> dict[str, Any]:
        inputs = self._kinds[0]
        return {name: _given(name, value, inputs.get(name, "array")) for name, value in data.items()}

    def _seen(self, outputs: dict[str, Any]) -> dict[str, Any]:
        """Outputs as users get them."""
        kinds = self._kinds[1]
        return {name: _python(value, kinds.get(name, "array")) for name, value in outputs.items()}

    def grad(
        self,
        data: Mapping[str, Any],
        loss: str | Mapping[str, Any],
        wrt: str | Sequence[str],
        *,
        output: str | None = None,
        labels: Any = None,
        target: Any = None,
    ) -> Differentiated:
        """Runs the model, and differentiates a loss with respect to weights and inputs. States begin with zeros.

        Args:
            data: a value for each input, as for `predict`.
            loss: "cross_entropy": the mean over rows of -log softmax(output)[label], rows along the last axis, with `labels`.
                "nll": the mean of -log output[label], where the program itself ends in a softmax, with `labels`.
                "mse": the mean of squared differences from `target`.
                The name of an output of one element.
                A mapping {output: array}: the sum of the outputs' elements times those of the arrays.
            wrt: names of inputs and of constants, one or several. Of a pipeline: of its own inputs, and of constants of any stage, the
                first that has one of the name.
            output: the output that the loss is of; `None`: the only one.
            labels: a class for each row.
            target: as many elements as the output has.

        Returns:
            The loss, the outputs, and the gradients by name.

        Raises:
            ValueError: as for `predict`; the loss does not fit, or an operation cannot be differentiated.
        """
        names = [wrt] if isinstance(wrt, str) else list(wrt)
        of = self._loss(loss, output, labels, target)
        value, outputs, gradients = self._native.grad(self._all_given(data), of, names, **self._options)
        return Differentiated(value, self._seen(outputs), {name: _array(one) for name, one in gradients.items()})

    def _loss(
        self, loss: str | Mapping[str, Any], output: str | None, labels: Any, target: Any
    ) -> tuple[str, str | None, Any]:
        if isinstance(loss, Mapping):
            return "projection", None, {name: _given(name, np.asarray(one, np.float32)) for name, one in loss.items()}
        kinds = {"cross_entropy": labels, "nll": labels, "mse": target}
        if kinds.get(loss) is None:
            names = self._native.outputs(self._options["function"])
            if loss in kinds and loss not in names:
                raise ValueError(f'the loss "{loss}" needs {"a target" if loss == "mse" else "labels"}')
            return "output", loss, None
        if output is None:
            names = self._native.outputs(self._options["function"])
            if len(names) != 1:
                raise ValueError(f"the model has the outputs {names}; say by output= which of them the loss is of")
            (output,) = names
        if loss == "mse":
            return loss, output, _given(output, np.asarray(target, np.float32))
        return loss, output, _labels(labels)


def _labels(labels: Any) -> list[int]:
    array = np.asarray(labels)
    if array.dtype.kind not in "iu" or (array < 0).any():
        raise ValueError("labels are classes, integers from 0")
    return [int(label) for label in array.reshape(-1)]


def _given(name: str, value: Any, kind: str = "array") -> tuple[str, list[int], Any]:
    if kind in _MODES:
        return _pixels(name, value, kind)
    array = np.asarray(value)
    shape = list(array.shape)
    if array.dtype.kind == "f":
        return "fp32", shape, array.astype("<f4").tobytes()
    if array.dtype.kind in "iu":
        least, largest = (array.min(), array.max()) if array.size else (0, 0)
        if least < -(2**31) or largest >= 2**31:
            raise ValueError(f"input {name!r} has integers from {least} to {largest}; expected 32 bits")
        return "int32", shape, array.astype("<i4").tobytes()
    if array.dtype.kind == "b":
        return "bool", shape, array.astype(np.uint8).tobytes()
    if array.dtype.kind == "U":
        return "string", shape, [str(text) for text in array.reshape(-1)]
    raise TypeError(f"input {name!r} is an array of {array.dtype}; expected numbers, booleans or strings")


# the modes of PIL for the color spaces of the specification
_MODES = {"RGB": "RGB", "BGR": "RGB", "GRAYSCALE": "L", "GRAYSCALE_FLOAT16": "F"}


def _pixels(name: str, value: Any, kind: str) -> tuple[str, list[int], bytes]:
    if hasattr(value, "convert"):
        value = value.convert(_MODES[kind])
    array = np.asarray(value)
    if array.dtype.kind == "f" and array.ndim == 2 and kind == "GRAYSCALE_FLOAT16":
        return "float image", list(array.shape), array.astype("<f4").tobytes()
    if array.dtype == np.uint8 and (array.ndim == 2 or (array.ndim == 3 and array.shape[2] == 3)):
        return "image", list(array.shape), array.tobytes()
    if array.dtype.kind == "f" and array.ndim > 2:
        return _given(name, array)  # what the program sees
    raise TypeError(
        f"input {name!r} is a {type(value).__name__} of {array.dtype}, shaped {list(array.shape)}; expected an image of PIL, "
        "or an array of uint8, [height, width] or [height, width, 3]"
    )


def _python(value: Any, kind: str = "array") -> Any:
    if isinstance(value, list):
        return [_python(item) for item in value]
    if not isinstance(value, tuple):
        return value
    name, shape, data = value
    if name in ("image", "float image"):
        array = np.frombuffer(data, np.uint8 if name == "image" else np.float32).reshape(shape)
        try:
            from PIL import Image
        except ImportError:
            return array
        return Image.fromarray(array)
    array = _array(value)
    if kind in ("int", "double", "string") and array.size == 1:
        return array.reshape(-1)[0] if kind == "string" else array.item()
    return array


def _array(value: tuple[str, list[int], Any]) -> np.ndarray:
    name, shape, data = value
    if name == "string":
        return np.array(data, dtype=object).reshape(shape)
    dtype = np.dtype(_DTYPES[name])
    wide = np.dtype(np.float32 if dtype.kind == "f" else np.bool_ if dtype.kind == "b" else np.int32)
    return np.frombuffer(data, wide).reshape(shape).astype(dtype, copy=False)
