"""What ends the work early leaves a model whole or untouched."""

import copy
import signal

import pytest
import torch
from torch import nn

from palettizer import _native
from palettizer.torch.palettization import (
    DKMPalettizer,
    DKMPalettizerConfig,
    PostTrainingPalettizer,
    PostTrainingPalettizerConfig,
    load_safetensors,
    save_safetensors,
)
from palettizer.torch.palettization._dkm import finalize
from palettizer.torch.palettization._plan import compressor, metadata, palettize

CONFIG = PostTrainingPalettizerConfig.from_dict({"global_config": {"n_bits": 2}})


def net():
    torch.manual_seed(5)
    return nn.Sequential(nn.Linear(16, 32), nn.ReLU(), nn.Linear(32, 16), nn.Linear(16, 8, dtype=torch.float64))


def same(one, other):
    a, b = one.state_dict(), other.state_dict()
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


@pytest.fixture
def interrupted(monkeypatch):
    """`interrupted(times)`: Ctrl-C comes so many times, each while a weight is being recorded."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)

    def interrupting(times):
        left, register = [times], metadata.register

        def disturbed(*arguments):
            if left[0] > 0:
                left[0] -= 1
                signal.raise_signal(signal.SIGINT)
            register(*arguments)

        monkeypatch.setattr(metadata, "register", disturbed)

    yield interrupting
    signal.signal(signal.SIGINT, before)


@pytest.mark.parametrize("error", [MemoryError, KeyboardInterrupt, RuntimeError])
@pytest.mark.parametrize("at", [0, 1, 2])
def test_before_all_palettes_are_made_nothing_changes(monkeypatch, error, at):
    made, make_palette = [], compressor.make_palette

    def failing(*arguments):
        made.append(len(made))
        if len(made) > at:
            raise error("told to")
        return make_palette(*arguments)

    monkeypatch.setattr(compressor, "make_palette", failing)
    model = net()
    with pytest.raises(error):
        PostTrainingPalettizer(model, CONFIG).compress(inplace=True, progress=False)
    assert same(model, net()) and len(made) == at + 1


class Tied(nn.Module):
    """Weights in every place that they may lie in: one in two modules, one that is transposed, one of another float."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(6)
        self.table, self.head = nn.Embedding(96, 48), nn.Linear(48, 96, bias=False)
        self.head.weight = self.table.weight
        self.turned, self.halved, self.doubled = nn.Linear(64, 48), nn.Linear(48, 64).half(), nn.Linear(48, 64).double()
        self.turned.weight = nn.Parameter(torch.randn(64, 48).t())


@pytest.mark.parametrize("inplace", [False, True])
@pytest.mark.parametrize("settings", [
    {"n_bits": 4}, {"n_bits": 8, "lut_dtype": torch.int8}, {"n_bits": 3, "granularity": "per_grouped_channel", "group_size": 4},
    {"n_bits": 4, "granularity": "per_grouped_channel", "group_size": 4, "channel_axis": 1}, {"n_bits": 4, "cluster_dim": 2},
    {"n_bits": 4, "enable_per_channel_scale": True},
], ids=str)
def test_what_is_found_later_is_the_same(monkeypatch, settings, inplace):
    """Indices of weights that are read where they lie are found when they are written; elsewhere, and in other forms, at once."""
    config = PostTrainingPalettizerConfig.from_dict({"global_config": settings})
    held, put = [], compressor.put

    def looked_at(made, *owners):
        held.append(isinstance(made[0], _native.DeferredPalette))
        return put(made, *owners)

    def compressed():
        held.clear()
        palettizer = PostTrainingPalettizer(Tied(), config)
        model = palettizer.compress(inplace=inplace, progress=False)
        return model, {name: row["error"] for name, row in palettizer.report().items()}, sum(held)

    monkeypatch.setattr(compressor, "put", looked_at)
    model, errors, later = compressed()
    monkeypatch.setattr(palettize, "_read_in_place", lambda *_: False)
    wanted, its_errors, none = compressed()
    assert (later, none, len(held)) == (0 if "cluster_dim" in settings or "enable_per_channel_scale" in settings else 2, 0, 4)
    assert same(model, wanted) and errors == its_errors and min(errors.values()) == 0 < max(errors.values())


@pytest.mark.parametrize("times", [1, 3])
def test_ctrl_c_waits_until_all_weights_are_written(interrupted, times):
    wanted = PostTrainingPalettizer(net(), CONFIG).compress(progress=False)
    model = net()
    interrupted(times)
    with pytest.raises(KeyboardInterrupt):
        PostTrainingPalettizer(model, CONFIG).compress(inplace=True, progress=False)
    assert same(model, wanted)
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_ctrl_c_waits_until_a_trained_model_is_finalized(interrupted):
    settings = {"global_config": {"n_bits": 2, "weight_threshold": 0, "granularity": "per_tensor"}}
    palettizer = DKMPalettizer(net(), DKMPalettizerConfig.from_dict(settings))
    model = palettizer.prepare()
    palettizer.enable_fake_palett(True)
    trained = copy.deepcopy(model)
    wanted = palettizer.finalize(copy.deepcopy(model))
    interrupted(1)
    with pytest.raises(KeyboardInterrupt):
        finalize.finalize_weights(trained)
    assert same(trained, wanted)


def test_ctrl_c_waits_until_a_model_is_loaded(interrupted, tmp_path):
    wanted = PostTrainingPalettizer(net(), CONFIG).compress(progress=False)
    save_safetensors(wanted, tmp_path / "a.safetensors")
    model = net()
    interrupted(1)
    with pytest.raises(KeyboardInterrupt):
        load_safetensors(model, tmp_path / "a.safetensors")
    assert same(model, wanted)
