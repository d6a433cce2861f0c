"""Whole models: what is not a weight comes back as it was, wherever the weights are."""

import json

import numpy as np
import pytest

import judge
import peer
from zoo_graphs import GRAPHS, flow, outputs

THRESHOLD = 2048

# model -> constants that are palettized at 4 bits per tensor; every other one must keep its bits
PALETTIZED = {
    "CoreML6": {"conv_w", "linear_w"}, "CoreML7": {"conv_w", "linear_w"}, "CoreML8": {"conv_w", "linear_w"},
    "CoreML9": {"conv_w", "linear_w"}, "with_extras": {"conv_w", "linear_w"},
    "mixed": {"wide", "half"}, "shared": {"shared_w"}, "disagreeing": {"both_w"},
    "nested_cond": {"outside_w", "true_w"}, "nested_while": {"body_w"},
    "flexible": {"flex_w"}, "enumerated": {"enum_w"}, "classifier": {"class_w"},
    "stateful": {"state_w", "after_w"}, "layer_norm": {"norm_w"},
    "attention": {"q_w", "k_w", "v_w", "out_w"},  # and perhaps the mask
    "multifunction": {"base_w", "left_w", "right_w"}, "pipeline": {"first_w", "second_w"},
}
SETTINGS = {
    "kmeans4": ["--nbits", 4],
    "uniform8": ["--nbits", 8, "--mode", "uniform"],
    "groups": ["--nbits", 3, "--granularity", "per_grouped_channel", "--group-size", 8],
    "vectors": ["--nbits", 6, "--cluster-dim", 4, "--per-channel-scale", "--lut-dtype", "int8"],
}
NEWER_ONLY = {"groups", "vectors"}
NEWER = {"CoreML8", "CoreML9", "shared", "nested_cond", "stateful", "layer_norm", "attention", "multifunction",
         "pipeline"}
CASES = [(graph, setting) for graph in PALETTIZED for setting in SETTINGS
         if setting not in NEWER_ONLY or graph in NEWER]


@pytest.fixture
def graph(models):
    return lambda name: models(*GRAPHS[name])


@pytest.mark.parametrize("name, setting", CASES)
def test_only_the_weights_change(name, setting, graph, compress, dense):
    model = graph(name)
    out, report = compress(model, *SETTINGS[setting])
    done = {w["name"] for w in report["weights"] if w["status"] == "compressed"}
    assert done - {"mask"} == PALETTIZED[name], report["weights"]
    before, after = judge.weights(model), judge.weights(out)
    variables = judge.constants(out)
    assert before.keys() == after.keys()
    for key, original in before.items():
        assert after[key].dtype == original.dtype and after[key].shape == original.shape
        if key[3] == "attn_mask":  # 0 and -inf fit a table of two; whether they get one or not:
            assert np.array_equal(after[key], original)
        elif judge.chain(variables[key]):
            assert original.size > THRESHOLD
            relative = judge.squared_error(original, after[key]) / np.sum(original.astype(np.float64) ** 2)
            assert relative < (0.5 if setting == "vectors" else 0.2)
        else:
            assert judge.same_bits(after[key], original)
    assert sum(bool(judge.chain(variables[key])) for key in before) >= len(done)
    assert judge.skeleton(out) == judge.skeleton(model)
    judge.assert_same_weights(out, dense(out))


@pytest.mark.parametrize("name", GRAPHS)
@pytest.mark.parametrize("how", ["threshold", "names"])
def test_nothing_palettized_is_nothing_changed(name, how, graph, compress, inspect):
    """Every weight skipped: the parsed program and every blob are equal, and so are the other files."""
    model = graph(name)
    flags = ["--weight-threshold", 10**9]
    if how == "names":
        flags = [flag for name in inspect(model) for flag in ("--op-name", f"{name}=skip")]
    out, report = compress(model, "--nbits", 4, *flags)
    assert all(w["status"] == "skipped" and w["reason"] for w in report["weights"])
    assert judge.resolved(out) == judge.resolved(model)
    for file in (p for p in model.rglob("*") if p.is_file()):
        ours = out / file.relative_to(model)
        assert ours.is_file()
        if file.suffix not in (".bin", ".mlmodel", ".json"):
            assert ours.read_bytes() == file.read_bytes()
    manifests = [json.loads((p / "Manifest.json").read_text()) for p in (model, out)]
    assert manifests[0] == manifests[1]


def test_a_blob_shared_by_functions_stays_shared(graph, compress):
    model = graph("multifunction")
    out, report = compress(model, "--nbits", 4)
    assert [w["name"] for w in report["weights"] if w["status"] == "compressed"].count("base_w") == 1
    for package, name in ((model, "base_w"), (out, "base_w_palettized")):
        references = judge.blob_references(package)
        assert references["left", name] == references["right", name]
    assert references["left", "left_w_palettized"] != references["right", "right_w_palettized"]
    size = (out / judge.WEIGHTS / "weight.bin").stat().st_size
    assert size < 0.6 * 128 * 64 + 2 * 0.6 * 32 * 128 + 6000, "the base is stored twice"
    program = judge.load(out).get_spec().description
    assert program.defaultFunctionName == "left"


def test_shared_weight_is_reported_once(graph, compress):
    _, report = compress(graph("shared"), "--nbits", 4)
    (entry,) = [w for w in report["weights"] if w["status"] == "compressed"]
    assert entry["op_names"] == ["linear0", "linear1", "linear2"] and entry["op_types"] == ["linear"]
    assert entry["bytes_before"] == 64 * 64 * 4


def test_consumers_that_disagree_leave_the_axis_unknown(graph, compress):
    groups = ["--nbits", 4, "--granularity", "per_grouped_channel", "--group-size", 8]
    _, report = compress(graph("disagreeing"), *groups)
    (entry,) = [w for w in report["weights"] if w["name"] == "both_w"]
    assert entry["status"] == "skipped" and "ax" in entry["reason"]
    for axis in (0, 1):
        out, report = compress(graph("disagreeing"), *groups, "--channel-axis", axis)
        (entry,) = [w for w in report["weights"] if w["name"] == "both_w"]
        assert (entry["status"], entry["luts"]) == ("compressed", 8)
        _, _, shape = judge.table(judge.constants(out)[0, "main", "linear", "weight"])
        assert shape[axis] == 8


def test_totals_add_up(graph, compress):
    out, report = compress(graph("attention"), "--nbits", 4)
    assert report["version"]
    for side, package in (("bytes_before", graph("attention")), ("bytes_after", out)):
        on_disk = sum(p.stat().st_size for p in package.rglob("*") if p.is_file())
        assert sum(w[side] for w in report["weights"]) <= on_disk
        assert 0.4 * on_disk < report[side] <= on_disk
    assert 0 < report["bits_per_weight"] < 17 and 0 <= report["seconds"] < 60


def test_unknown_fields_and_items_stay(graph, compress):
    out, _ = compress(graph("with_extras"), "--nbits", 4)
    assert (out / "Data/org.example.notes/notes.txt").read_text() == "keep me\n"
    assert (out / judge.PROGRAM).read_bytes().find(b"\xfa\xf9\x01\x07unknown") >= 0


@pytest.mark.parametrize("flags", [[], ["--per-channel-scale"], ["--lut-dtype", "int8"]], ids=" ".join)
@pytest.mark.parametrize("target", ["iOS16", "iOS18"])
def test_a_weight_that_is_an_output_keeps_its_name(target, flags, models, compress, dense):
    """As in the peer: palettized if an op uses it too, and the output is called what it was called."""
    if flags and target == "iOS16":
        flags = [*flags, "--minimum-deployment-target", "iOS18"]
    model = models(outputs, target)
    out, report = compress(model, "--nbits", 4, *flags)
    fates = {w["name"]: (w["status"], w["reason"]) for w in report["weights"]}
    assert fates == {"used_w": ("compressed", None), "alone_w": ("skipped", "no op uses it")}
    key = 0, "main", "linear", "weight"
    assert judge.chain(judge.constants(out)[key])
    assert peer.palettized(model, nbits=4)[key][1], "the peer palettizes it"
    flat, theirs = dense(out), peer.save(peer.decompressed(out), out.with_name("theirs.mlpackage"))
    for path in (out, flat, theirs):
        (program,) = judge.programs(path)
        names = [var.name for var in program.functions["main"].outputs]
        assert names == ["linear", "used_w", "alone_w"]
        described = judge.load(path).get_spec().description.output
        assert [feature.name for feature in described] == names
        given = {var.name: var for var in program.functions["main"].outputs}
        assert judge.same_bits(judge.value(given["used_w"]), judge.weights(out)[key])
        assert judge.same_bits(judge.value(given["alone_w"]), alone(model))


def alone(model):
    (program,) = judge.programs(model)
    return judge.value(next(var for var in program.functions["main"].outputs if var.name == "alone_w"))


def test_values_in_the_flow_are_no_weights(models, compress):
    model = models(flow)
    out, report = compress(model, "--nbits", 4)
    fates = {w["name"]: w["reason"] for w in report["weights"]}
    assert fates.pop("weight_w") is None
    assert set(fates) == {"start_w", "item_w", "branch_w"}
    assert "while_loop" in fates["start_w"] and "list_write" in fates["item_w"]
    assert "a loop or a branch" in fates["branch_w"]
    assert judge.skeleton(out) == judge.skeleton(model)
    judge.assert_same_weights(model, out, [k for k in judge.weights(model) if k[2] != "last"])


@pytest.mark.parametrize("nbits, expected", [(4, [("stateful_4_bit", 2)]), (6, [])])
def test_state_with_palettes_of_4_bits_is_noted(nbits, expected, graph, compress):
    _, report = compress(graph("stateful"), "--nbits", nbits)
    assert [(note["code"], note["weights"]) for note in report["notes"]] == expected
    _, report = compress(graph("CoreML8"), "--nbits", nbits)
    assert report["notes"] == []
