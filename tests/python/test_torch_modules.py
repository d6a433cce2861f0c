"""Which parameters are palettized, what their modules carry afterwards, and why the others are left alone."""

import logging

import pytest
import torch
from torch import nn

from palettizer.torch.palettization import (
    ModulePostTrainingPalettizerConfig,
    PostTrainingPalettizer,
    PostTrainingPalettizerConfig,
    SKMPalettizerConfig,
)


def run(model, inplace=False, workers=1, names=None, types=None, **settings):
    """The palettized model and the report."""
    config = PostTrainingPalettizerConfig.from_dict(
        {"global_config": settings, "module_name_configs": names or {}, "module_type_configs": types or {}}
    )
    palettizer = PostTrainingPalettizer(model, config)
    return palettizer.compress(workers, inplace, progress=False), palettizer.report()


def buffers(module, parameter="weight"):
    prefix = f"_COREML_/{parameter}/"
    return {name[len(prefix):]: b for name, b in module.named_buffers(recurse=False) if name.startswith(prefix)}


KINDS = {
    "linear": (lambda: nn.Linear(8, 16), 0, 1),
    "embedding": (lambda: nn.Embedding(16, 8), 0, 1),
    "conv1d": (lambda: nn.Conv1d(8, 16, 3), 0, 1),
    "conv2d": (lambda: nn.Conv2d(8, 16, 3), 0, 1),
    "conv3d": (lambda: nn.Conv3d(8, 16, 2), 0, 1),
    "grouped": (lambda: nn.Conv2d(16, 16, 3, groups=2), 0, 1),
    "conv_transpose1d": (lambda: nn.ConvTranspose1d(8, 16, 3), 1, 0),
    "conv_transpose2d": (lambda: nn.ConvTranspose2d(8, 16, 3), 1, 0),
    "conv_transpose3d": (lambda: nn.ConvTranspose3d(8, 16, 2), 1, 0),
}


def blocks(shape, axis, groups, *tail):
    return tuple(groups if a == axis else 1 for a in range(len(shape))) + tail


@pytest.mark.parametrize("channel_axis", [0, 1])
@pytest.mark.parametrize("kind", KINDS)
def test_groups_lie_on_the_channel_axis_of_each_kind(kind, channel_axis):
    make, *axes = KINDS[kind]
    model, report = run(make(), n_bits=2, granularity="per_grouped_channel", group_size=4, channel_axis=channel_axis)
    axis, weight = axes[channel_axis], model.weight
    groups = weight.shape[axis] // 4
    lut = buffers(model)["lut"]
    assert lut.shape == blocks(weight.shape, axis, groups, 4, 1) and lut.dtype == weight.dtype
    tables = lut.reshape(groups, 4)
    for group, part in enumerate(weight.split(4, axis)):
        assert set(part.unique().tolist()) <= set(tables[group].tolist())
    assert (tables.diff(dim=1) >= 0).all()
    assert report["weight"]["palettization_mode"] == "num_clusters=4, cluster_dim=1"


@pytest.mark.parametrize("kind", KINDS)
def test_scales_lie_on_the_output_channels(kind):
    make, axis, _ = KINDS[kind]
    before = make()
    model, _ = run(before, enable_per_channel_scale=True)
    carried = buffers(model)
    others = [a for a in range(before.weight.dim()) if a != axis]
    scale, largest = carried["palettization_scale"], before.weight.detach().abs().amax(others, keepdim=True)
    # Rounded up to what float16 has, for a program that computes in it.
    assert scale.shape == largest.shape and torch.equal(scale.half().float(), scale)
    assert (scale >= largest).all() and (scale <= largest * (1 + 2**-10)).all()
    assert carried["lut"].abs().max() <= 1
    assert "quantization_scale" not in carried and carried["compression_type"].tolist() == [2]


@pytest.mark.parametrize("channel_axis", [0, 1])
@pytest.mark.parametrize("kind", KINDS)
def test_vectors_lie_on_the_channel_axis(kind, channel_axis):
    make, *axes = KINDS[kind]
    model, report = run(make(), n_bits=3, cluster_dim=2, channel_axis=channel_axis)
    axis, carried = axes[channel_axis], buffers(model)
    assert carried["vector_axis"].item() == axis and carried["vector_axis"].dtype == torch.int64
    assert carried["lut"].shape == blocks(model.weight.shape, axis, 1, 8, 2)
    pairs = model.weight.movedim(axis, -1).reshape(-1, 2)
    table = carried["lut"].reshape(8, 2)
    assert (pairs[:, None] == table).all(-1).any(-1).all()
    assert report["weight"]["palettization_mode"] == "num_clusters=8, cluster_dim=2"


@pytest.mark.parametrize("channel_axis", [0, 1])
@pytest.mark.parametrize("grouped", [False, True])
@pytest.mark.parametrize("lut_dtype", ["int8", "uint8"])
@pytest.mark.parametrize("kind", KINDS)
def test_an_integer_table_with_a_scale_has_one_group_for_each_channel(kind, lut_dtype, grouped, channel_axis):
    """The scale is folded into that of the table: the weights are integers times one number for each block."""
    make, *axes = KINDS[kind]
    grouping = {"granularity": "per_grouped_channel", "group_size": 4, "channel_axis": channel_axis} if grouped else {}
    before = make()
    model, report = run(before, enable_per_channel_scale=True, lut_dtype=lut_dtype, **grouping)
    carried, shape = buffers(model), model.weight.shape
    groups = list(blocks(shape, axes[0], shape[axes[0]]))
    if grouped and channel_axis == 1:
        groups[axes[1]] = shape[axes[1]] // 4
    assert carried["lut"].shape == (*groups, 16, 1)
    assert carried["quantization_scale"].shape == (*groups, 1, 1)
    assert carried["quantization_n_bits"].item() == 8
    assert carried["compression_type"].tolist() == [2, 3]
    assert "palettization_scale" not in carried
    assert ("zero_point" in carried) == (lut_dtype == "uint8")
    scale = carried["quantization_scale"][..., 0, 0]
    for axis, blocked in enumerate(groups):
        scale = scale.repeat_interleave(shape[axis] // blocked, axis)
    integers = (model.weight / scale).round()
    assert torch.equal(integers * scale, model.weight)
    assert integers.abs().max() <= 128
    plain, _ = run(before, enable_per_channel_scale=True, **grouping)
    error, limit = ((m.weight - before.weight).square().mean() for m in (model, plain))
    assert error <= limit * 1.2 + 1e-9
    assert report["weight"]["dtype"] == "dtype=int8"
    assert report["weight"]["error"] == pytest.approx(error.sqrt().item(), rel=1e-4)


def test_attention_with_sizes_of_its_own():
    model, report = run(nn.MultiheadAttention(16, 2, kdim=8, vdim=4), n_bits=2)
    for name in ("q_proj_weight", "k_proj_weight", "v_proj_weight"):
        assert len(model.get_parameter(name).unique()) == 4 == buffers(model, name)["lut"].numel()
        assert report[name]["reason"] == ""
    together, _ = run(nn.MultiheadAttention(16, 2), n_bits=2)
    assert len(together.in_proj_weight.unique()) == len(together.out_proj.weight.unique()) == 4


class Tied(nn.Module):
    """One tensor as an embedding, as a projection, and as a parameter of a module of another kind."""

    def __init__(self):
        super().__init__()
        self.embed, self.head = nn.Embedding(32, 8), nn.Linear(8, 32, bias=False)
        self.head.weight = self.embed.weight
        self.scale = nn.ParameterDict({"w": self.embed.weight})


@pytest.mark.parametrize("inplace", [False, True])
def test_tied_weights_are_palettized_once_and_stay_tied(inplace):
    model, report = run(Tied(), inplace=inplace, n_bits=2)
    assert model.head.weight is model.embed.weight is model.scale["w"]
    assert len(model.embed.weight.unique()) == 4
    for owner in (model.embed, model.head):
        assert torch.equal(buffers(owner)["lut"].flatten(), model.embed.weight.unique())
    assert report["head.weight"]["reason"] == "is embed.weight"
    assert "embed.weight" in report["scale.w"]["reason"]


def test_a_tied_weight_is_palettized_as_the_owner_that_asks_for_it():
    model, report = run(Tied(), n_bits=2, names={"embed": None})
    assert len(model.head.weight.unique()) == 4 and model.head.weight is model.embed.weight
    assert buffers(model.embed)["lut"].numel() == buffers(model.head)["lut"].numel() == 4
    assert report["embed.weight"]["reason"] == "is head.weight"
    untouched, report = run(Tied(), n_bits=2, names={"embed": None, "head": None})
    assert not buffers(untouched.embed) and "config" in report["embed.weight"]["reason"]


def test_one_memory_in_two_parameters():
    """The same view is one weight; a view that overlaps is left alone, for it would be spoilt."""
    model = nn.Sequential(nn.Linear(8, 8), nn.Linear(8, 8), nn.Linear(8, 4), nn.Linear(8, 8))
    model[1].weight.data = model[0].weight.data
    model[2].weight.data = model[0].weight.data[2:6]
    _, report = run(model, inplace=True, n_bits=2)
    assert model[1].weight.data_ptr() == model[0].weight.data_ptr()
    assert torch.equal(buffers(model[1])["lut"], buffers(model[0])["lut"])
    assert "0.weight" in report["2.weight"]["reason"] and not buffers(model[2])
    assert len(model[3].weight.unique()) == 4


class Mean(nn.Module):
    def forward(self, x):
        return x.mean(0)


def sparse_linear():
    linear = nn.Linear(8, 8)
    linear.weight = nn.Parameter(linear.weight.detach().to_sparse())
    return linear


def scalar_linear():
    model = nn.Linear(8, 8)
    model.weight = nn.Parameter(torch.tensor(1.0))
    return model


def pruned_linear():
    linear = nn.Linear(8, 8)
    torch.nn.utils.prune.l1_unstructured(linear, "weight", 0.5)
    return linear


def integer_linear():
    linear = nn.Linear(8, 8)
    linear.weight = nn.Parameter(torch.ones(8, 8, dtype=torch.int32), requires_grad=False)
    return linear


LEFT_ALONE = {
    "bias": (lambda: nn.Linear(8, 8), {}, "bias", ["Linear", "weight"], False),
    "norm": (lambda: nn.LayerNorm(8), {}, "weight", ["LayerNorm"], False),
    "lstm": (lambda: nn.LSTM(4, 4), {}, "bias_ih_l0", ["LSTM", "weight"], False),
    "config": (lambda: nn.Linear(8, 8), {"names": {"": None}}, "weight", ["config"], False),
    "type": (lambda: nn.Linear(8, 8), {"types": {"Linear": None}}, "weight", ["config"], False),
    "threshold": (lambda: nn.Linear(8, 8), {"weight_threshold": 64}, "weight", ["64", "weight_threshold"], False),
    "group": (lambda: nn.Linear(8, 6), {"granularity": "per_grouped_channel", "group_size": 4}, "weight",
              ["group_size 4", "6 channels"], True),
    "vector": (lambda: nn.Linear(8, 6), {"cluster_dim": 4}, "weight", ["cluster_dim 4", "6 channels"], True),
    "group of vectors": (lambda: nn.Linear(8, 8),
                         {"granularity": "per_grouped_channel", "group_size": 2, "cluster_dim": 4}, "weight",
                         ["cluster_dim 4", "group"], True),
    "meta": (lambda: nn.Linear(8, 8, device="meta"), {}, "weight", ["meta"], True),
    "lazy": (lambda: nn.LazyLinear(8), {}, "weight", ["lazy"], True),
    "sparse": (sparse_linear, {}, "weight", ["sparse"], True),
    "integer": (integer_linear, {}, "weight", ["int32", "bfloat16"], True),
    "empty": (lambda: nn.Linear(0, 8), {}, "weight", ["no elements"], True),
    "parametrized": (lambda: nn.utils.parametrizations.weight_norm(nn.Linear(8, 8)), {}, "weight",
                     ["remove_parametrizations"], True),
    "scalar": (scalar_linear, {}, "weight", ["()", "Linear", "2 axes"], True),
    "scalar in groups": (scalar_linear, {"granularity": "per_grouped_channel", "group_size": 4, "channel_axis": 1},
                         "weight", ["()", "2 axes"], True),
    "pruned": (pruned_linear, {}, "weight", ["pruning"], True),
}  # fmt: skip


@pytest.mark.parametrize("case", LEFT_ALONE)
def test_what_is_left_alone_has_a_reason(case, caplog):
    make, settings, name, words, warned = LEFT_ALONE[case]
    with caplog.at_level(logging.WARNING, "palettizer"):
        model, report = run(make(), inplace=True, **settings)
    assert all(word in report[name]["reason"] for word in words), report[name]
    assert report[name]["error"] == 0 and report[name].get("palettization_mode", -1) == -1
    assert not buffers(model, name)
    assert warned == any(name in record.getMessage() for record in caplog.records)


UNMATCHED = {
    "name": ({"names": {"nosuch": {}}}, ["nosuch", "no module"]),
    "name to skip": ({"names": {"nosuch": None}}, ["nosuch"]),
    "part of a name": ({"names": {"inne": {}}}, ["inne"]),
    "container": ({"names": {"inner": {}}}, ["inner", r"inner\\..*"]),
    "type": ({"types": {"Conv2d": {}}}, ["Conv2d", "no module"]),
    "own type": ({"types": {"Mean": {}}}, ["Mean"]),
    "type without weights": ({"types": {"ReLU": {}}}, ["ReLU", "not a kind"]),
}


@pytest.mark.parametrize("case", UNMATCHED)
def test_what_matches_nothing_is_named(case, caplog):
    settings, words = UNMATCHED[case]
    model = nn.Sequential()
    model.inner = nn.Sequential(nn.Linear(4, 4), nn.ReLU())
    with caplog.at_level(logging.WARNING, "palettizer"):
        run(model, **settings)
    assert len(caplog.records) == 1
    assert all(word in caplog.text for word in words), caplog.text


def test_what_matches_is_not_warned_of(caplog):
    model = nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Conv2d(4, 4, 1))
    with caplog.at_level(logging.WARNING, "palettizer"):
        run(model, names={r"\d": {}}, types={"Linear": {}, nn.ReLU: None, "Conv2d": None})
    assert not caplog.records


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16, torch.float64], ids=str)
@pytest.mark.parametrize("settings", [{}, {"enable_per_channel_scale": True}, {"lut_dtype": "int8"}], ids=repr)
def test_dtypes_are_kept(dtype, settings):
    model, _ = run(nn.Linear(8, 32).to(dtype), n_bits=2, **settings)
    carried = buffers(model)
    assert model.weight.dtype == carried["lut"].dtype == dtype
    for name in ("palettization_scale", "quantization_scale"):
        assert name not in carried or carried[name].dtype == dtype
    if "enable_per_channel_scale" not in settings:
        assert set(model.weight.unique().tolist()) <= set(carried["lut"].unique().tolist())


def test_subclasses_count():
    class Own(nn.Conv2d):
        pass

    model, _ = run(nn.Sequential(Own(4, 4, 3), nn.Linear(4, 4)), types={"Own": {"n_bits": 1}}, n_bits=2)
    assert [len(m.weight.unique()) for m in model] == [2, 4]


def test_weights_that_are_not_contiguous_are_written_where_they_are():
    linear = nn.Linear(8, 16)
    storage = torch.rand(8, 32)
    linear.weight = nn.Parameter(storage.t()[::2])
    plain = nn.Linear(8, 16)
    plain.weight.data = linear.weight.detach().clone(memory_format=torch.contiguous_format)
    kept, parameter = storage.t()[1::2].clone(), linear.weight
    run(linear, inplace=True, n_bits=2)
    run(plain, inplace=True, n_bits=2)
    assert linear.weight is parameter and linear.weight.stride() == (2, 32)
    assert torch.equal(linear.weight, plain.weight) and torch.equal(storage.t()[1::2], kept)


def test_the_model_is_copied_unless_told_otherwise():
    model = nn.Sequential(nn.Linear(8, 32), nn.Dropout()).train()
    model[0].bias.requires_grad_(False)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    done, _ = run(model)
    assert done is not model and model.state_dict().keys() == before.keys()
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    same, _ = run(model, inplace=True)
    assert same is model and len(model[0].weight.unique()) == 16
    for one in (done, same):
        assert one.training and one[0].weight.requires_grad and not one[0].bias.requires_grad


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16, torch.float64], ids=str)
def test_weights_that_are_no_numbers_change_nothing(value, dtype):
    model = nn.Sequential(nn.Linear(8, 8), nn.Linear(8, 8)).to(dtype)
    with torch.no_grad():
        model[1].weight[3, 3] = value
    before = {name: v.clone() for name, v in model.state_dict().items()}
    with pytest.raises(ValueError, match=r"1\.weight \(1 of 64\)"):
        run(model, inplace=True)
    assert model.state_dict().keys() == before.keys()
    assert all(torch.equal(v.nan_to_num(5), before[n].nan_to_num(5)) for n, v in model.state_dict().items())
    run(model, inplace=True, names={"1": None})


IMPOSSIBLE = {
    "bits": ({"n_bits": 5}, ValueError, "n_bits 5"),
    "more bits": ({"n_bits": 7}, ValueError, "n_bits 7"),
    "no bits": ({"n_bits": None}, TypeError, "n_bits None"),
    "vector": ({"cluster_dim": 0}, ValueError, "cluster_dim 0"),
}


@pytest.mark.parametrize("case", IMPOSSIBLE)
def test_settings_that_cannot_be_change_nothing(case):
    settings, error, words = IMPOSSIBLE[case]
    model = nn.Linear(8, 8)
    before = model.weight.detach().clone()
    with pytest.raises(error, match=words):
        run(model, inplace=True, **settings)
    assert torch.equal(model.weight, before) and not list(model.buffers())


def test_settings_that_do_not_go_together_are_found_late_as_well():
    """Assigned one by one they can pass each other."""
    config = ModulePostTrainingPalettizerConfig(cluster_dim=2)
    config.enable_per_channel_scale = True
    grouped = ModulePostTrainingPalettizerConfig()
    grouped.granularity = "per_grouped_channel"
    for wrong, words in ((config, "cluster_dim 2"), (grouped, "group_size None")):
        with pytest.raises(ValueError, match=words):
            PostTrainingPalettizer(nn.Linear(4, 4), PostTrainingPalettizerConfig(wrong)).compress(progress=False)


def test_a_pattern_that_is_no_regular_expression():
    with pytest.raises(ValueError, match=r"conv\[.*regular expression"):
        run(nn.Linear(4, 4), names={"conv[": {}})


def test_arguments_of_wrong_types():
    with pytest.raises(TypeError, match="torch.nn.Module"):
        PostTrainingPalettizer({"weight": torch.ones(2)})
    with pytest.raises(TypeError, match="PostTrainingPalettizerConfig"):
        PostTrainingPalettizer(nn.Linear(2, 2), SKMPalettizerConfig())


def test_palettizing_again_replaces_the_record():
    model, _ = run(nn.Linear(8, 16), lut_dtype="uint8", enable_per_channel_scale=True)
    run(model, inplace=True, n_bits=2, cluster_dim=2)
    assert set(buffers(model)) == {"lut", "vector_axis", "compression_type"}
    run(model, inplace=True, n_bits=1)
    assert set(buffers(model)) == {"lut", "compression_type"} and buffers(model)["lut"].numel() == 2


# What is pruned has no table of integers and no vectors in a converter.
@pytest.mark.parametrize("settings, types, words", [
    ({}, [1, 2], None), ({"lut_dtype": "int8"}, [1, 2], "kept as floats"),
    ({"cluster_dim": 2}, [2], "not as pruned"), ({"cluster_dim": 2, "lut_dtype": "uint8"}, [2], "not as pruned"),
])  # fmt: skip
def test_another_compression_stays_recorded_as_far_as_both_convert(settings, types, words, caplog):
    model = nn.Linear(8, 16)
    model.register_buffer("_COREML_/weight/compression_type", torch.tensor([1]))
    with caplog.at_level(logging.WARNING, "palettizer"):
        _, report = run(model, inplace=True, **settings)
    assert buffers(model)["compression_type"].tolist() == types
    assert not {"quantization_scale", "zero_point"} & set(buffers(model))
    assert (words is None) == (caplog.text == "") and (words or "") in caplog.text
    assert (words or "-1") in str(report["weight"].get("conversion", -1))
    if types == [1, 2]:
        run(model, inplace=True, **settings)
        assert buffers(model)["compression_type"].tolist() == types


def test_the_root_is_marked_and_the_state_comes_back():
    model, _ = run(nn.Sequential(nn.Linear(8, 16)), n_bits=2)
    version = model.state_dict()["_COREML_/metadata_version"]
    assert version.item() == 1 and version.dtype == torch.int64
    again, _ = run(nn.Sequential(nn.Linear(8, 16)), n_bits=2)
    again.load_state_dict(model.state_dict())
    assert torch.equal(again[0].weight, model[0].weight)


def test_the_report_has_a_row_for_every_parameter():
    before = nn.Sequential(nn.Embedding(8, 8), nn.Linear(8, 16), nn.LayerNorm(16), nn.Bilinear(4, 4, 4))
    palettizer = PostTrainingPalettizer(before, PostTrainingPalettizerConfig(ModulePostTrainingPalettizerConfig(2)))
    assert not palettizer.report() and repr(palettizer.report()) == ""
    after = palettizer.compress(progress=False)
    report = palettizer.report()
    assert list(report) == [name for name, _ in before.named_parameters()]
    for name, parameter in before.named_parameters():
        row = report[name]
        assert row["#params"] == parameter.numel()
        rmse = (after.get_parameter(name) - parameter).square().mean().sqrt().item()
        assert row["error"] == pytest.approx(rmse, rel=1e-5)
        assert bool(row["reason"]) == (name not in ("0.weight", "1.weight", "3.weight"))
        assert ("does not know" in str(row["conversion"])) == (name == "3.weight")
    lines = repr(report).splitlines()
    assert len(lines) == 2 + len(report)
    assert lines[0].split(" | ")[0].strip() == "name" and "num_clusters=4, cluster_dim=1" in lines[2]


def test_the_bytes_do_not_depend_on_the_number_of_threads():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(16, 64, 3), nn.Linear(128, 256))
    for settings in ({}, {"cluster_dim": 4, "n_bits": 6}):
        one, many = (run(model, workers=workers, **settings)[0].state_dict() for workers in (1, 4))
        assert one.keys() == many.keys() and all(torch.equal(one[name], many[name]) for name in one)


def test_one_memory_in_two_parameters_of_a_copy():
    """The copy has two memories, as copies do, and both hold what the one became."""
    model = nn.Sequential(nn.Linear(8, 8), nn.Linear(8, 8))
    model[1].weight.data = model[0].weight.data
    before = model[0].weight.detach().clone()
    done, report = run(model, n_bits=2)
    assert torch.equal(done[1].weight, done[0].weight) and len(done[0].weight.unique()) == 4
    assert torch.equal(model[0].weight, before) and report["1.weight"]["reason"] == "is 0.weight"


def test_a_copy_is_a_copy_of_everything_else():
    """Kinds of parameters, strides, flags, hooks and attributes."""
    class Marked(nn.Parameter):
        pass

    model = nn.Sequential(nn.Conv2d(8, 8, 3).to(memory_format=torch.channels_last), nn.Linear(8, 8))
    model[1].weight = Marked(torch.rand(8, 8), requires_grad=False)
    model[1].note, calls = {"a": [1]}, []
    model[1].register_forward_hook(lambda *_: calls.append(1))
    done, _ = run(model)
    assert type(done[1].weight) is Marked and not done[1].weight.requires_grad
    assert done[0].weight.stride() == model[0].weight.stride() and len(done[0].weight.unique()) == 16
    assert done[1].note == {"a": [1]} and done[1].note is not model[1].note
    done[1](torch.rand(1, 8))
    assert calls == [1]
    held = {p.data_ptr() for p in model.parameters()}
    assert not any(p.data_ptr() in held for p in done.parameters())
