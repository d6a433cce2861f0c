"""Models through `palettizer.coreml`: from a path, as an MLModel, with functions and files of the user's own."""

from pathlib import Path

import coremltools as ct
import numpy as np
import palettizer.coreml as cto

from outputs.calls.case import THREADS, case

CORE_ML = [
    {"nbits": 4}, {"nbits": 6, "mode": "uniform"}, {"mode": "unique"}, {"nbits": 4, "cluster_dim": 2},
    {"nbits": 3, "granularity": "per_grouped_channel", "group_size": 8}, {"nbits": 8, "weight_threshold": 0, "num_kmeans_workers": 3},
    {"nbits": 4, "enable_per_channel_scale": True, "lut_dtype": "int8"},
    {"nbits": 2, "granularity": "per_grouped_channel", "group_size": 4, "channel_axis": 1, "lut_dtype": "uint8"},
]


def signs(values):
    half = float(np.abs(values).mean())
    return np.array([-half, half], values.dtype), [int(value > 0) for value in values.flatten()]


def on_a_path(source, options, threads, **more):
    def call(given, folder):
        config = cto.OptimizationConfig(global_config=cto.OpPalettizerConfig(**options))
        small = cto.palettize_weights(given / source, config, threads=threads, **more)
        small.save(folder / "small.mlpackage")
        (folder / "report.json").write_text(small.report.to_json())
        (folder / "report.txt").write_text(f"{small.report!r}\n{dict(small.report)}\n{small!r}")
        cto.decompress_weights(small).save(folder / "dense.mlpackage")
        (folder / "weights.txt").write_text("\n".join(map(str, small.weights(0))))
    return call


def on_an_mlmodel(source, options):
    """The specification and the weight files: the package's identifiers are coremltools' own."""
    def call(given, folder):
        model = ct.models.MLModel(str(given / source), skip_model_load=True)
        config = cto.OptimizationConfig(global_config=cto.OpPalettizerConfig(**options))
        small = cto.palettize_weights(model, config)
        for name, made in (("small", small), ("dense", cto.decompress_weights(small))):
            (folder / f"{name}.mlmodel").write_bytes(made.get_spec().SerializeToString(deterministic=True))
            for file in Path(made.weights_dir).iterdir():
                (folder / f"{name}-{file.name}").write_bytes(file.read_bytes())
        about = cto.get_weights_metadata(small, weight_threshold=0)
        (folder / "metadata.txt").write_text("\n".join(
            f"{name} {weight.val.dtype} {weight.val.shape} {weight.sparsity} {weight.unique_values} "
            f"{[(op.op_type, op.name, op.params_name_mapping) for op in weight.child_ops]}" for name, weight in about.items()))
    return call


def of_a_file(source):
    def call(given, folder):
        config = cto.OptimizationConfig.from_yaml(str(given / "by-type.yaml"))
        (folder / "config.txt").write_text(f"{config.global_config}\n{config.op_type_configs}\n{config.op_name_configs}")
        cto.palettize_weights(given / source, config).save(folder / "small.mlpackage")
    return call


for place, options in enumerate(CORE_ML):
    for source, more in (("graph-mixed", {"minimum_deployment_target": "iOS18"}), ("graph-attention", {}), ("graph-multifunction", {})):
        case("Python, Core ML", f"{source}-{place}", on_a_path(f"{source}.mlpackage", options, THREADS[place % 3], **more))
    case("Python, Core ML", f"mlmodel-{place}", on_an_mlmodel("graph-attention.mlpackage", options))
for threads in THREADS:
    case("Python, Core ML", f"custom-{threads}", on_a_path("graph-stateful.mlpackage", {"mode": "custom", "lut_function": signs}, threads))
case("Python, Core ML", "joint", on_a_path("form-sparse-iOS18.mlpackage", {"nbits": 4}, 2, joint_compression=True))
case("Python, Core ML", "file", of_a_file("graph-CoreML8.mlpackage"))
