"""`palettizer.coreml` on models: the command's bytes, the peer's kinds of result, and what the peer refuses."""

import json
import os
import shutil

import coremltools as ct
import numpy as np
import pytest

import judge
import palettizer.coreml as cto
import zoo_graphs
from zoo_compressed import compressed

SETTINGS = [
    ({"nbits": 4}, ["--nbits", 4]),
    ({"nbits": 6, "mode": "uniform"}, ["--nbits", 6, "--mode", "uniform"]),
    ({"nbits": 4, "granularity": "per_grouped_channel", "group_size": 8},
     ["--nbits", 4, "--granularity", "per_grouped_channel", "--group-size", 8]),
    ({"nbits": 4, "cluster_dim": 2}, ["--nbits", 4, "--cluster-dim", 2]),
    ({"nbits": 4, "enable_per_channel_scale": True, "lut_dtype": "int8"},
     ["--nbits", 4, "--per-channel-scale", "--lut-dtype", "int8"]),
    ({"nbits": 3, "weight_threshold": 100}, ["--nbits", 3, "--weight-threshold", 100]),
]


def configured(**options):
    return cto.OptimizationConfig(global_config=cto.OpPalettizerConfig(**options))


def content(package):
    """The program without its metadata, and the weight file."""
    root = package / "Data/com.apple.CoreML"
    return (root / "model.mlmodel").read_bytes(), (root / "weights/weight.bin").read_bytes()


@pytest.fixture
def mixed(models):
    return models(zoo_graphs.mixed)


@pytest.mark.parametrize("options, flags", SETTINGS, ids=[str(options) for options, _ in SETTINGS])
def test_the_bytes_of_the_command(options, flags, mixed, compress, tmp_path):
    target = ["--minimum-deployment-target", "iOS18"]
    out, report = compress(mixed, *flags, *target)
    small = cto.palettize_weights(str(mixed), configured(**options), minimum_deployment_target="iOS18")
    saved = tmp_path / "python.mlpackage"
    small.save(saved)
    assert content(saved) == content(out)
    said = json.loads(small.report.to_json())
    report.pop("seconds"), said.pop("seconds")
    assert said == report
    assert set(small.report) == {weight["name"] for weight in report["weights"]}
    assert "SNR" in repr(small.report) and len(str(small.report).splitlines()) >= len(small.report) + 2


def test_threads_do_not_matter(mixed, tmp_path):
    made = []
    for threads in (1, 2, 5):
        out = tmp_path / f"{threads}.mlpackage"
        cto.palettize_weights(mixed, configured(nbits=4, num_kmeans_workers=3), threads=threads).save(out)
        made.append(content(out))
    assert made[0] == made[1] == made[2]


def test_workers_are_threads(mixed):
    """1, the default, is one for each core; `threads` goes before the configuration."""
    def at_work(workers, **more):
        before, new = set(os.listdir("/proc/self/task")), set()

        def function(values):
            new.update(os.listdir("/proc/self/task"))
            return [0.0], [0] * values.size
        cto.palettize_weights(mixed, configured(mode="custom", lut_function=function, num_kmeans_workers=workers), progress=False, **more)
        return len(new - before)

    # threads are kept for the next call that asks for as many: these numbers nothing else here asks for
    assert [at_work(13), at_work(1, threads=14), at_work(9, threads=15)] == [13, 14, 15]
    assert at_work(1) in (0, os.cpu_count())


def test_kinds(mixed, tmp_path):
    """A path and a Model give a Model, an MLModel an MLModel, all with the same weights."""
    config, before = configured(nbits=4), judge.digest(mixed)
    by_path, by_text = cto.palettize_weights(mixed, config), cto.palettize_weights(str(mixed), config)
    by_model = cto.palettize_weights(cto.load(mixed), config)
    by_path.save(tmp_path / "a.mlpackage")
    for index, other in enumerate((by_text, by_model)):
        assert isinstance(other, cto.Model)
        other.save(str(tmp_path / f"{index}.mlpackage"))
        assert content(tmp_path / f"{index}.mlpackage") == content(tmp_path / "a.mlpackage")
    mlmodel = cto.palettize_weights(judge.load(mixed), config)
    assert isinstance(mlmodel, ct.models.MLModel)
    mlmodel.save(str(tmp_path / "mlmodel.mlpackage"))
    judge.assert_same_weights(tmp_path / "a.mlpackage", tmp_path / "mlmodel.mlpackage")
    judge.assert_same_weights(judge.weights(by_path_dense(by_path, tmp_path)), judge.weights(tmp_path / "a.mlpackage"))
    assert judge.digest(mixed) == before, "the model that came in has changed"
    assert cto.load(mixed).report is None


def by_path_dense(model, folder):
    out = folder / "dense.mlpackage"
    cto.decompress_weights(model).save(out)
    return out


def test_an_mlmodel_keeps_what_it_is(mixed, tmp_path):
    model = ct.models.MLModel(str(mixed), skip_model_load=True, compute_units=ct.ComputeUnit.CPU_ONLY)
    model.user_defined_metadata["answer"] = "42"
    model.short_description = "changed in memory"
    before = model.get_spec().SerializeToString(deterministic=True)
    small = cto.palettize_weights(model, configured(nbits=4))
    assert model.get_spec().SerializeToString(deterministic=True) == before
    assert small.compute_unit is ct.ComputeUnit.CPU_ONLY and small.__proxy__ is None
    assert small.user_defined_metadata["answer"] == "42" and small.short_description == "changed in memory"
    assert small.package_path != model.package_path
    small.save(str(tmp_path / "small.mlpackage"))
    again = ct.models.MLModel(str(tmp_path / "small.mlpackage"), skip_model_load=True)
    assert again.get_spec() == small.get_spec()
    dense = cto.decompress_weights(small)
    assert isinstance(dense, ct.models.MLModel) and dense.user_defined_metadata["answer"] == "42"
    dense.save(str(tmp_path / "dense.mlpackage"))
    judge.assert_same_weights(tmp_path / "dense.mlpackage", tmp_path / "small.mlpackage")


def test_changes_of_the_program_in_memory_count(mixed):
    """The specification in memory is the model, not the file that it came from."""
    model = judge.load(mixed)
    renamed = 0
    for function in model._spec.mlProgram.functions.values():
        for block in function.block_specializations.values():
            for operation in block.operations:
                if operation.type == "linear":
                    operation.attributes["name"].immediateValue.tensor.strings.values[0] = "mine"
                    renamed += 1
    assert renamed
    config = configured(nbits=4)
    config.set_op_name("mine", None)
    assert any(weight.child_ops[0].name == "mine" for weight in cto.get_weights_metadata(model).values())
    small = cto.palettize_weights(model, config)
    kept = [weight for weight in cto.get_weights_metadata(small).values() if weight.child_ops[0].name == "mine"]
    assert kept and all(weight.unique_values > 16 for weight in kept)


@pytest.mark.parametrize("build", [zoo_graphs.multifunction, zoo_graphs.pipeline, zoo_graphs.classifier,
                                   zoo_graphs.stateful, zoo_graphs.nested_cond, zoo_graphs.shared])
def test_models_that_the_peer_may_refuse(build, models, compress, tmp_path):
    path = models(build)
    out, _ = compress(path, "--nbits", 4)
    small = cto.palettize_weights(judge.load(path), configured(nbits=4))
    small.save(str(tmp_path / "small.mlpackage"))
    judge.assert_same_weights(out, tmp_path / "small.mlpackage")
    assert judge.skeleton(out) == judge.skeleton(tmp_path / "small.mlpackage")


def test_the_function_of_a_multifunction_model_stays_chosen(models):
    path = models(zoo_graphs.multifunction)
    names = sorted(judge.load(path).get_spec().mlProgram.functions)
    model = ct.models.MLModel(str(path), skip_model_load=True, function_name=names[-1])
    assert cto.palettize_weights(model, configured(nbits=4)).function_name == names[-1]


@pytest.mark.parametrize("kind", ["sparse", "int8"])
def test_joint_compression(kind, models, compress, tmp_path):
    path = models(compressed, kind, "iOS18")
    out, _ = compress(path, "--nbits", 4, "--joint-compression")
    cto.palettize_weights(path, configured(nbits=4), joint_compression=True).save(tmp_path / "a.mlpackage")
    assert content(out) == content(tmp_path / "a.mlpackage")
    untouched = cto.palettize_weights(path, configured(nbits=4))
    assert all(row["status"] == "skipped" for row in untouched.report.values())


def test_an_old_program_is_raised_as_the_peer_does(real_models):
    path = real_models["basic-pitch"]
    assert judge.load(path).get_spec().specificationVersion == 6
    small = cto.palettize_weights(judge.load(path), configured(nbits=8))
    theirs = ct.optimize.coreml.palettize_weights(
        judge.load(path), ct.optimize.coreml.OptimizationConfig(ct.optimize.coreml.OpPalettizerConfig(nbits=8)))
    assert small.get_spec().specificationVersion == theirs.get_spec().specificationVersion == 7


@pytest.mark.parametrize("options, words", [
    ({"nbits": 4, "granularity": "per_grouped_channel", "group_size": 8}, "iOS18"), ({"nbits": 4, "cluster_dim": 2}, "iOS18"),
])
def test_what_an_old_opset_lacks_is_a_value_error(options, words, models):
    path = models(zoo_graphs.opset, "iOS16")
    with pytest.raises(ValueError, match=words):
        cto.palettize_weights(path, configured(**options))
    with pytest.raises(ValueError, match=words):
        ct.optimize.coreml.palettize_weights(
            judge.load(path), ct.optimize.coreml.OptimizationConfig(ct.optimize.coreml.OpPalettizerConfig(**options)))


def test_sensitivities(mixed, tmp_path):
    """Weights that a file says not to matter are off, and those that it says to matter are right."""
    from safetensors.numpy import save_file

    weights = cto.get_weights_metadata(mixed)
    counts = {name: np.full(weight.val.shape, 1e-6, np.float32) for name, weight in weights.items()}
    for one in counts.values():
        one.reshape(-1)[:16] = 1.0
    save_file(counts, tmp_path / "s.safetensors")
    def first(model):
        """The values that count, by the op that uses them."""
        found = cto.get_weights_metadata(model).values()
        return {weight.child_ops[0].name: weight.val.reshape(-1)[:16].astype(np.float64) for weight in found}

    exact = first(mixed)
    plain, weighed = (first(cto.palettize_weights(mixed, configured(nbits=4), sensitivity=path))
                      for path in (None, tmp_path / "s.safetensors"))
    assert exact.keys() == plain.keys() == weighed.keys()
    for op, values in exact.items():
        assert 0.1 * np.abs(plain[op] - values).sum() > np.abs(weighed[op] - values).sum()
    del counts[next(iter(counts))]
    save_file(counts, tmp_path / "fewer.safetensors")
    with pytest.raises(ValueError, match=next(iter(weights))):
        cto.palettize_weights(mixed, configured(nbits=4), sensitivity=tmp_path / "fewer.safetensors")
    small = cto.palettize_weights(mixed, configured(nbits=4), sensitivity=tmp_path / "fewer.safetensors",
                                  sensitivity_default="ones")
    assert all(row["status"] == "compressed" for row in small.report.values())


@pytest.mark.parametrize("call, kind, words", [
    (lambda path, config: cto.palettize_weights(str(path) + "x", config), FileNotFoundError, "mlpackage"),
    (lambda path, config: cto.load(path.parent), ValueError, "no Core ML package"),
    (lambda path, config: cto.palettize_weights(4, config), TypeError, "int"),
    (lambda path, config: cto.palettize_weights(path, {"nbits": 4}), ValueError, "OptimizationConfig"),
    (lambda path, config: cto.palettize_weights(path, ct.optimize.coreml.OptimizationConfig(
        ct.optimize.coreml.OpMagnitudePrunerConfig(target_sparsity=0.5))), ValueError, "OpMagnitudePrunerConfig"),
    (lambda path, config: cto.palettize_weights(path, config, 1), ValueError, "joint_compression"),
    (lambda path, config: cto.palettize_weights(path, config, threads=0), ValueError, "threads"),
    (lambda path, config: cto.palettize_weights(path, config, minimum_deployment_target="iOS5"), ValueError, "iOS5"),
    (lambda path, config: cto.load(path).save(path, overwrite=False), FileExistsError, "overwrite=True"),
    (lambda path, config: cto.load(path).save(path.parent / "model"), ValueError, "mlpackage"),
    (lambda path, config: cto.decompress_weights(None), TypeError, "NoneType"),
])
def test_errors(call, kind, words, mixed):
    with pytest.raises(kind, match=words) as caught:
        call(mixed, configured(nbits=4))
    assert type(caught.value) is kind


def test_strict_and_const(mixed):
    config = configured(nbits=4, granularity="per_grouped_channel", group_size=7)
    with pytest.raises(ValueError, match="group_size 7"):
        cto.palettize_weights(mixed, config, strict=True, minimum_deployment_target="iOS18")
    config = configured(nbits=4)
    config.set_op_type("const", None)
    with pytest.raises(ValueError, match="const"):
        cto.palettize_weights(mixed, config)


def test_a_name_that_fits_nothing_is_reported(mixed):
    config = configured(nbits=4)
    config.set_op_name("nobody", None)
    assert cto.palettize_weights(mixed, config).report.unmatched == ["nobody"]


def test_a_model_may_replace_what_it_was_made_of(mixed, tmp_path):
    copy, small = tmp_path / "copy.mlpackage", tmp_path / "small.mlpackage"
    shutil.copytree(mixed, copy)
    model = cto.load(copy)
    made = cto.palettize_weights(model, configured(nbits=4))
    made.save(small)
    made.save(copy)
    assert content(copy) == content(small)
    judge.assert_same_weights(copy, small)
    assert model.weights()[0]["compression"] is None, "the model that was opened is as it was"
