"""`palettizer._native`: a weight as bytes, palettes found again, checkpoints."""

import json

import numpy as np
import pytest

from palettizer import _native

RNG = np.random.default_rng(4)
DTYPES = {"f32": np.float32, "f16": np.float16}


def flat(array):
    return np.ascontiguousarray(array).view(np.uint8).reshape(-1)


def dense(palette):
    out = np.empty(palette.shape, DTYPES[palette.dtype])
    palette.decompress_into(flat(out))
    return out


def weight(dtype="f32", shape=(32, 48)):
    return RNG.normal(size=shape).astype(DTYPES[dtype])


SETTINGS = [
    {"nbits": 4}, {"nbits": 1}, {"nbits": 8}, {"nbits": 4, "mode": "uniform"}, {"nbits": 3, "cluster_dim": 2, "output_axis": 0},
    {"nbits": 4, "granularity": "per_grouped_channel", "group_size": 8, "channel_axis": 0},
    {"nbits": 4, "granularity": "per_grouped_channel", "group_size": 4, "channel_axis": 1, "output_axis": 0},
    {"nbits": 4, "enable_per_channel_scale": True, "output_axis": 0}, {"nbits": 4, "lut_dtype": "int8"},
    {"nbits": 6, "lut_dtype": "uint8", "enable_per_channel_scale": True, "output_axis": 0},
]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("options", SETTINGS, ids=str)
def test_what_is_replaced_later_is_the_same(options, dtype):
    values = weight(dtype)
    now = _native.palettize(flat(values), dtype, values.shape, **options)
    later = _native.palettize(flat(values), dtype, values.shape, deferred=True, **options)
    nearest = not {"mode", "cluster_dim", "enable_per_channel_scale"} & options.keys()
    assert isinstance(later, _native.DeferredPalette if nearest else _native.Palette)
    if not nearest:
        assert np.array_equal(later.indices, now.indices)
        return
    written = flat(values).copy()
    with pytest.raises(_native.Refusal, match=f"must hold {values.size} numbers, found {values.size - 1}"):
        later.replace(written[values.itemsize :])
    assert np.array_equal(written, flat(values))
    palette = later.replace(written)
    assert np.array_equal(written.view(values.dtype), dense(now).ravel()) and palette.indices.size == 0
    assert np.array_equal(palette.entries(), now.entries()) and palette.error == now.error


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("options", SETTINGS, ids=str)
def test_parts_make_the_whole(options, dtype):
    values = weight(dtype)
    palette = _native.palettize(flat(values), dtype, values.shape, **options)
    nbits, axis = options["nbits"], palette.vector_axis or 0
    assert palette.shape == values.shape and palette.dtype == dtype and palette.nbits == nbits
    bits = np.unpackbits(palette.indices, bitorder="little")
    count = int(np.prod(palette.index_shape))
    indices = bits[: count * nbits].reshape(count, nbits) @ (1 << np.arange(nbits))
    indices = indices.reshape(palette.index_shape)
    entries = palette.entries().view(DTYPES[dtype]).reshape(palette.lut_shape)
    groups = [np.repeat(np.arange(tables), size // tables) for tables, size in zip(palette.lut_shape, palette.index_shape)]
    found = entries[np.ix_(*groups)][(*np.indices(indices.shape), indices)]  # index shape + vector
    built = np.moveaxis(found, -1, axis + 1).reshape(values.shape)
    if palette.scale is not None:
        built = built * palette.scale.view(DTYPES[dtype]).reshape(palette.scale_shape)
    assert np.array_equal(dense(palette), built)
    error = float(((values.astype(np.float64) - built) ** 2).sum())
    assert palette.error["squared_error"] == pytest.approx(error, rel=1e-9)
    assert palette.error["mse"] == pytest.approx(error / values.size, rel=1e-9)
    if palette.lut_integers is not None:
        integers = palette.lut_integers.view(np.int8 if palette.lut_offset is None else np.uint8)
        offset = 0 if palette.lut_offset is None else palette.lut_offset.reshape(palette.lut_scale_shape).astype(int)
        scale = palette.lut_scale.view(DTYPES[dtype]).reshape(palette.lut_scale_shape)
        shifted = integers.reshape(palette.lut_shape).astype(int) - offset
        assert np.array_equal((shifted.astype(np.float32) * scale.astype(np.float32)).astype(DTYPES[dtype]), entries)
        assert palette.lut_offset is None or set(palette.lut_offset) == {127}
    assert repr(palette).startswith("Palette(")


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("options", SETTINGS, ids=str)
def test_found_again(options, dtype):
    values = weight(dtype)
    made = _native.palettize(flat(values), dtype, values.shape, **options)
    parts = {"lut_shape": made.lut_shape, "vector_axis": made.vector_axis, "scale": made.scale, "scale_shape": made.scale_shape}
    if made.lut_integers is None:
        parts["lut"] = made.entries()
    else:
        parts |= {"lut": made.lut_integers, "lut_dtype": options["lut_dtype"], "lut_scale": made.lut_scale,
                  "lut_scale_shape": made.lut_scale_shape, "lut_offset": made.lut_offset}
    weights = dense(made)
    found = _native.recover(flat(weights), dtype, weights.shape, **parts)
    assert np.array_equal(dense(found), weights) and found.nbits == made.nbits
    weights.reshape(-1)[5] = 77
    with pytest.raises(ValueError, match="77"):
        _native.recover(flat(weights), dtype, weights.shape, **parts)


def test_brain_floats():
    values = weight().view(np.uint32) & 0xFFFF0000
    halves = (values >> 16).astype(np.uint16)
    palette = _native.palettize(flat(halves), "bf16", halves.shape, nbits=4)
    out = np.empty(halves.shape, np.uint16)
    palette.decompress_into(flat(out))
    assert len(np.unique(out)) == 16 and palette.dtype == "bf16" and len(palette.entries()) == 32


def test_sensitivity_and_threads():
    values = weight(shape=(64, 64))
    counts = RNG.random(values.size, np.float32) ** 8
    made = [_native.palettize(flat(values), "f32", values.shape, nbits=3, sensitivity=counts, threads=threads)
            for threads in (None, 1, 3)]
    assert len({palette.indices.tobytes() + palette.entries().tobytes() for palette in made}) == 1
    plain = _native.palettize(flat(values), "f32", values.shape, nbits=3)
    cost = lambda palette: float((counts.reshape(values.shape) * (dense(palette) - values) ** 2).sum())
    assert cost(made[0]) < cost(plain)
    assert made[0].error["squared_error"] > plain.error["squared_error"]


@pytest.mark.parametrize("raw, expected", [
    ([0, 0], [1, 1]), ([0, 2, 4], [0.5, 0.5, 1]), ([1e-30, 1], [1e-12, 1]), ([3], [1]),
])
def test_normalised(raw, expected):
    values = np.array(raw, np.float32)
    assert _native.normalise_sensitivity(values) is None
    assert np.array_equal(values, np.array(expected, np.float32))


ERRORS = [
    ({"nbits": 5}, ValueError, "nbits is 5"), ({}, ValueError, "nbits is missing"), ({"mode": "x", "nbits": 4}, ValueError, "mode is x"),
    ({"mode": "unique", "nbits": 4}, ValueError, "nbits is 4"), ({"mode": "custom"}, ValueError, "lut_function"),
    ({"nbits": 4, "granularity": "rows"}, ValueError, "rows"), ({"nbits": 4, "granularity": "per_grouped_channel"}, ValueError, "group_size"),
    ({"nbits": 4, "lut_dtype": "int4"}, ValueError, "int4"), ({"nbits": 4, "threads": 0}, ValueError, "threads"),
    ({"nbits": 4, "threads": -1}, ValueError, "threads is -1"), ({"nbits": "4"}, TypeError, "nbits"), ({"bits": 4}, TypeError, "bits"),
    ({"nbits": 4, "cluster_dim": 5, "output_axis": 0}, _native.Refusal, "cluster_dim 5"),
    ({"nbits": 4, "enable_per_channel_scale": True}, _native.Refusal, "output channel"),
    ({"nbits": 4, "granularity": "per_grouped_channel", "group_size": 7, "channel_axis": 0}, _native.Refusal, "group_size 7"),
    ({"nbits": 4, "granularity": "per_grouped_channel", "group_size": 4, "channel_axis": 2}, _native.Refusal, "axis 2"),
    ({"nbits": 4, "sensitivity": np.ones(3, np.float32)}, _native.Refusal, "1536.*3"),
    ({"nbits": 4, "sensitivity": np.full(1536, -1, np.float32)}, _native.Refusal, "negative"),
]


@pytest.mark.parametrize("options, kind, words", ERRORS, ids=[str(sorted(options)) + kind.__name__ for options, kind, _ in ERRORS])
def test_errors(options, kind, words):
    values = weight()
    with pytest.raises(kind, match=words):
        _native.palettize(flat(values), "f32", values.shape, **options)


def test_bad_arrays():
    values = weight()
    palette = _native.palettize(flat(values), "f32", values.shape, nbits=4)
    for given, dtype, shape, kind in [
        (flat(values)[:-1], "f32", (32, 48), ValueError), (flat(values)[::2], "f16", (32, 48), ValueError),
        (values, "f32", (32, 48), TypeError), (flat(values), "float32", (32, 48), ValueError),
        (flat(values), "f32", (32, -48), ValueError), (flat(values), "f32", (2**40, 2**40), ValueError),
        (b"bytes", "f32", (32, 48), TypeError), (flat(np.full_like(values, np.nan) + values * 0), "f32", (32, 48), None),
    ]:
        if kind is None:
            _native.palettize(given, dtype, shape, nbits=4)  # one value, whichever
        else:
            with pytest.raises(kind):
                _native.palettize(given, dtype, shape, nbits=4)
    mixed = values.copy()
    mixed[3, 3] = np.inf
    with pytest.raises(_native.Refusal, match="1 of 1536"):
        _native.palettize(flat(mixed), "f32", mixed.shape, nbits=4)
    with pytest.raises(ValueError, match="6144"):
        palette.decompress_into(np.empty(5, np.uint8))
    frozen = np.empty(values.nbytes, np.uint8)
    frozen.flags.writeable = False
    with pytest.raises(Exception):
        palette.decompress_into(frozen)
    assert issubclass(_native.Refusal, ValueError)


def fields(**more):
    return {"mode": "kmeans", "granularity": "per_tensor", "cluster_dim": 1, "enable_per_channel_scale": False,
            "weight_threshold": 0, "nbits": 4, **more}


def test_checkpoints(tmp_path):
    from safetensors.numpy import load_file, save_file

    tensors = {"a.weight": weight(), "b.weight": weight("f16"), "a.bias": weight(shape=(48,))}
    source, small, back = (tmp_path / f"{name}.safetensors" for name in ("source", "small", "back"))
    save_file(tensors, source, metadata={"format": "pt"})
    checkpoint = _native.Checkpoint.open(source)
    assert sorted(checkpoint.names()) == sorted(tensors) and checkpoint.metadata() == {"format": "pt"}
    dtype, shape, data = checkpoint.get("b.weight")
    assert (dtype, shape) == ("F16", (32, 48)) and np.array_equal(data, flat(tensors["b.weight"]))
    config = {"global_config": fields()}
    told = []

    class Listener:
        def start(self, weights, bytes):
            told.append((weights, bytes))

        def advance(self, name, bytes):
            told.append(name)

        def finish(self):
            told.append("end")

    report = json.loads(checkpoint.compress_to(config, small, progress=Listener()))
    assert [row["name"] for row in report["weights"] if row["status"] == "compressed"] == ["a.weight", "b.weight"]
    assert told[0] == (2, 1536 * 6) and sorted(told[1:3]) == ["a.weight", "b.weight"] and told[3:] == ["end"]
    with pytest.raises(FileExistsError, match="overwrite=True"):
        checkpoint.compress_to(config, small)
    palettized = _native.Checkpoint.open(small)
    palette = palettized.get("a.weight")
    values = tensors["a.weight"]
    assert isinstance(palette, _native.Palette)
    assert np.array_equal(dense(palette), dense(_native.palettize(flat(values), "f32", values.shape, nbits=4)))
    assert _native.main(["palettizer", "decompress", str(small), "-o", str(back)]) == 0
    found = load_file(back)
    assert np.array_equal(found["a.weight"], dense(palette)) and np.array_equal(found["a.bias"], tensors["a.bias"])

    jobs = checkpoint.jobs(config)
    assert jobs == [("a.weight", 1536 * 4), ("b.weight", 1536 * 2)]
    parts = [tmp_path / f"part{index}.safetensors" for index in range(len(jobs))]
    for (name, _), part in zip(jobs, parts):
        checkpoint.compress_part([name], config, part)
    assembled = tmp_path / "assembled.safetensors"
    checkpoint.assemble(config, parts, assembled)
    assert assembled.read_bytes() == small.read_bytes()
    with pytest.raises(ValueError, match="b.weight"):
        checkpoint.assemble(config, parts[:1], tmp_path / "fewer.safetensors")
    assert not (tmp_path / "fewer.safetensors").exists()


def test_palettes_to_a_file_and_back(tmp_path):
    values, bias = weight("f16"), weight(shape=(48,))
    palette = _native.palettize(flat(values), "f16", values.shape, nbits=3, lut_dtype="uint8")
    path = tmp_path / "module.safetensors"
    contents = [("fc.weight", palette), ("fc.bias", ("F32", bias.shape, flat(bias)))]
    _native.Checkpoint.write(path, contents, {"note": "mine"})
    read = _native.Checkpoint.open(path)
    assert read.metadata() == {"note": "mine"} and np.array_equal(dense(read.get("fc.weight")), dense(palette))
    assert np.array_equal(read.get("fc.bias")[2], flat(bias))
    assert read.get("fc.weight").lut_integers.tobytes() == palette.lut_integers.tobytes()
    for bad, words in (([("a", ("F33", (1,), flat(bias)))], "F33"), ([("a", ("F32", (1,), flat(bias)))], "bytes"),
                       ([contents[0], contents[0]], "twice")):
        with pytest.raises(ValueError, match=words):
            _native.Checkpoint.write(tmp_path / "bad.safetensors", bad, {})
    with pytest.raises(ValueError, match="nobody"):
        read.get("nobody")
    with pytest.raises(FileNotFoundError):
        _native.Checkpoint.open(tmp_path / "nothing.safetensors")


@pytest.mark.parametrize("config, kind, words", [
    ({}, KeyError, "global_config"), ({"global_config": {"mode": "kmeans"}}, TypeError, "global_config"),
    ({"global_config": fields(nbits=9)}, ValueError, "nbits is 9"),
    ({"global_config": fields(), "sensitivity": "/nothing.safetensors"}, FileNotFoundError, "nothing"),
    ({"global_config": fields(), "sensitivity": "/x", "sensitivity_default": "twos"}, ValueError, "twos"),
    ({"global_config": fields(), "op_name_configs": 4}, TypeError, ""),
])
def test_bad_configurations(config, kind, words, tmp_path):
    from safetensors.numpy import save_file

    save_file({"a.weight": weight()}, tmp_path / "a.safetensors")
    with pytest.raises(kind, match=words):
        _native.Checkpoint.open(tmp_path / "a.safetensors").compress_to(config, tmp_path / "b.safetensors")
    assert not (tmp_path / "b.safetensors").exists()
