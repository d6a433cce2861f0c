"""One run of one side in a process of its own: ORDER-AS-JSON RESULT-FILE.

The order names the side, the model, the method and the options. What is measured is `compress` alone, of coreai-opt `prepare`
and `finalize`: its user and system time, its wall-clock time, and how far the resident memory rises above what it was before (on
Linux; elsewhere the peak of the whole process counts from before the call).
"""

import json
import sys
from pathlib import Path

import torch
import torch_models
from meter import Meter


def palettization(order, model):
    """The call that palettizes the model in place, and gives it back."""
    if order["side"] == "coreai-opt":
        return of_coreai_opt(order["options"], model)
    if order["side"] == "ours":
        import palettizer.torch.palettization as api
    else:
        import coremltools.optimize.torch.palettization as api
    if order["method"] == "SKM":
        config = api.SKMPalettizerConfig(global_config=api.ModuleSKMPalettizerConfig(**order["options"]))
        compressor, arguments = api.SKMPalettizer(model, config), {"sensitivity_path": order["sensitivity"]}
    else:
        config = api.PostTrainingPalettizerConfig(global_config=api.ModulePostTrainingPalettizerConfig(**order["options"]))
        compressor, arguments = api.PostTrainingPalettizer(model, config), {}
    return lambda: compressor.compress(inplace=True, **arguments)


class EachOnce(torch.nn.Module):
    """Runs every layer on the least that it takes: coreai-opt finds by a run what there is to palettize."""

    def __init__(self, layers):
        super().__init__()
        self.layers = layers

    def forward(self):
        for layer in self.layers.values():
            if isinstance(layer, torch.nn.Linear):
                layer(torch.zeros(1, layer.in_features))
            elif isinstance(layer, torch.nn.Conv2d):
                layer(torch.zeros(1, layer.in_channels, *layer.kernel_size))
            else:
                layer(torch.zeros(1, dtype=torch.int64))


def of_coreai_opt(options, model):
    """The same call of coreai-opt, for Core ML: it has the names of the options, but for groups."""
    from coreai_opt.common import ExportBackend
    from coreai_opt.palettization import KMeansPalettizer
    from coreai_opt.palettization.config import KMeansPalettizerConfig, ModuleKMeansPalettizerConfig, OpKMeansPalettizerConfig
    from coreai_opt.palettization.spec import PalettizationSpec, PerGroupedChannelGranularity

    options = dict(options)
    if options.pop("granularity", None):
        options["granularity"] = PerGroupedChannelGranularity(axis=0, group_size=options.pop("group_size"))
    spec = PalettizationSpec(**options)
    module = ModuleKMeansPalettizerConfig(
        op_input_spec=None, op_output_spec=None, op_state_spec=dict.fromkeys(OpKMeansPalettizerConfig.get_default_state_spec(), spec))

    def call():
        compressor = KMeansPalettizer(EachOnce(model), KMeansPalettizerConfig(global_config=module))
        compressor.prepare(())
        return compressor.finalize(backend=ExportBackend.CoreML).layers
    return call


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
    model = torch_models.make(order["model"])
    call = palettization(order, model)
    largest = max(p.nbytes for p in model.parameters()) / 1e6
    with Meter() as meter:
        done = call()
    error, energy = errors(order, done)
    result.write_text(json.dumps({
        "cpu": meter.cpu, "wall": meter.wall, "peak": meter.peak, "largest": largest, "error": error, "energy": energy}))


if __name__ == "__main__":
    main()
