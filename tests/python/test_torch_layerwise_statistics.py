"""Second moments: they tell the squared error of a layer's outputs, of every kind of layer and option.

The oracle is the layer itself, run with other weights: Σ (w − q)ᵀ H (w − q) over the rows w is, but for the number of
inputs, what the outputs of the two differ by.
"""


import pairwise
import pytest
import torch
import transformers
from torch import nn
from torch.nn import functional as F

from palettizer.torch.palettization import LayerwisePalettizer, LayerwisePalettizerConfig
from palettizer.torch.palettization._layerwise import operations

CONVOLUTION = {
    "axes": (1, 2, 3), "transposed": (False, True), "groups": (1, 2, 8), "stride": (1, 2, 3), "dilation": (1, 2),
    "padding": (0, 1, 3, "same", "valid"), "mode": ("zeros", "reflect", "circular"), "kernel": (1, 2, 3),
    "extra": (0, 1), "batched": (True, False), "guided": (0, 1, 2, 8),
}  # fmt: skip
RULES = [
    (("transposed", "padding"), lambda turned, padding: not (turned and isinstance(padding, str))),
    (("transposed", "mode"), lambda turned, mode: not turned or mode == "zeros"),
    (("transposed", "extra"), lambda turned, extra: turned or not extra),
    (("stride", "padding"), lambda stride, padding: stride == 1 or padding != "same"),
    (("extra", "stride", "dilation"), lambda extra, stride, dilation: extra < max(stride, dilation)),
    (("mode", "padding"), lambda mode, padding: mode == "zeros" or padding in (0, 1, "valid")),
    (("batched", "mode"), lambda batched, mode: batched or mode == "zeros"),
    (("transposed", "padding", "kernel"), lambda turned, padding, kernel: not turned or padding != 3 or kernel == 3),
]


def convolution(axes, transposed, groups, stride, dilation, padding, mode, kernel, extra, **_):
    name = f"Conv{'Transpose' if transposed else ''}{axes}d"
    more = {"output_padding": extra} if transposed else {"padding_mode": mode}
    # The kernel is longer along the last axis.
    size = (kernel,) * (axes - 1) + (min(3, kernel + 1),)
    return getattr(nn, name)(8, 16, size, stride, padding, dilation=dilation, groups=groups, **more)


def loss(model, item):
    """Not symmetric, and of different steepness for each output."""
    y = model(item)
    y = y[0] if isinstance(y, tuple) else y
    return (y * torch.linspace(-1, 2, y.numel()).view(y.shape)).exp().sum()


def statistics(model, items, guided=0, **config):
    config = LayerwisePalettizerConfig(calibration_nsamples=len(items), guided_groups=max(1, guided), **config)
    palettizer = LayerwisePalettizer(model, config)
    return palettizer.compute_statistics(items, loss if guided else None, progress=False)


def error(moments, difference, axis):
    """Σ dᵀ H d over the rows d of a matrix of differences, in float64."""
    rows = difference.movedim(axis, 0).reshape(difference.shape[axis], -1).double()
    runs, blocks, size, _ = moments.shape
    rows = rows.view(runs, -1, blocks, size)
    return torch.einsum("rnbi,rbij,rnbj->", rows, moments.double(), rows)


def outputs(layer, weight, items):
    with torch.no_grad():
        return [torch.func.functional_call(layer, {"weight": weight}, (item,)) for item in items]


def check(layer, items, guided, groups=1, channels=-1, axis=0):
    """Compares what the moments say of a random change with what the layer does."""
    found = statistics(layer, items, guided)["weight.second_moments"]
    other = layer.weight.detach() + 0.1 * torch.randn_like(layer.weight)
    total, tokens = 0.0, 0
    for _item, before, after in zip(items, *(outputs(layer, w, items) for w in (layer.weight.detach(), other))):
        change = (after - before).movedim(channels, -1).reshape(-1, before.shape[channels]).double()
        importance = torch.ones_like(change)
        if guided:
            y = before.clone().requires_grad_()
            loss(lambda _, y=y: y, None).backward()
            squares = y.grad.movedim(channels, -1).reshape(change.shape).double().square()
            importance = spread(squares, found.shape, groups, guided, axis)
        total, tokens = total + (importance * change.square()).sum(), tokens + len(change)
    torch.testing.assert_close(error(found, layer.weight.detach() - other, axis) * tokens, total, rtol=2e-5, atol=1e-9)


def spread(squares, shape, groups, guided, axis):
    """Each output's importance: the mean over those that are in one run of rows with it."""
    tokens, channels = squares.shape
    if axis == 1:  # a row of the weight makes an output in every group
        runs = max(n for n in range(1, guided + 1) if channels % n == 0) if groups == 1 else 1
        assert shape[:2] == (runs, groups)
        cut = squares.view(tokens, groups, runs, channels // (groups * runs))
        return cut.mean((1, 3), keepdim=True).expand_as(cut).reshape(tokens, channels)
    among = groups if groups > 1 else channels
    runs = max(n for n in range(1, guided + 1) if among % n == 0)
    assert shape[:2] == (groups if groups > 1 else runs, 1)
    cut = squares.view(tokens, runs, channels // runs)
    return cut.mean(2, keepdim=True).expand_as(cut).reshape(tokens, channels)


@pytest.mark.parametrize("options", pairwise.rows(CONVOLUTION, RULES, {})[0], ids=lambda o: "-".join(map(str, o.values())))
def test_moments_of_a_convolution_are_the_error_of_its_outputs(options):
    torch.manual_seed(0)
    layer, axes = convolution(**options), options["axes"]
    size = (7, 6, 5)[:axes] if axes > 1 else (9,)
    items = [torch.randn(*((n,) if options["batched"] else ()), 8, *size) for n in (1, 2)]
    check(layer, items, options["guided"], options["groups"], -axes - 1, int(options["transposed"]))


@pytest.mark.parametrize("chunk", [1, 100, 700, 3000])
@pytest.mark.parametrize("guided", [0, 2])
@pytest.mark.parametrize("transposed", [False, True])
def test_moments_do_not_depend_on_how_many_inputs_are_made_at_a_time(transposed, guided, chunk, monkeypatch):
    torch.manual_seed(0)
    monkeypatch.setattr(operations, "_CHUNK", chunk)
    layer = convolution(2, transposed, 2, 2, 1, 1, "zeros", 2, 1)
    check(layer, [torch.randn(n, 8, 7, 5) for n in (5, 1)], guided, 2, -3, int(transposed))
    check(nn.Linear(9, 4), [torch.randn(3, 7, 9)], guided)


@pytest.mark.parametrize("columns", [1023, 1024, 1025, 2100])
@pytest.mark.parametrize("guided", [0, 2])
def test_moments_of_many_inputs_are_symmetric(columns, guided):
    """Of them, half is computed."""
    torch.manual_seed(0)
    layer, items = nn.Linear(columns, 4), [torch.randn(2, columns) / 100]
    check(layer, items, guided)
    moments = statistics(layer, items, guided)["weight.second_moments"]
    assert torch.equal(moments, moments.mT)


@pytest.mark.parametrize("guided", [0, 1, 3, 4])
@pytest.mark.parametrize("shape", [(5,), (1, 5), (4, 5), (2, 3, 5), (2, 0, 5)], ids=str)
@pytest.mark.parametrize("kind", ["Linear", "Conv1D", "one output"])
def test_moments_of_a_linear_layer_are_the_error_of_its_outputs(kind, shape, guided):
    torch.manual_seed(0)
    layer = transformers.Conv1D(12, 5) if kind == "Conv1D" else nn.Linear(5, 12 if kind == "Linear" else 1)
    check(layer, [torch.randn(shape), torch.randn(2, 5)], guided, axis=int(kind == "Conv1D"))


class Attention(nn.Module):
    """Attention of one sequence to others, or to itself."""

    def __init__(self, keys, **options):
        super().__init__()
        self.inner, self.keys = nn.MultiheadAttention(8, 2, **options), keys

    def forward(self, x):
        if self.keys == "itself":
            return self.inner(x, x, x)[0]
        other = x.flip(0) * 2 + 1
        if "kdim" in self.keys:
            return self.inner(x, other[..., :6], other[..., :4])[0]
        return self.inner(x, other, other if self.keys == "another" else x.cos())[0]


@pytest.mark.parametrize("guided", [0, 1, 2, 5])
@pytest.mark.parametrize("keys", ["itself", "another", "two others", "kdim"])
@pytest.mark.parametrize("first", [True, False], ids=["batch first", "batch second"])
@pytest.mark.parametrize("bias", [True, False])
def test_moments_of_attention(keys, first, bias, guided):
    """Each of query, key and value has the moments of its own input; the guided ones those of a Linear in its place."""
    torch.manual_seed(0)
    sizes = {"kdim": 6, "vdim": 4} if keys == "kdim" else {}
    model = Attention(keys, batch_first=first, bias=bias, **sizes)
    items = [torch.randn(3, 4, 8) for _ in range(2)]
    found = statistics(model, items, guided)
    names = ["q_proj_weight", "k_proj_weight", "v_proj_weight"] if keys == "kdim" else ["in_proj_weight"]
    assert list(found) == [
        f"inner.{name}.{field}" for name in [*names, "out_proj.weight"]
        for field in (["second_moments", "fisher"] if guided else ["second_moments"])
    ]  # fmt: skip
    spy = spied(model, items, loss if guided else None)
    for name in [*names, "out_proj.weight"]:
        moments, weight = found[f"inner.{name}.second_moments"], model.get_parameter(f"inner.{name}")
        rows = moments[:, 0].repeat_interleave(len(weight) // len(moments), 0)
        expected = expected_rows(spy[name], len(weight), guided)
        torch.testing.assert_close(rows.double(), expected, rtol=1e-4, atol=1e-6)


def spied(model, items, loss_fn):
    """(first row, inputs, outputs' gradients) of each product that attention makes, by another way: a patched F.linear."""
    found, linear = {}, F.linear
    inner = model.inner

    def names_of(weight):
        for name, parameter in inner.named_parameters():
            if parameter.dim() == 2 and parameter.untyped_storage().data_ptr() == weight.untyped_storage().data_ptr():
                return name, weight.storage_offset() // weight.shape[1]
        raise AssertionError

    def patched(x, weight, bias=None):
        y = linear(x, weight, bias)
        name, start = names_of(weight)
        entry = [start, x.detach().reshape(-1, x.shape[-1]).double(), torch.ones(x.shape[:-1].numel(), weight.shape[0])]
        if loss_fn is not None:
            y.register_hook(lambda g: entry.__setitem__(2, g.reshape(-1, g.shape[-1])))
        found.setdefault(name, []).append(entry)
        return y

    F.linear = patched
    try:
        for item in items:
            (loss_fn or (lambda m, x: m(x).sum()))(model.train(), item).backward()
    finally:
        F.linear = linear
        model.zero_grad()
    return found


def expected_rows(entries, rows, guided):
    """H of each row, by a loop over all inputs."""
    total, tokens = torch.zeros(rows, entries[0][1].shape[1], entries[0][1].shape[1], dtype=torch.double), {}
    for start, inputs, gradients in entries:
        count = gradients.shape[1]
        runs = max(n for n in range(1, max(1, guided) + 1) if count % n == 0)
        squares = gradients.double().square().view(len(inputs), runs, -1).mean(2).repeat_interleave(count // runs, 1)
        for x, weight in zip(inputs, squares):
            total[start : start + count] += weight[:, None, None] * torch.outer(x, x)
        tokens[start] = tokens.get(start, 0) + len(inputs)
    return total / max(tokens.values())
