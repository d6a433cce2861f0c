"""Functions of the user's own (`mode="custom"`): what they are given, what they may return, what they raise."""

import threading

import coremltools.optimize.coreml as theirs
import numpy as np
import pytest

import judge
import palettizer.coreml as ours


def signs(seen):
    """A function as the peer needs it: entries in the dtype of the values. Keeps what it was given."""
    def function(values):
        seen.append(values.copy())
        flat = values.flatten()
        half = float(np.abs(flat).mean())
        return np.array([-half, half], values.dtype), [int(value > 0) for value in flat]
    return function


CASES = [("conv", {}), ("linear", {}), ("conv_transpose", {}),
         ("conv", {"granularity": "per_grouped_channel", "group_size": 8}),
         ("linear", {"granularity": "per_grouped_channel", "group_size": 16, "channel_axis": 1}),
         ("conv_transpose", {"granularity": "per_grouped_channel", "group_size": 8})]


@pytest.mark.parametrize("dtype", ["fp16", "fp32"])
@pytest.mark.parametrize("op, options", CASES, ids=[f"{op}-{'-'.join(options)}" for op, options in CASES])
def test_called_as_the_peer_calls(op, options, dtype, op_model, tmp_path):
    model = judge.load(op_model(op, "iOS18", dtype, "normal"))
    made, given = {}, {}
    for name, module in (("ours", ours), ("theirs", theirs)):
        seen = given[name] = []
        config = module.OptimizationConfig(
            global_config=module.OpPalettizerConfig(mode="custom", lut_function=signs(seen), **options))
        out = tmp_path / f"{name}.mlpackage"
        module.palettize_weights(model, config).save(str(out))
        made[name] = judge.weights(out, 2048)
    key = lambda array: array.tobytes()
    mine, peers = sorted(given["ours"], key=key), sorted(given["theirs"], key=key)
    assert len(mine) == len(peers) > 0
    for one, other in zip(mine, peers):
        assert one.shape == other.shape and one.dtype == other.dtype
        assert np.array_equal(one, other)
    (values,), (expected,) = made["ours"].values(), made["theirs"].values()
    assert np.array_equal(values, expected)


def test_scaled_channels(op_model):
    """Each output channel comes divided by its largest magnitude (the peer divides along another axis)."""
    seen = []
    config = ours.OptimizationConfig(global_config=ours.OpPalettizerConfig(
        mode="custom", lut_function=signs(seen), enable_per_channel_scale=True))
    ours.palettize_weights(op_model("conv", "iOS18", "fp32", "normal"), config)
    (values,) = seen
    assert np.array_equal(np.abs(values.reshape(len(values), -1)).max(axis=1), np.ones(len(values)))


def test_lists_will_do(op_model):
    small = palettized(lambda values: ([-1.0, 1.0], [0] * values.size), op_model("linear", "iOS18", "fp16", "normal"))
    (weight,) = ours.get_weights_metadata(small).values()
    assert weight.unique_values == 1


def palettized(function, models_path, **more):
    config = ours.OptimizationConfig(global_config=ours.OpPalettizerConfig(mode="custom", lut_function=function))
    return ours.palettize_weights(models_path, config, **more)


@pytest.mark.parametrize("threads", [1, 2])
def test_what_it_raises_is_raised(threads, op_model, tmp_path):
    class Mine(Exception):
        pass

    def function(values):
        raise Mine("as it is")

    path = op_model("linear", "iOS18", "fp16", "normal")
    with pytest.raises(Mine, match="as it is"):
        palettized(function, path, threads=threads)
    with pytest.raises(Mine):
        palettized(function, judge.load(path))


@pytest.mark.parametrize("returned, words", [
    (lambda n: None, "expected \\(lut, indices\\)"), (lambda n: ([0.0], [0] * (n - 1)), "one for each"),
    (lambda n: ([0.0], [0.5] * n), "expected integers"), (lambda n: ([0.0, 1.0], [2] * n), "indices from 2 to 2"),
    (lambda n: ([0.0], [-1] * n), "from -1"), (lambda n: ([0.0] * 257, [0] * n), "257 entries"),
    (lambda n: (["a"], [0] * n), "could not convert"),
])
def test_what_it_must_not_return(returned, words, op_model):
    path = op_model("linear", "iOS18", "fp16", "normal")
    with pytest.raises(ValueError, match=words):
        palettized(lambda values: returned(values.size), path)


def test_a_table_that_cannot_be_stored_is_a_skip_with_a_reason(op_model):
    path = op_model("linear", "iOS18", "fp16", "normal")
    (row,) = palettized(lambda values: ([float("inf")], [0] * values.size), path).report.values()
    assert row["status"] == "skipped" and "inf" in row["reason"]


def test_numbers_of_entries_and_bits(op_model):
    path = op_model("linear", "iOS18", "fp16", "normal")
    for entries, bits in ((1, 1), (2, 1), (3, 2), (16, 4), (17, 6), (256, 8)):
        small = palettized(lambda values: (np.arange(entries), np.arange(values.size) % entries), path)
        (row,) = small.report.values()
        assert row["nbits"] == bits
        (weight,) = ours.get_weights_metadata(small).values()
        assert weight.unique_values == entries


def test_it_may_palettize_itself(op_model):
    """A function that calls the library again, from the library's own thread."""
    from palettizer import _native

    path = op_model("linear", "iOS18", "fp16", "normal")
    names = set()

    def function(values):
        names.add(threading.current_thread().name)
        flat = np.ascontiguousarray(values, np.float32).reshape(-1)
        palette = _native.palettize(flat.view(np.uint8), "f32", [flat.size], nbits=2, threads=1)
        entries = palette.entries().view(np.float32)
        return entries, np.abs(flat[:, None] - entries).argmin(axis=1)

    small = palettized(function, path, threads=1)
    (weight,) = ours.get_weights_metadata(small).values()
    assert weight.unique_values == 4 and threading.main_thread().name not in names
