"""A palettized model in a compact file, and back, bit for bit; and what cannot be."""

import json
import struct

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from palettizer.torch import load_safetensors, save_safetensors
from palettizer.torch.palettization import PostTrainingPalettizer, PostTrainingPalettizerConfig


class Net(nn.Module):
    """Shared weights, buffers of several dtypes, and modules that are not palettized."""

    def __init__(self):
        super().__init__()
        self.embed, self.head = nn.Embedding(64, 32), nn.Linear(32, 64, bias=False)
        self.head.weight = self.embed.weight
        self.conv, self.norm = nn.Conv2d(8, 16, 3), nn.BatchNorm2d(16)
        self.up = nn.ConvTranspose1d(16, 8, 3)
        self.attention = nn.MultiheadAttention(32, 4, kdim=16, vdim=8)
        self.register_buffer("flags", torch.tensor([True, False]))
        self.register_buffer("empty", torch.zeros(0, 3))
        self.register_buffer("passing", torch.ones(3), persistent=False)


def palettized(model=None, **settings):
    config = PostTrainingPalettizerConfig.from_dict({"global_config": settings})
    return PostTrainingPalettizer(Net() if model is None else model, config).compress(progress=False)


def same(one, other):
    a, b = one.state_dict(), other.state_dict()
    assert sorted(a) == sorted(b)
    for name in a:
        assert a[name].dtype == b[name].dtype and a[name].shape == b[name].shape, name
        assert torch.equal(a[name], b[name]), name


SETTINGS = {
    "plain": {},
    "1 bit": {"n_bits": 1},
    "3 bits": {"n_bits": 3},
    "8 bits": {"n_bits": 8},
    "groups": {"granularity": "per_grouped_channel", "group_size": 4},
    "input groups": {"granularity": "per_grouped_channel", "group_size": 4, "channel_axis": 1},
    "vectors": {"cluster_dim": 2},
    "input vectors": {"cluster_dim": 2, "channel_axis": 1, "lut_dtype": "int8"},
    "scale": {"enable_per_channel_scale": True},
    "int8": {"lut_dtype": "int8"},
    "uint8": {"lut_dtype": "uint8", "granularity": "per_grouped_channel", "group_size": 8},
    "int8 with scale": {"lut_dtype": "int8", "enable_per_channel_scale": True},
    "uint8 with scale": {"lut_dtype": "uint8", "enable_per_channel_scale": True, "n_bits": 2},
}


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16, torch.float64], ids=str)
@pytest.mark.parametrize("settings", SETTINGS.values(), ids=SETTINGS)
def test_there_and_back(settings, dtype, tmp_path):
    path, model = tmp_path / "model.safetensors", palettized(Net().to(dtype), **settings)
    save_safetensors(model, path)
    for again in (Net().to(dtype), palettized(Net().to(dtype), n_bits=2, lut_dtype="int8")):
        load_safetensors(again, path)
        same(again, model)
        assert again.head.weight is again.embed.weight


def test_it_is_compact(tmp_path):
    path, model = tmp_path / "model.safetensors", palettized(nn.Linear(256, 512), n_bits=4)
    save_safetensors(model, path)
    assert path.stat().st_size < 256 * 512 / 2 + 512 * 4 + 2000
    stored = load_file(path)
    assert stored["weight.palette.indices"].dtype == torch.uint8 and "weight" not in stored
    with open(path, "rb") as file:
        header = json.loads(file.read(struct.unpack("<Q", file.read(8))[0]))
    assert header["__metadata__"]["palettizer.format"] == "1"


def test_shared_weights_are_stored_once(tmp_path):
    path = tmp_path / "model.safetensors"
    save_safetensors(palettized(), path)
    names = load_file(path).keys()
    assert "embed.weight.palette.indices" in names and not any(name.startswith("head.weight") for name in names)
    apart = Net()
    apart.head.weight = nn.Parameter(torch.zeros(64, 32))
    load_safetensors(apart, path)
    assert torch.equal(apart.head.weight, apart.embed.weight) and len(apart.head.weight.unique()) == 16


class TiedToATable(nn.Module):
    """The weight of a layer has another name, of no layer, in front of it."""

    def __init__(self):
        super().__init__()
        self.head = nn.Linear(32, 64)
        self.table = self.head.weight


def test_a_palette_stays_with_its_layer(tmp_path):
    path, model = tmp_path / "model.safetensors", PostTrainingPalettizer(TiedToATable()).compress(progress=False)
    assert next(iter(model.state_dict())) == "table"
    save_safetensors(model, path)
    assert {"head.weight.palette.indices", "head.weight.palette.lut"} <= set(load_file(path)) and path.stat().st_size < 64 * 32 * 2
    again = TiedToATable()
    load_safetensors(again, path)
    same(again, model)
    assert again.table is again.head.weight and "_COREML_/weight/lut" in dict(again.head.named_buffers())


def test_the_model_works_on(tmp_path):
    """Gradients, the optimizer's hold on the parameters, and other places of the weights are as before."""
    path, model = tmp_path / "model.safetensors", palettized()
    save_safetensors(model, path)
    again = Net()
    parameters = dict(again.named_parameters())
    again.conv.weight.data = again.conv.weight.data.contiguous(memory_format=torch.channels_last)
    load_safetensors(again, path)
    assert all(parameters[name] is value and value.requires_grad for name, value in again.named_parameters())
    assert again.conv.weight.is_contiguous(memory_format=torch.channels_last)
    same(again, model)


def test_models_without_a_palette_and_plain_files(tmp_path):
    model = Net()
    save_safetensors(model, tmp_path / "dense.safetensors")
    again = palettized()
    load_safetensors(again, tmp_path / "dense.safetensors")
    assert torch.equal(again.conv.weight, model.conv.weight)
    assert not [name for name, _ in again.conv.named_buffers()]
    linear = nn.Linear(4, 4)
    save_file(linear.state_dict(), tmp_path / "foreign.safetensors")
    other = nn.Linear(4, 4)
    load_safetensors(other, tmp_path / "foreign.safetensors")
    same(other, linear)


def test_the_commands_checkpoints_are_read(tmp_path):
    from palettizer._native import main

    model = nn.Sequential(nn.Linear(64, 64), nn.Linear(64, 64))
    save_file(model.state_dict(), tmp_path / "dense.safetensors")
    small = tmp_path / "small.safetensors"
    assert main(["palettizer", "compress", str(tmp_path / "dense.safetensors"), "-o", str(small), "--nbits", "4"]) == 0
    again = nn.Sequential(nn.Linear(64, 64), nn.Linear(64, 64))
    load_safetensors(again, small)
    for linear, before in zip(again, model):
        assert torch.equal(linear._buffers["_COREML_/weight/lut"].flatten(), linear.weight.unique())
        assert len(linear.weight.unique()) == 16 and torch.equal(linear.bias, before.bias)
    save_safetensors(again, tmp_path / "again.safetensors")


def test_other_models_are_refused(tmp_path):
    path = tmp_path / "model.safetensors"
    save_safetensors(palettized(nn.Sequential(nn.Linear(8, 8), nn.Linear(8, 4))), path)
    wrong = {
        "1.weight is missing": nn.Sequential(nn.Linear(8, 8), nn.Linear(8, 4), nn.Linear(4, 4)),
        "1.weight is not in the model": nn.Sequential(nn.Linear(8, 8)),
        r"1.weight has shape \(4, 8\) and not \(8, 8\)": nn.Sequential(nn.Linear(8, 8), nn.Linear(8, 8)),
        "0.weight has dtype torch.float32 and not torch.float16": nn.Sequential(nn.Linear(8, 8), nn.Linear(8, 4)).half(),
        "without memory": nn.Sequential(nn.Linear(8, 8), nn.Linear(8, 4)).to("meta"),
    }
    for words, model in wrong.items():
        before = {name: value.clone() for name, value in model.state_dict().items()}
        with pytest.raises(ValueError, match=words.replace("1.weight is missing", "2.weight is missing")):
            load_safetensors(model, path)
        assert model.state_dict().keys() == before.keys()
        assert all(v.is_meta or torch.equal(v, before[name]) for name, v in model.state_dict().items())


def test_damaged_files_are_refused(tmp_path):
    path = tmp_path / "model.safetensors"
    model = palettized()
    save_safetensors(model, path)
    data = path.read_bytes()
    for cut in (b"", data[:5], data[:100], data[: len(data) // 2], data[:-1], b"\xff" * 64):
        (tmp_path / "cut.safetensors").write_bytes(cut)
        with pytest.raises(ValueError):
            load_safetensors(Net(), tmp_path / "cut.safetensors")
    with pytest.raises(OSError):
        load_safetensors(Net(), tmp_path / "none.safetensors")


def test_a_weight_that_is_not_its_palette_any_more(tmp_path):
    model = palettized(nn.Linear(8, 8), n_bits=2)
    with torch.no_grad():
        model.weight[3, 3] += 1
    with pytest.raises(ValueError, match="weight.*changed after it was palettized"):
        save_safetensors(model, tmp_path / "model.safetensors")
    assert not list(tmp_path.iterdir())


def test_states_that_have_no_place_in_a_file(tmp_path):
    class Extra(nn.Linear):
        def get_extra_state(self):
            return {"a": 1}

        def set_extra_state(self, state):
            pass

    sparse = nn.Module()
    sparse.register_buffer("table", torch.eye(3).to_sparse())
    for model, words in (
        (Extra(2, 2), "_extra_state"),
        (sparse, "table.*sparse"),
        (nn.Linear(2, 2, device="meta"), "meta"),
    ):
        with pytest.raises(ValueError, match=words):
            save_safetensors(model, tmp_path / "model.safetensors")
    assert not list(tmp_path.iterdir())


def test_the_report_and_the_record_of_pruning_survive(tmp_path):
    model = nn.Linear(8, 16)
    model.register_buffer("_COREML_/weight/compression_type", torch.tensor([1]))
    model = palettized(model, lut_dtype="int8")
    save_safetensors(model, tmp_path / "model.safetensors")
    again = nn.Linear(8, 16)
    load_safetensors(again, tmp_path / "model.safetensors")
    assert again._buffers["_COREML_/weight/compression_type"].tolist() == [1, 2]
    same(again, model)
