"""`palettizer.coreml` and `coremltools.optimize.coreml` hand in hand: what we pass on, and configurations of either kind."""

import copy
import pickle
import subprocess
import sys

import coremltools as ct
import coremltools.optimize.coreml as theirs
import numpy as np
import pytest
from coremltools.converters.mil import Builder as mb
from coremltools.converters.mil.mil import types

import judge
import palettizer.coreml as ours


@pytest.fixture(scope="module")
def model():
    random = np.random.default_rng(0)
    weight = random.standard_normal((64, 128)).astype(np.float32)

    @mb.program(input_specs=[mb.TensorSpec((1, 128))], opset_version=ct.target.iOS18)
    def program(x):
        x = mb.linear(x=x, weight=weight, bias=np.zeros(64, np.float32), name="first")
        x = mb.relu(x=x)
        return mb.linear(x=x, weight=random.standard_normal((96, 64)).astype(np.float32), name="second")

    return ct.convert(
        program, minimum_deployment_target=ct.target.iOS18, compute_precision=ct.precision.FLOAT32, skip_model_load=True
    )


def chains(model):
    """The ops that make each weight of the linear ops, from the op back to the constants."""
    return {
        op.name: list(dict.fromkeys(judge.chain(op.weight)))
        for op in model._mil_program.functions["main"].find_ops(op_type="linear")
    }


def test_everything_public_of_the_peer_is_here():
    public = {name for name in vars(theirs) if not name.startswith("_")}
    assert public <= {name for name in dir(ours) if hasattr(ours, name)}
    for name in ours._PEER:
        assert getattr(ours, name) is getattr(theirs, name)
    from palettizer.coreml.experimental import OpActivationLinearQuantizerConfig

    assert OpActivationLinearQuantizerConfig is theirs.experimental.OpActivationLinearQuantizerConfig
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        ours.nothing


def test_everything_public_of_the_peers_torch_is_there():
    import coremltools.optimize.torch as peer

    import palettizer.torch
    import palettizer.torch.pruning.magnitude_pruner as magnitude_pruner
    from palettizer.torch.quantization import LinearQuantizer

    assert {name for name in vars(peer) if not name.startswith("_")} <= {*dir(palettizer.torch)}
    assert LinearQuantizer is peer.quantization.LinearQuantizer
    assert magnitude_pruner is peer.pruning.magnitude_pruner
    assert palettizer.torch.layerwise_compression.GPTQ is peer.layerwise_compression.GPTQ
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        palettizer.torch.nothing


def test_nothing_of_the_peer_is_imported_before_it_is_used():
    script = """
import sys
import palettizer.coreml as cto
config = cto.OptimizationConfig(global_config=cto.OpPalettizerConfig(nbits=4))
assert isinstance(config, cto.OptimizationConfig) and config.__class__ is cto.OptimizationConfig
cto.palettize_weights(cto.demo(), config, progress=False)
assert "coremltools" not in sys.modules and "torch" not in sys.modules
sys.modules["coremltools"] = None
for ask in ("cto.prune_weights", "import palettizer.coreml.experimental", "import palettizer.torch.pruning",
            "cto.OptimizationConfig.from_dict({'config_type': 'OpLinearQuantizerConfig', 'global_config': {}})"):
    try:
        exec(ask)
    except ImportError as error:
        assert "pip install coremltools" in str(error), error
    else:
        raise AssertionError(ask)
"""
    subprocess.run([sys.executable, "-c", script], check=True)


@pytest.mark.parametrize("Config", [ours.OptimizationConfig, theirs.OptimizationConfig])
@pytest.mark.parametrize("Palettizer", [ours.OpPalettizerConfig, theirs.OpPalettizerConfig])
def test_pruned_then_palettized(Config, Palettizer, model):
    """The guide's joint compression, its import changed."""
    pruned = ours.prune_weights(model, Config(ours.OpMagnitudePrunerConfig(target_sparsity=0.4)))
    config = Config(global_config=Palettizer(nbits=4, granularity="per_grouped_channel", group_size=16))
    config.set_op_name("second", None)
    small = ours.palettize_weights(pruned, config, joint_compression=True)
    assert chains(small) == {"first": ["sparse_to_dense", "lut_to_sparse"], "second": ["sparse_to_dense"]}
    assert [row["luts"] for row in small.report.values()] == [4, None]
    dense = chains(theirs.decompress_weights(small))
    assert dense == {"first": [], "second": []}


@pytest.mark.parametrize("Config", [ours.OptimizationConfig, theirs.OptimizationConfig])
def test_palettized_then_its_tables_quantized(Config, model):
    """The other of the guide's: tables of int8 by a second tool."""
    small = ours.palettize_weights(model, Config(global_config=ours.OpPalettizerConfig(nbits=6)))
    quantizer = ours.OpLinearQuantizerConfig(mode="linear_symmetric", granularity="per_tensor", weight_threshold=0)
    both = ours.linear_quantize_weights(small, Config(global_config=quantizer), joint_compression=True)
    for chain in chains(both).values():
        assert sorted(chain) == ["blockwise_shift_scale", "lut_to_dense"]
    with pytest.raises(ValueError, match="only accept OpPalettizerConfig type config. Got OpLinearQuantizerConfig"):
        ours.palettize_weights(model, Config(op_type_configs={"linear": quantizer}))


@pytest.mark.parametrize("Config", [ours.OptimizationConfig, theirs.OptimizationConfig])
def test_dictionaries_of_every_kind(Config, model):
    config = Config.from_dict({
        "config_type": "OpMagnitudePrunerConfig", "global_config": {"target_sparsity": 0.5},
        "op_name_configs": {"first": {"config_type": "OpThresholdPrunerConfig", "threshold": 5.0}, "second": None},
    })
    assert chains(ours.prune_weights(model, config)) == {"first": ["sparse_to_dense"], "second": []}
    assert type(config.global_config) is theirs.OpMagnitudePrunerConfig


def test_ours_in_a_pass_pipeline(model):
    """`ct.convert` palettizes with coremltools' own pass; a configuration of ours is understood there."""
    config = ours.OptimizationConfig(
        op_type_configs={"linear": ours.OpPalettizerConfig(nbits=4, granularity="per_grouped_channel", group_size=16)},
        op_name_configs={"second": None},
    )
    pipeline = ct.PassPipeline.DEFAULT_PALETTIZATION
    pipeline.set_options("compression::palettize_weights", {"config": config})
    converted = ct.convert(
        model._get_mil_internal(), minimum_deployment_target=ct.target.iOS18, pass_pipeline=pipeline,
        compute_precision=ct.precision.FLOAT32, skip_model_load=True,
    )
    assert chains(converted) == {"first": ["lut_to_dense"], "second": []}
    config.set_op_type("linear", ours.OpPalettizerConfig(nbits=4, lut_dtype="int8"))
    with pytest.raises(ValueError, match="lut_dtype"):
        theirs.palettize_weights(model, config)


def test_configurations_of_either_kind_give_the_same(model):
    def made(module):
        config = module.OptimizationConfig(global_config=module.OpPalettizerConfig(nbits=3, cluster_dim=2))
        config.set_op_type("linear", module.OpPalettizerConfig(mode="uniform", nbits=6))
        return config

    first, second = (ours.palettize_weights(model, made(module)) for module in (ours, theirs))
    assert judge.skeleton(first.package_path) == judge.skeleton(second.package_path)
    assert {name: row["nbits"] for name, row in first.report.items()} == {
        name: row["nbits"] for name, row in second.report.items()
    }
    assert len(theirs.get_weights_metadata(first)) == len(theirs.get_weights_metadata(second)) > 0


def test_copies_are_of_our_class():
    for config in (
        ours.OpPalettizerConfig(nbits=4, lut_dtype="int8"),
        ours.OptimizationConfig(ours.OpPalettizerConfig(nbits=2), {"conv": None}),
    ):
        assert isinstance(config, getattr(theirs, type(config).__name__))
        for copied in (pickle.loads(pickle.dumps(config)), copy.copy(config), copy.deepcopy(config)):
            assert type(copied) is type(config) and copied == config


def test_dtypes_as_types():
    import torch

    for dtype in (np.int8, np.dtype("int8"), types.int8, torch.int8, "int8"):
        assert ours.OpPalettizerConfig(nbits=4, lut_dtype=dtype).lut_dtype == "int8"
    for dtype in (np.uint8, types.uint8, torch.uint8):
        assert ours.OpPalettizerConfig(nbits=4, lut_dtype=dtype).lut_dtype == "uint8"
    for dtype in (np.int16, types.fp16, torch.int32):
        with pytest.raises(ValueError, match="lut_dtype is .*allowed"):
            ours.OpPalettizerConfig(nbits=4, lut_dtype=dtype)


@pytest.fixture(scope="module")
def older():
    weight = np.random.default_rng(0).standard_normal((64, 128)).astype(np.float32)

    @mb.program(input_specs=[mb.TensorSpec((1, 128))], opset_version=ct.target.iOS16)
    def program(x):
        return mb.linear(x=x, weight=weight)

    return ct.convert(program, minimum_deployment_target=ct.target.iOS16, skip_model_load=True)


@pytest.mark.parametrize("target", [
    ct.target.iOS18, ct.target.macOS15, "iOS18", "ios18", "macOS15", "watchOS11", "tvOS18", "ct.target.iOS18",
], ids=str)  # fmt: skip
def test_targets(target, older):
    config = ours.OptimizationConfig(global_config=ours.OpPalettizerConfig(nbits=3))
    small = ours.palettize_weights(older, config, minimum_deployment_target=target)
    assert small.get_spec().specificationVersion == ct.target.iOS18.value


def test_what_an_old_target_lacks_is_said_in_arguments_of_python(older):
    options = {"nbits": 4, "granularity": "per_grouped_channel", "group_size": 16}
    for module in (ours, theirs):
        with pytest.raises(ValueError, match="Please re-convert your model with minimum_deployment_target set to") as caught:
            config = module.OptimizationConfig(global_config=module.OpPalettizerConfig(**options))
            module.palettize_weights(older, config)
        assert "supported since iOS18" in str(caught.value)
    config = ours.OptimizationConfig(global_config=ours.OpPalettizerConfig(**options))
    with pytest.raises(ValueError, match='pass minimum_deployment_target="iOS18"') as caught:
        ours.palettize_weights(older, config)
    assert "--" not in str(caught.value)
    with pytest.raises(TypeError, match="minimum_deployment_target is 18"):
        ours.palettize_weights(older, config, minimum_deployment_target=18)
    with pytest.raises(ValueError, match="iOS19"):
        ours.palettize_weights(older, config, minimum_deployment_target="iOS19")


def neural_network():
    from coremltools.models import datatypes
    from coremltools.models.neural_network import NeuralNetworkBuilder

    builder = NeuralNetworkBuilder([("x", datatypes.Array(4))], [("y", None)])
    builder.add_activation("relu", "RELU", "x", "y")
    return ct.models.MLModel(builder.spec, skip_model_load=True)


def test_a_neural_network_is_a_type_error(tmp_path):
    network = neural_network()
    network.save(str(tmp_path / "network.mlmodel"))
    config = ours.OptimizationConfig(global_config=ours.OpPalettizerConfig(nbits=4))
    calls = {
        "palettize_weights": (config,), "decompress_weights": (), "get_weights_metadata": (),
    }  # fmt: skip
    for name, arguments in calls.items():
        for module in (ours, theirs):
            with pytest.raises(TypeError):
                getattr(module, name)(network, *arguments)
        for given in (network, tmp_path / "network.mlmodel"):
            with pytest.raises(TypeError, match="not an ML Program") as caught:
                getattr(ours, name)(given, *arguments)
            assert not str(caught.value).startswith(":")


def test_the_program_of_a_result_is_read_when_it_is_asked_for(model, tmp_path):
    small = ours.palettize_weights(model, ours.OptimizationConfig(ours.OpPalettizerConfig(nbits=4)))
    assert isinstance(small, ct.models.MLModel) and small._read is None
    small.save(str(tmp_path / "small.mlpackage"))
    assert small._read is None, "saving needs no program"
    program = small._get_mil_internal()
    assert [op.op_type for op in program.functions["main"].find_ops(op_type="linear")] == ["linear", "linear"]
    assert small._mil_program is small._mil_program and program is not small._mil_program
    dense = ours.decompress_weights(small)
    assert chains(dense) == {"first": [], "second": []} and dense.report is None


def messages(caplog):
    return [record.message for record in caplog.records if record.name == "palettizer"]


def test_what_was_skipped_is_logged_once_a_reason(model, caplog, tmp_path):
    model.save(str(tmp_path / "model.mlpackage"))
    config = ours.OptimizationConfig(ours.OpPalettizerConfig(mode="unique"))
    for given in (model, tmp_path / "model.mlpackage"):
        caplog.clear()
        small = ours.palettize_weights(given, config)
        nothing, reason = messages(caplog)
        assert "None of the 2 weights was palettized" in nothing
        assert "more than 256 distinct values" in reason and "first" in reason and "second" in reason
        assert [row["status"] for row in small.report.values()] == ["skipped"] * 2
    config.set_op_name("first", ours.OpPalettizerConfig(nbits=4))
    caplog.clear()
    ours.palettize_weights(model, config)
    (reason,) = messages(caplog)
    assert "first" not in reason and "second" in reason
    caplog.clear()
    config.set_op_name("second", None)
    ours.palettize_weights(model, config)
    assert not messages(caplog), "what the configuration leaves alone is no surprise"


def test_names_that_fit_nothing_come_with_names_that_are_near(model, caplog):
    config = ours.OptimizationConfig(ours.OpPalettizerConfig(nbits=4), {"lineal": None}, {"firsd": None, "nowhere": None})
    small = ours.palettize_weights(model, config)
    assert small.report.unmatched == ["lineal", "firsd", "nowhere"]
    assert small.report.near_names == {"lineal": ["linear"]} | small.report.near_names
    said = messages(caplog)
    assert [name in line for name, line in zip(small.report.unmatched, said)] == [True] * 3
    assert "did you mean linear?" in said[0] and "did you mean" not in said[2]
