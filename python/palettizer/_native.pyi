"""The native half of the package, in flat arrays of bytes, little-endian and row-major.

Users have better-dressed names for most of it in `palettizer.coreml` and `palettizer.torch`.
"""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final, Literal, Protocol, TypeAlias, final, overload

import numpy as np
from numpy.typing import NDArray

__all__ = [
    "StagedOutput",
    "Checkpoint",
    "DeferredPalette",
    "Model",
    "Palette",
    "Refusal",
    "RunState",
    "Session",
    "SoftKMeans",
    "__version__",
    "assemble",
    "budget_forms",
    "choose",
    "dkm_defaults",
    "known_ops",
    "main",
    "normalise_sensitivity",
    "palettize",
    "palettize_program",
    "panic_for_tests",
    "read_curves",
    "recover",
    "telling_errors",
    "write_curves",
    "yaml_file",
    "yaml_text",
]

__version__: str

_Path: TypeAlias = str | os.PathLike[str]

# Flat arrays: bytes, little-endian and row-major.
_Bytes: TypeAlias = NDArray[np.uint8]

# A dtype's name in MIL, a shape, and elements: see `Session`.
_Array: TypeAlias = tuple[str, list[int], bytes | list[str]]
# The same as it comes back: floats as a flat array.
_Made: TypeAlias = tuple[str, list[int], NDArray[np.float32] | bytearray | list[str]]

# A configuration: {"global_config": fields or None}, and where wanted "op_type_configs" and "op_name_configs" (name ->
# fields or None; patterns are tried in their order; a checkpoint's op names are those of tensors), "joint_compression",
# "strict", "exact", "seed", "minimum_deployment_target", "sensitivity" (a safetensors file), "sensitivity_default"
# ("error" or "ones") and "budget": {"goal" ("target_size", …), "number" (its text)}, and where wanted "choices" ((option,
# values) pairs of texts), "curves" (a JSON file) and "inputs" (for each sample a dictionary as `Session.run` takes it).
# Fields: {"mode", "granularity", "cluster_dim", "enable_per_channel_scale", "weight_threshold"}, and where wanted "nbits",
# "group_size", "channel_axis", "lut_dtype", and for mode "custom" "lut_function", a function of (values in the group's
# shape, channel axis or None, dtype) that gives a flat float32 array of entries and a flat uint8 array of indices.
_Config: TypeAlias = Mapping[str, Any]

# A dense tensor: dtype, shape, bytes.
_Dense: TypeAlias = tuple[str, Sequence[int], _Bytes]

class _Progress(Protocol):
    """Hears of the work on the thread that asked for it."""

    def start(self, weights: int, bytes: int, /) -> object: ...
    def advance(self, name: str, bytes: int, /) -> object: ...
    def finish(self) -> object: ...

class Refusal(ValueError):
    """A weight that cannot be palettized as asked; the message says why."""

@final
class Palette:
    """One weight as indices into lookup tables.

    `dtype` is `"f32"`, `"f16"` or `"bf16"`. `indices` are packed, `nbits` each, least-significant bits first,
    shaped `index_shape`. `lut_shape` has the weight's rank plus 2: groups per axis, `2**nbits`, vector length. An
    integer LUT has `lut_integers` (int8, or uint8 with `lut_offset`) and `lut_scale`, in the weight's dtype and
    shaped `lut_scale_shape`; a per-channel scale is `scale`, shaped `scale_shape`; what there is none of is
    `None`. `error` has `squared_error`, `energy`, `elements`, `mse`, `snr_db` and `gap`; of a weight that was fitted to
    second moments also `output_error` and `output_energy`, Σ (w − ŵ)ᵀH(w − ŵ) and Σ wᵀHw with the damped H, and
    `objective` has the former at each step: k-means, error feedback, each round, last tables, as it is stored.
    """

    dtype: Final[str]
    shape: Final[tuple[int, ...]]
    nbits: Final[int]
    index_shape: Final[tuple[int, ...]]
    lut_shape: Final[tuple[int, ...]]
    vector_axis: Final[int | None]
    indices: Final[_Bytes]
    lut_integers: Final[_Bytes | None]
    lut_scale: Final[_Bytes | None]
    lut_scale_shape: Final[tuple[int, ...] | None]
    lut_offset: Final[_Bytes | None]
    scale: Final[_Bytes | None]
    scale_shape: Final[tuple[int, ...] | None]
    error: Final[dict[str, float]]
    objective: Final[list[float] | None]
    def entries(self) -> _Bytes:
        """The tables' entries in the weight's dtype, shaped `lut_shape` when viewed; integers are dequantized."""

    def stored_len(self, name: str, most: int) -> int:
        """Bytes that it takes at most in a safetensors file of fewer than `most` bytes, as a weight of this name."""

    def weighted_error(self, values: _Bytes, sensitivity: NDArray[np.float32]) -> tuple[float, float]:
        """Σ s·(w − ŵ)² and Σ s·w², of the weight that it was made of and its sensitivities. `ValueError` for other lengths."""

    def decompress_into(self, out: _Bytes) -> None:
        """Writes the dense weight. `ValueError` if `out` has not its number of bytes."""

@final
class DeferredPalette:
    """The tables of a weight, whose indices are found when they are needed: of nearest scalars, without scales."""

    def replace(self, values: _Bytes) -> Palette:
        """Replaces the values of the weight by those of the palette, which comes without its indices.

        `Refusal` for another number of values.
        """

@final
class Model:
    """A Core ML model, opened or put together of a serialized program and the folder of its weight files.

    `palettize` and `decompress` make a copy in memory; with `_to` they write straight to a package, in memory that does
    not grow with the model. Reports and lists of weights are JSON. The weights may unfold to `max_expansion` times the
    size of the model. Ctrl-C ends what takes long, and nothing unfinished stays on disk.
    """

    @staticmethod
    def demo() -> Model: ...
    @staticmethod
    def open(path: _Path, *, max_expansion: int | None = None) -> Model: ...
    @staticmethod
    def open_parts(spec: bytes, weights_dir: _Path, *, max_expansion: int | None = None) -> Model: ...
    def within(self, max_expansion: int | None = None) -> Model: ...
    def palettize(
        self, config: _Config, *, threads: int | None = None, progress: _Progress | None = None
    ) -> tuple[Model, str]: ...
    def palettize_to(
        self,
        config: _Config,
        out: _Path,
        *,
        overwrite: bool = False,
        threads: int | None = None,
        progress: _Progress | None = None,
    ) -> str: ...
    def decompress(self, *, threads: int | None = None, progress: _Progress | None = None) -> Model: ...
    def decompress_to(
        self, out: _Path, *, overwrite: bool = False, threads: int | None = None, progress: _Progress | None = None
    ) -> None: ...
    def save(self, out: _Path, *, overwrite: bool = False) -> None: ...
    def weights(self, threshold: int = 2048, *, threads: int | None = None) -> str:
        """Those with more than `threshold` elements."""

    def weight_values(self, name: str) -> _Dense: ...

@final
class RunState:
    """What the states of a program hold between runs."""

    def read(self, name: str) -> tuple[str, list[int], Any]: ...
    def write(self, name: str, value: _Array) -> None: ...

@final
class Session:
    """A program made ready to run.

    Arrays are a dtype's name in MIL, a shape, and the bytes of float32, int32 or bool, or a list of strings. Images are
    ("image", [height, width] or [height, width, 3], bytes), or ("float image", [height, width], the bytes of float32).
    """

    def __new__(cls, model: Model, *, keep_constants: bool = False) -> Session: ...
    def state(self, function: str | None = None) -> RunState: ...
    def run(
        self,
        inputs: dict[str, _Array],
        *,
        function: str | None = None,
        state: RunState | None = None,
        exact: bool = True,
        max_steps: int | None = None,
        max_memory: int | None = None,
        threads: int | None = None,
    ) -> dict[str, Any]: ...
    def interface(self, function: str | None = None) -> list[dict[str, str]]:
        """Inputs, outputs and states with their kinds: "array", a color space, "int", "double", "string", "dictionary" and others."""

    def outputs(self, function: str | None = None) -> list[str]: ...
    def grad(
        self,
        inputs: dict[str, _Array],
        loss: tuple[str, str | None, Any],
        wrt: Sequence[str],
        *,
        function: str | None = None,
        exact: bool = True,
        max_steps: int | None = None,
        max_memory: int | None = None,
        threads: int | None = None,
    ) -> tuple[float, dict[str, Any], dict[str, _Made]]:
        """The loss, the outputs and the gradients.

        A loss is ("output", name, None), ("cross_entropy" or "nll", name, labels), ("mse", name, an array) or
        ("projection", None, arrays by output).
        """

@final
class Checkpoint:
    """Tensors by name: a `.safetensors` file, or a folder of shards with its index. Dtypes are safetensors' names.

    `write` writes palettes and tensors to one file in the compact form, which `open` reads. Else as of `Model`.
    """

    @staticmethod
    def open(path: _Path, *, max_expansion: int | None = None) -> Checkpoint: ...
    @staticmethod
    def len_of(
        tensors: Sequence[tuple[str, str, Sequence[int]]], metadata: Mapping[str, str], most: int | None = None
    ) -> int:
        """Bytes of a file of tensors (name, dtype, shape), exactly; or at most, where it has palettes too and fewer than `most`."""

    @staticmethod
    def write(
        out: _Path,
        contents: Sequence[tuple[str, Palette | _Dense]],
        metadata: Mapping[str, str],
        *,
        overwrite: bool = False,
    ) -> None: ...
    def names(self) -> list[str]:
        """The names of all tensors; a palettized weight has its own."""

    def metadata(self) -> dict[str, str]: ...
    def get(self, name: str) -> Palette | _Dense: ...
    def jobs(self, config: _Config) -> list[tuple[str, int]]:
        """The weights that the configuration palettizes, with their bytes."""

    def compress_to(
        self,
        config: _Config,
        out: _Path,
        *,
        overwrite: bool = False,
        threads: int | None = None,
        progress: _Progress | None = None,
    ) -> str: ...
    def compress_part(
        self, names: Sequence[str], config: _Config, out: _Path, *, overwrite: bool = False, threads: int | None = None
    ) -> None:
        """Palettizes some of the weights to a part, for `assemble`."""

    def assemble(self, config: _Config, parts: Sequence[_Path], out: _Path, *, overwrite: bool = False) -> str:
        """Puts parts together to the very bytes that `compress_to` writes."""

@final
class StagedOutput:
    """A file on its way to `path`: `with StagedOutput(path) as built:`, and the block makes a file at `built`.

    Then it is put in its place in one step, or it is gone if the block raises. Whether it can go there is found out at
    once.
    """

    def __new__(cls, path: _Path, *, overwrite: bool = False) -> StagedOutput: ...
    @staticmethod
    def program(path: _Path, *, overwrite: bool = False) -> StagedOutput: ...
    def __enter__(self) -> Path: ...
    def __exit__(self, kind: object, error: object, trace: object, /) -> None: ...

def dkm_defaults() -> dict[str, Any]:
    """What the settings of `SoftKMeans` are when they are not given, for Rust and Python alike."""

@final
class SoftKMeans:
    """Differentiable k-means of one weight: the soft weight for training, its gradient, and the palette in the end.

    `dtype` is `"f64"`, `"f32"`, `"f16"` or `"bf16"`; axis 0 of `shape` is that of the output channels. `mode`
    is `"dkm"`, `"gsm"`, `"hard"` or `"ste"`; `lut_dtype` `"f16"`, `"bf16"`, `"int8"`, `"uint8"` or `None`;
    `scale_scheme` `"min_max"`, `"abs"` or `None`; `floor` is the least attention, `temperature` the softmax's τ, `enabled`
    the part of the groups that is trained, `starts` multiplies the starts of vector k-means, `implicit` asks for the
    gradient of a fixed point. A `temperature`, `floor` or `prune_threshold` of `None` is found. What is not given is as `dkm_defaults` says, and without a `lut_dtype` and a
    `scale_scheme`. `ValueError` for what cannot be.

    Weights go in and out in `dtype`. Centroids (group, cluster, element), scales and what is saved are reals: 64-bit floats
    for `"f64"`, else 32-bit. `threads=None` means one for each core.
    """

    def __new__(
        cls,
        dtype: str,
        shape: Sequence[int],
        *,
        nbits: int,
        cluster_dim: int = ...,
        group_size: int | None = ...,
        iterations: int = ...,
        temperature: float | None = ...,
        epsilon: float = ...,
        floor: float | None = ...,
        prune_threshold: float | None = ...,
        enforce_zero: bool = ...,
        mode: str = ...,
        lut_dtype: str | None = ...,
        scale_scheme: str | None = ...,
        enabled: float = ...,
        cluster_tolerance: float = ...,
        starts: int = ...,
        seed: int = ...,
        implicit: bool = ...,
    ) -> SoftKMeans: ...
    groups: Final[int]
    clusters: Final[int]
    cluster_dim: Final[int]
    floor: Final[float]
    prune_threshold: Final[float]
    finds_temperature: Final[bool]
    @property
    def saved_len(self) -> int:
        """Numbers that a forward leaves for its backward."""

    def channel_scale(self, values: _Bytes, out: _Bytes, threads: int | None = None) -> None:
        """Writes the scale of each row; to be called once, and only with a `scale_scheme`."""

    def seed_centroids(self, values: _Bytes, scale: _Bytes | None, out: _Bytes, threads: int | None = None) -> None:
        """Writes the centroids to start from."""

    def temperatures(
        self, values: _Bytes, centroids: _Bytes, scale: _Bytes | None, out: _Bytes, threads: int | None = None
    ) -> None:
        """Writes the temperature of each group by its first centroids, 32-bit floats; none unless `finds_temperature`."""

    def forward(
        self,
        values: _Bytes,
        centroids: _Bytes,
        scale: _Bytes | None,
        temperatures: _Bytes | None,
        noise: int,
        out: _Bytes,
        next: _Bytes,
        saved: _Bytes,
        threads: int | None = None,
    ) -> None:
        """Writes the soft weight, the centroids after the last step, and to `saved` what the backward needs.

        `noise` seeds `"gsm"`.
        """

    def backward(
        self,
        values: _Bytes,
        scale: _Bytes | None,
        temperatures: _Bytes | None,
        noise: int,
        saved: _Bytes,
        grad: _Bytes,
        out: _Bytes,
        threads: int | None = None,
    ) -> None:
        """Writes the gradient for the weight, given that for the soft weight."""

    def assign(
        self, values: _Bytes, centroids: _Bytes, scale: _Bytes | None, out: _Bytes, threads: int | None = None
    ) -> None:
        """Writes the weight with every vector at its nearest centroid, as the palette has it."""

    def palette(self, values: _Bytes, centroids: _Bytes, scale: _Bytes | None, threads: int | None = None) -> Palette:
        """The palette of the same; of `"f64"` weights in `"f32"`."""

@overload
def palettize(
    values: _Bytes,
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
    fold_scale: bool = False,
    half_scales: bool = False,
    exact: bool = False,
    seed: int = 0,
    sensitivity: NDArray[np.float32] | None = None,
    second_moments: NDArray[np.float32] | None = None,
    algorithm: str = ...,
    rounds: int = ...,
    damping: float = ...,
    deferred: Literal[False] = False,
    threads: int | None = None,
) -> Palette:
    """Palettizes one weight of `shape` and `dtype` (`"f32"`, `"f16"` or `"bf16"`).

    `output_axis` is the axis of the output channels; `channel_axis` that of the groups, where it is another.
    `fold_scale` puts a per-channel scale into the scales of integer LUTs, of which each output channel then has its
    own. `half_scales` gives a float32 weight scales that float16 has, so that a program that computes it in float16
    comes to the rounded weight.
    `sensitivity` has a number for each element that says what an error there costs.
    `second_moments`, of the layer's inputs, is C-contiguous and shaped `[row_runs, blocks, n, n]` (or without the first
    one or two): tables and indices are then fitted to the layer's outputs with `algorithm` (`"lnq"` or `"gptq"`, else
    "lnq"), `rounds` (else 2) and `damping` (else 0.1), and `sensitivity` weighs the k-means that they start from. Rows are output channels; each
    of `row_runs` equal runs of them has matrices of its own, and the columns are cut into `blocks`. `threads` is one for each core
    unless given. With `deferred`, indices that can be found again are left for later, and with them the error. Ctrl-C ends it. Raises `Refusal` for a weight that cannot be palettized so, `ValueError` for
    arguments that nothing can be done with.
    """
@overload
def palettize(
    values: _Bytes,
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
    fold_scale: bool = False,
    half_scales: bool = False,
    exact: bool = False,
    seed: int = 0,
    sensitivity: NDArray[np.float32] | None = None,
    second_moments: NDArray[np.float32] | None = None,
    algorithm: str = ...,
    rounds: int = ...,
    damping: float = ...,
    deferred: Literal[True],
    threads: int | None = None,
) -> Palette | DeferredPalette: ...

def assemble(
    values: _Bytes,
    dtype: str,
    shape: Sequence[int],
    *,
    luts: NDArray[np.float32],
    indices: _Bytes,
    scales: NDArray[np.float32] | None = None,
    nbits: int,
    granularity: str = "per_tensor",
    group_size: int | None = None,
    channel_axis: int | None = None,
    output_axis: int | None = None,
    enable_per_channel_scale: bool = False,
    lut_dtype: str | None = None,
    fold_scale: bool = False,
    half_scales: bool = False,
    second_moments: NDArray[np.float32] | None = None,
    damping: float = ...,
    threads: int | None = None,
) -> Palette:
    """A palette of tables that were fitted elsewhere; the arguments are those of `palettize`.

    `luts` has `2**nbits` entries for each group, `indices` a byte for each element in the order of the weight, and
    `scales` a number for each output channel (with `enable_per_channel_scale`). Entries and scales are rounded as they
    are stored; with `second_moments` the indices are then improved, and the outcome measured.
    """

def recover(
    values: _Bytes,
    dtype: str,
    shape: Sequence[int],
    *,
    lut: _Bytes,
    lut_shape: Sequence[int],
    lut_dtype: str | None = None,
    lut_scale: _Bytes | None = None,
    lut_scale_shape: Sequence[int] | None = None,
    lut_offset: _Bytes | None = None,
    scale: _Bytes | None = None,
    scale_shape: Sequence[int] | None = None,
    vector_axis: int | None = None,
    threads: int | None = None,
) -> Palette:
    """The palette of a dense weight that already is one.

    Finds the indices, so that the result decompresses to it bit for bit.
    `lut` has the tables, shaped `lut_shape`: entries in the weight's dtype, or with `lut_dtype` `"int8"` or
    `"uint8"` integers with `lut_scale` (and `lut_offset`). `ValueError` if a value is in no table.
    """

def normalise_sensitivity(values: NDArray[np.float32]) -> None:
    """Makes squared gradients usable as a sensitivity, in place.

    All zero becomes ones; else divided by the largest, zeros become the smallest other value, and nothing is below
    1e-12. `ValueError` for negative, NaN or infinite values.
    """

def budget_forms(given: Sequence[tuple[str, Sequence[str]]]) -> list[str]:
    """The forms that choices (options and values, as texts) leave, such as "nbits=4,group_size=none"."""

def choose(
    goal: str,
    number: str,
    curves: str,
    weights: Sequence[tuple[str, int, Sequence[str], bool]],
    *,
    before: int,
    other: int,
    elements: int,
    kept: Sequence[tuple[str, int]],
    responses: Mapping[str, Sequence[tuple[float, float]]] | None = None,
    forms: Mapping[str, str] | None = None,
) -> str:
    """A form for each weight, so that least is lost.

    As JSON: a report of the budget and for each weight {"Ok": its form and neighbours} or {"Err": why it can have none}.
    `curves` are as files of curves have them; a weight is (name, bytes as it is, forms to choose from, whether its own config
    left no choice). `before` are the bytes of the model as it is, `other` those of the new one without the weights;
    `elements` are those of all weights, `kept` the weights, with their bytes, that stay as they are. `responses` are (error,
    harm to the outputs of the model) of some forms of each weight, if that is known; `forms` are taken if they are one for each
    weight that has several, and fit. `ValueError` if the budget cannot be met.
    """

def telling_errors(errors: Sequence[float]) -> list[int]:
    """The places of the few errors of forms, each once, that tell most about what a weight's error does to outputs."""

def read_curves(path: _Path) -> str | None:
    """The curves of a file, as JSON, without those whose numbers cannot be; `None` if there is no file.

    `ValueError` if it is none of curves.
    """

def write_curves(path: _Path, curves: str) -> None: ...
def palettize_program(
    opened: Any,
    config: _Config,
    *,
    threads: int | None = None,
    progress: _Progress | None = None,
) -> str:
    """Palettizes the weights of a program that Python reads and writes: the report, as JSON.

    `opened` has attributes `described`, a list of weights (dicts of `names`, `users`, name and type of each operation that uses
    it, `shape`, `dtype`, `output_axis`, `role`, `bytes`, `problem`, and what joint compression finds), `before`, the bytes of
    the program, and `overhead`, those that a palette takes at most beside its data; and methods `read(index)`, which gives the
    values of a weight, and `put(index, palette)`, which takes the palettes, in order.
    """

def known_ops() -> list[tuple[str, bool]]:
    """The operations that can be run, and whether each can be differentiated."""

def main(argv: Sequence[str]) -> int:
    """Runs the command `palettizer` and gives its exit code. `argv` begins with the program's name."""

def yaml_text(text: str) -> str: ...
def yaml_file(path: _Path) -> str: ...
def panic_for_tests(helped: bool) -> None:
    """Panics, as a fault of ours would, for the tests of what becomes of that: a RuntimeError that asks for a report."""
