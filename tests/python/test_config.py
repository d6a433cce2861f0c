"""Configuration files in the peer's layout mean here what they mean there."""

import json
import tempfile

import coremltools.optimize.coreml as cto
import pytest
import yaml

import judge
from zoo_graphs import opset, shared
from zoo_special import special

FILES = {
    "global": {"global_config": {"mode": "kmeans", "nbits": 4}},
    "upper-case": {"global_config": {"mode": "KMEANS", "nbits": 6}},
    "by-type": {"global_config": {"nbits": 8}, "op_type_configs": {"conv": {"mode": "uniform", "nbits": 2}}},
    "type-skip": {"global_config": {"nbits": 4}, "op_type_configs": {"linear": None}},
    "by-op-name": {"global_config": {"nbits": 4}, "op_name_configs": {"conv": {"nbits": 1}}},
    "by-const-name": {"global_config": {"nbits": 4}, "op_name_configs": {"linear_w": {"nbits": 6}, "conv_w": None}},
    "const-before-op": {"op_name_configs": {"linear_w": {"nbits": 2}, "linear": {"nbits": 8}}},
    "name-before-type": {"op_type_configs": {"conv": None}, "op_name_configs": {"conv": {"nbits": 3}}},
    "no-global": {"op_type_configs": {"conv": {"nbits": 4}}},
    "null-global": {"global_config": None, "op_type_configs": {"conv": {"nbits": 4}}},
    "only-type": {},
    "groups": {"global_config": {"nbits": 4, "granularity": "per_grouped_channel", "group_size": 8}},
    "default-group-size": {"global_config": {"nbits": 4, "granularity": "per_grouped_channel", "channel_axis": 0}},
    "axis": {"global_config": {"nbits": 2, "granularity": "per_grouped_channel", "group_size": 4, "channel_axis": 1}},
    "vectors": {"global_config": {"nbits": 4, "cluster_dim": 2}},
    "threshold": {"global_config": {"nbits": 4, "weight_threshold": 5000}},
    "workers": {"global_config": {"nbits": 4, "num_kmeans_workers": 2}},
    "own-type": {"global_config": {"config_type": "OpPalettizerConfig", "nbits": 4}},
    "unknown-names": {"global_config": {"nbits": 4}, "op_name_configs": {"nowhere": {"nbits": 8}}},
}


def write(tmp_path, content, kind):
    path = tmp_path / f"config.{kind}"
    path.write_text(json.dumps(content, indent=2) if kind == "json" else yaml.safe_dump(content))
    return path


def peers_plan(model, content):
    """parameter key -> (bits, LUT shape) as the peer palettizes with this configuration."""
    content = json.loads(json.dumps(content))
    if content.get("global_config"):
        content["global_config"].pop("num_kmeans_workers", None)  # its pool of workers can hang: one will do
    config = cto.OptimizationConfig.from_dict(content)
    with tempfile.TemporaryDirectory() as folder:
        cto.palettize_weights(judge.load(model), config).save(f"{folder}/peer.mlpackage")
        return layouts(f"{folder}/peer.mlpackage")


def layouts(path):
    variables = judge.constants(path)
    return {key: judge.table(var)[::2] for key, var in variables.items() if judge.lut_op(var) is not None}


@pytest.mark.parametrize("kind", ["yaml", "json"])
@pytest.mark.parametrize("name", FILES)
def test_files(name, kind, models, compress, tmp_path):
    model = models(opset, "iOS18")
    content = {"config_type": "OpPalettizerConfig", **FILES[name]}
    out, _ = compress(model, "--config", write(tmp_path, content, kind))
    assert layouts(out) == peers_plan(model, content)


CONFLICTS = {
    "by-name": {"global_config": {"nbits": 4}, "op_name_configs": {"linear1": {"nbits": 2}}},
    "by-null": {"global_config": {"nbits": 4}, "op_name_configs": {"linear2": None}},
}


@pytest.mark.parametrize("name", CONFLICTS)
def test_consumers_with_different_configurations(name, models, refuses, tmp_path):
    """Three ops share a weight and two configurations want it: an error there, and an error here."""
    content = {"config_type": "OpPalettizerConfig", **CONFLICTS[name]}
    with pytest.raises(ValueError, match="conflict"):
        peers_plan(models(shared), content)
    path = write(tmp_path, content, "yaml")
    refuses(["shared_w", "linear"], "compress", models(shared), "-o", tmp_path / "out.mlpackage", "--config", path)


GOOD = {"mode": "kmeans", "nbits": 4}
BAD = {  # what is wrong -> (the file, words that the message must hold)
    "unknown top key": ({"global": GOOD}, ["global", "global_config", "op_type_configs", "op_name_configs"]),
    "unknown op key": ({"global_config": {**GOOD, "n_bits": 4}}, ["n_bits", "nbits", "cluster_dim"]),
    "unknown key by type": ({"op_type_configs": {"conv": {**GOOD, "axis": 1}}}, ["axis", "channel_axis", "conv"]),
    "nbits 5": ({"global_config": {"nbits": 5}}, ["nbits", "5", "1, 2, 3, 4, 6"]),
    "nbits text": ({"global_config": {"nbits": "many"}}, ["nbits", "many"]),
    "nbits missing": ({"global_config": {"mode": "uniform"}}, ["nbits"]),
    "nbits with unique": ({"global_config": {"mode": "unique", "nbits": 4}}, ["nbits", "unique"]),
    "mode": ({"global_config": {"mode": "kmedians", "nbits": 4}}, ["mode", "kmedians", "kmeans", "uniform", "unique"]),
    "mode type": ({"global_config": {"mode": 3, "nbits": 4}}, ["mode", "3"]),
    "granularity": ({"global_config": {**GOOD, "granularity": "per_block"}},
                    ["granularity", "per_block", "per_tensor", "per_grouped_channel"]),
    "group size -1": ({"global_config": {**GOOD, "granularity": "per_grouped_channel", "group_size": -1}},
                     ["group_size"]),
    "cluster dim 0": ({"global_config": {**GOOD, "cluster_dim": 0}}, ["cluster_dim"]),
    "cluster dim uniform": ({"global_config": {"mode": "uniform", "nbits": 4, "cluster_dim": 2}}, ["cluster_dim"]),
    "scale": ({"global_config": {**GOOD, "enable_per_channel_scale": "maybe"}}, ["enable_per_channel_scale", "maybe"]),
    "lut dtype": ({"global_config": {**GOOD, "lut_dtype": "int4"}}, ["lut_dtype", "int4", "int8", "uint8"]),
    "threshold": ({"global_config": {**GOOD, "weight_threshold": -1}}, ["weight_threshold"]),
    "config type": ({"config_type": "OpLinearQuantizerConfig", "global_config": GOOD},
                    ["OpLinearQuantizerConfig", "OpPalettizerConfig"]),
    "inner config type": ({"global_config": {"config_type": "OpThresholdPrunerConfig"}}, ["OpThresholdPrunerConfig"]),
    "configs as list": ({"op_type_configs": [GOOD]}, ["op_type_configs"]),
    "custom": ({"global_config": {"mode": "custom"}}, ["mode", "custom"]),
    "const as op type": ({"op_type_configs": {"const": GOOD}}, ["const", "global_config"]),
}


@pytest.mark.parametrize("kind", ["yaml", "json"])
@pytest.mark.parametrize("name", BAD)
def test_bad_files(name, kind, models, refuses, tmp_path):
    content, words = BAD[name]
    path = write(tmp_path, {"config_type": "OpPalettizerConfig", **content}, kind)
    refuses(words, "compress", models(opset, "iOS18"), "-o", tmp_path / "out.mlpackage", "--config", path)


@pytest.mark.parametrize("text, words", [
    ("global_config: {nbits: 4}\n", ["config_type", "OpPalettizerConfig"]),
    ("config_type: [\n", ["config"]), ("", ["config_type"]), ("- 1\n", ["config"]),
    ("config_type: OpPalettizerConfig\nconfig_type: OpPalettizerConfig\n", ["config_type"]),
], ids=["no type", "no yaml", "empty", "a list", "a key twice"])
def test_broken_files(text, words, models, refuses, tmp_path):
    path = tmp_path / "config.yaml"
    path.write_text(text)
    refuses(words, "compress", models(opset, "iOS18"), "-o", tmp_path / "out.mlpackage", "--config", path)


FLAGS = {  # flags that mean the same as a configuration
    "type": (["--nbits", 4, "--op-type", "linear=8"],
             {"global_config": {"nbits": 4}, "op_type_configs": {"linear": {"nbits": 8}}}),
    "name": (["--nbits", 4, "--op-name", "conv=skip"],
             {"global_config": {"nbits": 4}, "op_name_configs": {"conv": None}}),
    "both": (["--nbits", 6, "--op-type", "linear=skip", "--op-type", "conv=2", "--op-name", "linear_w=1"],
             {"global_config": {"nbits": 6}, "op_type_configs": {"linear": None, "conv": {"nbits": 2}},
              "op_name_configs": {"linear_w": {"nbits": 1}}}),
}


@pytest.mark.parametrize("name", FLAGS)
def test_flags_are_a_configuration(name, models, compress, tmp_path):
    flags, content = FLAGS[name]
    content = {"config_type": "OpPalettizerConfig", **content}
    model = models(opset, "iOS18")
    by_flags, by_file = compress(model, *flags)[0], compress(model, "--config", write(tmp_path, content, "yaml"))[0]
    assert layouts(by_flags) == peers_plan(model, content)
    assert judge.digest(by_flags) == judge.digest(by_file)


def test_lut_dtype_in_a_file(models, compress, tmp_path):
    content = {"config_type": "OpPalettizerConfig", "global_config": {**GOOD, "lut_dtype": "int8"}}
    out, _ = compress(models(special, "plain", "fp16"), "--config", write(tmp_path, content, "json"))
    assert judge.table(judge.constants(out)[0, "main", "odd", "weight"])[1] == "int8"
