"""Sensitivities: the same numbers as the peer's, files in and out, and a model that is as it was afterwards."""

import copy
import gc
import sys
from collections import OrderedDict
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn
from palettizer.torch.palettization._sensitivity import torch_file
from torch_support import palettes, sides, told, trained


def net(seed=0):
    """Convolutions with a batch norm, an embedding's worth of shapes, and a bias-free layer."""
    torch.manual_seed(seed)
    return nn.Sequential(OrderedDict(
        conv=nn.Conv2d(1, 8, 3), norm=nn.BatchNorm2d(8), act=nn.ReLU(), conv2=nn.Conv2d(8, 8, 3, bias=False),
        pool=nn.AdaptiveAvgPool2d(2), flat=nn.Flatten(), head=nn.Linear(32, 10)))


@pytest.fixture(scope="session")
def batches():
    return trained.batches(trained.digits(), 6)


def palettizer(side, model, n_bits=3, nsamples=4, **containers):
    config = side.SKMPalettizerConfig(
        global_config=side.ModuleSKMPalettizerConfig(n_bits=n_bits), calibration_nsamples=nsamples, **containers)
    return side.SKMPalettizer(model, config)


def close(mine, theirs):
    assert mine.keys() == theirs.keys()
    for name, value in mine.items():
        assert value.shape == theirs[name].shape
        torch.testing.assert_close(value.float(), theirs[name].float(), rtol=1e-5, atol=1e-12, msg=name)


def same_state(before, model):
    after = model.state_dict()
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)


@pytest.mark.parametrize("training", [False, True], ids=["eval", "train"])
@pytest.mark.parametrize("nsamples", [1, 4, 128])
def test_sensitivities_are_the_peers(nsamples, training, batches):
    """Of the first items only; 128 is more than there are."""
    mine, theirs = (
        palettizer(side, net().train(training), nsamples=nsamples).compute_sensitivity(batches, trained.loss)
        for side in (sides.ours, sides.peer))
    close(mine, theirs)


def test_sensitivities_are_squared_gradients_by_definition(batches):
    """Added up over the batches, divided by the largest, zeros raised to the smallest."""
    model = net().eval()
    mine = palettizer(sides.ours, model, nsamples=3).compute_sensitivity(batches, trained.loss)
    sums = {name: torch.zeros_like(p) for name, p in model.named_parameters()}
    for batch in batches[:3]:
        again = copy.deepcopy(model)
        trained.loss(again, batch).backward()
        for name, parameter in again.named_parameters():
            sums[name] += parameter.grad.square()
    for name, total in sums.items():
        total /= total.max()
        total[total == 0] = total[total > 0].min()
        torch.testing.assert_close(mine[name], total.clamp(min=1e-12), rtol=1e-5, atol=0)


def test_workers_are_accepted(batches):
    """The work is done in this process, whatever their number."""
    one, three = (palettizer(sides.ours, net().eval()).compute_sensitivity(batches, trained.loss, num_sensitivity_workers=n)
                  for n in (1, 3))
    assert one.keys() == three.keys() and all(torch.equal(one[name], three[name]) for name in one)


def test_a_weight_that_never_matters_gets_ones(batches):
    model = net().eval()
    with torch.no_grad():
        model.conv2.weight.zero_()  # so that no gradient reaches the first convolution
    mine = palettizer(sides.ours, model).compute_sensitivity(batches, trained.loss)
    assert torch.equal(mine["conv.weight"], torch.ones_like(model.conv.weight))


def test_dead_units_get_the_smallest_sensitivity(batches):
    model = net().eval()
    with torch.no_grad():
        model.conv.bias[3] = -1e3  # the unit behind this channel never fires
        model.conv.weight[3] = 0
    mine = palettizer(sides.ours, model).compute_sensitivity(batches, trained.loss)["conv.weight"]
    alive = [channel for channel in range(8) if channel != 3]
    assert (mine[3] == mine[alive].min()).all()
    assert mine.max() == 1 and mine.min() >= 1e-12


@pytest.mark.parametrize("training", [False, True], ids=["eval", "train"])
def test_the_model_is_as_it_was(training, batches, tmp_path):
    """Mode, running statistics, gradients, flags and hooks."""
    model = net().train(training)
    model.head.bias.requires_grad_(False)
    before = sides.state(model)
    palettizer(sides.ours, model).compute_sensitivity(batches, trained.loss, str(tmp_path / "s.safetensors"))
    same_state(before, model)
    assert all(module.training == training for module in model.modules())
    assert all(p.grad is None for p in model.parameters())
    assert [n for n, p in model.named_parameters() if not p.requires_grad] == ["head.bias"]
    assert not any(module._forward_hooks or module._backward_hooks for module in model.modules())
    assert not any(p._backward_hooks or p._post_accumulate_grad_hooks for p in model.parameters())


def test_compress_keeps_the_mode_and_the_original(batches):
    model = net().train()
    before = sides.state(model)
    done = palettizer(sides.ours, model).compress(batches, trained.loss)
    same_state(before, model)
    assert done is not model and done.training and all(p.grad is None for p in done.parameters())
    assert palettes.palettized(done) == {"conv.weight", "conv2.weight", "head.weight"}
    assert torch.equal(done.norm.running_mean, model.norm.running_mean)


def test_the_file_is_safetensors_and_serves_compress(batches, tmp_path):
    path = tmp_path / "sensitivity.safetensors"
    model = net().eval()
    returned = palettizer(sides.ours, model).compute_sensitivity(batches, trained.loss, str(path))
    saved = load_file(path)
    assert saved.keys() == returned.keys() == dict(model.named_parameters()).keys()
    assert all(torch.equal(saved[name], returned[name]) for name in saved)
    from_file = palettizer(sides.ours, model).compress(sensitivity_path=str(path))
    at_once = palettizer(sides.ours, model).compress(batches, trained.loss)
    same_state(from_file.state_dict(), at_once)


def test_the_peers_files_are_read(batches, tmp_path):
    """torch.save, as coremltools writes it, and safetensors give the same bytes."""
    model = net().eval()
    theirs = palettizer(sides.peer, copy.deepcopy(model)).compute_sensitivity(
        batches, trained.loss, str(tmp_path / "s.pt"))
    save_file(theirs, tmp_path / "s.safetensors")
    a, b = (palettizer(sides.ours, model).compress(sensitivity_path=str(tmp_path / name))
            for name in ("s.pt", "s.safetensors"))
    same_state(a.state_dict(), b)
    again = palettizer(sides.peer, model).compress(sensitivity_path=str(tmp_path / "s.pt"))
    for name in ("conv", "conv2", "head"):
        weight = model.get_submodule(name).weight
        error, limit = (palettes.squared_error(weight, m.get_submodule(name).weight, theirs[f"{name}.weight"])
                        for m in (a, again))
        assert error <= limit * (1 + 1e-6)


def test_tensors_of_torch_files_are_read_where_they_lie(tmp_path):
    """One at a time, into memory of their own; where a file does not have them as they are, from PyTorch's mapping."""
    torch.manual_seed(3)
    whole = torch.rand(40, 30)
    plain = {"a": whole, "a.row": whole[3], "a.end": whole.reshape(-1)[-1:], "none": torch.empty(0, 3), "half": torch.rand(5).half(),
             "double": torch.rand(4, 4, dtype=torch.float64), "bf16": torch.rand(3).bfloat16(), "one": torch.tensor(2.0)}
    for name, tensors, where in (("plain", plain, True), ("turned", {**plain, "turned": whole.t()}, False), ("only", {"x": torch.rand(3)}, True),
                                 ("empty", {"x": torch.empty(0)}, False), ("nothing", {}, False)):
        path = str(tmp_path / f"{name}.pt")
        torch.save(tensors, path)
        assert (torch_file._entries(path, torch.load(path, mmap=True)) is not None) == where
        shapes, read = torch_file.opened(path)
        assert shapes == {name: tuple(tensor.shape) for name, tensor in tensors.items()}
        for name, tensor in tensors.items():
            assert torch.equal(read(name), tensor) and read(name).dtype == tensor.dtype
            read(name).fill_(9)
            assert torch.equal(read(name), tensor)


def test_a_torch_file_that_is_cut_short_is_refused(tmp_path):
    path = tmp_path / "s.pt"
    torch.save({"conv.weight": torch.rand(8, 1, 3, 3)}, path)
    path.write_bytes(path.read_bytes()[:-300])
    with pytest.raises(ValueError, match=r"s\.pt begins like a file of torch\.save and has not its end; copy it again"):
        palettizer(sides.ours, net()).compress(sensitivity_path=str(path))


def test_a_torch_file_does_not_stay_in_memory(tmp_path):
    path = str(tmp_path / "large.pt")
    torch.save({str(i): torch.full((1 << 21,), float(i)) for i in range(8)}, path)
    _, read = torch_file.opened(path)
    gc.collect()
    mapped = [line for line in Path("/proc/self/maps").read_text().splitlines() if path in line] if sys.platform == "linux" else []
    assert mapped == [] and all(read(str(i)).unique().tolist() == [i] for i in range(8))


def test_a_sensitivity_file_with_code_in_it_is_refused(tmp_path):
    """torch.save files are pickles: only tensors are read."""
    class Trap:
        def __reduce__(self):
            return open, (str(tmp_path / "trapped"), "w")

    torch.save({"conv.weight": Trap()}, tmp_path / "s.pt")
    model = net()
    with pytest.raises(Exception, match="s.pt"):
        palettizer(sides.ours, model).compress(sensitivity_path=str(tmp_path / "s.pt"))
    assert not (tmp_path / "trapped").exists()


class Unused(nn.Module):
    """A layer that is there and not called."""

    def __init__(self, inner):
        super().__init__()
        self.inner = inner

    def forward(self, x):
        return x


@pytest.mark.parametrize("how", ["frozen", "unused"])
def test_parameters_without_gradients_are_reported(how, batches):
    model = net().eval()
    if how == "frozen":
        model.conv2.weight.requires_grad_(False)
    else:
        model.conv2 = Unused(model.conv2)
    name = "conv2.weight" if how == "frozen" else "conv2.inner.weight"
    with told.listening() as said:
        done = palettizer(sides.ours, model).compress(batches, trained.loss)
    assert told.about(said, name, "gradient"), said
    # no sensitivity is known, so all count alike
    plain = sides.post_training(sides.ours, model, n_bits=3)
    assert torch.equal(done.get_parameter(name), plain.get_parameter(name))


def test_only_what_is_palettized_needs_a_gradient(batches):
    """A frozen bias is nobody's business."""
    model = net().eval()
    model.conv.bias.requires_grad_(False)
    with told.listening() as said:
        palettizer(sides.ours, model).compress(batches, trained.loss)
    assert not told.about(said, "gradient"), said


def test_any_iterable_serves_and_no_more_is_drawn_than_needed(batches):
    drawn = []

    def stream():
        for batch in batches:
            drawn.append(batch)
            yield batch

    mine = palettizer(sides.ours, net().eval(), nsamples=2).compute_sensitivity(stream(), trained.loss)
    assert len(drawn) == 2
    close(mine, palettizer(sides.ours, net().eval(), nsamples=2).compute_sensitivity(batches, trained.loss))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_half_precision_models_are_summed_in_single(dtype, batches):
    """Squares of small gradients are zero in fp16: the sums are kept in fp32."""
    def loss(model, batch):
        return nn.functional.cross_entropy(model(batch[0].to(dtype)).float(), batch[1]) * 1e-3

    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 10)).to(dtype)
    mine = palettizer(sides.ours, model).compute_sensitivity(batches, loss)
    sums = {name: torch.zeros(p.shape) for name, p in model.named_parameters()}
    for batch in batches[:4]:
        again = copy.deepcopy(model)
        loss(again, batch).backward()
        for name, parameter in again.named_parameters():
            sums[name] += parameter.grad.float().square()
    for name, total in sums.items():
        total /= total.max()
        total[total == 0] = total[total > 0].min()
        assert mine[name].dtype == torch.float32
        torch.testing.assert_close(mine[name], total.clamp(min=1e-12), rtol=1e-4, atol=0)


def test_tied_weights_have_one_sensitivity(batches):
    class Tied(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b = nn.Linear(64, 64), nn.Linear(64, 64)
            self.b.weight = self.a.weight

        def forward(self, x):
            return self.b(self.a(x.flatten(1)).relu())[:, :10]

    torch.manual_seed(3)
    model = Tied()
    mine, theirs = (palettizer(side, copy.deepcopy(model)).compute_sensitivity(batches, trained.loss)
                    for side in (sides.ours, sides.peer))
    close(mine, theirs)
    done = palettizer(sides.ours, model).compress(batches, trained.loss)
    assert done.b.weight is done.a.weight
    assert len(torch.unique(done.a.weight)) == 8
