"""Where gradients come from: sparse ones, models that belong on a GPU, and what is never kept."""

import gc
import weakref

import pytest
import torch
from torch import nn

from palettizer.torch.palettization import SKMPalettizer, SKMPalettizerConfig


def sensitivities(model, samples, loss):
    palettizer = SKMPalettizer(model, SKMPalettizerConfig(calibration_nsamples=len(samples)))
    return palettizer.compute_sensitivity(samples, loss, progress=False)


def test_sparse_gradients_count_as_dense_ones():
    samples = [torch.tensor([1, 5, 5, 9]), torch.tensor([0, 1, 15, 2])]
    found = []
    for sparse in (False, True):
        torch.manual_seed(0)
        model = nn.Sequential(nn.Embedding(16, 8, sparse=sparse), nn.Linear(8, 4))
        found.append(sensitivities(model, samples, lambda model, ids: model(ids).square().sum()))
    assert found[0].keys() == found[1].keys()
    for name in found[0]:
        torch.testing.assert_close(found[0][name], found[1][name], rtol=1e-6, atol=0)


def test_a_gradient_is_let_go_before_the_next_comes():
    """While the gradient of the first layer is made, that of the last is gone."""
    model = nn.Sequential(nn.Linear(8, 8), nn.Tanh(), nn.Linear(8, 8))
    seen, alive = [], []

    def note(gradient):
        seen.append(weakref.ref(gradient))

    def look(_gradient):
        gc.collect()
        alive.append(seen[0]() is not None or model[2].weight.grad is not None)

    model[2].weight.register_hook(note)
    model[0].weight.register_hook(look)
    sensitivities(model, [torch.rand(2, 8)], lambda model, x: model(x).square().sum())
    assert alive == [False]


class Elsewhere(nn.Linear):
    """A module that wants to be moved, as one on the CPU does when its samples are on a GPU."""

    moved = False

    def forward(self, x):
        if not self.moved:
            raise RuntimeError("Expected all tensors to be on the same device, but got mat1 on cuda:0")
        return super().forward(x)

    def cuda(self, device=None):
        self.moved = True
        return self

    def cpu(self):
        self.moved = False
        return self


def test_a_model_goes_to_the_gpu_of_its_samples_and_comes_back(monkeypatch):
    """Where scripts for coremltools have their samples: it moves the model without being asked."""
    model, samples = Elsewhere(8, 8), [torch.rand(2, 8) for _ in range(3)]
    calls = []

    def loss(model, x):
        calls.append(x)
        return model(x).square().sum()

    with pytest.raises(RuntimeError, match="same device"):
        sensitivities(model, samples, loss)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    calls.clear()
    found = sensitivities(model, samples, loss)
    assert not model.moved and len(calls) == 4 and calls[0] is calls[1]
    plain = nn.Linear(8, 8)
    plain.load_state_dict(model.state_dict())
    for name, value in sensitivities(plain, samples, lambda model, x: model(x).square().sum()).items():
        assert torch.equal(found[name], value)


def test_other_errors_of_the_loss_come_through(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    model = nn.Linear(8, 8)
    model.bias.grad = kept = torch.ones(8)
    with pytest.raises(RuntimeError, match="cannot be multiplied"):
        sensitivities(model, [torch.rand(2, 7)], lambda model, x: model(x).sum())
    assert model.bias.grad is kept and not model.weight._post_accumulate_grad_hooks


def test_gradients_that_were_there_stay():
    model = nn.Linear(8, 8)
    model(torch.rand(2, 8)).sum().backward()
    before = {name: (p.grad, p.grad.clone()) for name, p in model.named_parameters()}
    sensitivities(model, [torch.rand(2, 8)], lambda model, x: model(x).square().sum())
    for name, parameter in model.named_parameters():
        kept, values = before[name]
        assert parameter.grad is kept and torch.equal(kept, values)
