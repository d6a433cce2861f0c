"""Checkpoints and models on a Ray cluster of two workers: the bytes of one machine, and work that is not done twice."""

import json
import os

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from palettizer import _native
from palettizer.coreml import OpPalettizerConfig, OptimizationConfig
from palettizer.distributed.ray import compress
from palettizer.torch import load_safetensors, save_safetensors
from palettizer.torch.palettization import (
    PostTrainingPalettizer,
    PostTrainingPalettizerConfig,
    SKMPalettizer,
    SKMPalettizerConfig,
)

SETTINGS = OptimizationConfig(
    OpPalettizerConfig(nbits=4, weight_threshold=100),
    op_name_configs={r".*\.head\..*": None, ".*b.*": OpPalettizerConfig(nbits=2, weight_threshold=100)},
)


@pytest.fixture(scope="module", autouse=True)
def two_workers():
    import ray

    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level="warning")
    yield
    ray.shutdown()


@pytest.fixture
def tensors():
    torch.manual_seed(0)
    weights = {f"layers.{i}.{name}": torch.randn(32, 32) for i in range(4) for name in ("a.weight", "b.weight")}
    return {**weights, "layers.0.a.bias": torch.randn(32), "layers.head.weight": torch.randn(16, 32)}


@pytest.fixture
def checkpoint(tensors, tmp_path):
    path = tmp_path / "model.safetensors"
    save_file(tensors, path)
    return path


def on_one_machine(checkpoint, out):
    from palettizer.coreml._weights import _fields

    _native.Checkpoint.open(checkpoint).compress_to(_fields(SETTINGS, False), out)
    return out.read_bytes()


@pytest.mark.parametrize("part_bytes", [1, 10_000, 1 << 30])
def test_a_checkpoint_has_the_bytes_of_one_machine(part_bytes, checkpoint, tmp_path):
    out = tmp_path / "small.safetensors"
    report = compress(checkpoint, SETTINGS, out, part_bytes=part_bytes, progress=False)
    assert out.read_bytes() == on_one_machine(checkpoint, tmp_path / "alone.safetensors")
    assert sum(row["status"] == "compressed" for row in report.values()) == 8
    assert sorted(p.name for p in tmp_path.iterdir()) == ["alone.safetensors", "model.safetensors", "small.safetensors"]


def test_a_folder_of_shards(tensors, tmp_path):
    folder, out = tmp_path / "model", tmp_path / "small"
    folder.mkdir()
    names = sorted(tensors)
    halves = {"model-00001-of-00002.safetensors": names[:5], "model-00002-of-00002.safetensors": names[5:]}
    for file, inside in halves.items():
        save_file({name: tensors[name] for name in inside}, folder / file)
    index = {"metadata": {}, "weight_map": {name: file for file, inside in halves.items() for name in inside}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    compress(folder, SETTINGS, out, part_bytes=1, progress=False)
    found = _native.Checkpoint.open(out)
    assert sorted(found.names()) == names
    assert sum(isinstance(found.get(name), _native.Palette) for name in names) == 8


def test_functions_of_the_users_travel(checkpoint, tmp_path):
    def thirds(weight):
        import numpy as np

        lut = np.array([-1, 0, 1], weight.dtype)
        return lut, np.abs(weight.reshape(-1, 1) - lut).argmin(axis=1).astype(np.uint8)

    config = OptimizationConfig(OpPalettizerConfig(mode="custom", lut_function=thirds, weight_threshold=100))
    compress(checkpoint, config, tmp_path / "small.safetensors", part_bytes=1, progress=False)
    found = _native.Checkpoint.open(tmp_path / "small.safetensors").get("layers.0.a.weight")
    assert set(found.entries().view("float32").tolist()) == {-1.0, 0.0, 1.0}


@pytest.fixture
def stopped(monkeypatch):
    """`stopped(after)`: the cluster gives up after so many results; returns how many tasks later runs start."""
    from palettizer.distributed import _cluster

    whole = _cluster.spread
    started = []

    def counting(limit):
        def spread(ray, function, jobs, cpus):
            def counted():
                for job in jobs:
                    started.append(job[0])
                    yield job

            for done, result in enumerate(whole(ray, function, counted(), cpus)):
                if done == limit:
                    raise KeyboardInterrupt
                yield result

        for module in ("_checkpoint", "_module"):
            monkeypatch.setattr(f"palettizer.distributed.{module}.spread", spread)
        started.clear()
        return started

    return counting


def test_a_checkpoint_goes_on_where_it_was(checkpoint, tmp_path, stopped):
    out = tmp_path / "small.safetensors"
    stopped(3)
    with pytest.raises(KeyboardInterrupt):
        compress(checkpoint, SETTINGS, out, part_bytes=1, progress=False)
    kept = {p.name: p.stat().st_mtime_ns for p in (tmp_path / "small.safetensors.parts").iterdir()}
    assert 3 <= len(kept) < 8 and not out.exists()
    started = stopped(None)
    compress(checkpoint, SETTINGS, out, part_bytes=1, progress=False)
    assert len(started) <= 8 - 3
    assert out.read_bytes() == on_one_machine(checkpoint, tmp_path / "alone.safetensors")
    assert not (tmp_path / "small.safetensors.parts").exists()


def test_parts_of_another_checkpoint_or_config_are_not_used(tensors, checkpoint, tmp_path, stopped):
    out = tmp_path / "small.safetensors"
    stopped(4)
    with pytest.raises(KeyboardInterrupt):
        compress(checkpoint, SETTINGS, out, part_bytes=1, progress=False)
    before = os.stat(checkpoint)
    save_file({name: -tensor for name, tensor in tensors.items()}, checkpoint)
    os.utime(checkpoint, ns=(before.st_atime_ns, before.st_mtime_ns + 1))
    started = stopped(None)
    compress(checkpoint, SETTINGS, out, part_bytes=1, progress=False)
    assert len(started) == 8
    assert out.read_bytes() == on_one_machine(checkpoint, tmp_path / "alone.safetensors")


def net():
    torch.manual_seed(3)
    model = nn.Sequential(nn.Embedding(32, 16), nn.Linear(16, 16), nn.Conv2d(8, 16, 3), nn.Linear(16, 32))
    model[3].weight = model[0].weight
    return model


def same(one, other):
    a, b = one.state_dict(), other.state_dict()
    assert a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


MODULE_SETTINGS = [
    {},
    {"granularity": "per_grouped_channel", "group_size": 4, "lut_dtype": "uint8"},
    {"lut_dtype": "int8", "enable_per_channel_scale": True},
    {"cluster_dim": 2, "channel_axis": 1},
]


@pytest.mark.parametrize("settings", MODULE_SETTINGS, ids=repr)
def test_a_module_has_the_bytes_of_one_machine(settings):
    config = PostTrainingPalettizerConfig.from_dict({"global_config": settings})
    model = net()
    done = compress(model, config, progress=False)
    same(done, PostTrainingPalettizer(net(), config).compress(progress=False))
    assert done[3].weight is done[0].weight and done is not model
    same(model, net())
    assert compress(model, config, inplace=True, progress=False) is model
    same(model, done)


def test_a_module_is_stored_and_goes_on_where_it_was(tmp_path, stopped):
    out, alone = tmp_path / "small.safetensors", tmp_path / "alone.safetensors"
    stopped(1)
    with pytest.raises(KeyboardInterrupt):
        compress(net(), out=out, progress=False)
    assert len(list((tmp_path / "small.safetensors.parts").iterdir())) == 1 and not out.exists()
    started = stopped(None)
    done = compress(net(), out=out, progress=False)
    assert len(started) == 2
    save_safetensors(PostTrainingPalettizer(net()).compress(progress=False), alone)
    assert out.read_bytes() == alone.read_bytes() and len(list(tmp_path.iterdir())) == 2
    again = net()
    load_safetensors(again, out)
    same(again, done)


def test_sensitivities_weigh(tmp_path):
    def loss(model, data):
        return model[1](model[0](data)).square().sum() + model[3](torch.ones(1, 16)).square().sum()

    path, config = tmp_path / "s.safetensors", SKMPalettizerConfig.from_dict({"global_config": {"n_bits": 2}})
    model = net()
    SKMPalettizer(model, config).compute_sensitivity([torch.arange(4)], loss, str(path), progress=False)
    done = compress(model, config, sensitivity_path=path, progress=False)
    same(done, SKMPalettizer(model, config).compress(sensitivity_path=str(path), progress=False))
    with pytest.raises(TypeError, match="sensitivity_path"):
        compress(model, config, progress=False)


def test_errors_come_from_the_cluster_and_before_it(checkpoint, tmp_path):
    out = tmp_path / "there.safetensors"
    out.write_bytes(b"kept")
    with pytest.raises(FileExistsError, match="overwrite"):
        compress(checkpoint, SETTINGS, out)
    assert out.read_bytes() == b"kept"
    with pytest.raises(TypeError, match="out"):
        compress(checkpoint, SETTINGS)
    with pytest.raises(ValueError, match="OptimizationConfig"):
        compress(checkpoint, PostTrainingPalettizerConfig(), tmp_path / "x.safetensors")
    with pytest.raises(TypeError, match="PostTrainingPalettizerConfig"):
        compress(net(), SETTINGS)
    with pytest.raises(TypeError, match="Module"):
        compress({"weight": torch.ones(2)})
    with pytest.raises(ValueError, match="the config has a budget, which is kept over the whole model"):
        compress(net(), PostTrainingPalettizerConfig.from_dict({"budget": {"target_bpw": 3}}), progress=False)
    bad = net()
    with torch.no_grad():
        bad[1].weight[0, 0] = float("nan")
    with pytest.raises(ValueError, match="1.weight"):
        compress(bad, inplace=True, progress=False)
    with pytest.raises((ValueError, OSError)):
        compress(tmp_path / "none.safetensors", SETTINGS, tmp_path / "x.safetensors", progress=False)
