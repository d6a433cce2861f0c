"""The configurations of `palettizer.coreml`, field by field against coremltools'."""

import io
import pickle

import coremltools.optimize.coreml as theirs
import pytest

import palettizer.coreml as ours

FIELDS = ("mode", "nbits", "lut_function", "group_size", "channel_axis", "cluster_dim", "enable_per_channel_scale",
          "num_kmeans_workers", "weight_threshold")


def both(make):
    """What a call gives on either side: the fields, or the type of the error."""
    def outcome(module):
        try:
            config = make(module)
        except Exception as error:  # what it is, is the question
            return type(error)
        return {name: getattr(config, name) for name in FIELDS} | {"granularity": config.granularity.name}
    return outcome(ours), outcome(theirs)


def function(values):
    return [0.0], [0] * values.size


ACCEPTED = [
    {"nbits": 4}, {"nbits": 1, "mode": "uniform"}, {"nbits": 8, "mode": "KMeans"}, {"mode": "unique"},
    {"mode": "custom", "lut_function": function}, {"nbits": 4, "granularity": "per_tensor"},
    {"nbits": 3, "granularity": "per_grouped_channel", "group_size": 16, "channel_axis": 1},
    {"nbits": 2, "cluster_dim": 4}, {"nbits": 4, "enable_per_channel_scale": True}, {"nbits": 4, "weight_threshold": 0},
    {"nbits": 4, "weight_threshold": None}, {"nbits": 4, "num_kmeans_workers": 3},
    {"nbits": 4, "granularity": "per_grouped_channel", "group_size": 0},
]
REFUSED = [
    {}, {"nbits": None}, {"nbits": 5}, {"nbits": 0}, {"nbits": -4}, {"nbits": 4, "mode": "unique"},
    {"nbits": 4, "mode": "custom", "lut_function": function}, {"mode": "custom"},
    {"mode": "custom", "lut_function": 4}, {"nbits": 4, "lut_function": function}, {"nbits": 4, "mode": "dkm"},
    {"nbits": 4, "mode": 4}, {"nbits": 4, "granularity": "per_channel"}, {"nbits": 4, "granularity": "per_block"},
    {"nbits": 4, "granularity": "rows"}, {"nbits": 4, "granularity": None}, {"nbits": 4, "cluster_dim": "2"},
    {"nbits": 4, "cluster_dim": None}, {"nbits": 4, "enable_per_channel_scale": 1},
    {"nbits": 4, "enable_per_channel_scale": None}, {"nbits": 4, "num_kmeans_workers": 1.5},
    {"nbits": 4, "weight_threshold": -1}, {"nbits": 4, "weight_threshold": "2048"}, {"nbits": 4, "bits": 4},
]


@pytest.mark.parametrize("options", ACCEPTED, ids=str)
def test_the_same_fields(options):
    mine, peers = both(lambda module: module.OpPalettizerConfig(**options))
    assert mine == peers and isinstance(mine, dict)


@pytest.mark.parametrize("options", REFUSED, ids=str)
def test_the_same_errors(options):
    mine, peers = both(lambda module: module.OpPalettizerConfig(**options))
    assert mine is peers and issubclass(mine, (TypeError, ValueError))


@pytest.mark.parametrize("options, word", [
    ({"nbits": 4, "group_size": -1}, "group_size"), ({"nbits": 4, "cluster_dim": 0}, "cluster_dim"),
    ({"nbits": 4, "num_kmeans_workers": 0}, "num_kmeans_workers"), ({"nbits": 4, "lut_dtype": "int4"}, "lut_dtype"),
], ids=str)
def test_values_that_the_peer_finds_out_late_or_never(options, word):
    with pytest.raises(ValueError, match=word):
        ours.OpPalettizerConfig(**options)
    with pytest.raises(TypeError, match="lut_dtype"):
        ours.OpPalettizerConfig(nbits=4, lut_dtype=8)


@pytest.mark.parametrize("name, value", [
    ("nbits", 6), ("nbits", 7), ("mode", "uniform"), ("mode", "none"), ("mode", None), ("granularity", "per_grouped_channel"),
    ("granularity", "per_block"), ("weight_threshold", -1), ("weight_threshold", 10), ("cluster_dim", 2.0),
    ("lut_function", function),
])
def test_assignment_is_checked_alike(name, value):
    def make(module):
        config = module.OpPalettizerConfig(nbits=4)
        setattr(config, name, value)
        if name == "mode":
            config.mode = config.mode.upper()  # the peer forgets the capitals here
        return config
    mine, peers = both(make)
    assert mine == peers


def test_a_refused_assignment_changes_nothing():
    config = ours.OpPalettizerConfig(nbits=4)
    with pytest.raises(ValueError):
        config.nbits = 5
    assert config.nbits == 4
    with pytest.raises(AttributeError):
        config.bits = 4  # the peer takes it and says nothing


def test_positional_arguments_and_equality():
    config = ours.OpPalettizerConfig("uniform", 4, None, "per_grouped_channel", 8, -1, 1, True, 2, 100)
    same = {"mode": "uniform", "nbits": 4, "granularity": "per_grouped_channel", "group_size": 8, "channel_axis": -1,
            "enable_per_channel_scale": True, "num_kmeans_workers": 2, "weight_threshold": 100}
    assert config == ours.OpPalettizerConfig(**same) == pickle.loads(pickle.dumps(config))
    assert config != ours.OpPalettizerConfig(**{**same, "nbits": 6})
    assert ours.OpPalettizerConfig(nbits=4) != "OpPalettizerConfig"
    assert "nbits=4" in repr(config)
    with pytest.raises(TypeError):
        hash(config)


DICTS = [
    {"config_type": "OpPalettizerConfig"},
    {"config_type": "OpPalettizerConfig", "global_config": {"nbits": 4}},
    {"config_type": "OpPalettizerConfig", "global_config": None, "op_type_configs": None},
    {"config_type": "OpPalettizerConfig", "global_config": {"mode": "kmeans", "nbits": 4},
     "op_type_configs": {"conv": {"mode": "uniform", "nbits": 1}, "linear": None},
     "op_name_configs": {"conv_1": {"mode": "unique"}}},
    {"config_type": "OpPalettizerConfig", "op_type_configs": {"conv": {"config_type": "OpPalettizerConfig", "nbits": 2}}},
    {"config_type": "OpPalettizerConfig", "global_config": {
        "nbits": 4, "granularity": "per_grouped_channel", "group_size": 4, "cluster_dim": 2, "channel_axis": 0,
        "weight_threshold": 5, "enable_per_channel_scale": True, "num_kmeans_workers": 2}},
]


def summary(config):
    def one(op):
        return None if op is None else {name: getattr(op, name) for name in FIELDS} | {"axis": op.granularity.name}
    return one(config.global_config), *({name: one(op) for name, op in configs.items()}
                                        for configs in (config.op_type_configs, config.op_name_configs))


@pytest.mark.parametrize("found", DICTS, ids=range(len(DICTS)))
def test_dictionaries_and_yaml(found, tmp_path):
    import copy
    import yaml

    expected = summary(theirs.OptimizationConfig.from_dict(copy.deepcopy(found)))  # it takes the dictionary apart
    given = copy.deepcopy(found)
    config = ours.OptimizationConfig.from_dict(given)
    assert summary(config) == expected and given == found
    path = tmp_path / "config.yaml"
    path.write_text(yaml.safe_dump(found))
    for source in (str(path), path, io.StringIO(path.read_text()), io.BytesIO(path.read_bytes())):
        assert ours.OptimizationConfig.from_yaml(source) == config


@pytest.mark.parametrize("found, word", [
    ({}, "config_type"), ({"config_type": None}, "config_type"), ({"config_type": "OpConfig", "global_config": {}}, "OpPalettizerConfig"),
    ({"config_type": "OpPalettizerConfig", "global": {}}, "Invalid key global"),
    ({"config_type": "OpPalettizerConfig", "global_config": {"nbits": 4, "lut_function": None}}, "lut_function"),
    ({"config_type": "OpPalettizerConfig", "global_config": {"nbits": 4, "bits": 4}}, "global_config: no field.*'bits'"),
    ({"config_type": "OpPalettizerConfig", "global_config": {"nbits": 5}}, 'global_config: Invalid value of "nbits" .5.'),
    ({"config_type": "OpPalettizerConfig", "global_config": 4}, "global_config is 4"),
    ({"config_type": "OpPalettizerConfig", "op_type_configs": [4]}, "op_type_configs"),
    ({"config_type": "OpPalettizerConfig", "op_name_configs": {"a": {"mode": "x"}}}, r"op_name_configs\['a'\]: Only modes"),
    ({"config_type": "OpPalettizerConfig", "op_name_configs": {"a": {"config_type": 4}}}, "config_type"),
], ids=str)
def test_bad_dictionaries(found, word):
    with pytest.raises(ValueError, match=word):
        ours.OptimizationConfig.from_dict(found)
    with pytest.raises(Exception):  # its own kinds; that it fails too is what counts
        theirs.OptimizationConfig.from_dict(found)


def test_setters():
    def made(module):
        config = module.OptimizationConfig()
        first = config.set_global(module.OpPalettizerConfig(nbits=4))
        config.set_op_type("linear", None)
        config.set_op_type("conv", module.OpPalettizerConfig(mode="unique"))
        config.set_op_name("conv_1", module.OpPalettizerConfig(nbits=2))
        assert first is None
        return summary(config)
    assert made(ours) == made(theirs)


@pytest.mark.parametrize("set_it", [
    lambda config: config.set_global("kmeans"), lambda config: config.set_op_type("conv", {"nbits": 4}),
    lambda config: config.set_op_name("conv_1", 4), lambda config: setattr(config, "global_config", 4),
    lambda config: setattr(config, "op_type_configs", {"conv": 4}),
])
def test_what_is_no_configuration_is_refused(set_it):
    for module in (ours, theirs):
        with pytest.raises(ValueError):
            set_it(module.OptimizationConfig())
