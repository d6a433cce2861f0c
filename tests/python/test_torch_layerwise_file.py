"""Statistics in a file: what was computed is read again, anybody may read or write it, and what is wrong with it is said."""

import json
import math

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import nn
from torch_support import layers

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
        self.conv, self.up = nn.Conv1d(8, 8, 3, groups=4, padding=1), nn.ConvTranspose1d(8, 6, 3, groups=2)
        self.unused, self.head = nn.Linear(4, 4), layers.Conv1D(5, 6)

    def forward(self, x):
        h = self.table(x)
        h = self.inner(h, h.flip(0), h.flip(0), need_weights=False)[0]
        return self.head(self.up(self.conv(h.mT)).mT.contiguous())


def loss(model, item):
    return model(item).square().sum()


DATA = [torch.arange(start, start + 12).reshape(3, 4) % 12 for start in range(3)]


def palettizer(model=None, guided=1, **options):
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
    found = palettizer().compute_statistics(DATA, loss_fn, progress=False)
    assert palettizer().compute_statistics(DATA, loss_fn, path, progress=False) is None
    same(load_file(path), found)
    shapes = {name: tuple(value.shape) for name, value in found.items() if not name.endswith(".fisher")}
    assert shapes == {
        "table.weight.frequency": (12,), "inner.in_proj_weight.second_moments": (3, 1, 8, 8),
        "inner.out_proj.weight.second_moments": (1, 1, 8, 8), "conv.weight.second_moments": (4, 1, 6, 6),
        "up.weight.second_moments": (1, 2, 12, 12), "head.weight.second_moments": (1, 1, 6, 6),
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
        at_once = palettizer(**options)
        expected = at_once.compress(DATA, loss_fn, progress=False)
        twice = palettizer(**options)
        # The first writes the file, the others read it.
        done = twice.compress(None if path.exists() else DATA, loss_fn, path, progress=False)
        same(done.state_dict(), expected.state_dict())
        assert twice.report() == at_once.report()


def test_a_file_that_is_there_is_read(tmp_path):
    path = tmp_path / "s.safetensors"
    palettizer().compress(DATA, None, path, progress=False)
    before = path.read_bytes()
    palettizer().compress(iter(()), loss, path, progress=False)
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
        made = palettizer(model)
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
    "missing": (lambda t, s: [t.pop(name) for name in list(t) if name.startswith("head")], "none for head.weight"),
    "all missing": (lambda t, s: t.clear(), "none for table.weight, inner.in_proj_weight"),
    "another size": (lambda t, s: t.update({"conv.weight.second_moments": torch.ones(4, 1, 5, 5)}), "has 8 rows and 6 columns"),
    "not square": (lambda t, s: t.update({"conv.weight.second_moments": torch.ones(4, 6, 5)}), "has 8 rows and 6 columns"),
    "a vector": (lambda t, s: t.update({"conv.weight.second_moments": torch.ones(6)}), "has 8 rows and 6 columns"),
    "too many runs": (lambda t, s: t.update({"conv.weight.second_moments": torch.ones(9, 1, 6, 6)}), "has 8 rows"),
    "another table": (lambda t, s: t.update({"table.weight.frequency": torch.ones(8)}), "frequency [8] for table.weight"),
    "fisher": (lambda t, s: t.update({"head.weight.fisher": torch.ones(5, 6)}), "expected [6, 5]"),
    "axis": (lambda t, s: s.pop("head.weight.output_axis"), "along axis 0, they are along axis 1"),
    "format": (lambda t, s: s.update({"palettizer.statistics": "2"}), "format 2; this version reads format 1"),
    "nan": (lambda t, s: t["head.weight.second_moments"].fill_(math.nan), "NaN or infinite"),
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_file_that_does_not_fit(change, tmp_path):
    path = tmp_path / "s.safetensors"
    made = palettizer()
    made.compute_statistics(DATA, None, path, progress=False)
    edited(path, CHANGES[change][0])
    before = {name: value.clone() for name, value in made._model.state_dict().items()}
    with pytest.raises(ValueError) as caught:
        made.compress(statistics_path=path, inplace=True, progress=False)
    assert CHANGES[change][1] in str(caught.value) and str(path) in str(caught.value)
    same(made._model.state_dict(), before)


@pytest.mark.parametrize("data, text", [
    (b"", "no header"), (b"\x02\0\0\0\0\0\0\0[]", "not a JSON object"),
    (json.dumps({"__metadata__": {"a": 1}}).encode(), "metadata"),
])  # fmt: skip
def test_a_file_that_is_none(data, text, tmp_path):
    path = tmp_path / "s.safetensors"
    path.write_bytes(data if data[:1] != b"{" else len(data).to_bytes(8, "little") + data)
    with pytest.raises(ValueError, match=text):
        palettizer().compress(statistics_path=path, progress=False)


def test_where_no_file_can_be(tmp_path):
    with pytest.raises(FileNotFoundError):
        palettizer().compute_statistics(DATA, None, tmp_path / "no" / "s.safetensors", progress=False)
    with pytest.raises(IsADirectoryError):
        palettizer().compute_statistics(DATA, None, tmp_path, progress=False)
    with pytest.raises(TypeError, match="there is no file"):
        palettizer().compress(statistics_path=tmp_path / "s.safetensors", progress=False)
