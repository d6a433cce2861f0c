"""The buffers that tell a Core ML converter how a weight was palettized.

`coremltools.convert` finds them in the state dict beside the weight: `_COREML_/<parameter>/<field>`.
"""

from __future__ import annotations

from typing import Dict, List

import torch

_PREFIX = "_COREML_"
_QUANTIZATION_FIELDS = ("quantization_n_bits", "quantization_scale", "zero_point")
_OWN_FIELDS = ("lut", "palettization_scale", "vector_axis")
PALETTE_FIELDS = _OWN_FIELDS + _QUANTIZATION_FIELDS
PALETTIZATION, QUANTIZATION = 2, 3


def buffer_name(parameter: str, field: str) -> str:
    """The name of a buffer in the module that owns the parameter.

    >>> buffer_name("weight", "lut")
    '_COREML_/weight/lut'
    """
    return f"{_PREFIX}/{parameter}/{field}"


def is_record(name: str) -> bool:
    """Whether a name in a state dict is that of such a buffer.

    >>> is_record("fc._COREML_/weight/lut"), is_record("fc.weight")
    (True, False)
    """
    return name.rpartition(".")[2].startswith(f"{_PREFIX}/")


def register(module: torch.nn.Module, parameter: str, fields: Dict[str, torch.Tensor], quantized: bool) -> None:
    """Records how a parameter was palettized: `fields` are tensors by name, `quantized` says that the LUT is integer.

    An earlier palettization of the parameter is replaced; another compression stays recorded before this one.
    """
    types = remove(module, parameter)
    types += [PALETTIZATION, QUANTIZATION] if quantized else [PALETTIZATION]
    device = module.get_parameter(parameter).device
    for field, value in {**fields, "compression_type": torch.tensor(types)}.items():
        module.register_buffer(buffer_name(parameter, field), value.to(device))


def remove(module: torch.nn.Module, parameter: str) -> List[int]:
    """Removes the record of a palettization, and returns the numbers of the compressions that stay recorded."""
    types = recorded(module, parameter)
    if PALETTIZATION not in types:
        return types
    at = types.index(PALETTIZATION)
    # A quantization that comes after the palettization is that of its LUT.
    fields = _OWN_FIELDS + (_QUANTIZATION_FIELDS if QUANTIZATION in types[at:] else ())
    for field in (*fields, "compression_type"):
        module._buffers.pop(buffer_name(parameter, field), None)
    return types[:at]


def recorded(module: torch.nn.Module, parameter: str) -> List[int]:
    """The numbers of the compressions that are recorded for a parameter, in the order applied."""
    types = module._buffers.get(buffer_name(parameter, "compression_type"))
    return [] if types is None else [int(t) for t in types.tolist()]


def register_version(model: torch.nn.Module) -> None:
    """Marks the root of a model whose modules carry such buffers."""
    model.register_buffer(f"{_PREFIX}/metadata_version", torch.tensor(1))
