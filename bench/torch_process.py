"""One run of one side in a process of its own: ORDER-AS-JSON RESULT-FILE.

The order names the side, the model, the method and the options. What is measured is `compress` alone: its user and
system time, its wall-clock time, and how far the resident memory rises above what it was before (on Linux; elsewhere
the peak of the whole process counts from before the call).
"""

import json
import sys
from pathlib import Path

import torch
import torch_models
from meter import Meter


def side(name):
    if name == "ours":
        import palettizer.torch.palettization as module
    else:
        import coremltools.optimize.torch.palettization as module
    return module


def palettizer(api, order, model):
    """(the compressor, the arguments of its compress)."""
    if order["method"] == "SKM":
        config = api.SKMPalettizerConfig(global_config=api.ModuleSKMPalettizerConfig(**order["options"]))
        return api.SKMPalettizer(model, config), {"sensitivity_path": order["sensitivity"]}
    config = api.PostTrainingPalettizerConfig(global_config=api.ModulePostTrainingPalettizerConfig(**order["options"]))
    return api.PostTrainingPalettizer(model, config), {}


def errors(order, done):
    """Squared error and energy of the weights, both weighted when there are sensitivities."""
    original = torch_models.make(order["model"])
    known = torch.load(order["sensitivity"]) if order["method"] == "SKM" else {}
    error = energy = 0.0
    for name, weight in original.named_parameters():
        if weight.dim() < 2:
            continue
        weight, mass = weight.double(), known.get(name, torch.ones(())).double()
        error += float(((weight - done.get_parameter(name).double()).square_() * mass).sum())
        energy += float((weight.square() * mass).sum())
    return error, energy


def main():
    order, result = json.loads(sys.argv[1]), Path(sys.argv[2])
    torch.set_num_threads(1)
    api, model = side(order["side"]), torch_models.make(order["model"])
    compressor, arguments = palettizer(api, order, model)
    largest = max(p.nbytes for p in model.parameters()) / 1e6
    with Meter() as meter:
        done = compressor.compress(inplace=True, **arguments)
    error, energy = errors(order, done)
    result.write_text(json.dumps({
        "cpu": meter.cpu, "wall": meter.wall, "peak": meter.peak, "largest": largest, "error": error, "energy": energy}))


if __name__ == "__main__":
    main()
