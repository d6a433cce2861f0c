"""Memory of a model with 10⁹ weights: sensitivities and clustering within model + gradients + sensitivities + 1 GB.

The model is a stack of square linear layers in fp32, 4.03 GB; gradients and sensitivities are as large again each.
"""

import json
import sys
from pathlib import Path

import measure

WIDTH, DEPTH = 4096, 60


def check(scratch):
    result = scratch / "billion.json"
    cost = measure.run([sys.executable, __file__, result], {"OMP_NUM_THREADS": "2"})
    seen = json.loads(result.read_text())
    limit = 3 * seen["model"] + 1000
    print(f"\n| weights | model MB | before MB | peak MB | limit MB | CPU s | wall s |\n|{'---|' * 7}")
    print(f"| {seen['weights'] / 1e9:.3f} × 10⁹ | {seen['model']:.0f} | {seen['before']:.0f} | {seen['peak']:.0f} "
          f"| {limit:.0f} | {cost.cpu:.0f} | {cost.wall:.0f} |")
    if seen["peak"] > limit:
        sys.exit(f"{seen['peak']:.0f} MB at the peak, {limit:.0f} allowed")


def main():
    import palettizer.torch.palettization as api
    import torch
    import meter
    from torch import nn

    with torch.device("meta"):
        model = nn.Sequential(*(nn.Linear(WIDTH, WIDTH, bias=False) for _ in range(DEPTH)))
    model.to_empty(device="cpu")
    torch.manual_seed(0)
    with torch.no_grad():
        for layer in model:
            layer.weight.normal_(0, WIDTH**-0.5)
    size = sum(p.nbytes for p in model.parameters()) / 1e6
    batches = [torch.randn(2, WIDTH) for _ in range(2)]
    before = meter.status("VmRSS")
    config = api.SKMPalettizerConfig(global_config=api.ModuleSKMPalettizerConfig(n_bits=4), calibration_nsamples=2)
    api.SKMPalettizer(model, config).compress(batches, lambda m, x: m(x).square().mean(), inplace=True)
    assert all(len(layer.weight[:64].unique()) <= 16 for layer in model)
    Path(sys.argv[1]).write_text(json.dumps({
        "weights": sum(p.numel() for p in model.parameters()), "model": size, "before": before,
        "peak": meter.status("VmHWM")}))


if __name__ == "__main__":
    main()
