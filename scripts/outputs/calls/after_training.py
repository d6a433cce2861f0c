"""Modules through PostTrainingPalettizer and SKMPalettizer, stored and loaded."""

import itertools

import palettizer.torch.palettization as ctp
import torch
from torch_support import layers, settings, trained

from outputs.calls.case import THREADS, case, data, net, shown, store


def post_training(setting, threads):
    def call(given, folder):
        config = ctp.PostTrainingPalettizerConfig(global_config=ctp.ModulePostTrainingPalettizerConfig(**setting.options))
        palettizer = ctp.PostTrainingPalettizer(layers.model(setting.kind, setting.dtype), config)
        model = palettizer.compress(num_kmeans_workers=threads, progress=False)
        store(folder, "state.bin", model.state_dict())
        shown(folder, palettizer.report())
        ctp.save_safetensors(model, folder / "small.safetensors")
        again = layers.model(setting.kind, setting.dtype, "other weights")
        ctp.load_safetensors(again, folder / "small.safetensors")
        store(folder, "loaded.bin", again.state_dict())
    return call


for place, setting in enumerate(settings.cover()):
    case("Python, post-training", f"{place:03}-{setting}", post_training(setting, THREADS[place % 3]))


def sensitive(make, **options):
    def call(given, folder):
        config = ctp.SKMPalettizerConfig(global_config=ctp.ModuleSKMPalettizerConfig(**options), calibration_nsamples=3)
        model, path = net(make), folder / "s.safetensors"
        palettizer = ctp.SKMPalettizer(model, config)
        palettizer.compute_sensitivity(data(), trained.loss, str(path), progress=False)
        done = palettizer.compress(sensitivity_path=str(path), progress=False)
        store(folder, "state.bin", done.state_dict())
        shown(folder, palettizer.report())
        store(folder, "at-once.bin", ctp.SKMPalettizer(model, config).compress(data(), trained.loss, progress=False).state_dict())
    return call


for (name, make), (place, options) in itertools.product(trained.NETS.items(), enumerate([
        {"n_bits": 2}, {"n_bits": 3, "granularity": "per_grouped_channel", "group_size": 2}, {"n_bits": 4, "cluster_dim": 2},
        {"n_bits": 4, "lut_dtype": torch.int8, "enable_per_channel_scale": True}])):
    case("Python, sensitive k-means", f"{name}-{place}", sensitive(make, **options))
