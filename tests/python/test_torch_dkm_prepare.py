"""Which layers `DKMPalettizer.prepare` palettizes and how, when they begin, and why the others are left alone."""

import copy
import logging
import pickle
import subprocess
import sys

import pytest
import torch
from torch import nn
from torch_support import dkm
from torch_support.dkm import fakes
from torch_support.sides import ours, peer
from torch_support.told import about, listening

from palettizer.torch.palettization._dkm.layers import DKMLayer


class Own(nn.Linear):
    """A class of its own, with a forward of its own."""

    def forward(self, x):
        return nn.functional.linear(x, self.weight.to(x.dtype), self.bias)


class Zoo(nn.Module):
    """All kinds of layers that the peer knows, of several sizes."""

    def __init__(self):
        super().__init__()
        self.small, self.medium, self.large = nn.Linear(8, 8), nn.Linear(32, 40), nn.Linear(64, 64)
        self.conv1, self.conv2, self.conv3 = nn.Conv1d(16, 64, 3), nn.Conv2d(16, 32, 5), nn.Conv3d(8, 32, 3)
        self.words, self.norm, self.plain = nn.Embedding(100, 32), nn.LayerNorm(4096), nn.LayerNorm(4096, bias=False)
        self.attend, self.apart = nn.MultiheadAttention(64, 4), nn.MultiheadAttention(64, 4, kdim=48, vdim=16)
        self.fixed = nn.LayerNorm(4096, elementwise_affine=False)
        self.own, self.bilinear = Own(64, 64), nn.Bilinear(16, 16, 16)
        self.block = nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Sequential(nn.Conv2d(32, 32, 3), nn.Linear(48, 48)))


class PeerZoo(Zoo):
    """Without what the peer cannot prepare: it takes the weight of a fixed norm for granted."""

    def __init__(self):
        super().__init__()
        del self.fixed, self.own, self.bilinear


CONFIGS = {
    "defaults": lambda side: side.DKMPalettizerConfig(),
    "global": lambda side: side.DKMPalettizerConfig.from_dict({"global_config": {"n_bits": 3}}),
    "threshold": lambda side: side.DKMPalettizerConfig.from_dict({"global_config": {"weight_threshold": 4096}}),
    "types": lambda side: side.DKMPalettizerConfig.from_dict({
        "module_type_configs": {"Linear": {"n_bits": 1}, "Conv2d": None, nn.LayerNorm: {"n_bits": 6}}}),
    "names": lambda side: side.DKMPalettizerConfig.from_dict({
        "global_config": {"n_bits": 8},
        "module_type_configs": {"Linear": {"n_bits": 1}, "MultiheadAttention": {"n_bits": 4}},
        "module_name_configs": {"block\\..*": {"n_bits": 2}, "block.0": {"n_bits": 3}, "large": None, "apart": None}}),
    "lists": lambda side: side.DKMPalettizerConfig.from_dict({
        "module_type_configs": {"Linear": [
            {"n_bits": 4, "weight_threshold": 2000}, {"n_bits": 2, "weight_threshold": 1000},
            {"n_bits": 1, "weight_threshold": 10}]},
        "module_name_configs": {"conv\\d": [{"n_bits": 1, "weight_threshold": 5000}, {"n_bits": 2}]}}),
    "groups that do not divide": lambda side: side.DKMPalettizerConfig.from_dict({
        "global_config": {"n_bits": 2, "granularity": "per_grouped_channel", "group_size": 24, "weight_threshold": 0}}),
    "vectors that do not divide": lambda side: side.DKMPalettizerConfig.from_dict({
        "global_config": {"n_bits": 2, "cluster_dim": 5, "weight_threshold": 0}}),
    "a list of which some do not divide": lambda side: side.DKMPalettizerConfig.from_dict({
        "global_config": [
            {"n_bits": 1, "weight_threshold": 9}, {"n_bits": 2, "cluster_dim": 3, "weight_threshold": 1500}]}),
}


def summary(model):
    """Name of each palettized weight -> bits and length of its centroids."""
    found = {}
    for name, fake in fakes(model).items():
        clusters = fake.n_clusters if hasattr(fake, "n_clusters") else 2**fake.settings.nbits
        found[name] = clusters, getattr(fake, "cluster_dim", None) or fake.settings.cluster_dim
    return found


@pytest.mark.parametrize("name", CONFIGS)
def test_the_same_weights_in_the_same_bits_as_the_peer(name):
    prepared = [side.DKMPalettizer(PeerZoo(), CONFIGS[name](side)).prepare(inplace=True) for side in (ours, peer)]
    mine, theirs = map(summary, prepared)
    assert mine == theirs and mine


def test_layers_that_only_we_know():
    model = nn.Sequential(nn.ConvTranspose1d(16, 64, 3), nn.ConvTranspose2d(16, 32, 5), nn.ConvTranspose3d(8, 32, 3))
    palettizer = ours.DKMPalettizer(model)
    assert {clusters for clusters, _ in summary(palettizer.prepare()).values()} == {4}
    assert len(summary(palettizer._model)) == 3


def test_groups_and_vectors_of_transposed_convolutions_lie_on_their_output_channels():
    _, model = dkm.prepared(nn.Sequential(nn.ConvTranspose2d(6, 8, 3)), n_bits=1, cluster_dim=2,
                            granularity="per_grouped_channel", group_size=4)
    model(torch.randn(1, 6, 4, 4))
    fake = model[0].weight_fake_quant
    assert fake.centroids.shape == (2, 2, 2)
    weight = model.eval()[0].weight_fake_quant(model[0].weight)
    for group, block in zip(fake.centroids, weight.split(4, dim=1)):
        pairs = block.movedim(1, -1).reshape(-1, 2)
        assert {tuple(pair) for pair in pairs.tolist()} <= {tuple(row) for row in group.tolist()}


MILESTONES = [0, 1, 3]


@pytest.mark.parametrize("milestone", MILESTONES)
def test_a_milestone_comes_with_the_step_after_it(milestone):
    palettizer, model = dkm.prepared(dkm.mlp(), n_bits=1, milestone=milestone)
    enabled = []
    for _ in range(6):
        enabled.append(bool(model[0].weight_fake_quant.fake_palett_enabled[0]))
        soft = model[0].weight_fake_quant(model[0].weight)
        assert torch.equal(soft, model[0].weight) != enabled[-1]
        palettizer.step()
    assert enabled == ([True] * 6 if milestone == 0 else [False] * (milestone + 1) + [True] * (5 - milestone))


def test_modules_have_milestones_of_their_own_as_with_the_peer():
    seen = []
    for side in (ours, peer):
        by = side.ModuleDKMPalettizerConfig
        config = side.DKMPalettizerConfig(module_name_configs={
            "0": by(milestone=1, weight_threshold=0), "2": by(weight_threshold=0),
            "4": by(milestone=2, weight_threshold=0)})
        palettizer = side.DKMPalettizer(dkm.mlp(), config)
        model = palettizer.prepare()
        seen.append([])
        for _ in range(5):
            seen[-1].append([int(fake.fake_palett_enabled[0]) for fake in fakes(model).values()])
            palettizer.step()
    assert seen[0] == seen[1] and seen[0][0] == [0, 1, 0] and seen[0][-1] == [1, 1, 1]


def test_palettizing_can_be_turned_on_and_off_by_hand():
    palettizer, model = dkm.prepared(dkm.mlp(), n_bits=1)
    values = torch.randn(2, 16)
    palettized = model.eval()(values)
    palettizer.enable_fake_palett(False)
    assert torch.equal(model(values), dkm.mlp()(values))
    palettizer.enable_fake_palett(True)
    assert torch.equal(model(values), palettized)
    model[0].weight_fake_quant.disable_fake_palett()
    assert not model[0].weight_fake_quant.enabled and model[2].weight_fake_quant.enabled


def test_preparing_a_copy_leaves_the_model_alone():
    model = dkm.mlp().eval()
    before = copy.deepcopy(model.state_dict())
    prepared = ours.DKMPalettizer(model, dkm.config(ours, n_bits=1)).prepare()
    assert prepared is not model and prepared.training and not model.training
    assert not any(isinstance(module, DKMLayer) for module in model.modules())
    assert model.state_dict().keys() == before.keys()


class Tied(nn.Module):
    """An embedding whose weight is that of the last layer, too."""

    def __init__(self):
        super().__init__()
        self.words, self.inner, self.head = nn.Embedding(64, 16), nn.Linear(16, 16), nn.Linear(16, 64)
        self.head.weight = self.words.weight

    def forward(self, words):
        return self.head(torch.tanh(self.inner(self.words(words))))


@pytest.mark.parametrize("names", [{}, {"words": None}, {"head": None}], ids=str)
def test_tied_weights_are_one_weight(names):
    config = ours.DKMPalettizerConfig.from_dict({
        "global_config": {"weight_threshold": 0}, "module_name_configs": names})
    palettizer = ours.DKMPalettizer(Tied(), config)
    model = palettizer.prepare()
    assert model.head.weight is model.words.weight
    assert model.head.weight_fake_quant is model.words.weight_fake_quant
    assert model.words.weight_fake_quant.settings.nbits == (4 if "words" in names else 2)  # the first that asks
    report = palettizer.report()
    assert report["head"]["reason"] == "is words.weight" and report["words"]["reason"] == ""
    for _ in range(4):
        palettizer.step()
    assert int(model.words.weight_fake_quant.step_count) == 4


def test_a_tensor_that_a_strange_module_holds_too_is_told():
    model = Tied()
    model.strange = nn.ParameterList([model.words.weight])
    with listening() as said:
        palettizer = ours.DKMPalettizer(model, dkm.config(ours))
        palettizer.prepare()
    assert about(said, "strange.0", "shares its values with words.weight")
    assert "shares its values" in palettizer.report()["strange.0"]["reason"]


def test_the_report_has_every_parameter():
    palettizer = ours.DKMPalettizer(Zoo(), ours.DKMPalettizerConfig.from_dict({
        "global_config": {"n_bits": 2}, "module_name_configs": {"medium": {"milestone": 1, "weight_threshold": 9}}}))
    assert palettizer.report() == {}
    model = palettizer.prepare()
    report = palettizer.report()
    palettized = {name.removesuffix("_fake_quant").removesuffix(".weight") for name in fakes(model)}
    reasons = {
        "small.weight": "has 64 elements, not more than weight_threshold 2048",
        "small.bias": "of a Linear, only the weight is palettized",
        "attend.out_proj.bias": "of a NonDynamicallyQuantizableLinear, only the weight is palettized",
        "medium": "is palettized from milestone 1 on",
    }
    for name, reason in reasons.items():
        assert report[name]["reason"] == reason
    assert "attend.in_proj_weight" in palettized and "attend.out_proj" in palettized
    assert {key for key in report if report[key]["device"] != -1} == palettized
    assert len(report) == len(list(model.named_parameters()))
    row = report["large"]
    assert row["device"] == torch.device("cpu") and row["#params"] == 4096 and 0 < row["error"] < 1
    assert row["#dtype"] == ":num_clusters: 4 <('f32', None)> dim=1"
    columns = ["device", "error", "#params", "#dtype", "reason", "conversion"]
    assert all(list(row) == columns for row in report.values())
    assert "does not know such a layer" in report["bilinear"]["conversion"] and row["conversion"] == -1
    assert "large |    cpu |" in repr(report)


def test_the_report_agrees_with_the_peer():
    model = dkm.mlp()
    rows = []
    for side in (ours, peer):
        palettizer, prepared = dkm.prepared(model, side, **{**dkm.THE_PEERS_NUMBERS, "n_bits": 2, "palett_tau": 1e-5})
        prepared(torch.randn(2, 16))
        rows.append(palettizer.report())
    mine, theirs = rows
    assert mine.keys() >= theirs.keys() == {"0", "2", "4"}
    for name, row in theirs.items():
        assert {key: mine[name][key] for key in row if key != "error"} == {k: v for k, v in row.items() if k != "error"}
        assert mine[name]["error"] <= row["error"] * 1.01


def test_asking_for_a_report_changes_nothing():
    palettizer, model = dkm.prepared(dkm.mlp(), n_bits=2)
    before = copy.deepcopy(model.state_dict())
    palettizer.report()
    assert model.training
    for name, value in model.state_dict().items():
        torch.testing.assert_close(value, before[name], rtol=0, atol=0, equal_nan=True)


REFUSED = {  # what is told, of which layer with which settings
    "group_size 3 does not divide the 32 channels": {"granularity": "per_grouped_channel", "group_size": 3},
    "cluster_dim 3 does not divide 32 channels": {"cluster_dim": 3},
    "cluster_dim 3 does not divide a group of 4 channels": {
        "cluster_dim": 3, "granularity": "per_grouped_channel", "group_size": 4},
    "has 512 elements in a group, fewer than the 1024 of 2^n_bits centroids": {"n_bits": 8, "cluster_dim": 4},
    "cluster_permute (2, 0, 1) is not of the 2 axes of the weight": {"cluster_permute": (2, 0, 1)},
}


@pytest.mark.parametrize("reason", REFUSED)
def test_settings_that_do_not_fit_are_told_and_reported(reason):
    with listening() as said:
        palettizer = ours.DKMPalettizer(nn.Sequential(nn.Linear(16, 32)), dkm.config(ours, **REFUSED[reason]))
        model = palettizer.prepare()
    assert about(said, "0.weight", reason)
    assert palettizer.report()["0.weight"]["reason"] == reason
    assert fakes(model) == {} and type(model[0]) is nn.Linear


def test_weights_that_are_computed_are_told(caplog):
    old = nn.utils.weight_norm(nn.Linear(16, 16))
    model = nn.Sequential(old, nn.utils.parametrizations.weight_norm(nn.Linear(16, 16)))
    palettizer = ours.DKMPalettizer(model, dkm.config(ours))
    with caplog.at_level(logging.WARNING):
        prepared = palettizer.prepare(inplace=True)
    assert "weight_norm or pruning" in palettizer.report()["0.weight"]["reason"]
    assert "remove_parametrizations" in palettizer.report()["1.weight"]["reason"]
    assert caplog.text.count("it is left as it is") + caplog.text.count("the layer is left as it is") == 2
    assert fakes(prepared) == {}
    prepared(torch.randn(2, 16))


def test_names_and_types_that_match_nothing_are_told():
    config = ours.DKMPalettizerConfig.from_dict({
        "global_config": {}, "module_type_configs": {"Conv1d": {"n_bits": 1}}, "module_name_configs": {"nowhere": {}}})
    with listening() as said:
        ours.DKMPalettizer(nn.Sequential(nn.LayerNorm(4096)), config).prepare()
    assert about(said, "nowhere") and about(said, "Conv1d") and len(said) == 2
    with listening() as said:
        ours.DKMPalettizer(nn.Sequential(nn.LayerNorm(4096))).prepare()
    assert said == []


def broken(kind):
    model = dkm.mlp()
    with torch.no_grad():
        model[2].weight[3, 5] = {"NaN": torch.nan, "infinite": torch.inf}[kind]
    return model


@pytest.mark.parametrize("kind", ["NaN", "infinite"])
def test_weights_that_have_no_mean_are_refused_before_anything_changes(kind):
    model = broken(kind)
    palettizer = ours.DKMPalettizer(model, dkm.config(ours))
    with pytest.raises(ValueError, match="NaN or infinite values in 2.weight"):
        palettizer.prepare(inplace=True)
    assert [type(layer) for layer in model] == [type(layer) for layer in dkm.mlp()]
    model[2].weight.data.zero_()
    palettizer.prepare(inplace=True)  # as if nothing had been


@pytest.mark.parametrize("bits", [0, 5, 9])
def test_bits_that_core_ml_has_not_are_refused(bits):
    with pytest.raises(ValueError, match=f"n_bits {bits}"):
        ours.DKMPalettizer(dkm.mlp(), dkm.config(ours, n_bits=bits)).prepare()


def test_the_order_of_calls_is_checked():
    palettizer = ours.DKMPalettizer(dkm.mlp(), dkm.config(ours))
    for call in (palettizer.step, palettizer.finalize):
        with pytest.raises(RuntimeError, match="comes after prepare"):
            call()
    model = palettizer.prepare()
    with pytest.raises(RuntimeError, match="prepared already"):
        palettizer.prepare()
    with pytest.raises(RuntimeError, match="prepared already"):
        ours.DKMPalettizer(model, dkm.config(ours)).prepare()
    palettizer.finalize(inplace=True)
    with pytest.raises(RuntimeError, match="no prepared layers"):
        palettizer.finalize()


def test_what_is_no_model_or_no_config_is_refused():
    with pytest.raises(TypeError, match="torch.nn.Module"):
        ours.DKMPalettizer("model")
    with pytest.raises(TypeError, match="DKMPalettizerConfig"):
        ours.DKMPalettizer(dkm.mlp(), ours.PostTrainingPalettizerConfig())
    assert ours.DKMPalettizer(dkm.mlp()).supported_modules[0] is nn.Linear


def test_a_torch_that_is_too_old_is_told_and_the_rest_works():
    code = """if True:
        import torch
        del torch.library.register_autograd
        import palettizer.torch.palettization as ours
        net = torch.nn.Sequential(torch.nn.Linear(64, 64))
        ours.PostTrainingPalettizer(net).compress(progress=False)
        try:
            ours.DKMPalettizer(net).prepare(inplace=True)
        except ImportError as error:
            assert "needs torch 2.4 or newer, found" in str(error) and type(net[0]) is torch.nn.Linear
        else:
            raise AssertionError("nothing was said")
    """
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


def test_a_model_without_anything_to_palettize_is_trained_and_finalized():
    palettizer = ours.DKMPalettizer(nn.Identity(), ours.DKMPalettizerConfig())
    palettizer.prepare(inplace=True)
    palettizer.step()
    assert isinstance(palettizer.finalize(), nn.Identity)


@pytest.mark.parametrize("name", ["inner", "own", "few"])
def test_what_is_told_of_each_layer(name):
    """A `qconfig` beside each layer, as torch.ao.quantization and the peer have it, until the model is finalized."""
    model = nn.ModuleDict({"inner": nn.Linear(64, 64), "own": Own(64, 64), "few": nn.Linear(2, 4)})
    palettizer = ours.DKMPalettizer(model, dkm.config(ours, n_bits=4))
    layer = palettizer.prepare(inplace=True)[name]
    if name == "few":
        assert layer.qconfig is None
    else:
        keywords = layer.qconfig.weight.p.keywords
        assert (keywords["n_bits"], keywords["palett_tau"]) == (4, "auto")
        assert pickle.loads(pickle.dumps(layer)).qconfig.weight.p.keywords["n_bits"] == 4
    palettizer.finalize(inplace=True)
    assert not hasattr(layer, "qconfig")


def test_a_weight_of_few_elements_is_left_alone_by_itself():
    """And its layer's others are palettized."""
    model = nn.MultiheadAttention(16, 4, kdim=1, vdim=16, batch_first=True)
    with listening() as said:
        palettizer = ours.DKMPalettizer(nn.ModuleDict({"attend": model}), dkm.config(ours, n_bits=6))
        prepared = palettizer.prepare(inplace=True)
    assert {name.removesuffix("_fake_quant") for name in fakes(prepared)} == {
        "attend.q_proj_weight", "attend.v_proj_weight", "attend.out_proj.weight"}
    assert about(said, "attend.k_proj_weight", "has 16 elements in a group, fewer than the 64") and len(said) == 1
    assert palettizer.report()["attend.k_proj_weight"]["reason"].startswith("has 16 elements")
    inputs = torch.randn(2, 3, 16)
    model(inputs, inputs[..., :1], inputs)[0].sum().backward()
    assert model.k_proj_weight.grad is not None
    assert len(palettizer.finalize(inplace=True)["attend"].q_proj_weight.unique()) <= 64


def test_a_layer_that_is_prepared_for_quantization_is_left_alone():
    qat = torch.ao.nn.qat.Linear(64, 64, qconfig=torch.ao.quantization.get_default_qat_qconfig("fbgemm"))
    with listening() as said:
        model = ours.DKMPalettizer(nn.Sequential(qat), dkm.config(ours, n_bits=2)).prepare()
    assert about(said, "0.weight", "prepared for quantization already") and fakes(model) == {}


def test_attributes_of_a_fake_are_those_of_the_peer():
    options = {**dkm.THE_PEERS_NUMBERS, "n_bits": 3, "cluster_dim": 2, "granularity": "per_grouped_channel", "group_size": 8,
               "palett_tau": 1e-3, "kmeans_max_iter": 5, "palett_unique": True, "enable_per_channel_scale": True, "quant_max": 100}
    mine, theirs = (dkm.prepared(dkm.mlp(), side, **options)[1][2] for side in (ours, peer))
    for layer in (mine, theirs):
        layer(torch.randn(4, 32))
    mine, theirs = mine.weight_fake_quant, theirs.weight_fake_quant
    compared = {name for name, value in vars(theirs).items()
                if not name.startswith("_") and isinstance(value, (bool, int, float, str, tuple, type(None)))}
    of_torch = {"training", "ch_axis", "is_dynamic", "is_per_channel", "qscheme", "quant_min", "quant_max", "qconfig"}
    differ = {name for name in compared - of_torch if getattr(mine, name) != getattr(theirs, name)}
    assert not differ - {"per_channel_scaling_factor"} and len(compared) > 25
    assert mine.partitions == theirs.partitions and mine.enable_partition == theirs.enable_partition
    assert mine.partition_numel.tolist() == theirs.partition_numel.tolist()
    assert mine.enforce_zero == theirs.enforce_zero and mine.quant_max == 100 and mine.n_clusters == 8
