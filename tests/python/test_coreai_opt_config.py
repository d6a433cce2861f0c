"""Configurations of coreai_opt: what they mean for modules and for programs, and what is refused."""

import io
import re
from enum import Enum

import pytest
import torch
from torch import nn
from torch_support import palettes
from torch_support.told import listening

import palettizer.coreai as coreai
from palettizer.coreai import module_config, program_config
from palettizer.coreai._fold import chains
from palettizer.torch.palettization import PostTrainingPalettizer

KEY = "kmeans_palettization_config"
LINEAR, EMBEDDING = "torch.nn.modules.linear.Linear", "torch.nn.modules.sparse.Embedding"


class Block(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Linear(32, 32), nn.Linear(32, 32)


class Model(nn.Module):
    """Every kind of layer that such a configuration may mean, and some that it leaves."""

    def __init__(self):
        super().__init__()
        self.embed, self.position = nn.Embedding(64, 32), nn.Parameter(torch.randn(4, 32))
        self.block, self.block2 = Block(), Block()
        self.attention = nn.MultiheadAttention(32, 4)
        self.conv, self.up, self.norm = nn.Conv1d(32, 32, 1), nn.ConvTranspose1d(32, 64, 1), nn.LayerNorm(32)
        self.lstm, self.head = nn.LSTM(32, 32), nn.Linear(32, 64)


BLOCKS = ("block.first", "block.second", "block2.first", "block2.second")
ATTENTION = ("attention.in_proj_weight", "attention.out_proj.weight")
ALL = (*(f"{name}.weight" for name in (*BLOCKS, "conv", "up", "head")), *ATTENTION)


def weight(n_bits=4, **more):
    return {"op_state_spec": {"weight": {"n_bits": n_bits, **more}}}


def own(n_bits, name="weight"):
    return {"module_state_spec": {name: {"n_bits": n_bits}}}


def grouped(axis, **more):
    spec = {"n_bits": 4, "granularity": {"type": "per_grouped_channel", "axis": axis, "group_size": 16}, **more}
    return {"op_state_spec": {"weight": spec, "in_proj_weight": spec}}


def every(n_bits=4, but=(), **others):
    """The bits of all that is palettized by default; names of parameters with __ for dots."""
    named = {name.replace("__", "."): bits for name, bits in others.items()}
    return {name: bits for name, bits in {**dict.fromkeys(ALL, n_bits), **named}.items() if name not in but}


def bits(model):
    found = {}
    for name in palettes.palettized(model):
        module, _, parameter = name.rpartition(".")
        found[name] = palettes.buffers(model.get_submodule(module), parameter)["lut"].shape[-2].bit_length() - 1
    return found


def made(config, model=None):
    model = Model() if model is None else model
    return PostTrainingPalettizer(model, module_config(config, model)).compress(progress=False)


# What coreai_opt 0.4.0 itself makes of each was looked at, on a model like this one: it palettizes the same with the same bits.
MODULES = {
    "nothing said": ({}, every()),
    "nothing global": ({"global_config": None, "module_name_configs": {"block": weight(2)}},
                       {"block.first.weight": 2, "block.second.weight": 2}),
    "nothing at all": ({"global_config": None}, {}),
    "weights alone, so not what goes into attention": ({"global_config": weight()}, every(but=ATTENTION[:1])),
    "a name holds within": ({"module_name_configs": {"block": weight(2)}}, every(block__first__weight=2, block__second__weight=2)),
    "the last name decides": ({"module_name_configs": {"block\\.first": weight(1), "block": weight(2)}},
                              every(block__first__weight=2, block__second__weight=2)),
    "the last name, turned": ({"module_name_configs": {"block": weight(2), "block\\.first": weight(1)}},
                              every(block__first__weight=1, block__second__weight=2)),
    "names go before types": ({"module_type_configs": {LINEAR: None}, "module_name_configs": {"block2?": weight(6)}},
                              every(but=("head.weight",), **{f"{name.replace('.', '__')}__weight": 6 for name in BLOCKS})),
    "a type by its class": ({"module_type_configs": {nn.Linear: weight(6)}},
                            every(6, **dict.fromkeys(("conv__weight", "up__weight", "attention__in_proj_weight", "attention__out_proj__weight"), 4))),
    "a type that has others in it": ({"module_type_configs": {LINEAR: weight(1), f"{__name__}.Block": weight(2)}},
                                     every(head__weight=1, **{f"{name.replace('.', '__')}__weight": 2 for name in BLOCKS})),
    "the last type decides": ({"module_type_configs": {f"{__name__}.Block": weight(2), LINEAR: weight(1)}},
                              every(head__weight=1, **{f"{name.replace('.', '__')}__weight": 1 for name in BLOCKS})),
    "by operation": ({"global_config": {"op_type_config": {"conv1d": None, "linear": weight(3), "conv_transpose1d": {}}}},
                     every(but=("conv.weight",), head__weight=3, **{f"{name.replace('.', '__')}__weight": 3 for name in BLOCKS})),
    "an embedding's own": ({"module_type_configs": {EMBEDDING: own(8)}}, every(embed__weight=8)),
    "own goes before operations": ({"module_name_configs": {"head": {**own(6), **weight(2)}}}, every(head__weight=6)),
    "own does not hold within": ({"module_name_configs": {"block": own(1)}}, every()),
    "all own": ({"module_name_configs": {"lstm": own(1, "*")}}, every(lstm__weight_ih_l0=1, lstm__weight_hh_l0=1)),
    "a parameter of no layer": ({"module_name_configs": {"": own(2, "position")}}, every(position=2)),
    "without attention": ({"module_name_configs": {"attention": None}}, every(but=ATTENTION)),
    "attention uses its output layer": ({"module_name_configs": {"attention.out_proj": None}}, every()),
    "all tensors": ({"global_config": {"op_state_spec": {"*": {"n_bits": 2}}}}, every(2)),
}


@pytest.mark.parametrize("config, expected", MODULES.values(), ids=MODULES)
def test_of_modules(config, expected):
    assert bits(made({KEY: config})) == expected


def forms(model, name):
    """Tables along each axis, the type of the entries, whether there is a scale, the length of vectors."""
    module, _, parameter = name.rpartition(".")
    found = palettes.buffers(model.get_submodule(module), parameter)
    return list(found["lut"].shape[:-2]), "quantization_scale" in found, "palettization_scale" in found, found["lut"].shape[-1]


@pytest.mark.parametrize("config, linear, up", [
    ("w4", [2, 1], [2, 1, 1]),
    ("w8", [1, 1], [1, 1, 1]),
    ({KEY: {"global_config": grouped(1)}}, [1, 2], [1, 4, 1]),
    ({KEY: {"global_config": grouped(None)}}, [2, 1], [1, 4, 1]),
], ids=str)
def test_an_axis_is_that_of_the_weight(config, linear, up):
    model = made(config)
    assert forms(model, "block.first.weight") == (linear, False, False, 1)
    assert forms(model, "up.weight") == (up, False, False, 1)


def test_all_that_a_specification_can_say():
    config = weight(6, enable_per_channel_scale=True, training_strategy_spec={"type": "default"}, sparsity_detection_threshold=None)
    config.update(enable_fast_kmeans_mode=False, rounding_precision=6, pat_schedule=None, vector_kmeans_config={"n_init": 2})
    integers = {"dtype": "uint8", "qscheme": "symmetric_with_clipping", "granularity": {"type": "per_tensor"}, "float_range": [None, None]}
    model = made({KEY: {"global_config": config, "module_name_configs": {
        "head": weight(4, cluster_dim=2), "conv": weight(3, lut_qspec=integers), "block": weight(lut_qspec={})}}})
    assert forms(model, "block2.first.weight") == ([1, 1], False, True, 1)
    assert forms(model, "head.weight") == ([1, 1], False, False, 2)
    assert forms(model, "conv.weight") == ([1, 1, 1], True, False, 1)
    assert "zero_point" in palettes.buffers(model.conv, "weight")
    assert forms(model, "block.first.weight") == ([1, 1], True, False, 1)
    assert "zero_point" not in palettes.buffers(model.block.first, "weight")


def operations(config):
    made = program_config(config if isinstance(config, str) else {KEY: config})
    return {kind: one if one is None else one.nbits for kind, one in made.op_type_configs.items()}


PROGRAMS = [
    ({}, {"conv": 4, "conv_transpose": 4, "linear": 4, "gather": None, "matmul": None}),
    ("w6", {"conv": 6, "conv_transpose": 6, "linear": 6, "gather": None, "matmul": None}),
    ({"global_config": None, "module_type_configs": {LINEAR: weight(8)}},
     {"conv": None, "conv_transpose": None, "linear": 8, "gather": None, "matmul": None}),
    ({"global_config": {"op_type_config": {"conv2d": weight(2), "linear": None}}, "module_type_configs": {EMBEDDING: own(8)}},
     {"conv": 2, "conv_transpose": 4, "linear": None, "gather": 8, "matmul": None}),
]


@pytest.mark.parametrize("config, expected", PROGRAMS, ids=str)
def test_of_programs(config, expected):
    assert operations(config) == expected


def test_a_preset_palettizes_a_program_and_its_module_alike(tmp_path):
    """What is converted and then palettized has the same palettes as what is palettized and then converted."""
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.embed, self.linear, self.up = nn.Embedding(32, 32), nn.Linear(32, 48), nn.ConvTranspose1d(48, 32, 3)

        def forward(self, tokens):
            return self.up(self.linear(self.embed(tokens)).transpose(1, 2))

    from coreai_support import program

    model, tokens = Net().eval(), torch.zeros(1, 4, dtype=torch.int64)
    before = coreai.palettize_weights(program(model, tokens), program_config("w4"), progress=False)
    after = coreai.convert(made("w4", model), tokens, progress=False)
    values = [{name: one.val.tobytes() for name, one in coreai.get_weights_metadata(each, 0).items()} for each in (before, after.program)]
    assert sorted(values[0].values()) == sorted(values[1].values())
    assert len(list(chains(before))) == len(list(chains(after.program))) == 2


def test_yaml_with_its_references(tmp_path):
    text = f"""
palettization_spec:
  small: &small {{n_bits: 2, lut_qspec: {{dtype: int8}}}}
{KEY}:
  global_config:
    op_state_spec: {{weight: *small, in_proj_weight: *small}}
  module_name_configs:
    head: null
    block: {{op_state_spec: {{weight: {{<<: *small, n_bits: 3}}}}}}
"""
    (tmp_path / "config.yaml").write_text(text)
    expected = every(2, but=("head.weight",), block__first__weight=3, block__second__weight=3)
    for source in (tmp_path / "config.yaml", str(tmp_path / "config.yaml"), io.StringIO(text)):
        assert bits(made(source)) == expected


def test_a_configuration_of_coreai_opt_itself():
    """What its `to_dict` gives: everything spelt out, with types and classes."""
    class Scheme(str, Enum):
        SYMMETRIC = "symmetric"

    class MinMaxRangeCalculator: ...

    class Theirs:
        def to_dict(self):
            spec = {
                "n_bits": 2, "granularity": {"axis": None, "type": "per_tensor"}, "cluster_dim": 1, "enable_per_channel_scale": False,
                "training_strategy_spec": {"type": "default"}, "sparsity_detection_threshold": None,
                "lut_qspec": {"dtype": torch.int8, "qscheme": Scheme.SYMMETRIC, "granularity": {"axis": None, "type": "per_tensor"},
                              "range_calculator_cls": MinMaxRangeCalculator, "float_range": [None, None], "scale_dtype": None,
                              "n_bits": 8, "target_dtype": torch.int8, "_quant_range": (-128, 127), "quant_min": -128,
                              "quant_max": 127},
            }  # fmt: skip
            module = {"op_input_spec": {}, "op_output_spec": {"*": None}, "op_state_spec": {"weight": spec, "in_proj_weight": spec},
                      "op_type_config": {}, "op_name_config": {}, "module_input_spec": {}, "module_state_spec": {},
                      "vector_kmeans_config": None}
            return {KEY: {"global_config": module, "module_type_configs": {}, "module_name_configs": {}}}

    assert bits(made(Theirs())) == every(2)
    assert program_config(Theirs()).global_config.lut_dtype == "int8"


def test_names_that_nothing_has_are_told():
    with listening() as said:
        module_config({KEY: {"module_name_configs": {"tail": None}, "module_type_configs": {"my.Own": None}}}, Model())
    assert any("'tail', but no module of the model has such a name" in line for line in said)
    assert any("'my.Own', but no module of the model is of that type" in line for line in said)


WRONG = {  # path to the key, what was found, what is possible
    "w5": "there is no preset and no file 'w5'; presets are w4, w6, w8",
    "another": ({"quantization_config": {}}, f"the key 'quantization_config'; there are {KEY} and palettization_spec"),
    "empty": ({}, f"the configuration has no {KEY}"),
    "list": ({KEY: []}, rf"{KEY} is []; expected a dictionary"),
    "top key": ({KEY: {"global": {}}}, f"{KEY} has the key 'global'; there are global_config, module_type_configs, module_name_configs"),
    "global own": ({KEY: {"global_config": own(4)}}, f"{KEY}.global_config.module_state_spec"),
    "short type": ({KEY: {"module_type_configs": {"Linear": None}}}, "has 'Linear'; expected the whole name of a class"),
    "pattern": ({KEY: {"module_name_configs": {"(": None}}}, f"{KEY}.module_name_configs['(']: the name is not a regular expression"),
    "module key": ({KEY: {"global_config": {"op_spec": {}}}}, f"{KEY}.global_config has the key 'op_spec'; there are op_state_spec"),
    "op names": ({KEY: {"global_config": {"op_name_config": {"a": None}}}}, f"{KEY}.global_config.op_name_config: "),
    "op type": ({KEY: {"global_config": {"op_type_config": {"gelu": None}}}}, "op_type_config has 'gelu'; there are linear, conv1d"),
    "inputs": ({KEY: {"global_config": {"op_input_spec": {"*": {"n_bits": 4}}}}}, f"{KEY}.global_config.op_input_spec is "),
    "schedule": ({KEY: {"global_config": {"pat_schedule": {"enable_fake_palettize": 5}}}}, "pat_schedule is of training, which DKMPalettizer"),
    "no dictionary": ({KEY: {"global_config": {"op_state_spec": {"weight": 4}}}}, "op_state_spec['weight'] is 4; expected a dictionary"),
    "spec key": ({KEY: {"global_config": {"op_state_spec": {"weight": {"nbits": 4}}}}}, "['weight'] has the key 'nbits'; there are n_bits"),
    "bits": ({KEY: {"global_config": weight(5)}}, "['weight'].n_bits is 5; expected 1, 2, 3, 4, 6 or 8"),
    "vectors": ({KEY: {"global_config": weight(cluster_dim=0)}}, "cluster_dim is 0; expected an integer of 1 or more"),
    "flag": ({KEY: {"global_config": weight(enable_per_channel_scale="yes")}}, "enable_per_channel_scale is 'yes'; expected true or false"),
    "scaled vectors": ({KEY: {"global_config": weight(cluster_dim=2, enable_per_channel_scale=True)}}, "a cluster_dim of 1 only, found 2"),
    "strategy": ({KEY: {"global_config": weight(training_strategy_spec={"type": "soft"})}}, "training_strategy_spec is {'type': 'soft'}"),
    "zeros": ({KEY: {"global_config": weight(sparsity_detection_threshold=0.5)}}, "sparsity_detection_threshold is 0.5"),
    "granularity": ({KEY: {"global_config": weight(granularity={"type": "per_block"})}}, "granularity is {'type': 'per_block'}; expected"),
    "size": ({KEY: {"global_config": weight(granularity={"type": "per_grouped_channel"})}}, "granularity.group_size is None; expected"),
    "axis": ({KEY: {"global_config": grouped(2)}}, "granularity.axis is 2; expected 0, 1 or null"),
    "float8": ({KEY: {"global_config": weight(lut_qspec={"dtype": "float8_e4m3fn"})}}, "lut_qspec.dtype is float8_e4m3fn; expected int8 or uint8"),
    "asymmetric": ({KEY: {"global_config": weight(lut_qspec={"qscheme": "asymmetric"})}}, "lut_qspec.qscheme is asymmetric; expected"),
    "minval": ({KEY: {"global_config": weight(lut_qspec={"qformulation": "minval"})}}, "lut_qspec.qformulation is minval; expected zp"),
    "range": ({KEY: {"global_config": weight(lut_qspec={"float_range": [-1, 1]})}}, "lut_qspec.float_range is [-1, 1]; expected"),
}  # fmt: skip

OF_MODULES = {
    "one dimension": ({"module_name_configs": {"head": own(4, "bias")}}, "bias of head, which has one dimension; only weights are"),
    "in two ways": ({"module_name_configs": {"lstm": own(4, "weight_ih_l0")}}, "weight_ih_l0 and weight_hh_l0 of lstm (LSTM) in different ways"),
    "vectors across": ({"global_config": grouped(1, cluster_dim=2)}, "with a cluster_dim of 2, groups lie along the output channels, axis 0"),
}

OF_PROGRAMS = {
    "module names": ({"module_name_configs": {"head": None}}, "module_name_configs names modules ('head'), which a program has no more"),
    "module types": ({"module_type_configs": {"my.Block": None}}, "module_type_configs has 'my.Block', which a program does not tell"),
    "attention": ({"global_config": {"op_state_spec": {"weight": {"n_bits": 4}, "in_proj_weight": {"n_bits": 2}}}},
                  "both are the operation linear of a program"),
    "convolutions": ({"global_config": {"op_type_config": {"conv1d": weight(2), "conv2d": weight(3)}}}, "both are the operation conv"),
    "vectors across": ({"global_config": grouped(1, cluster_dim=2)}, "with a cluster_dim of 2, groups lie along the output channels, axis 0"),
}


@pytest.mark.parametrize("name", WRONG)
def test_what_cannot_be_meant_is_said_with_its_key(name):
    config, words = (name, WRONG[name]) if isinstance(WRONG[name], str) else WRONG[name]
    for read in (program_config, lambda config: module_config(config, Model())):
        with pytest.raises(ValueError, match=re.escape(words)):
            read(config)


@pytest.mark.parametrize("config, words", OF_MODULES.values(), ids=OF_MODULES)
def test_what_modules_cannot_have(config, words):
    with pytest.raises(ValueError, match=re.escape(words)):
        module_config({KEY: config}, Model())


@pytest.mark.parametrize("config, words", OF_PROGRAMS.values(), ids=OF_PROGRAMS)
def test_what_programs_cannot_have(config, words):
    with pytest.raises(ValueError, match=re.escape(words)):
        program_config({KEY: config})
