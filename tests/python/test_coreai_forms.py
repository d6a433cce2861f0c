"""Every form of a palette in a Core AI program: saved, loaded, run by Apple's wheel as our decompressed program runs."""

import itertools

import numpy as np
import pytest
import torch
from coreai_support import Cnn, Many, program, run

import palettizer.coreai as core_ai
from palettizer.coreai import OpPalettizerConfig, OptimizationConfig

BITS = (1, 2, 3, 4, 6, 8)
DTYPES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}
ROUNDING = {"float32": 100, "float16": 55, "bfloat16": 35}  # dB of a product's own rounding, at least


def forms():
    """Settings of the weights: all that go together."""
    for bits, group, dim, scale, lut in itertools.product(BITS, (None, 4), (1, 2), (False, True), (None, "int8", "uint8")):
        if dim == 1 or not scale:
            yield {
                "nbits": bits, "cluster_dim": dim, "enable_per_channel_scale": scale, "lut_dtype": lut, "weight_threshold": 0,
                **({"granularity": "per_grouped_channel", "group_size": group} if group else {}),
            }


def made(asked, tmp_path, module, inputs, prefix):
    """(the dense program, palettized and loaded again, decompressed): paths, the report and the names."""
    dense = program(module, *inputs)
    names = [f"{prefix}_{number}" for number in range(len(asked))]
    config = OptimizationConfig(op_name_configs={name: OpPalettizerConfig(**one) for name, one in zip(names, asked)})
    paths = [tmp_path / f"{name}.aimodel" for name in ("dense", "small", "back")]
    dense.save_asset(paths[0])
    small = core_ai.palettize_weights(paths[0], config, progress=False)
    small.save(paths[1])
    core_ai.decompress_weights(paths[1]).save(paths[2])
    return paths, small.report, names


@pytest.mark.parametrize("dtype", DTYPES)
def test_every_form_runs_as_its_decompressed_program(tmp_path, dtype):
    asked = list(forms())
    torch.manual_seed(1)
    x = torch.randn(64, 24).to(DTYPES[dtype])
    paths, report, names = made(asked, tmp_path, Many(len(asked)).to(DTYPES[dtype]), (x,), "main.linear")
    assert [report[name]["reason"] for name in names if report[name]["status"] != "compressed"] == []
    dense, small, back = (found["y"] for found in run(tmp_path, *((path, {"x": x}) for path in paths)))
    assert np.array_equal(small, back)
    for at, name in enumerate(names):
        error, signal = np.sum((small[at] - dense[at]) ** 2.0), np.sum(dense[at] ** 2.0)
        found = 10 * np.log10(signal / error) if error else np.inf
        wanted = np.inf if report[name]["snr_db"] is None else report[name]["snr_db"]  # nothing is lost
        assert found >= min(wanted, ROUNDING[dtype]) - 1.5, (asked[at], found, wanted)
        assert wanted > ROUNDING[dtype] or found <= wanted + 1.5, (asked[at], found, wanted)


CONVOLUTIONS = [  # in the order of the program, with what divides their channels
    ("conv_0", 16), ("conv_1", 16), ("conv_2", 12), ("conv_transpose_0", 8), ("conv_3", 8), ("linear_0", 10),
]  # fmt: skip


SETTINGS = [
    {}, {"granularity": "per_grouped_channel", "group_size": 2}, {"enable_per_channel_scale": True},
    {"lut_dtype": "int8", "enable_per_channel_scale": True}, {"cluster_dim": 2},
    {"granularity": "per_grouped_channel", "group_size": 2, "channel_axis": 1},
]  # fmt: skip


@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_convolutions(tmp_path, dtype):
    torch.manual_seed(2)
    x = torch.randn(2, 3, 8, 8).to(DTYPES[dtype])
    dense = program(Cnn().to(DTYPES[dtype]), x)
    paths = []
    for number, (bits, more) in enumerate(itertools.product((3, 4), SETTINGS)):
        config = OptimizationConfig(global_config=OpPalettizerConfig(nbits=bits, weight_threshold=0, **more))
        small = core_ai.palettize_weights(dense, config, progress=False)
        paths += [tmp_path / f"small{number}.aimodel", tmp_path / f"back{number}.aimodel"]
        small.save_asset(paths[-2])
        core_ai.decompress_weights(small).save_asset(paths[-1])
        found = {weight["name"].removeprefix("main."): weight for weight in core_ai.load(paths[-2])._opened.listed(0)}
        assert list(found) == [name for name, _ in CONVOLUTIONS]
        for name, channels in CONVOLUTIONS:
            fits = more.get("channel_axis") != 1 and not (more.get("cluster_dim") == 2 and channels % 2)
            assert bool(found[name]["ops"]) or not fits, (name, found[name])
    outputs = [found["y"] for found in run(tmp_path, *((path, {"x": x}) for path in paths))]
    for small, back in zip(outputs[::2], outputs[1::2]):
        assert np.array_equal(small, back)
