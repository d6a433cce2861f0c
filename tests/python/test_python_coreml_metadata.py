"""`get_weights_metadata`: the peer's values on real models, and the dense values of compressed weights."""

import copy
import pickle

import coremltools.optimize.coreml as theirs
import numpy as np
import pytest

import judge
import palettizer.coreml as ours
import zoo_graphs
from zoo_compressed import compressed


def assert_equal(mine, peers):
    assert list(mine) == list(peers)
    for name, weight in mine.items():
        expected = peers[name]
        assert weight.val.dtype == expected.val.dtype and np.array_equal(weight.val, expected.val)
        assert (weight.sparsity, weight.unique_values) == (expected.sparsity, expected.unique_values)
        assert isinstance(weight.sparsity, float) and isinstance(weight.unique_values, int)
        users = [(op.op_type, op.name, op.params_name_mapping) for op in weight.child_ops]
        assert users == [(op.op_type, op.name, dict(op.params_name_mapping)) for op in expected.child_ops]


@pytest.mark.parametrize("threshold", [0, 1, 2, 128, 129, 2048, 10**9])
@pytest.mark.parametrize("name", ["crepe-tiny", "basic-pitch"])
def test_real_models(name, threshold, real_models):
    model = judge.load(real_models[name])
    expected = theirs.get_weights_metadata(model, weight_threshold=threshold)
    for given in (model, str(real_models[name]), ours.load(real_models[name])):
        assert_equal(ours.get_weights_metadata(given, weight_threshold=threshold), expected)


@pytest.mark.parametrize("build", [zoo_graphs.shared, zoo_graphs.nested_cond, zoo_graphs.attention, zoo_graphs.layer_norm])
def test_graphs(build, models):
    model = judge.load(models(build))
    mine, peers = (module.get_weights_metadata(model, 100) for module in (ours, theirs))
    # of what is nested, ours comes in the order of the program
    assert_equal(dict(sorted(mine.items())), dict(sorted(peers.items())))


@pytest.mark.parametrize("kind", ["lut4", "lut3-groups", "lut6-vectors", "lut4-scale", "lut8-int8", "sparse", "int8", "sparse-lut"])
def test_compressed_weights_are_there_as_what_they_stand_for(kind, models):
    path = models(compressed, kind, "iOS18")
    (weight,) = ours.get_weights_metadata(path).values()
    (dense,) = judge.weights(path, 2048).values()
    assert np.array_equal(weight.val, dense) and weight.val.dtype == dense.dtype
    assert weight.unique_values == len(np.unique(dense))
    assert weight.sparsity == np.mean(dense == 0)
    assert [op.name for op in weight.child_ops] == ["op"]


def test_prints_as_the_peers(real_models):
    """The same text, but for the order of an op's parameters."""
    model = judge.load(real_models["crepe-tiny"])
    mine, peers = (str(module.get_weights_metadata(model)).splitlines() for module in (ours, theirs))
    assert [sorted(line.split()) if "name=" not in line else line.split(",")[0] for line in mine] == [
        sorted(line.split()) if "name=" not in line else line.split(",")[0] for line in peers]


def test_made_by_hand():
    values = np.array([[1.0, 0.0], [0.0, 6.0]], np.float32)
    mine, peers = ours.CoreMLWeightMetaData(values), theirs.CoreMLWeightMetaData(values)
    assert str(mine) == str(peers)
    assert (mine.sparsity, mine.unique_values, mine.child_ops) == (peers.sparsity, peers.unique_values, peers.child_ops)
    op = {"op_type": "conv", "name": "c", "params_name_mapping": {"weight": "w"}}
    assert str(ours.CoreMLOpMetaData(**op)) == str(theirs.CoreMLOpMetaData(**op))
    for module in (ours, theirs):
        for bad in ({**op, "name": 4}, {**op, "params_name_mapping": []}):
            with pytest.raises(TypeError):
                module.CoreMLOpMetaData(**bad)
        for bad in ({"val": [1.0]}, {"val": values, "sparsity": "none"}, {"val": values, "child_ops": ()}):
            with pytest.raises((TypeError, AttributeError) if module is theirs else TypeError):
                module.CoreMLWeightMetaData(**bad)
        with pytest.raises(AttributeError):
            module.CoreMLWeightMetaData(values).sparsity = 0.0


def test_values_are_read_when_they_are_asked_for(real_models):
    weights = ours.get_weights_metadata(real_models["crepe-full"])
    weight = weights["model_conv2_weight_to_fp16"]
    assert "val" not in weight.__dict__
    assert weight.val is weight.val and weight.val.flags.writeable
    with pytest.raises(AttributeError):
        weight.val = None
    for again in (pickle.loads(pickle.dumps(weight)), copy.deepcopy(weight)):
        assert again == weight and str(again) == str(weight)
