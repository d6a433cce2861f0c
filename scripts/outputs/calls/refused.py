"""What goes wrong: the kinds and the texts of errors."""

import palettizer.coreml as cto
import palettizer.torch.palettization as ctp
import torch
from safetensors.torch import save_file
from torch_support import trained

from outputs.calls.case import case, data, net
from outputs.calls.core_ml import on_a_path


def refused(call):
    def run(given, folder):
        try:
            call(given, folder)
            said = "nothing was wrong"
        except Exception as error:
            said = f"{type(error).__name__}: {error}"
        (folder / "said.txt").write_text(said)
    return run


def not_a_number():
    model = net(trained.Mlp)
    with torch.no_grad():
        model.layers[3].weight[0, 0] = torch.nan
    return model


def lacking(given, folder):
    model = net(trained.Mlp)
    save_file({"layers.1.weight": torch.ones(128, 64)}, folder / "s.safetensors")
    ctp.SKMPalettizer(model, ctp.SKMPalettizerConfig()).compress(sensitivity_path=str(folder / "s.safetensors"), progress=False)


OP = [{}, {"nbits": 5}, {"nbits": "4"}, {"nbits": 4, "mode": "unique"}, {"mode": "custom"}, {"nbits": 4, "mode": "dkm"},
      {"nbits": 4, "granularity": "rows"}, {"nbits": 4, "cluster_dim": "2"}, {"nbits": 4, "enable_per_channel_scale": 1},
      {"nbits": 4, "weight_threshold": -1}, {"nbits": 4, "bits": 4}, {"nbits": 4, "lut_dtype": "int4"},
      {"nbits": 4, "granularity": "per_grouped_channel", "group_size": -1}, {"nbits": 4, "mode": "uniform", "cluster_dim": 2}]
MODULE = [{"n_bits": 5}, {"n_bits": 9}, {"n_bits": "4"}, {"lut_dtype": "int4"}, {"granularity": "rows"}, {"cluster_dim": 0},
          {"granularity": "per_grouped_channel"}, {"granularity": "per_grouped_channel", "group_size": 0}, {"channel_axis": 2},
          {"cluster_dim": 3, "enable_per_channel_scale": True}, {"bits": 4}, {"weight_threshold": -1}, {"enable_per_channel_scale": "yes"}]
TRAINING = [{"palett_mode": "x"}, {"palett_tau": 0}, {"cluster_permute": (0, 0)}, {"lut_dtype": "int3"}, {"milestone": -1}, {"n_bits": 9},
            {"kmeans_max_iter": -1}, {"cluster_dim": 0}, {"quantize_activations": "x"}, {"partition_size": "x"}]
OTHERS = {
    "a model that is not there": lambda given, folder: cto.load("nowhere.mlpackage"),
    "no model": lambda given, folder: cto.palettize_weights(7, cto.OptimizationConfig()),
    "no configuration": lambda given, folder: cto.palettize_weights(given / "digits.mlpackage", {"nbits": 4}),
    "too old": lambda given, folder: on_a_path("graph-CoreML6.mlpackage", {"nbits": 3}, 1)(given, folder),
    "a target": lambda given, folder: on_a_path("digits.mlpackage", {"nbits": 3}, 1, minimum_deployment_target="iOS9")(given, folder),
    "a function that fails": lambda given, folder: on_a_path(
        "digits.mlpackage", {"mode": "custom", "lut_function": lambda values: values[1 << 40]}, 1)(given, folder),
    "a function that lies": lambda given, folder: on_a_path(
        "digits.mlpackage", {"mode": "custom", "lut_function": lambda values: ([1.0], [7] * values.size)}, 1)(given, folder),
    "not a number": lambda given, folder: ctp.PostTrainingPalettizer(not_a_number()).compress(progress=False),
    "not a number in training": lambda given, folder: ctp.DKMPalettizer(not_a_number(), ctp.DKMPalettizerConfig()).prepare()(data()[0][0]),
    "no data": lambda given, folder: ctp.SKMPalettizer(net(trained.Mlp), ctp.SKMPalettizerConfig()).compress(progress=False),
    "no samples": lambda given, folder: ctp.SKMPalettizer(net(trained.Mlp), ctp.SKMPalettizerConfig()).compress([], trained.loss),
    "a loss that is none": lambda given, folder: ctp.SKMPalettizer(net(trained.Mlp), ctp.SKMPalettizerConfig()).compress(
        data(), lambda model, batch: None, progress=False),
    "sensitivities of some": lacking,
    "another model's file": lambda given, folder: ctp.load_safetensors(net(trained.Mlp), given / "model.safetensors"),
    "a broken file": lambda given, folder: ctp.load_safetensors(net(trained.Mlp), given / "bad-cut.safetensors"),
    "an unknown key": lambda given, folder: ctp.PostTrainingPalettizerConfig.from_dict({"global": {}}),
    "an unknown module": lambda given, folder: ctp.DKMPalettizerConfig.from_dict({"module_type_configs": {"Nothing": {"n_bits": 2}}}),
}


def all_alike(options, make, config, use):
    """A configuration with one setting for everything, and what it is for."""
    def call(given, folder):
        made = make(**options)
        (folder / "config.txt").write_text(repr(made))
        use(config(global_config=made), given)
    return refused(call)


USES = [
    (OP, cto.OpPalettizerConfig, cto.OptimizationConfig, lambda config, given: cto.palettize_weights(given / "digits.mlpackage", config)),
    (MODULE, ctp.ModulePostTrainingPalettizerConfig, ctp.PostTrainingPalettizerConfig,
     lambda config, given: ctp.PostTrainingPalettizer(net(trained.Mlp), config).compress(progress=False)),
    (TRAINING, ctp.ModuleDKMPalettizerConfig, ctp.DKMPalettizerConfig,
     lambda config, given: ctp.DKMPalettizer(net(trained.Cnn), config).prepare()(data()[0][0])),
]
for table, make, config, use in USES:
    for place, options in enumerate(table):
        case("Python, refusals", f"{make.__name__}-{place:02}", all_alike(options, make, config, use))
for name, call in OTHERS.items():
    case("Python, refusals", name.replace(" ", "-"), refused(call))
