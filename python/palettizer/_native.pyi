"""The native half of the package. Users have better-dressed names for most of it in ``palettizer.coreml`` and
``palettizer.torch``; what is here takes and gives flat arrays of bytes, little-endian and row-major."""

from collections.abc import Sequence
from typing import final

import numpy as np
from numpy.typing import NDArray

__version__: str

class Refusal(ValueError):
    """A weight that cannot be palettized as asked; the message says why."""

@final
class Palette:
    """One weight as indices into lookup tables.

    ``dtype`` is ``"f32"``, ``"f16"`` or ``"bf16"``. ``indices`` are packed, ``nbits`` each, least-significant bits first,
    shaped ``index_shape``. ``lut_shape`` has the weight's rank plus 2: groups per axis, ``2**nbits``, vector length. An
    integer LUT has ``lut_integers`` (int8, or uint8 with ``lut_offset``) and ``lut_scale``, in the weight's dtype and
    shaped ``lut_scale_shape``; a per-channel scale is ``scale``, shaped ``scale_shape``; what there is none of is
    ``None``. ``error`` has ``squared_error``, ``energy``, ``elements``, ``mse``, ``snr_db`` and ``gap``.
    """

    @property
    def dtype(self) -> str: ...
    @property
    def shape(self) -> tuple[int, ...]: ...
    @property
    def nbits(self) -> int: ...
    @property
    def luts(self) -> int: ...
    @property
    def index_shape(self) -> tuple[int, ...]: ...
    @property
    def lut_shape(self) -> tuple[int, ...]: ...
    @property
    def vector_axis(self) -> int | None: ...
    @property
    def stored_bytes(self) -> int: ...
    @property
    def indices(self) -> NDArray[np.uint8]: ...
    @property
    def lut_integers(self) -> NDArray[np.uint8] | None: ...
    @property
    def lut_scale(self) -> NDArray[np.uint8] | None: ...
    @property
    def lut_scale_shape(self) -> tuple[int, ...] | None: ...
    @property
    def lut_offset(self) -> NDArray[np.uint8] | None: ...
    @property
    def scale(self) -> NDArray[np.uint8] | None: ...
    @property
    def scale_shape(self) -> tuple[int, ...] | None: ...
    @property
    def error(self) -> dict[str, float]: ...
    def entries(self) -> NDArray[np.uint8]:
        """The tables' entries in the weight's dtype, shaped ``lut_shape`` when viewed; integers are dequantized."""

    def decompress_into(self, out: NDArray[np.uint8]) -> None:
        """Writes the dense weight. ``ValueError`` if ``out`` has not its number of bytes."""

def palettize(
    values: NDArray[np.uint8],
    dtype: str,
    shape: Sequence[int],
    *,
    mode: str = "kmeans",
    nbits: int | None = None,
    granularity: str = "per_tensor",
    group_size: int | None = None,
    channel_axis: int | None = None,
    output_axis: int | None = None,
    cluster_dim: int = 1,
    enable_per_channel_scale: bool = False,
    lut_dtype: str | None = None,
    exact: bool = False,
    seed: int = 0,
    sensitivity: NDArray[np.float32] | None = None,
    threads: int | None = None,
) -> Palette:
    """Palettizes one weight of ``shape`` and ``dtype`` (``"f32"``, ``"f16"`` or ``"bf16"``).

    ``output_axis`` is the axis of the output channels; ``channel_axis`` that of the groups, where it is another.
    ``sensitivity`` has a number for each element that says what an error there costs. ``threads`` is one for each core
    unless given. Ctrl-C ends it. Raises ``Refusal`` for a weight that cannot be palettized so, ``ValueError`` for
    arguments that nothing can be done with.
    """

def normalise_sensitivity(values: NDArray[np.float32]) -> None:
    """Makes squared gradients usable as a sensitivity, in place: all zero becomes ones; else divided by the largest, zeros
    become the smallest other value, and nothing is below 1e-12. ``ValueError`` for negative, NaN or infinite values.
    """

def main(argv: Sequence[str]) -> int:
    """Runs the command ``palettizer`` and gives its exit code. ``argv`` begins with the program's name."""
