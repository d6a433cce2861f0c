"""What goes wrong goes wrong with words, before anything is changed: the model's bytes are compared each time."""

import copy
import logging

import pytest
import torch
from torch import nn
from torch_support import layers, palettes, sides, told, trained

from safetensors.torch import save_file


def net():
    torch.manual_seed(1)
    return nn.Sequential(nn.Conv2d(1, 8, 3), nn.ReLU(), nn.Flatten(), nn.Linear(288, 32), nn.ReLU(), nn.Linear(32, 10))


@pytest.fixture(scope="session")
def batches():
    return trained.batches(trained.digits(), 3)


class Untouched:
    """`with Untouched(model):` the state, the mode, flags and hooks of the model are the same afterwards."""

    def __init__(self, model):
        self.model = model

    def seen(self):
        tensors = {name: tensor.detach().reshape(-1).view(torch.uint8).numpy().tobytes()
                   for name, tensor in self.model.state_dict().items()}
        return (tensors, [m.training for m in self.model.modules()],
                [(p.requires_grad, p.grad is None) for p in self.model.parameters()],
                [len(m._forward_hooks) for m in self.model.modules()])

    def __enter__(self):
        self.before = self.seen()

    def __exit__(self, *failure):
        assert self.seen() == self.before


def refused(model, call, *words, kind=Exception):
    """The call fails, says the words, and leaves the model alone."""
    with Untouched(model), pytest.raises(kind) as failure:
        call()
    said = str(failure.value)
    for word in words:
        assert word.lower() in said.lower(), f"{word!r} is not in: {said}"


def skm(model, **options):
    config = sides.ours.SKMPalettizerConfig(
        global_config=sides.ours.ModuleSKMPalettizerConfig(**{"n_bits": 2, **options}), calibration_nsamples=2)
    return sides.ours.SKMPalettizer(model, config)


@pytest.mark.parametrize("inplace", [False, True])
@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")], ids=str)
@pytest.mark.parametrize("dtype", layers.DTYPES)
def test_weights_that_are_no_numbers(value, dtype, inplace):
    """In the last layer: the ones before it must not be changed either."""
    model = net().to(layers.DTYPES[dtype])
    with torch.no_grad():
        model[5].weight[3, 7] = value
    config = sides.ours.PostTrainingPalettizerConfig()
    refused(model, lambda: sides.ours.PostTrainingPalettizer(model, config).compress(inplace=inplace), "5.weight",
            "nan" if value != value else "inf", kind=ValueError)


def test_no_numbers_where_nothing_is_palettized(batches):
    """A NaN in a bias or in a layer that is left out harms nobody."""
    model = net()
    with torch.no_grad():
        model[3].bias[0] = float("nan")
        model[5].weight[0, 0] = float("nan")
    config = sides.ours.PostTrainingPalettizerConfig(
        global_config=sides.ours.ModulePostTrainingPalettizerConfig(n_bits=2), module_name_configs={"5": None})
    done = sides.ours.PostTrainingPalettizer(model, config).compress()
    assert palettes.palettized(done) == {"0.weight", "3.weight"}


LOSSES = {
    "a vector": (lambda model, batch: nn.functional.cross_entropy(model(batch[0]), batch[1], reduction="none"),
                 ["loss_fn", "scalar", "16"]),
    "nothing": (lambda model, batch: None, ["loss_fn", "None"]),
    "a number": (lambda model, batch: float(trained.loss(model, batch)), ["loss_fn", "float"]),
    "no gradient": (lambda model, batch: trained.loss(model, batch).detach(), ["loss_fn", "grad"]),
    "not a number": (lambda model, batch: trained.loss(model, batch) * float("nan"), ["nan"]),
    "its own error": (lambda model, batch: model(batch[1]), []),
}


@pytest.mark.parametrize("inplace", [False, True])
@pytest.mark.parametrize("name", LOSSES)
def test_losses(name, inplace, batches):
    loss, words = LOSSES[name]
    model = net()
    refused(model, lambda: skm(model).compress(batches, loss, inplace=inplace), *words)
    refused(model, lambda: skm(model).compute_sensitivity(batches, loss), *words)


@pytest.mark.parametrize("nothing", [[], iter([])], ids=["list", "iterator"])
def test_an_empty_dataloader(nothing):
    model = net()
    refused(model, lambda: skm(model).compress(nothing, trained.loss), "dataloader", kind=ValueError)
    refused(model, lambda: skm(model).compute_sensitivity(nothing, trained.loss), "dataloader", kind=ValueError)


@pytest.mark.parametrize("dataloader, loss", [(None, None), (None, trained.loss), ([1], None)], ids=str)
def test_neither_data_nor_a_file(dataloader, loss):
    model = net()
    refused(model, lambda: skm(model).compress(dataloader, loss), "sensitivity_path", kind=(TypeError, ValueError))


def of_net(model, change=None):
    found = {name: torch.rand_like(p) + 0.1 for name, p in model.named_parameters()}
    if change:
        change(found)
    return found


def _nan(found):
    found["3.weight"][2, 5] = float("nan")


def _negative(found):
    found["3.weight"][0, 0] = -1


def _transposed(found):
    found["3.weight"] = found["3.weight"].T.contiguous()


FILES = {  # what is wrong with it -> (the change, words of the error)
    "another model's": (lambda found: [found.pop(name) for name in list(found)] and found.update(
        {"encoder.weight": torch.ones(3, 3)}), ["0.weight", "3.weight", "5.weight"]),
    "one is missing": (lambda found: found.pop("3.weight"), ["3.weight"]),
    "a wrong shape": (_transposed, ["3.weight", "288", "32"]),
    "NaN": (_nan, ["3.weight", "nan"]),
    "negative": (_negative, ["3.weight", "negative"]),
}


@pytest.mark.parametrize("inplace", [False, True])
@pytest.mark.parametrize("form", ["s.pt", "s.safetensors"])
@pytest.mark.parametrize("name", FILES)
def test_sensitivity_files(name, form, inplace, tmp_path):
    change, words = FILES[name]
    model = net()
    (torch.save if form.endswith("pt") else save_file)(of_net(model, change), tmp_path / form)
    refused(model, lambda: skm(model).compress(sensitivity_path=str(tmp_path / form), inplace=inplace), *words,
            kind=(ValueError, KeyError))


@pytest.mark.parametrize("content", [b"", b"hello", bytes(range(256)) * 40, (1 << 62).to_bytes(8, "little") + b"{}"],
                         ids=["empty", "text", "noise", "a header that is too long"])
def test_files_that_are_none(content, tmp_path):
    path, model = tmp_path / "odd.safetensors", net()
    path.write_bytes(content)
    refused(model, lambda: skm(model).compress(sensitivity_path=str(path)), "odd.safetensors")


def test_a_file_that_is_not_there(tmp_path):
    model = net()
    refused(model, lambda: skm(model).compress(sensitivity_path=str(tmp_path / "nowhere.pt")), "nowhere.pt",
            kind=OSError)


def test_a_place_that_cannot_be_written(batches, tmp_path):
    """Said before the gradients are computed, not after an hour of them."""
    model, calls = net(), []

    def loss(model, batch):
        calls.append(batch)
        return trained.loss(model, batch)

    refused(model, lambda: skm(model).compute_sensitivity(batches, loss, str(tmp_path / "no/such/folder/s.st")),
            "no/such/folder", kind=OSError)
    assert not calls


INDIVISIBLE = {
    "group_size": ({"granularity": "per_grouped_channel", "group_size": 7}, ["7"]),
    "group_size on axis 1": ({"granularity": "per_grouped_channel", "group_size": 5, "channel_axis": 1}, ["5"]),
    "cluster_dim": ({"cluster_dim": 3}, ["3"]),
}


@pytest.mark.parametrize("name", INDIVISIBLE)
def test_what_does_not_divide_is_left_alone_with_a_warning(name):
    options, words = INDIVISIBLE[name]
    model = net()
    config = sides.ours.PostTrainingPalettizerConfig(
        global_config=sides.ours.ModulePostTrainingPalettizerConfig(n_bits=2, **options))
    palettizer = sides.ours.PostTrainingPalettizer(model, config)
    with told.listening() as said:
        done = palettizer.compress()
    for parameter in ("0.weight", "3.weight", "5.weight"):
        shape = model.get_parameter(parameter).shape
        divisor = options.get("group_size") or options["cluster_dim"]
        divides = shape[options.get("channel_axis", 0)] % divisor == 0
        assert (parameter in palettes.palettized(done)) == divides
        if divides:
            continue
        assert told.about(said, parameter, *words), (parameter, said)
        assert torch.equal(done.get_parameter(parameter), model.get_parameter(parameter))
        assert parameter in palettizer.report(), "the report has a row with the reason"


@pytest.mark.parametrize("by", ["module_name_configs", "module_type_configs"])
def test_configs_for_what_is_not_there_are_reported(by):
    model = net()
    key = "decoder.*" if by == "module_name_configs" else nn.Conv3d
    module = sides.ours.ModulePostTrainingPalettizerConfig
    config = sides.ours.PostTrainingPalettizerConfig(global_config=module(n_bits=2), **{by: {key: module(n_bits=4)}})
    with Untouched(model), told.listening() as said:
        done = sides.ours.PostTrainingPalettizer(model, config).compress()
    assert told.about(said, "decoder" if by == "module_name_configs" else "Conv3d"), said
    assert palettes.palettized(done) == {"0.weight", "3.weight", "5.weight"}


def test_a_config_that_matches_says_nothing():
    module = sides.ours.ModulePostTrainingPalettizerConfig
    config = sides.ours.PostTrainingPalettizerConfig(
        module_name_configs={"3": module(n_bits=4), "[05]": None}, module_type_configs={nn.Linear: module()})
    with told.listening() as said:
        sides.ours.PostTrainingPalettizer(net(), config).compress()
    assert said == []


def test_a_model_with_nothing_to_palettize():
    model = nn.Sequential(nn.ReLU(), nn.BatchNorm2d(4))
    done = sides.ours.PostTrainingPalettizer(model, sides.ours.PostTrainingPalettizerConfig()).compress()
    assert palettes.palettized(done) == set()


@pytest.mark.parametrize("shape", [(0, 8), (8, 0), (1, 1)], ids=str)
def test_tiny_and_empty_weights(shape):
    """A weight without elements is left alone, one of one element is kept."""
    model = nn.Sequential(nn.Linear(1, 1, bias=False))
    model[0].weight = nn.Parameter(torch.ones(shape))
    done = sides.post_training(sides.ours, model, n_bits=2)
    assert torch.equal(done[0].weight, model[0].weight)


@pytest.mark.parametrize("model", [None, "a model", {"weight": torch.ones(3)}, torch.ones(3)], ids=lambda m: type(m).__name__)
def test_models_that_are_none(model):
    with pytest.raises((TypeError, AttributeError, ValueError)) as failure:
        sides.ours.PostTrainingPalettizer(model, sides.ours.PostTrainingPalettizerConfig()).compress()
    assert type(model).__name__ in str(failure.value)


def test_element_types_that_core_ml_does_not_have():
    """Complex weights are left alone, with a reason; double ones keep their type, and have entries that fp32 has."""
    model = nn.Sequential(nn.Linear(16, 16), nn.Linear(16, 16).to(torch.complex64), nn.Linear(16, 16).double())
    palettizer = sides.ours.PostTrainingPalettizer(model, sides.ours.PostTrainingPalettizerConfig())
    with told.listening() as said:
        done = palettizer.compress()
    assert palettes.palettized(done) == {"0.weight", "2.weight"}
    assert torch.equal(done[1].weight, model[1].weight)
    assert told.about(said, "1.weight") or "1.weight" in palettizer.report()
    assert done[2].weight.dtype == palettes.buffers(done[2], "weight")["lut"].dtype == torch.float64
    assert len(torch.unique(done[2].weight)) <= 16
    assert torch.equal(done[2].weight.float().double(), done[2].weight)


def test_a_wrong_config_class():
    model = net()
    refused(model, lambda: sides.ours.PostTrainingPalettizer(model, sides.ours.SKMPalettizerConfig()).compress(),
            "PostTrainingPalettizerConfig", kind=(TypeError, ValueError))


def test_nothing_is_logged_above_info_when_all_is_well(caplog):
    with caplog.at_level(logging.WARNING), told.listening() as said:
        sides.post_training(sides.ours, copy.deepcopy(net()), n_bits=2)
    assert said == [] and not caplog.records
