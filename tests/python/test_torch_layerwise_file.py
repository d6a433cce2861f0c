"""Statistics in a file: what was computed is read again, anybody may read or write it, and what is wrong with it is said."""

import json
import math

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import nn
from torch_support import layers
from torch_support.told import about, listening

from palettizer.torch.palettization import (
    LayerwisePalettizer,
    LayerwisePalettizerConfig,
    ModuleLayerwisePalettizerConfig,
)


class Net(nn.Module):
    """One layer of each kind of statistics, and one of which there are none."""

    def __init__(self):
        super().__init__()
        self.table, self.inner = nn.Embedding(12, 8), nn.MultiheadAttention(8, 2, batch_first=True)
        self.conv, self.up = nn.Conv1d(8, 8, 3, groups=4, padding=1), nn.ConvTranspose1d(8, 8, 3, groups=2)
        self.unused, self.head = nn.Linear(4, 4), layers.Conv1D(12, 8)

    def forward(self, x):
        h = self.table(x)
        h = self.inner(h, h.flip(0), h.flip(0), need_weights=False)[0]
        return self.head(self.up(self.conv(h.mT)).mT.contiguous())


def loss(model, item):
    return model(item).square().sum()


DATA = [torch.arange(start, start + 12).reshape(3, 4) % 12 for start in range(3)]


def fitter(model=None, guided=1, **options):
    torch.manual_seed(0)
    options = {"n_bits": 2, **options}
    config = LayerwisePalettizerConfig(ModuleLayerwisePalettizerConfig(**options), guided_groups=guided)
    return LayerwisePalettizer(Net() if model is None else model, config)


@pytest.fixture(params=[None, loss], ids=["plain", "guided"])
def loss_fn(request):
    return request.param


def same(one, other):
    assert one.keys() == other.keys()
    assert all(torch.equal(value, other[name]) for name, value in one.items())


def test_the_file_has_what_is_returned(tmp_path, loss_fn):
    path = tmp_path / "s.safetensors"
    found = fitter().compute_statistics(DATA, loss_fn, progress=False)
    assert fitter().compute_statistics(DATA, loss_fn, path, progress=False) is None
    same(load_file(path), found)
    shapes = {name: tuple(value.shape) for name, value in found.items() if not name.endswith(".fisher")}
    assert shapes == {
        "table.weight.frequency": (12,), "inner.in_proj_weight.second_moments": (3, 1, 8, 8),
        "inner.out_proj.weight.second_moments": (1, 1, 8, 8), "conv.weight.second_moments": (4, 1, 6, 6),
        "up.weight.second_moments": (1, 2, 12, 12), "head.weight.second_moments": (1, 1, 8, 8),
    }  # fmt: skip
    fishers = [name for name in found if name.endswith(".fisher")]
    assert len(fishers) == (6 if loss_fn else 0)
    with safe_open(path, "pt") as opened:
        strings = opened.metadata()
    assert strings["palettizer.statistics"] == "1" and strings["guided"] == str(loss_fn is not None).lower()
    assert {name for name in strings if name.endswith("output_axis")} == {"up.weight.output_axis", "head.weight.output_axis"}
    assert list(tmp_path.iterdir()) == [path]


def test_a_second_setting_needs_no_second_pass(tmp_path, loss_fn):
    path = tmp_path / "s.safetensors"
    for options in ({}, {"n_bits": 3, "algorithm": "gptq"}, {"granularity": "per_grouped_channel", "group_size": 1}):
        at_once = fitter(**options)
        expected = at_once.compress(DATA, loss_fn, progress=False)
        twice = fitter(**options)
        # The first writes the file, the others read it.
        done = twice.compress(None if path.exists() else DATA, loss_fn, path, progress=False)
        same(done.state_dict(), expected.state_dict())
        assert twice.report() == at_once.report()


def test_a_file_that_is_there_is_read(tmp_path):
    path = tmp_path / "s.safetensors"
    fitter().compress(DATA, None, path, progress=False)
    before = path.read_bytes()
    fitter().compress(iter(()), loss, path, progress=False)
    assert path.read_bytes() == before


def test_a_file_of_somebody_else(tmp_path):
    """Fewer axes, half precision, names of another owner of the weight, no metadata."""
    path, model = tmp_path / "s.safetensors", nn.ModuleDict({"a": nn.Linear(6, 4), "b": nn.Linear(6, 4)})
    model["b"].weight = model["a"].weight
    torch.manual_seed(0)
    x = torch.randn(20, 6)
    states = []
    for moments in ((x.T @ x).half(), (x.T @ x).half().double()[None], (x.T @ x).half().float()[None, None]):
        save_file({"b.weight.second_moments": moments.contiguous()}, path)
        made = fitter(model)
        states.append(made.compress(statistics_path=path, progress=False).state_dict())
        assert made.report()["a.weight"]["fallback"] == ""
    same(states[0], states[1])
    same(states[0], states[2])


def edited(path, change):
    with safe_open(path, "pt") as opened:
        strings = opened.metadata()
    tensors = load_file(path)
    change(tensors, strings)
    save_file(tensors, path, strings)


CHANGES = {
    "missing": (lambda t, s: [t.pop(name) for name in list(t) if name.startswith("head")], "head", "nothing about it"),
    "another size": (lambda t, s: t.update({"conv.weight.second_moments": torch.ones(4, 1, 5, 5)}), "conv", "8 rows and 6 columns"),
    "not square": (lambda t, s: t.update({"conv.weight.second_moments": torch.ones(4, 6, 5)}), "conv", "8 rows and 6 columns"),
    "a vector": (lambda t, s: t.update({"conv.weight.second_moments": torch.ones(6)}), "conv", "8 rows and 6 columns"),
    "too many runs": (lambda t, s: t.update({"conv.weight.second_moments": torch.ones(9, 1, 6, 6)}), "conv", "8 rows"),
    "another table": (lambda t, s: t.update({"table.weight.frequency": torch.ones(8)}), "table", "frequency of shape [8]"),
    "fisher": (lambda t, s: t.update({"head.weight.fisher": torch.ones(5, 6)}), "head", "expected [8, 12]"),
    "axis": (lambda t, s: s.pop("head.weight.output_axis"), "head", "along axis 0, and they are along axis 1"),
}


@pytest.mark.parametrize("change", CHANGES)
def test_what_does_not_fit_is_palettized_by_k_means(change, tmp_path):
    path, (edit, layer, text) = tmp_path / "s.safetensors", CHANGES[change]
    made = fitter()
    made.compute_statistics(DATA, None, path, progress=False)
    edited(path, edit)
    with listening() as said:
        made.compress(statistics_path=path, progress=False)
    reasons = {name: row["fallback"] for name, row in made.report().items()}
    assert text in reasons[f"{layer}.weight"]
    assert about(said, f"{layer}.weight", text, str(path))
    others = {"conv.weight", "up.weight", "head.weight", "inner.in_proj_weight", "inner.out_proj.weight"} - {f"{layer}.weight"}
    assert not any(reasons[name] for name in others)
    assert "was seen to use it" in reasons["unused.weight"] and not about(said, "unused")


WRONG = {
    "all missing": (lambda t, s: (t.clear(), s.pop("unused.weight.unseen")), "table.weight (there is nothing about it in the file)"),
    "format": (lambda t, s: s.update({"palettizer.statistics": "2"}), "format 2; this version reads format 1"),
    "nan": (lambda t, s: t["head.weight.second_moments"].fill_(math.nan), "NaN or infinite"),
    "not symmetric": (lambda t, s: t["head.weight.second_moments"][0, 0, 0].fill_(9), "not symmetric"),
    "negative": (lambda t, s: t["head.weight.second_moments"][0, 0, 3, 3].fill_(-1), "-1 on the diagonal"),
}


@pytest.mark.parametrize("change", WRONG)
def test_a_file_that_cannot_be(change, tmp_path):
    path = tmp_path / "s.safetensors"
    made = fitter()
    made.compute_statistics(DATA, None, path, progress=False)
    edited(path, WRONG[change][0])
    before = {name: value.clone() for name, value in made._model.state_dict().items()}
    with pytest.raises(ValueError) as caught:
        made.compress(statistics_path=path, inplace=True, progress=False)
    assert WRONG[change][1] in str(caught.value) and str(path) in str(caught.value)
    same(made._model.state_dict(), before)


@pytest.mark.parametrize("bits, group", [(2, 1), (3, 4), (4, None)])
def test_the_command_makes_the_same_of_it(bits, group, loss_fn, tmp_path, palettizer):
    path, names = tmp_path / "h.safetensors", ("inner.in_proj_weight", "inner.out_proj.weight", "conv.weight", "up.weight", "head.weight")
    grouped = {} if group is None else {"granularity": "per_grouped_channel", "group_size": group}
    made = fitter(n_bits=bits, **grouped)
    made.compute_statistics(DATA, loss_fn, path, progress=False)
    done = made.compress(statistics_path=path, progress=False).state_dict()
    save_file({name: done_before(made, name) for name in names}, tmp_path / "m.safetensors")
    flags = [] if group is None else ["--group-size", group]
    palettizer("compress", tmp_path / "m.safetensors", "-o", tmp_path / "small.safetensors", "--nbits", bits, *flags,
                       "--weight-threshold", 0, "--statistics", path)  # fmt: skip
    palettizer("decompress", tmp_path / "small.safetensors", "-o", tmp_path / "dense.safetensors")
    dense = load_file(tmp_path / "dense.safetensors")
    assert dense.keys() == set(names) and all(torch.equal(dense[name], done[name]) for name in names)


def done_before(made, name):
    """A weight as it was: what is palettized is a copy."""
    return made._model.get_parameter(name).detach()


@pytest.mark.parametrize("data, text", [
    (b"", "no header"), (b"\x02\0\0\0\0\0\0\0[]", "not a JSON object"),
    (json.dumps({"__metadata__": {"a": 1}}).encode(), "metadata"),
])  # fmt: skip
def test_a_file_that_is_none(data, text, tmp_path):
    path = tmp_path / "s.safetensors"
    path.write_bytes(data if data[:1] != b"{" else len(data).to_bytes(8, "little") + data)
    with pytest.raises(ValueError, match=text):
        fitter().compress(statistics_path=path, progress=False)


def test_where_no_file_can_be(tmp_path):
    with pytest.raises(FileNotFoundError):
        fitter().compute_statistics(DATA, None, tmp_path / "no" / "s.safetensors", progress=False)
    with pytest.raises(IsADirectoryError):
        fitter().compute_statistics(DATA, None, tmp_path, progress=False)
    with pytest.raises(TypeError, match="there is no file"):
        fitter().compress(statistics_path=tmp_path / "s.safetensors", progress=False)
