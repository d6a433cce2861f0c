"""The buffers that tell a Core ML converter how a weight was palettized.

`coremltools.convert` finds them in the state dict beside the weight: `_COREML_/<parameter>/<field>`. Where it would
fail on them, they have a prefix of our own, so that it makes the weight a dense one, with the palettized values.
"""

from __future__ import annotations

import torch

from palettizer import _native
from palettizer.torch.palettization._plan.layers import BEYOND, kind_of
from palettizer.torch.palettization._plan.tensors import DTYPES, from_bytes

_PREFIX = "_COREML_"
_DENSE_PREFIX = "_PALETTIZER_"
_QUANTIZATION_FIELDS = ("quantization_n_bits", "quantization_scale", "zero_point")
_OWN_FIELDS = ("lut", "palettization_scale", "vector_axis")
PALETTE_FIELDS = _OWN_FIELDS + _QUANTIZATION_FIELDS
PRUNING, PALETTIZATION, QUANTIZATION = 1, 2, 3


def buffer_name(module: torch.nn.Module, parameter: str, field: str) -> str:
    """The name of a buffer in the module that owns the parameter.

    >>> buffer_name(torch.nn.Linear(1, 1), "weight", "lut"), buffer_name(torch.nn.GRU(1, 1), "weight_ih_l0", "lut")
    ('_COREML_/weight/lut', '_PALETTIZER_/weight_ih_l0/lut')
    """
    kind = kind_of(module)
    dense = kind is not None and kind.stays_dense and kind.has(parameter)
    return f"{_DENSE_PREFIX if dense else _PREFIX}/{parameter}/{field}"


def is_record(name: str) -> bool:
    """Whether a name in a state dict is that of such a buffer.

    >>> is_record("fc._COREML_/weight/lut"), is_record("fc.weight")
    (True, False)
    """
    return name.rpartition(".")[2].startswith((f"{_PREFIX}/", f"{_DENSE_PREFIX}/"))


def buffers(palette: _native.Palette, stored: torch.dtype) -> dict[str, torch.Tensor]:
    """What a converter needs to know of a palette of a weight that is stored in some dtype: tensors by their fields.

    Tables and scales have the dtype of the weight, too, where it is not one of the native module's.
    """
    dtype = DTYPES[palette.dtype]
    fields = {"lut": from_bytes(palette.entries(), dtype, palette.lut_shape)}
    if palette.scale is not None:
        fields["palettization_scale"] = from_bytes(palette.scale, dtype, palette.scale_shape)
    if palette.vector_axis is not None:
        fields["vector_axis"] = torch.tensor(palette.vector_axis)
    if palette.lut_scale is not None:
        fields["quantization_n_bits"] = torch.tensor(8)
        fields["quantization_scale"] = from_bytes(palette.lut_scale, dtype, palette.lut_scale_shape)
        if palette.lut_offset is not None:
            fields["zero_point"] = from_bytes(palette.lut_offset, torch.uint8, palette.lut_scale_shape)
    return {name: value.to(stored) if value.dtype == dtype else value for name, value in fields.items()}


def register(module: torch.nn.Module, parameter: str, fields: dict[str, torch.Tensor], quantized: bool) -> None:
    """Records how a parameter was palettized: `fields` are tensors by name, `quantized` says that the LUT is integer.

    An earlier palettization of the parameter is replaced; another compression stays recorded before this one, as far as
    a converter takes both: see `conversion`.
    """
    types = remove(module, parameter)
    if PRUNING in types:
        if "vector_axis" in fields:
            types = [kind for kind in types if kind != PRUNING]
        fields = {name: value for name, value in fields.items() if name not in _QUANTIZATION_FIELDS}
        quantized = False
    types += [PALETTIZATION, QUANTIZATION] if quantized else [PALETTIZATION]
    device = module.get_parameter(parameter).device
    for field, value in {**fields, "compression_type": torch.tensor(types)}.items():
        module.register_buffer(buffer_name(module, parameter, field), value.to(device))


def conversion(module: torch.nn.Module, parameter: str, vectors: bool, quantized: bool) -> str:
    """What `coremltools.convert` will not do with a weight that is palettized so, or nothing."""
    kind = kind_of(module)
    if kind is not None and kind.conversion and kind.has(parameter):
        return BEYOND if getattr(module, "proj_size", 0) else kind.conversion
    if PRUNING in recorded(module, parameter):
        if vectors:
            return "coremltools.convert takes no vectors for a pruned weight: it is recorded as palettized, not as pruned"
        if quantized:
            return "coremltools.convert takes no table of integers for a pruned weight: the table's values are kept as floats"
    elif vectors and quantized:
        return (
            "coremltools.convert fails on vectors of integers in its pass common::canonicalize_quantized_lut_pattern: "
            "remove that from its pass_pipeline"
        )
    return ""


def remove(module: torch.nn.Module, parameter: str) -> list[int]:
    """Removes the record of a palettization, and returns the numbers of the compressions that stay recorded."""
    types = recorded(module, parameter)
    if PALETTIZATION not in types:
        return types
    at = types.index(PALETTIZATION)
    # A quantization that comes after the palettization is that of its LUT.
    fields = _OWN_FIELDS + (_QUANTIZATION_FIELDS if QUANTIZATION in types[at:] else ())
    for field in (*fields, "compression_type"):
        module._buffers.pop(buffer_name(module, parameter, field), None)
    return types[:at]


def recorded(module: torch.nn.Module, parameter: str) -> list[int]:
    """The numbers of the compressions that are recorded for a parameter, in the order applied."""
    types = module._buffers.get(buffer_name(module, parameter, "compression_type"))
    return [] if types is None else [int(t) for t in types.tolist()]


def register_version(model: torch.nn.Module) -> None:
    """Marks the root of a model whose modules carry such buffers."""
    model.register_buffer(version_name(), torch.tensor(1))


def version_name() -> str:
    """The name of the mark of a whole model."""
    return f"{_PREFIX}/metadata_version"
