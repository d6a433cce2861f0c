"""The configs of the PyTorch side against coremltools': every field with good and bad values, and both sides' answers."""

import io

import pytest
import torch
from torch import nn

import coremltools.optimize.torch.palettization as peer
import palettizer.torch.palettization as ours

MODULES = ["ModulePostTrainingPalettizerConfig", "ModuleSKMPalettizerConfig"]
CONTAINERS = {
    "PostTrainingPalettizerConfig": "ModulePostTrainingPalettizerConfig",
    "SKMPalettizerConfig": "ModuleSKMPalettizerConfig",
}

FIELDS = {
    "n_bits": [4, 1, 8, None, "4", "x", 4.7, True, [], 0, -1],
    "lut_dtype": [None, torch.int8, torch.uint8, "int8", "uint8", "int4", "uint4", "int3", "UINT8", "qint8", "float16",
                  torch.float16, torch.qint8, "", 0, 3, "i8", "bogus", []],
    "granularity": ["per_tensor", "per_grouped_channel", "per_channel", "x", None, 3],
    "group_size": [None, 4, 0, "4"],
    "channel_axis": [0, 1, 2, -1, None, "1", "x", True, 1.0],
    "cluster_dim": [None, 1, 4, 0, "4", "x", 2.5],
    "enable_per_channel_scale": [True, False, None, 0, 1, "yes"],
    "enable_fast_kmeans_mode": [True, False, None, 0, "no"],
    "rounding_precision": [4, 0, None, "3", 2.5],
}  # fmt: skip

# Each a way to bring a value to a field; the config comes out or an exception does.
WAYS = {
    "constructor": lambda cls, **kw: cls(**kw),
    "assignment": lambda cls, **kw: _assigned(cls(), kw),
    "from_dict": lambda cls, **kw: cls.from_dict(kw),
    "from_yaml": lambda cls, **kw: cls.from_yaml(io.StringIO(repr(kw).replace("None", "null"))),
}


def _assigned(config, values):
    for name, value in values.items():
        setattr(config, name, value)
    return config


def plain(value):
    """A value in words that both sides share: enums by value, configs as dicts."""
    if hasattr(value, "as_dict"):
        return {k: plain(v) for k, v in value.as_dict().items() if k != "weight_threshold"}
    if isinstance(value, dict):
        return {k: plain(v) for k, v in value.items() if k != "weight_threshold"}
    return getattr(value, "value", value)


def outcome(make):
    """What comes out, or the type of what is raised. cattrs wraps errors of nested configs in groups."""
    try:
        return plain(make())
    except Exception as error:  # noqa: BLE001
        while hasattr(error, "exceptions"):
            error = error.exceptions[0]
        # cattrs' error for an unknown key below the top level
        return ValueError if type(error).__name__ == "ForbiddenExtraKeysError" else type(error)


def cases():
    for cls in MODULES:
        for field, values in FIELDS.items():
            if hasattr(getattr(peer, cls), field):
                for value in values:
                    for way in WAYS:
                        if way != "from_yaml" or isinstance(value, (str, int, float, list, type(None))):
                            yield pytest.param(cls, {field: value}, way, id=f"{cls}-{field}-{value!r}-{way}")


@pytest.mark.parametrize("cls, values, way", cases())
def test_a_field_takes_and_refuses_the_same(cls, values, way):
    answers = [outcome(lambda: WAYS[way](getattr(side, cls), **values)) for side in (ours, peer)]
    assert answers[0] == answers[1]


TOGETHER = [
    {"granularity": "per_grouped_channel", "group_size": 4},
    {"granularity": "per_grouped_channel", "group_size": 0},
    {"granularity": "per_grouped_channel", "group_size": -4},
    {"granularity": "per_tensor", "group_size": 4},
    {"granularity": "per_grouped_channel", "group_size": 4, "channel_axis": 1, "n_bits": 2},
    {"granularity": "per_grouped_channel", "group_size": "4"},
    {"cluster_dim": 4, "enable_per_channel_scale": True},
    {"enable_per_channel_scale": True, "cluster_dim": 4},
    {"cluster_dim": 1, "enable_per_channel_scale": True},
]


@pytest.mark.parametrize("way", ["constructor", "assignment", "from_dict", "from_yaml"])
@pytest.mark.parametrize("values", TOGETHER, ids=repr)
@pytest.mark.parametrize("cls", MODULES)
def test_fields_go_together_the_same(cls, values, way):
    answers = [outcome(lambda: WAYS[way](getattr(side, cls), **values)) for side in (ours, peer)]
    assert answers[0] == answers[1]


@pytest.mark.parametrize("way", ["constructor", "from_dict", "from_yaml"])
@pytest.mark.parametrize("cls", MODULES)
def test_unknown_fields_are_refused(cls, way):
    """Assigning one is refused too, where coremltools keeps it without a word."""
    for values in ({"bogus": 1}, {"n_bits": 4, "nbits": 4}):
        mine, theirs = (outcome(lambda: WAYS[way](getattr(side, cls), **values)) for side in (ours, peer))
        assert mine == theirs and issubclass(mine, Exception)
    with pytest.raises(AttributeError):
        getattr(ours, cls)().bogus = 1


@pytest.mark.parametrize("cls", MODULES)
def test_defaults_and_positions(cls):
    assert plain(getattr(ours, cls)()) == plain(getattr(peer, cls)())
    positional = [2, "int8", "per_grouped_channel", 8, 1, None, True]
    assert plain(getattr(ours, cls)(*positional)) == plain(getattr(peer, cls)(*positional))


@pytest.mark.parametrize("cls", MODULES)
def test_weight_threshold_comes_last_and_is_checked(cls):
    config = getattr(ours, cls)()
    assert list(config.as_dict())[-1] == "weight_threshold" and config.weight_threshold == 0
    assert getattr(ours, cls).from_dict({"weight_threshold": "2048"}).weight_threshold == 2048
    for value, error in [(-1, ValueError), ("2048", TypeError), (None, TypeError), (1.5, TypeError)]:
        with pytest.raises(error, match="weight_threshold"):
            config.weight_threshold = value
    assert config.weight_threshold == 0


def test_equality_repr_and_hash():
    make = ours.ModulePostTrainingPalettizerConfig
    assert make(n_bits=2) == make(n_bits=2) != make(n_bits=4)
    assert "n_bits=2" in repr(make(n_bits=2))
    with pytest.raises(TypeError):
        hash(make())


CONTAINER_DICTS = [
    {},
    {"global_config": {"n_bits": 2}},
    {"global_config": {"n_bits": "2"}},
    {"global_config": {"n_bits": "x"}},
    {"global_config": {"bogus": 1}},
    {"global_config": None},
    {"global_config": 5},
    {"module_type_configs": {"Linear": {"n_bits": 2}, "Conv2d": None, "Own": {"n_bits": 3}}},
    {"module_type_configs": {nn.Linear: {"n_bits": 2}}},
    {"module_type_configs": {"relu": None}},
    {"module_type_configs": {"Linear": 5}},
    {"module_type_configs": {"Linear": {"bogus": 1}}},
    {"module_type_configs": {5: None}},
    {"module_name_configs": {"a.*": {"n_bits": "2"}, "b": None}},
    {"module_name_configs": {"a": 5}},
    {"module_name_configs": {"a": {"bogus": 1}}},
    {"module_name_configs": {5: None}},
    {"global_config": {"granularity": "per_grouped_channel", "group_size": 4}, "module_name_configs": {"a": None}},
    {"global_config": {"group_size": 4}},
    {"bogus": 1},
    {"globl_config": {}},
]


@pytest.mark.parametrize("values", CONTAINER_DICTS, ids=repr)
@pytest.mark.parametrize("cls", CONTAINERS)
def test_containers_from_dict(cls, values):
    answers = [outcome(lambda: getattr(side, cls).from_dict(values)) for side in (ours, peer)]
    assert answers[0] == answers[1]


@pytest.mark.parametrize("field", ["global_config", "module_type_configs", "module_name_configs"])
@pytest.mark.parametrize("way", ["constructor", "assignment"])
@pytest.mark.parametrize("cls", CONTAINERS)
def test_containers_refuse_the_same_types(cls, field, way):
    def values(side):
        good = getattr(side, CONTAINERS[cls])
        yield from (None, 5, "x", [], {}, good(), {"a": None}, {"a": good()}, {"a": 5}, {5: None}, {nn.Linear: good()})

    for mine, theirs in zip(values(ours), values(peer)):
        answers = [outcome(lambda: WAYS[way](getattr(side, cls), **{field: value}))
                   for side, value in ((ours, mine), (peer, theirs))]  # fmt: skip
        assert answers[0] == answers[1], mine


@pytest.mark.parametrize("cls", CONTAINERS)
def test_setters_return_the_config(cls):
    module = getattr(ours, CONTAINERS[cls])
    config = getattr(ours, cls)()
    same = config.set_global(None).set_module_type("Linear", module(n_bits=2)).set_module_name("a", None)
    assert same is config
    assert config.module_type_configs == {"Linear": module(n_bits=2)} and config.module_name_configs == {"a": None}
    for refused in (
        lambda: config.set_global(5),
        lambda: config.set_module_type(5, None),
        lambda: config.set_module_type("Linear", 5),
        lambda: config.set_module_name(5, None),
        lambda: config.set_module_name("a", {"n_bits": 2}),
    ):
        with pytest.raises(TypeError):
            refused()
    assert config.module_type_configs == {"Linear": module(n_bits=2)} and config.module_name_configs == {"a": None}


@pytest.mark.parametrize("cls", CONTAINERS)
def test_precedence(cls):
    class Own(nn.Linear):
        pass

    def container(side):
        make = getattr(side, CONTAINERS[cls])
        return getattr(side, cls)(
            global_config=make(n_bits=1),
            module_type_configs={"Linear": make(n_bits=2), "Own": make(n_bits=3), nn.Conv2d: None},
            module_name_configs={r"block\.\d": make(n_bits=4), "block.1": make(n_bits=6), "skip": None},
        )

    linear, own, conv, norm = nn.Linear(2, 2), Own(2, 2), nn.Conv2d(2, 2, 1), nn.LayerNorm(2)
    for name in ("block.0", "block.1", "block.10", "a.block.0", "block", "skip", "", "skipped"):
        for module in (linear, own, conv, norm):
            mine, theirs = (container(side).get_module_config(name, module) for side in (ours, peer))
            assert getattr(mine, "n_bits", None) == getattr(theirs, "n_bits", None), (name, module)


@pytest.mark.parametrize("cls", CONTAINERS)
def test_as_dict_comes_back(cls):
    config = getattr(ours, cls).from_dict(
        {
            "global_config": {"n_bits": 2, "lut_dtype": "int8", "weight_threshold": 9},
            "module_type_configs": {"Linear": {"granularity": "per_grouped_channel", "group_size": 2}, "Conv2d": None},
            "module_name_configs": {"a.*": {"n_bits": 8}},
        }
    )
    assert getattr(ours, cls).from_dict(config.as_dict()) == config


YAML = """
global_config:
  n_bits: 6
module_type_configs:
  Linear:
    n_bits: 4
    lut_dtype: int8
  Conv2d: null
module_name_configs:
  'encoder\\..*':
    granularity: per_grouped_channel
    group_size: 4
"""


@pytest.mark.parametrize("cls", CONTAINERS)
def test_yaml_from_a_path_or_a_stream(cls, tmp_path):
    path = tmp_path / "config.yaml"
    path.write_text(YAML)
    theirs = plain(getattr(peer, cls).from_yaml(str(path)))
    with open(path) as stream:
        mine = [getattr(ours, cls).from_yaml(source) for source in (str(path), path, stream)]
    assert [plain(config) for config in mine] == [theirs] * 3
    assert plain(getattr(ours, cls).from_yaml(io.StringIO(""))) == plain(getattr(peer, cls).from_yaml(io.StringIO("")))
    with pytest.raises(AssertionError, match="mapping"):
        getattr(ours, cls).from_yaml(io.StringIO("[1, 2]"))
    with pytest.raises(FileNotFoundError):
        getattr(ours, cls).from_yaml(str(tmp_path / "none.yaml"))


@pytest.mark.parametrize("value", [128, 1, "16", "x", None, 2.5, True])
@pytest.mark.parametrize("way", WAYS)
def test_calibration_nsamples(value, way):
    answers = [outcome(lambda: WAYS[way](side.SKMPalettizerConfig, calibration_nsamples=value)) for side in (ours, peer)]
    assert answers[0] == answers[1]


def test_errors_say_what_was_found_and_what_is_wanted():
    make = ours.ModulePostTrainingPalettizerConfig
    for bad, words in [
        ({"n_bits": "4"}, ["n_bits", "'4'", "str", "int"]),
        ({"lut_dtype": "i8"}, ["lut_dtype", "'i8'", "uint8"]),
        ({"granularity": "per_channel"}, ["per_channel", "per_grouped_channel"]),
        ({"channel_axis": 2}, ["channel_axis", "2", "0, 1"]),
    ]:
        with pytest.raises((TypeError, ValueError)) as caught:
            make(**bad)
        assert all(word in str(caught.value) for word in words), str(caught.value)
    with pytest.raises(ValueError, match="nbits.*n_bits, lut_dtype"):
        make.from_dict({"nbits": 4})
    with pytest.raises(AttributeError, match="nbits.*n_bits"):
        make().nbits = 4
