"""The configs of differentiable k-means against coremltools': every field with good and bad values."""

import copy
import io
import pickle
import warnings

import pytest
import torch
from torch import nn

import coremltools.optimize.torch.palettization as peer
import palettizer.torch.palettization._dkm.config as ours
from palettizer.torch.palettization._dkm.choice import choose
from palettizer.torch.palettization._dkm.config import DKMPalettizerConfig, ModuleDKMPalettizerConfig
from palettizer.torch.palettization._plan.layers import KINDS, NAMES
from palettizer.torch.palettization._plan.reasons import check_config
from torch_support.dkm import THE_PEERS_NUMBERS

WHOLE = [7, "7", "x", 7.9, None, [], True]
FRACTION = [0.5, 1.0, 1, "0.5", "x", None, True, []]
SWITCH = [True, False, None, 0, 1, "no", []]

# Values on which both sides agree; LATER below has those where ours says no at once.
FIELDS = {
    "n_bits": [2, 5, 0, -1, *WHOLE],
    "weight_threshold": [0, 2048, *WHOLE],
    "granularity": ["per_tensor", "per_grouped_channel", "per_channel", None, 3],
    "group_size": [None, 4, 0, "4"],
    "channel_axis": [0, 1, -1, "0", "1", "x", True, False, 0.0],
    "enable_per_channel_scale": SWITCH,
    "milestone": [0, *WHOLE],
    "cluster_dim": [0, -1, *WHOLE],
    "quant_min": [-8, *WHOLE],
    "quant_max": [255, *WHOLE],
    "dtype": [torch.qint8, torch.quint8, torch.float32, torch.int8, "qint8", "QUINT8", "float32", "qint4", "quint4",
              "int8", "float16", "bogus", "", None, 3, []],
    "lut_dtype": ["f32", "f16", "i8", "u8", "bf16", "b16", "int8", "UINT8", "float16"],
    "quantize_activations": SWITCH,
    "cluster_permute": [None, (1, 0), (1, 2, 3, 0), (), 5],
    "palett_max_mem": FRACTION,
    "kmeans_max_iter": [1, 100, *WHOLE],
    "prune_threshold": [0.0, *FRACTION],
    "kmeans_init": ["auto", "opt1d", "kmeans++", "cpu.kmeans++", "cpu.minibatch.kmeans++"],
    "kmeans_opt1d_threshold": [0, *WHOLE],
    "enforce_zero": SWITCH,
    "palett_mode": ["dkm", "gsm", "hard"],
    "palett_tau": FRACTION,
    "palett_epsilon": [0.0, *FRACTION],
    "palett_lambda": [-1.0, *FRACTION],
    "add_extra_centroid": SWITCH,
    "palett_cluster_tol": [0.0, *FRACTION],
    "palett_min_tsize": [0, *WHOLE],
    "palett_unique": SWITCH,
    "palett_shard": SWITCH,
    "palett_batch_mode": SWITCH,
    "palett_dist": SWITCH,
    "per_channel_scaling_factor_scheme": ["min_max", "abs", "max", "", None, 3],
    "percentage_palett_enable": FRACTION,
    "kmeans_batch_threshold": [0, *WHOLE],
    "kmeans_n_init": [1, *WHOLE],
    "zero_threshold": [0.0, *FRACTION],
    "kmeans_error_bnd": [0.0, *FRACTION],
    "partition_size": [3, 0],
}  # fmt: skip

WAYS = {
    "constructor": lambda cls, **kw: cls(**kw),
    "assignment": lambda cls, **kw: assigned(cls(), kw),
    "from_dict": lambda cls, **kw: cls.from_dict(kw),
    "from_yaml": lambda cls, **kw: cls.from_yaml(io.StringIO(repr(kw).replace("None", "null"))),
}
IN_YAML = (str, int, float, list, type(None))


def assigned(config, values):
    for name, value in values.items():
        setattr(config, name, value)
    return config


def plain(value):
    """A value in words that both sides share: configs as dicts without what is ours alone, classes by name.

    What is "auto" with ours has a number with the peer.
    """
    if hasattr(value, "as_dict"):
        return plain(value.as_dict())
    if isinstance(value, dict):
        number = lambda k, v: THE_PEERS_NUMBERS[k] if k in THE_PEERS_NUMBERS and v == "auto" else plain(v)
        return {getattr(k, "__name__", k): number(k, v) for k, v in value.items() if k != "implicit"}
    return [plain(v) for v in value] if isinstance(value, list) else getattr(value, "value", value)


def outcome(make):
    """What comes out, or the type of what is raised. cattrs wraps errors of nested configs in groups."""
    try:
        return plain(make())
    except Exception as error:  # noqa: BLE001
        while hasattr(error, "exceptions"):
            error = error.exceptions[0]
        return ValueError if type(error).__name__ == "ForbiddenExtraKeysError" else type(error)


def cases():
    for field, values in FIELDS.items():
        for way in WAYS:
            for number, value in enumerate(values):
                if way != "from_yaml" or isinstance(value, IN_YAML):
                    yield pytest.param(way, {field: value}, id=f"{field}-{number}-{value!r}-{way}")


@pytest.mark.parametrize("way, values", cases())
def test_a_field_takes_and_refuses_the_same(way, values):
    mine, theirs = (outcome(lambda: WAYS[way](side.ModuleDKMPalettizerConfig, **values)) for side in (ours, peer))
    assert mine == theirs


def test_every_field_has_its_cases():
    fields = list(peer.ModuleDKMPalettizerConfig().as_dict())
    assert list(ModuleDKMPalettizerConfig().as_dict()) == [*fields, "implicit"]
    assert [*FIELDS, "cluster_dtype"] == fields


def test_defaults():
    theirs = {**peer.ModuleDKMPalettizerConfig().as_dict(), "implicit": False}
    assert {name: theirs[name] for name in THE_PEERS_NUMBERS} == THE_PEERS_NUMBERS
    theirs.update(dict.fromkeys(THE_PEERS_NUMBERS, "auto"))
    mine = ModuleDKMPalettizerConfig().as_dict()
    assert {name: plain(value) for name, value in mine.items()} == {name: plain(value) for name, value in theirs.items()}
    assert {name: mine[name] for name in THE_PEERS_NUMBERS} == dict.fromkeys(THE_PEERS_NUMBERS, "auto")


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("field", THE_PEERS_NUMBERS)
def test_auto_may_be_named_and_a_number_is_a_number(field, way):
    assert WAYS[way](ModuleDKMPalettizerConfig, **{field: "auto"}) == ModuleDKMPalettizerConfig()
    config = WAYS[way](ModuleDKMPalettizerConfig, **{field: 0.25})
    assert getattr(config, field) == 0.25 and config != ModuleDKMPalettizerConfig()
    assert ModuleDKMPalettizerConfig.from_dict(config.as_dict()) == config
    with pytest.raises((TypeError, ValueError), match="Auto"):
        WAYS[way](ModuleDKMPalettizerConfig, **{field: "Auto"})


@pytest.mark.parametrize("way", WAYS)
def test_straight_through_is_a_mode(way):
    assert WAYS[way](ModuleDKMPalettizerConfig, palett_mode="ste").palett_mode == "ste"



# Refused when given, where coremltools refuses it in training, or not at all.
LATER = [
    ("weight_threshold", -1), ("milestone", -1), ("quant_min", 127), ("quant_min", 500), ("quant_max", -128),
    ("cluster_permute", (1, 1)), ("cluster_permute", (1, 2)), ("cluster_permute", (0, -1)),
    ("cluster_permute", ("1", "0")),
    ("kmeans_max_iter", 0), ("prune_threshold", -1e-9), ("prune_threshold", float("nan")), ("kmeans_init", "bogus"),
    ("kmeans_init", "nf"), ("kmeans_init", ""), ("palett_mode", "bogus"), ("palett_mode", "topk"),
    ("palett_mode", "DKM"),
    ("palett_tau", 0.0), ("palett_tau", -1.0), ("palett_tau", float("nan")), ("palett_tau", float("inf")),
    ("palett_epsilon", -1.0), ("palett_cluster_tol", -0.5), ("percentage_palett_enable", 0.0),
    ("percentage_palett_enable", 1.5), ("percentage_palett_enable", float("nan")), ("kmeans_n_init", 0),
    ("zero_threshold", -1.0), ("lut_dtype", "bogus"), ("lut_dtype", ""), ("lut_dtype", "int4"),
]  # fmt: skip


@pytest.mark.parametrize("way", ["constructor", "assignment", "from_dict"])
@pytest.mark.parametrize("field, value", LATER)
def test_what_cannot_be_is_refused_at_once(field, value, way):
    assert outcome(lambda: WAYS[way](peer.ModuleDKMPalettizerConfig, **{field: value})) not in (ValueError, TypeError)
    with pytest.raises(ValueError, match=field):
        WAYS[way](ModuleDKMPalettizerConfig, **{field: value})


def test_a_refused_value_changes_nothing():
    config = ModuleDKMPalettizerConfig(n_bits=3, lut_dtype="u8")
    refused = [("n_bits", "4"), ("palett_tau", 0.0), ("lut_dtype", "x"), ("cluster_dtype", "x"), ("group_size", 4)]
    for name, value in refused:
        with pytest.raises((TypeError, ValueError, AssertionError)):
            setattr(config, name, value)
    assert config == ModuleDKMPalettizerConfig(n_bits=3, lut_dtype="u8")


TOGETHER = [
    {"granularity": "per_grouped_channel", "group_size": 4},
    {"granularity": "per_grouped_channel", "group_size": 0},
    {"granularity": "per_grouped_channel", "group_size": -4},
    {"granularity": "per_grouped_channel", "group_size": None},
    {"granularity": "per_tensor", "group_size": 4},
    {"granularity": "per_grouped_channel", "group_size": "4"},
    {"cluster_dim": 4, "enable_per_channel_scale": True},
    {"quant_min": 0, "quant_max": 255, "dtype": "quint8", "quantize_activations": True},
]


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("values", TOGETHER, ids=repr)
def test_fields_go_together_the_same(values, way):
    mine, theirs = (outcome(lambda: WAYS[way](side.ModuleDKMPalettizerConfig, **values)) for side in (ours, peer))
    assert mine == theirs


@pytest.mark.parametrize("way", ["constructor", "from_dict", "from_yaml"])
def test_unknown_fields_are_refused(way):
    for values in ({"bogus": 1}, {"n_bits": 4, "nbits": 4}):
        mine, theirs = (outcome(lambda: WAYS[way](side.ModuleDKMPalettizerConfig, **values)) for side in (ours, peer))
        assert mine == theirs and issubclass(mine, Exception)
    with pytest.raises(AttributeError, match="bogus.*n_bits"):
        ModuleDKMPalettizerConfig().bogus = 1


@pytest.mark.parametrize("native, names", [
    (None, ["f32", "fp32", "float32", "F32", torch.float32]),
    ("f16", ["f16", "fp16", "float16", "FP16", torch.float16]),
    ("bf16", ["bf16", "b16", "bfloat16", "BFloat16", torch.bfloat16]),
    ("int8", ["i8", "int8", "INT8", torch.int8]),
    ("uint8", ["u8", "uint8", "U8", torch.uint8]),
])  # fmt: skip
def test_types_of_table_entries(native, names):
    for name in names:
        for way in ("constructor", "assignment", "from_dict"):
            config = WAYS[way](ModuleDKMPalettizerConfig, lut_dtype=name)
            assert config.native_lut_dtype == native
            assert config.lut_dtype == str(name).replace("torch.", "")
    for value, error in [(None, TypeError), (8, TypeError), ([], TypeError), (torch.int16, ValueError)]:
        with pytest.raises(error, match="lut_dtype"):
            ModuleDKMPalettizerConfig(lut_dtype=value)


def test_errors_say_what_was_found_and_what_is_wanted():
    for bad, words in [
        ({"palett_tau": 1}, ["palett_tau", "1", "int", "float or 'auto'"]),
        ({"palett_mode": "soft"}, ["palett_mode", "'soft'", "dkm, gsm, hard, ste"]),
        ({"lut_dtype": "int4"}, ["lut_dtype", "'int4'", "int8"]),
        ({"dtype": "int4"}, ["dtype", "'int4'", "quint8"]),
        ({"quant_min": 5, "quant_max": 5}, ["quant_min", "quant_max", "5 and 5"]),
        ({"cluster_permute": (0, 2)}, ["cluster_permute", "(0, 2)"]),
        ({"percentage_palett_enable": 50.0}, ["percentage_palett_enable", "50.0", "at most 1"]),
        ({"channel_axis": 1}, ["channel_axis", "found 1"]),
    ]:
        with pytest.raises((TypeError, ValueError)) as caught:
            ModuleDKMPalettizerConfig(**bad)
        assert all(word in str(caught.value) for word in words), str(caught.value)


class TestOlderNames:
    @pytest.mark.parametrize("way", WAYS)
    def test_cluster_dtype_is_lut_dtype(self, way):
        with pytest.warns(DeprecationWarning, match="lut_dtype") as caught:
            config = WAYS[way](ModuleDKMPalettizerConfig, cluster_dtype="u8")
        assert len(caught) == 1 and caught[0].filename == __file__, "the warning points at who gave it"
        assert config == ModuleDKMPalettizerConfig(lut_dtype="u8") and config.cluster_dtype is None

    def test_in_a_container(self):
        with pytest.warns(DeprecationWarning) as caught:
            config = DKMPalettizerConfig.from_dict({"module_type_configs": {"Linear": [{"cluster_dtype": "f16"}]}})
        assert [warning.filename for warning in caught] == [__file__]
        assert config.module_type_configs[nn.Linear][0].lut_dtype == "f16"

    def test_two_names_must_agree(self):
        for given in [{"lut_dtype": "i8", "cluster_dtype": "u8"}, {"cluster_dtype": "f32", "lut_dtype": "f16"}]:
            with pytest.warns(DeprecationWarning), pytest.raises(ValueError, match="lut_dtype.*cluster_dtype"):
                ModuleDKMPalettizerConfig(**given)
        with pytest.warns(DeprecationWarning):
            assert ModuleDKMPalettizerConfig(lut_dtype="i8", cluster_dtype=torch.int8).native_lut_dtype == "int8"

    def test_the_last_assignment_counts(self):
        config = ModuleDKMPalettizerConfig(lut_dtype="i8")
        with pytest.warns(DeprecationWarning):
            config.cluster_dtype = "u8"
        assert config.lut_dtype == "u8"
        config.lut_dtype = "f16"
        assert config.native_lut_dtype == "f16"

    @pytest.mark.parametrize("value, error", [("bogus", ValueError), (8, TypeError)])
    def test_bad_values(self, value, error):
        with pytest.warns(DeprecationWarning), pytest.raises(error):
            ModuleDKMPalettizerConfig(cluster_dtype=value)

    @pytest.mark.parametrize("way", WAYS)
    def test_none_says_nothing(self, way):
        """coremltools casts None of a dict to text and refuses it."""
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            config = WAYS[way](ModuleDKMPalettizerConfig, cluster_dtype=None, partition_size=None)
            assert copy.deepcopy(config) == pickle.loads(pickle.dumps(config)) == ModuleDKMPalettizerConfig()

    def test_partition_size_is_gone(self):
        with pytest.raises(DeprecationWarning, match="group_size"):
            ModuleDKMPalettizerConfig(partition_size=4)


CONTAINER_DICTS = [
    {},
    {"global_config": {"n_bits": "2"}},
    {"global_config": {"n_bits": "x"}},
    {"global_config": {"bogus": 1}},
    {"global_config": {"group_size": 4}},
    {"global_config": []},
    {"module_type_configs": {"Linear": {"n_bits": 2}, "Conv2d": None}},
    {"module_type_configs": {nn.Linear: {"n_bits": 2}, nn.LayerNorm: {}, nn.MultiheadAttention: {"milestone": 3}}},
    {"module_type_configs": {"Linear": [{"weight_threshold": 9}, {"n_bits": 6, "weight_threshold": 3}, {}]}},
    {"module_type_configs": {"Linear": []}},
    {"module_type_configs": {"Linear": {"bogus": 1}}},
    {"module_type_configs": {"Linear": [{"bogus": 1}]}},
    {"module_type_configs": {"ReLU": None}},
    {"module_type_configs": {nn.ReLU: {}}},
    {"module_type_configs": {"relu": None}},
    {"module_type_configs": {"Own": None}},
    {"module_type_configs": {torch.relu: None}},
    {"module_type_configs": {5: None}},
    {"module_name_configs": {"a.*": {"n_bits": "2"}, "b": None}},
    {"module_name_configs": {"a": [{"weight_threshold": "10", "n_bits": 1}, {"weight_threshold": 1, "n_bits": 8}]}},
    {"module_name_configs": {"a": {"bogus": 1}}},
    {"global_config": {"granularity": "per_grouped_channel", "group_size": 4}, "module_name_configs": {"a": None}},
    {"bogus": 1},
    {"globl_config": {}},
]


def as_the_peer_knows(answer):
    """Without the kinds of layers that are palettized by ours alone, where a config names all kinds."""
    if isinstance(answer, dict) and len(answer["module_type_configs"]) == len(NAMES):
        known = {cls.__name__ for cls in peer.DKMPalettizerConfig().module_type_configs}
        answer["module_type_configs"] = {k: v for k, v in answer["module_type_configs"].items() if k in known}
    return answer


@pytest.mark.parametrize("values", CONTAINER_DICTS, ids=repr)
def test_containers_from_dict(values):
    mine, theirs = (outcome(lambda: side.DKMPalettizerConfig.from_dict(values)) for side in (ours, peer))
    assert as_the_peer_knows(mine) == theirs


@pytest.mark.parametrize("value", [5, "x", (ModuleDKMPalettizerConfig(),), [5], [None], [{}, None]], ids=repr)
@pytest.mark.parametrize("where", ["global_config", "module_type_configs", "module_name_configs"])
def test_what_is_no_config_in_a_dict_is_a_type_error(where, value):
    """coremltools asks a value for its items without looking, and raises AttributeError."""
    nested = value if where == "global_config" else {"Linear": value}
    assert outcome(lambda: peer.DKMPalettizerConfig.from_dict({where: nested})) is AttributeError
    with pytest.raises(TypeError):
        DKMPalettizerConfig.from_dict({where: nested})


def test_configs_and_none_may_stand_in_a_dict():
    module = ModuleDKMPalettizerConfig(n_bits=1)
    config = DKMPalettizerConfig.from_dict(
        {"global_config": None, "module_type_configs": {"Linear": module}, "module_name_configs": {5: [module, {}]}}
    )
    assert config.global_config is None and config.module_type_configs == {nn.Linear: module}
    assert config.module_name_configs == {"5": [module, ModuleDKMPalettizerConfig()]}


@pytest.mark.parametrize("field", ["global_config", "module_type_configs", "module_name_configs"])
@pytest.mark.parametrize("way", ["constructor", "assignment"])
def test_containers_refuse_the_same_types(field, way):
    def values(side):
        good = side.ModuleDKMPalettizerConfig
        inner = [None, good(), [good()], [], [good(), 5], (good(),), 5, "x", {}]
        yield from inner
        yield from ({"Linear": value} for value in inner)
        yield from ({nn.Linear: good()}, {"ReLU": good()}, {nn.ReLU: None}, {5: None}, {"a": None}, {5: 5}, {"ReLU": 5})

    for mine, theirs in zip(values(ours), values(peer)):
        answers = [outcome(lambda: WAYS[way](side.DKMPalettizerConfig, **{field: value}))
                   for side, value in ((ours, mine), (peer, theirs))]  # fmt: skip
        assert as_the_peer_knows(answers[0]) == answers[1], mine


def test_none_in_a_list_is_refused():
    for make in (
        lambda: DKMPalettizerConfig(global_config=[None]),
        lambda: DKMPalettizerConfig(module_type_configs={"Linear": [ModuleDKMPalettizerConfig(), None]}),
        lambda: DKMPalettizerConfig().set_module_name("a", [None]),
    ):
        with pytest.raises(TypeError, match="None"):
            make()


def test_the_defaults_are_each_types_own():
    config = DKMPalettizerConfig()
    assert config.global_config is None
    bits = {getattr(cls, "__name__", cls): value.n_bits for cls, value in config.module_type_configs.items()}
    assert bits == {**dict.fromkeys(NAMES, 2), "Linear": 4, "Conv1D": 4}
    config.set_module_type("Linear", None).module_type_configs[nn.Conv2d].n_bits = 8
    again = DKMPalettizerConfig().module_type_configs
    assert again[nn.Linear].n_bits == 4 and again[nn.Conv2d].n_bits == 2, "defaults are nobody's to change"


@pytest.mark.parametrize("dims", [1, 2, 3])
def test_transposed_convolutions_are_supported(dims):
    cls = getattr(nn, f"ConvTranspose{dims}d")
    for key in (cls, cls.__name__):
        config = DKMPalettizerConfig.from_dict({"module_type_configs": {key: {"n_bits": 3}}})
        assert config.get_module_config("a", cls(2, 2, 1)).n_bits == 3


def test_setters_return_the_config_and_check():
    module = ModuleDKMPalettizerConfig
    config = DKMPalettizerConfig(module_type_configs={"Linear": module(n_bits=1), nn.Conv1d: None})
    same = config.set_global([module(n_bits=2)]).set_module_type("Linear", module(n_bits=2)).set_module_name("a", None)
    same.set_module_type(nn.Conv1d, [module()])
    assert same is config and config.global_config == [module(n_bits=2)]
    # a class and its name are one key
    after = {nn.Linear: module(n_bits=2), nn.Conv1d: [module()]}
    assert config.module_type_configs == after and config.module_name_configs == {"a": None}
    for refused, error in [
        (lambda: config.set_global(5), TypeError),
        (lambda: config.set_global([5]), TypeError),
        (lambda: config.set_module_type(5, None), TypeError),
        (lambda: config.set_module_type("ReLU", module()), AssertionError),
        (lambda: config.set_module_type(nn.ReLU, None), AssertionError),
        (lambda: config.set_module_type("Linear", (module(),)), TypeError),
        (lambda: config.set_module_name(5, None), TypeError),
        (lambda: config.set_module_name("a", {"n_bits": 2}), TypeError),
    ]:
        with pytest.raises(error):
            refused()
    assert config.module_type_configs == after and config.module_name_configs == {"a": None}


def test_precedence():
    class Own(nn.Linear):
        pass

    def container(side):
        make = side.ModuleDKMPalettizerConfig
        return side.DKMPalettizerConfig(
            global_config=make(n_bits=1),
            module_type_configs={"Linear": make(n_bits=2), nn.Conv2d: None, "LayerNorm": make(n_bits=3)},
            module_name_configs={r"block\.\d": make(n_bits=4), "block.1": make(n_bits=6), "skip": None},
        )

    assert container(ours).get_module_config("own", Own(2, 2)).n_bits == 2  # the peer leaves subclasses alone
    modules = nn.Linear(2, 2), nn.Conv2d(2, 2, 1), nn.LayerNorm(2), nn.Conv1d(2, 2, 1)
    for name in ("block.0", "block.1", "block.10", "a.block.0", "block", "skip", "", "skipped"):
        for module in modules:
            mine, theirs = (container(side).get_module_config(name, module) for side in (ours, peer))
            assert getattr(mine, "n_bits", None) == getattr(theirs, "n_bits", None), (name, module)


def test_as_dict_comes_back():
    config = DKMPalettizerConfig.from_dict(
        {
            "global_config": [
                {"lut_dtype": "INT8", "weight_threshold": 9},
                {"cluster_permute": [1, 0], "implicit": True},
            ],
            "module_type_configs": {"Linear": {"granularity": "per_grouped_channel", "group_size": 2}, "Conv2d": None},
            "module_name_configs": {"a.*": [{"n_bits": 8, "dtype": "float32"}]},
        }
    )
    words = config.as_dict()
    assert words["global_config"][0]["lut_dtype"] == "INT8" and words["global_config"][1]["cluster_permute"] == [1, 0]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert DKMPalettizerConfig.from_dict(words) == config == copy.deepcopy(config)
        module = config.global_config[1]
        assert ModuleDKMPalettizerConfig.from_dict(module.as_dict()) == module != ModuleDKMPalettizerConfig()


YAML = """
global_config:
  n_bits: 6
  palett_tau: 1e-3
module_type_configs:
  Linear:
    - {n_bits: 4, weight_threshold: 4096, lut_dtype: u8}
    - {n_bits: 8, weight_threshold: 1024, cluster_permute: [1, 0]}
  Conv2d: null
module_name_configs:
  'encoder\\..*':
    granularity: per_grouped_channel
    group_size: 4
    milestone: 2
"""


def test_yaml_from_a_path_or_a_stream(tmp_path):
    path = tmp_path / "config.yaml"
    path.write_text(YAML)
    theirs = plain(peer.DKMPalettizerConfig.from_yaml(str(path)))
    with open(path) as stream:
        mine = [DKMPalettizerConfig.from_yaml(source) for source in (str(path), path, stream)]
    assert [plain(config) for config in mine] == [theirs] * 3
    assert DKMPalettizerConfig.from_yaml(io.StringIO("")) == DKMPalettizerConfig()
    with pytest.raises(AssertionError, match="mapping"):
        DKMPalettizerConfig.from_yaml(io.StringIO("[1, 2]"))


def sizes(*thresholds):
    return [ModuleDKMPalettizerConfig(weight_threshold=threshold) for threshold in thresholds]


class TestChoose:
    @pytest.mark.parametrize("thresholds, numels, chosen", [
        ([100, 300, 1000], [50], None),
        ([100, 300, 1000], [100], None),
        ([100, 300, 1000], [101], 100),
        ([1000, 100, 300], [1000], 300),
        ([1000, 100, 300], [5000], 1000),
        ([100, 300, 1000], [5000, 200], 100),
        ([100], [200, 50], None),
        ([], [200], None),
    ])  # fmt: skip
    def test_the_highest_threshold_that_all_weights_exceed(self, thresholds, numels, chosen):
        assert getattr(choose(sizes(*thresholds), numels), "weight_threshold", None) == chosen

    def test_the_same_as_in_coremltools(self):
        for numel in (64, 128, 1024):
            bits = []
            for side in (ours, peer):
                made = [{"n_bits": 4, "weight_threshold": 100}, {"n_bits": 1, "weight_threshold": 20}]
                config = side.DKMPalettizerConfig.from_dict({"module_type_configs": {"Linear": made}})
                if side is ours:
                    bits.append(choose(config.get_module_config("", nn.Linear(1, 1)), [numel]).n_bits)
                else:
                    model = peer.DKMPalettizer(nn.Sequential(nn.Linear(numel // 8, 8)), config).prepare()
                    bits.append(model[0].weight_fake_quant.n_bits)
            assert bits[0] == bits[1], numel

    def test_lists_stand_in_ascending_order(self):
        """coremltools sorts a global list, too, but drops the result."""
        config = DKMPalettizerConfig(sizes(9, 3), {"Linear": sizes(5, 2, 4)}, {"a": sizes(2, 1)})
        assert config == DKMPalettizerConfig(sizes(3, 9), {"Linear": sizes(2, 4, 5)}, {"a": sizes(1, 2)})
        assert [module.weight_threshold for module in config.global_config] == [3, 9]

    def test_thresholds_may_change_later(self):
        configs = DKMPalettizerConfig(sizes(10, 20)).global_config
        configs[0].weight_threshold = 30
        assert choose(configs, [40]) is configs[0]

    def test_a_single_config_and_none(self):
        (config,) = sizes(10)
        assert choose(config, [11]) is config and choose(config, [10]) is None and choose(None, [11]) is None

    def test_of_equal_thresholds_the_last(self):
        configs = sizes(10, 10)
        assert choose(configs, [11]) is configs[1]

    def test_one_that_does_not_fit_leaves_it_to_the_next(self):
        configs = sizes(10, 20, 30)
        assert choose(configs, [25], fits=lambda config: config.weight_threshold != 20) is configs[0]
        assert choose(configs, [25], fits=lambda config: False) is None


class TestResolved:
    def test_none_becomes_what_the_type_has(self):
        for cls, theirs in peer.DKMPalettizerConfig().module_type_configs.items():
            mine = ModuleDKMPalettizerConfig().resolved(KINDS[cls])
            assert (mine.n_bits, mine.cluster_dim) == (theirs.n_bits, theirs.cluster_dim)

    def test_numbers_stay_and_the_config_too(self):
        config = ModuleDKMPalettizerConfig(n_bits=6, cluster_dim=2, lut_dtype="i8")
        assert config.resolved(KINDS[nn.Linear]) == config
        config = ModuleDKMPalettizerConfig()
        config.resolved(KINDS[nn.Linear])
        assert config == ModuleDKMPalettizerConfig()

    @pytest.mark.parametrize("values, words", [
        ({"n_bits": 5}, "block.*n_bits 5"),
        ({"n_bits": 0}, "n_bits 0"),
        ({"cluster_dim": 0}, "cluster_dim 0"),
        ({"granularity": "per_grouped_channel"}, "group_size None"),
    ])  # fmt: skip
    def test_what_no_weight_can_have_is_refused(self, values, words):
        config = assigned(ModuleDKMPalettizerConfig(), values).resolved(KINDS[nn.Linear])
        with pytest.raises(ValueError, match=words):
            check_config(config, "block", scaled_vectors=True)

    def test_vectors_may_have_a_scale(self):
        config = ModuleDKMPalettizerConfig(cluster_dim=4, enable_per_channel_scale=True).resolved(KINDS[nn.Linear])
        check_config(config, "block", scaled_vectors=True)
        assert config.enable_per_channel_scale is True
