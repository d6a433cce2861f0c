"""The forecast of a training step's memory: held against what processes take, and its parts by themselves."""

import copy
import json
import os
import re
import subprocess
import sys

import pytest
import torch
from torch import nn
from torch.nn import functional
from torch_support import dkm

import palettizer
import palettizer.torch.palettization as ours
from palettizer.torch.palettization._dkm.estimate import KEPT_BY_A_THREAD, LOADED


class Block(nn.Module):
    """A block of ResNet-18."""

    def __init__(self, channels, out, stride):
        super().__init__()
        self.first, self.second = (nn.Conv2d(c, out, 3, s, 1, bias=False) for c, s in ((channels, stride), (out, 1)))
        self.norm1, self.norm2 = nn.BatchNorm2d(out), nn.BatchNorm2d(out)
        same = stride == 1 and channels == out
        short = nn.Conv2d(channels, out, 1, stride, bias=False)
        self.short = nn.Identity() if same else nn.Sequential(short, nn.BatchNorm2d(out))

    def forward(self, x):
        y = self.norm2(self.second(functional.relu(self.norm1(self.first(x)), inplace=True)))
        return functional.relu(y + self.short(x), inplace=True)


def resnet():
    steps = zip((64, 64, 64, 128, 128, 256, 256, 512), (64, 64, 128, 128, 256, 256, 512, 512), (1, 1, 2, 1, 2, 1, 2, 1))
    stem = [nn.Conv2d(3, 64, 7, 2, 3, bias=False), nn.BatchNorm2d(64), nn.ReLU(inplace=True), nn.MaxPool2d(3, 2, 1)]
    tail = [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(512, 1000)]
    return nn.Sequential(*stem, *(Block(*step) for step in steps), *tail)


def transformer():
    layer = nn.TransformerEncoderLayer(512, 8, 2048, batch_first=True)
    encoder = nn.TransformerEncoder(layer, 4, enable_nested_tensor=False)
    return nn.Sequential(nn.Embedding(8000, 512), encoder, nn.Linear(512, 8000))


MODELS = {
    "linear": (lambda: nn.Sequential(nn.Linear(4096, 4096)), lambda: torch.randn(16, 4096)),
    "halves": (lambda: nn.Sequential(nn.Linear(4096, 4096)).bfloat16(), lambda: torch.randn(16, 4096).bfloat16()),
    "resnet": (resnet, lambda: torch.randn(8, 3, 64, 64)),
    "transformer": (transformer, lambda: torch.randint(0, 8000, (4, 64))),
}


def status(field):
    with open("/proc/self/status") as file:
        return int(re.search(rf"{field}:\s+(\d+)", file.read()).group(1)) * 1024


def peak(model, batch):
    """The resident bytes at the peak of a step whose like has been before."""
    for _ in range(2):
        with open("/proc/self/clear_refs", "w") as file:
            file.write("5")
        model(batch).square().mean().backward()
        found = status("VmHWM")
        model.zero_grad(set_to_none=True)
    return found


def measured(name, bits):
    """The forecast, by how much the peak of a step rises in this process, and what of that torch may hide."""
    torch.manual_seed(0)
    make, draw = MODELS[name]
    model, batch = make(), draw()
    # Few centroids and one step, for speed: of both only centroids are kept.
    config = dkm.config(ours, n_bits=bits, kmeans_max_iter=1, palett_tau=1e-4)
    forecast = palettizer.estimate_memory(model, config, batch)
    before = peak(model, batch)
    # Where a CPU has no instructions for halves, torch multiplies copies of its own, in float32: the peak of the model as it is
    # has them in it already, at a time when the palettized weights are not there.
    gradients = sum(parameter.nbytes for parameter in model.parameters())
    hidden = max(0, before - status("VmRSS") - gradients) if name == "halves" else 0
    return forecast, peak(ours.DKMPalettizer(model, config).prepare(inplace=True), batch) - before, hidden


@pytest.mark.parametrize("name, bits", [
    ("linear", 1), ("linear", 2), ("halves", 1), ("resnet", 1), ("resnet", 3), ("transformer", 1),
])
def test_the_forecast_is_what_a_process_takes(name, bits):
    # Freed memory goes back to the system, so that what is resident is what is used.
    threshold = str(1 << 16)
    env = {"MALLOC_MMAP_THRESHOLD_": threshold, "MALLOC_TRIM_THRESHOLD_": threshold, "MALLOC_TOP_PAD_": "0"}
    ran = subprocess.run([sys.executable, __file__, name, str(bits)], capture_output=True, text=True, timeout=300,
                         env={**os.environ, **env})
    assert ran.returncode == 0, ran.stderr[-4000:]
    forecast, taken, hidden = json.loads(ran.stdout.splitlines()[-1])
    assert 0.9 * taken <= forecast <= 1.1 * (taken + hidden)


def forecast(model, inputs=None, once=True, **options):
    found = palettizer.estimate_memory(model, dkm.config(ours, **options), inputs)
    return found - (0 if once else LOADED + torch.get_num_threads() * KEPT_BY_A_THREAD)


def state(model, **options):
    """The bytes of the buffers of the prepared model."""
    _, prepared = dkm.prepared(model, **options)
    buffers = {id(buffer): buffer for name, buffer in prepared.named_buffers() if name.split(".")[-1] in
               ("centroids", "start", "scale", "temperature")}
    return sum(buffer.nbytes for buffer in buffers.values())


def test_a_single_layer_takes_the_gradient_of_its_copy():
    """The copy itself is not saved, since the input needs no gradient; it goes before gradients come."""
    weight = 512 * 512 * 4
    model, inputs = nn.Sequential(nn.Linear(512, 512)), torch.randn(2, 512)
    found = forecast(model, inputs, once=False, n_bits=2)
    assert found == pytest.approx(weight + state(model, n_bits=2), abs=10000)
    assert forecast(model, inputs.requires_grad_(), once=False, n_bits=2) == pytest.approx(found, abs=10000)
    assert forecast(model, once=False, n_bits=2) == pytest.approx(found, abs=10000)


def test_copies_that_are_alive_together_add_up():
    """Where much is saved, the peak is at the end of the forward pass, and all copies are there."""
    model = nn.Sequential(*(nn.Linear(256, 256) for _ in range(5)))
    copies = 5 * 256 * 256 * 4
    assert forecast(model, torch.randn(20000, 256, requires_grad=True), once=False) == pytest.approx(copies, rel=0.3)
    assert forecast(model, torch.randn(1, 256), once=False) < copies / 2


def test_an_embedding_keeps_no_copy_and_a_frozen_weight_no_gradient():
    words, ids = nn.Sequential(nn.Embedding(1000, 64)), torch.tensor([3, 5])
    size = 1000 * 64 * 4
    assert forecast(words, ids, once=False, n_bits=2) == pytest.approx(size, rel=0.02)
    words.requires_grad_(False)
    assert forecast(words, ids, once=False, n_bits=2) == pytest.approx(size, rel=0.02)  # the copy, in the forward pass


def test_many_tables_count():
    model, inputs = nn.Sequential(nn.Linear(64, 512)), torch.randn(2, 64)
    options = {"n_bits": 4, "granularity": "per_grouped_channel", "group_size": 1}
    tables = state(model, **options)
    assert tables >= 2 * 512 * 16 * 4
    assert forecast(model, inputs, **options) - forecast(model, inputs, n_bits=4) >= tables


def test_what_is_not_palettized_takes_nothing():
    assert palettizer.estimate_memory(dkm.mlp(), ours.DKMPalettizerConfig()) == 0
    assert palettizer.estimate_memory(nn.Sequential(nn.ReLU())) == 0


def test_the_model_and_the_generator_stay_as_they_are():
    model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.Dropout(), nn.Flatten(), nn.Linear(32, 4)).eval()
    model[1].train()
    before, drawn = copy.deepcopy(model.state_dict()), torch.random.get_rng_state()
    assert forecast(model, torch.randn(2, 3, 4, 4)) > 0
    drawn_after = torch.random.get_rng_state()
    torch.random.set_rng_state(drawn)
    torch.randn(2, 3, 4, 4)
    assert torch.equal(torch.random.get_rng_state(), drawn_after)
    assert [module.training for module in model] == [False, True, False, False, False]
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())
    assert all(parameter.grad is None for parameter in model.parameters())


def test_several_inputs_and_tied_weights():
    attend = nn.MultiheadAttention(64, 4)
    parts = tuple(torch.randn(3, 2, 64) for _ in range(3))
    assert forecast(attend, parts, once=False, n_bits=2) >= 64 * 64 * 4
    tied = nn.Sequential(nn.Linear(64, 64), nn.Linear(64, 64))
    tied[1].weight = tied[0].weight
    assert forecast(tied, torch.randn(1, 64), once=False) > 0


def test_inputs_of_another_form_are_refused():
    with pytest.raises(TypeError, match="a tensor or a tuple, found list"):
        forecast(dkm.mlp(), [torch.randn(1, 16)])


def test_the_name_is_there_without_torch():
    code = "import palettizer, sys; assert 'estimate_memory' in dir(palettizer); assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


if __name__ == "__main__":
    print(json.dumps(measured(sys.argv[1], int(sys.argv[2]))))
