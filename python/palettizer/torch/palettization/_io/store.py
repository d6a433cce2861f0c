"""A palettized model in one safetensors file: indices packed, lookup tables and scales; everything else as it is.

It is the form that the command `palettizer` reads and writes. What the tables can say, the file does not repeat: of the
buffers beside a palettized weight only those are stored that cannot be made from its palette.
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import nn

from palettizer import _native
from palettizer.torch.palettization._plan import metadata
from palettizer.torch.palettization._plan.palettize import undisturbed
from palettizer.torch.palettization._plan.sharding import is_sharded
from palettizer.torch.palettization._plan.tensors import (
    DTYPES,
    NAMES,
    as_bytes,
    from_bytes,
    to_native,
    write_values,
)

Path = str | os.PathLike[str]

_SHARED = "torch.shared"
_NAMES = {
    "float64": "F64", "float32": "F32", "float16": "F16", "bfloat16": "BF16", "int64": "I64", "int32": "I32",
    "int16": "I16", "int8": "I8", "uint8": "U8", "uint16": "U16", "uint32": "U32", "uint64": "U64", "bool": "BOOL",
    "complex64": "C64", "float8_e4m3fn": "F8_E4M3", "float8_e5m2": "F8_E5M2", "float8_e8m0fnu": "F8_E8M0",
    "float8_e4m3fnuz": "F8_E4M3FNUZ", "float8_e5m2fnuz": "F8_E5M2FNUZ",
}  # fmt: skip
_TO_FILE = {getattr(torch, name): stored for name, stored in _NAMES.items() if hasattr(torch, name)}
_FROM_FILE = {stored: dtype for dtype, stored in _TO_FILE.items()}


def save_safetensors(model: nn.Module, path: Path) -> None:
    """Stores a model, palettized weights compactly, so that `load_safetensors` restores its state bit for bit.

    Weights that share a tensor are stored once. An earlier file is replaced when the new one is complete.

    Args:
        model: a model that `compress` returned, or any other.
        path: the file, whose name ends in .safetensors.

    Raises:
        ValueError: a weight that was changed after it was palettized, a state that is not of ordinary tensors, or
            parameters in shards.

    >>> import os, tempfile
    >>> from palettizer.torch.palettization import PostTrainingPalettizer
    >>> model = PostTrainingPalettizer(nn.Linear(256, 256)).compress(progress=False)
    >>> path = os.path.join(tempfile.mkdtemp(), "small.safetensors")
    >>> save_safetensors(model, path)
    >>> os.path.getsize(path) < 256 * 256 * 4 / 7
    True
    >>> again = nn.Linear(256, 256)
    >>> load_safetensors(again, path)
    >>> torch.equal(again.weight, model.weight)
    True
    """
    if is_sharded(model):
        raise ValueError("the parameters of the model are sharded; gather them first")
    items, shared = listed(model)
    contents = [
        (item.name, recovered(item.module, item.inner, item.name, item.value) if item.palettized else _dense(item.name, item.value))
        for item in items
    ]
    _native.Checkpoint.write(os.fspath(path), contents, strings(shared), overwrite=True)


class Item(NamedTuple):
    """A tensor of a model's state that has a place of its own in the file."""

    name: str
    module: nn.Module
    inner: str
    value: torch.Tensor
    palettized: bool


def listed(model: nn.Module) -> tuple[list[Item], dict[str, str]]:
    """What a file of a model has in it, and the tensors that are stored under another name: that name by theirs.

    Raises:
        ValueError: a state that is not of tensors.
    """
    state = _state(model)
    palettized = {name: None for name in state if _is_palettized(*_place(model, name))}
    skipped = {_beside(_place(model, name)[0], name, field) for name in palettized for field in metadata.PALETTE_FIELDS}
    # a tensor is stored under the first of its names that has a palette, else under the first
    owners: dict[Any, str] = {}
    for name in [*palettized, *state]:
        owners.setdefault(_identity(state[name]), name)
    items: list[Item] = []
    shared: dict[str, str] = {}
    for name, value in state.items():
        owner = owners[_identity(value)]
        if name in skipped:
            continue
        if owner != name:
            shared[name] = owner
            continue
        module, inner = _place(model, name)
        items.append(Item(name, module, inner, value, name in palettized))
    return items, shared


def _is_palettized(module: nn.Module, name: str) -> bool:
    return name in module._parameters and metadata.PALETTIZATION in metadata.recorded(module, name)


def strings(shared: dict[str, str]) -> dict[str, str]:
    """The metadata of a file."""
    return {_SHARED: json.dumps(shared, sort_keys=True)} if shared else {}


def load_safetensors(model: nn.Module, path: Path, *, max_expansion: int | None = None) -> None:
    """Restores what `save_safetensors` stored, or a checkpoint that the command `palettizer` wrote, into a model.

    Args:
        model: a model with the same parameters, of the same shapes and dtypes; palettized or not.
        path: a safetensors file, or a folder of shards with their index.
        max_expansion: how many times its own size each palettized weight of the file may unfold to; None for 512.

    Raises:
        ValueError: the file is damaged, or of another model. The model is as it was.
    """
    if is_sharded(model):
        raise ValueError("the parameters of the model are sharded; load before they are")
    checkpoint = _native.Checkpoint.open(os.fspath(path), max_expansion=max_expansion)
    state = _state(model)
    sources = {name: name for name in checkpoint.names()}
    sources.update(_shared_names(os.fspath(path), checkpoint.metadata().get(_SHARED, "{}")))
    _check_fit(os.fspath(path), state, checkpoint, sources)
    with torch.no_grad(), undisturbed():
        for name in state:
            if not metadata.is_record(name):
                metadata.remove(*_place(model, name))
        # The records come last: a palette writes its own, and the file may know better.
        for name in sorted(sources, key=metadata.is_record):
            # another name of a palettized weight has a palette of its own only if it had one when it was stored
            own = sources[name] == name or _beside(_place(model, name)[0], name, "compression_type") in sources
            _restore(model, name, checkpoint.get(sources[name]), state.get(name), own)


def _state(model: nn.Module) -> dict[str, torch.Tensor]:
    state: dict[str, Any] = model.state_dict(keep_vars=True)
    for name, value in state.items():
        if not isinstance(value, torch.Tensor):
            raise ValueError(f"{name} in the state of the model is a {type(value).__name__}, not a tensor")
    return state


def _place(model: nn.Module, name: str) -> tuple[nn.Module, str]:
    """Where a tensor of a state dict belongs: a module, and the name there."""
    module, _, inner = name.rpartition(".")
    return model.get_submodule(module), inner


def _beside(module: nn.Module, name: str, field: str) -> str:
    """The name of a buffer that belongs to the parameter of this name, which a module holds."""
    prefix, dot, parameter = name.rpartition(".")
    return prefix + dot + metadata.buffer_name(module, parameter, field)


def _identity(value: torch.Tensor) -> Any:
    if value.is_meta or value.layout != torch.strided or value.numel() == 0 or value.is_quantized:
        return id(value)
    return value.data_ptr(), tuple(value.shape), value.stride(), value.dtype


def _dense(name: str, value: torch.Tensor) -> tuple[str, Sequence[int], Any]:
    stored = type_in_file(name, value)
    return stored, tuple(value.shape), as_bytes(value.detach().to("cpu").contiguous())


def type_in_file(name: str, value: torch.Tensor) -> str:
    """What safetensors calls the dtype of a tensor.

    Raises:
        ValueError: it has no place in such a file.
    """
    if value.is_meta or value.layout != torch.strided or value.dtype not in _TO_FILE:
        where = "on the meta device" if value.is_meta else f"{value.dtype} ({value.layout})"
        raise ValueError(f"{name} is {where}; such a tensor has no place in a safetensors file")
    return _TO_FILE[value.dtype]


def recovered(module: nn.Module, parameter: str, name: str, value: torch.Tensor) -> _native.Palette:
    """The palette of a weight that was palettized: its indices are found again.

    Raises:
        ValueError: the weight is not what its record says.
    """
    native = value.dtype if value.dtype in NAMES else torch.float32
    fields: dict[str, torch.Tensor | None] = {
        field: module._buffers.get(metadata.buffer_name(module, parameter, field)) for field in metadata.PALETTE_FIELDS
    }
    lut, scale, axis = fields["lut"], fields["palettization_scale"], fields["vector_axis"]
    table_scale, zero = fields["quantization_scale"], fields["zero_point"]
    assert lut is not None
    tables = lut.detach().to("cpu", native)
    settings: dict[str, Any] = {}
    if table_scale is not None and metadata.QUANTIZATION in metadata.recorded(module, parameter):
        stored = table_scale.detach().to("cpu", native)
        offset = 0 if zero is None else int(zero.reshape(-1)[0])
        integers = (tables.float() / stored.float()).round_().add_(offset)
        tables = integers.to(torch.int8 if zero is None else torch.uint8)
        settings.update(lut_dtype="int8" if zero is None else "uint8", lut_scale=as_bytes(stored))
        settings.update(lut_scale_shape=tuple(stored.shape))
        if zero is not None:
            settings.update(lut_offset=as_bytes(zero.detach().to("cpu", torch.uint8)))
    if scale is not None:
        settings.update(scale=as_bytes(scale.detach().to("cpu", native)), scale_shape=tuple(scale.shape))
    dense = to_native(value)
    try:
        return _native.recover(
            as_bytes(dense), NAMES[native], tuple(dense.shape), lut=as_bytes(tables), lut_shape=tuple(tables.shape),
            vector_axis=None if axis is None else int(axis), **settings,
        )  # fmt: skip
    except ValueError as error:
        raise ValueError(
            f"{name} is not what its lookup table says: {error}; was it changed after it was palettized? "
            "Palettize it again"
        ) from error


def _shared_names(path: str, text: str) -> dict[str, str]:
    shared: Any = json.loads(text)
    if not isinstance(shared, dict) or not all(isinstance(first, str) for first in shared.values()):
        raise ValueError(f"{path} has {_SHARED} {text!r}, which is not names by names; is it damaged?")
    return shared


def _check_fit(
    path: str, state: dict[str, torch.Tensor], checkpoint: _native.Checkpoint, sources: dict[str, str]
) -> None:
    """Compares names, shapes and dtypes before anything is changed."""
    stored = set(checkpoint.names())
    ours = {name for name in state if not metadata.is_record(name)}
    theirs = {name for name in sources if not metadata.is_record(name)}
    wrong = [f"{name} is missing" for name in sorted(ours - theirs)]
    wrong += [f"{name} is not in the model" for name in sorted(theirs - ours)]
    wrong += [f"{name} is to share {first}, which is missing" for name, first in sources.items() if first not in stored]
    wrong += [f"{name} belongs to nothing" for name in sources if metadata.is_record(name) and not _belongs(name, ours)]
    for name in sorted(ours & theirs):
        if sources[name] in stored:
            content, value = checkpoint.get(sources[name]), state[name]
            shape, dtypes = _describe(content)
            if shape != tuple(value.shape):
                wrong.append(f"{name} has shape {shape} and not {tuple(value.shape)}")
            elif value.dtype not in dtypes:
                wrong.append(f"{name} has dtype {dtypes[0]} and not {value.dtype}")
            elif value.is_meta or value.layout != torch.strided:
                wrong.append(f"{name} is without memory in the model (to_empty gives it some)")
    if wrong:
        more = f", and {len(wrong) - 8} more" if len(wrong) > 8 else ""
        raise ValueError(f"{path} is not of this model: {', '.join(wrong[:8])}{more}; nothing was changed")


def _belongs(record: str, names: set[str]) -> bool:
    """Whether a record is that of a parameter, or of the whole model."""
    module, dot, inner = record.rpartition(".")
    parameter = inner.split("/")[1:-1]
    return not parameter or module + dot + "/".join(parameter) in names


def _describe(content: Any) -> tuple[tuple[int, ...], Sequence[torch.dtype]]:
    """The shape of a stored tensor, and the dtypes that it can be restored to."""
    if isinstance(content, _native.Palette):
        dtype = DTYPES[content.dtype]
        return tuple(content.shape), (dtype, torch.float64) if dtype == torch.float32 else (dtype,)
    name, shape, _ = content
    return tuple(shape), (_FROM_FILE[name],) if name in _FROM_FILE else (name,)


def _restore(model: nn.Module, name: str, content: Any, value: torch.Tensor | None, own: bool) -> None:
    module, inner = _place(model, name)
    if value is None or metadata.is_record(name):
        dtype, shape, data = content
        beside = next(module.parameters(recurse=False), None)
        record = from_bytes(data, _FROM_FILE[dtype], shape)
        module.register_buffer(inner, record if beside is None else record.to(beside.device))
        return
    target = value.detach()
    if not isinstance(content, _native.Palette):
        target.copy_(from_bytes(content[2], target.dtype, content[1]))
        return
    write_values(content, target)
    if own and inner in module._parameters:
        metadata.register(module, inner, metadata.buffers(content, target.dtype), content.lut_integers is not None)
        metadata.register_version(model)
