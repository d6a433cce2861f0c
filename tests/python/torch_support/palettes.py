"""The rules that a palettized parameter and its buffers obey, checked from the buffers alone."""

import math

import torch
from torch_support import layers

PREFIXES = "_COREML_/", "_PALETTIZER_/"  # of what a converter reads, and of what it must not see
ALL = ("lut", "palettization_scale", "vector_axis", "quantization_n_bits", "quantization_scale", "zero_point",
       "compression_type")


def buffers(module, parameter):
    """What the module carries for a parameter, by its short name."""
    starts = tuple(f"{prefix}{parameter}/" for prefix in PREFIXES)
    return {name.rpartition("/")[2]: b for name, b in module.named_buffers(recurse=False) if name.startswith(starts)}


def palettized(model):
    """Qualified names of all parameters that carry a LUT."""
    return {
        f"{path}.{name.split('/')[1]}".lstrip(".")
        for path, module in model.named_modules()
        for name, _ in module.named_buffers(recurse=False)
        if name.startswith(PREFIXES) and name.endswith("/lut")
    }


def squared_error(original, other, sensitivity=None):
    """Sum of squared differences, in double precision, weighted if there are weights."""
    difference = (original.detach().double() - other.detach().double()).square()
    return float((difference if sensitivity is None else difference * sensitivity.double()).sum())


def of_vectors(setting, sensitivity):
    """What weighs an element when vectors are clustered: the sum over its vector, for a vector moves as one."""
    if setting.vector == 1:
        return sensitivity
    dim = layers.KINDS[setting.kind].dim(setting.channel_axis)
    vectors = sensitivity.unflatten(dim, (-1, setting.vector))
    return vectors.sum(dim + 1, keepdim=True).expand_as(vectors).flatten(dim, dim + 1)


def is_folded(setting):
    """Whether the scale is in the table: the peer's converter takes no integer LUT and a scale together."""
    return setting.scale and setting.lut_dtype is not None


def grid(setting, shape):
    """How many tables there are along each dimension of the weight."""
    kind, tables = layers.KINDS[setting.kind], [1] * len(shape)
    if setting.group_size:
        dim = kind.dim(setting.channel_axis)
        tables[dim] = shape[dim] // setting.group_size
    if is_folded(setting):
        tables[kind.output_dim] = shape[kind.output_dim]
    return tables


def tables(setting, shape):
    """How many tables the groups make."""
    return math.prod(grid(_plain(setting), shape))


def check(setting, module, parameter, folded=True):
    """Every rule of the contract; `folded=False` for the peer, which keeps what it cannot convert."""
    kind, weight, found = layers.KINDS[setting.kind], module.get_parameter(parameter), buffers(module, parameter)
    shape, rank, entries = weight.shape, weight.dim(), 2**setting.n_bits
    fold = folded and is_folded(setting)
    tables = grid(setting, shape) if folded or not is_folded(setting) else grid(_plain(setting), shape)
    expected = {"lut", "compression_type"}
    expected |= {"palettization_scale"} if setting.scale and not fold else set()
    expected |= {"vector_axis"} if setting.vector > 1 else set()
    expected |= {"quantization_n_bits", "quantization_scale"} if setting.lut_dtype else set()
    expected |= {"zero_point"} if setting.lut_dtype == "uint8" else set()
    assert found.keys() == expected, found.keys() ^ expected

    lut = found["lut"]
    assert list(lut.shape) == [*tables, entries, setting.vector], lut.shape
    assert lut.dtype == weight.dtype
    assert found["compression_type"].tolist() == ([2, 3] if setting.lut_dtype else [2])
    assert found["compression_type"].dtype == torch.int64
    if setting.vector > 1:
        assert found["vector_axis"].shape == () and found["vector_axis"].dtype == torch.int64
        assert int(found["vector_axis"]) == kind.dim(setting.channel_axis)
    else:
        for table in lut.reshape(-1, entries).float():
            used = table[:int(table.nonzero().max()) + 1] if table.any() else table  # padded with zeros
            assert bool((used.diff() >= 0).all()), "a scalar LUT that does not ascend"
    scale = found.get("palettization_scale")
    if scale is not None:
        assert list(scale.shape) == [shape[d] if d == kind.output_dim else 1 for d in range(rank)], scale.shape
        assert scale.dtype == weight.dtype and bool((scale > 0).all())
    if setting.lut_dtype:
        _check_integers(setting, found, tables)
    _check_values(setting, kind, weight.detach(), lut, scale)


def _plain(setting):
    return type(setting)(**{**vars(setting), "scale": False})


def _check_integers(setting, found, tables):
    """The LUT is what its integers and their scale say."""
    lut, scale = found["lut"], found["quantization_scale"]
    assert int(found["quantization_n_bits"]) == 8
    assert list(scale.shape) == [*tables, 1, 1], scale.shape
    lowest, highest, zero = (-127, 127, 0) if setting.lut_dtype == "int8" else (0, 254, 127)
    if setting.lut_dtype == "uint8":
        assert found["zero_point"].dtype == torch.uint8 and found["zero_point"].shape == scale.shape
        assert bool((found["zero_point"] == zero).all())
    integers = (lut.double() / scale.double()).round() + zero
    assert lowest <= float(integers.min()) and float(integers.max()) <= highest
    again = ((integers - zero) * scale.double()).to(lut.dtype)
    spacing = torch.finfo(lut.dtype).eps * lut.double().abs()
    assert bool(((again.double() - lut.double()).abs() <= spacing).all()), "a LUT that is not integers times a scale"


def _check_values(setting, kind, weight, lut, scale):
    """Every value (or vector) of the weight is one of its table's, times the scale of its channel."""
    dim, output, size = kind.dim(setting.channel_axis), kind.output_dim, setting.vector
    if size > 1:
        points = weight.unflatten(dim, (-1, size)).movedim(dim + 1, -1)  # a vector's elements last
    else:
        points = weight.unsqueeze(-1)
    points = points.float()
    for index in torch.cartesian_prod(*(torch.arange(n) for n in lut.shape[:-2])).reshape(-1, lut.dim() - 2).tolist():
        table = lut[tuple(index)]
        block = points
        for d, (position, count) in enumerate(zip(index, lut.shape)):
            if count > 1:
                width = block.shape[d] // count
                block = block.narrow(d, position * width, width)
        if scale is None:
            _assert_in(block.reshape(-1, size), table.float())
            continue
        for channel in range(block.shape[output]):
            of = channel + (index[output] * block.shape[output] if lut.shape[output] > 1 else 0)
            _assert_in(block.select(output, channel).reshape(-1, size), (table * scale.flatten()[of]).float())


def _assert_in(points, table):
    allowed = {tuple(row) for row in table.tolist()}
    strangers = {tuple(row) for row in torch.unique(points, dim=0).tolist()} - allowed
    assert not strangers, f"{len(strangers)} values are not in the table, {next(iter(strangers))} among them"
