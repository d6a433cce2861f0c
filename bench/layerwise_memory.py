"""Memory of layer-wise palettization, block by block: blocks of Llama-3.2-1B's shapes, statistics and fit.

The whole model has 16 such blocks, of which some are made: statistics are those of one block at a time, whatever their
number. The bound is the model and 4 GB. `python bench/layerwise_memory.py [blocks] [algorithm]`, in the environment of
the tests.
"""

import json
import sys
import tempfile
from pathlib import Path

import measure

SHAPE = {"hidden_size": 2048, "intermediate_size": 8192, "num_attention_heads": 32, "num_key_value_heads": 8, "vocab_size": 1024}
SAMPLES, TOKENS, BOUND = 8, 256, 4000


def check(blocks, algorithm):
    with tempfile.TemporaryDirectory() as folder:
        result = Path(folder) / "result.json"
        cost = measure.run([sys.executable, __file__, blocks, algorithm, result], {"OMP_NUM_THREADS": "2"})
        seen = json.loads(result.read_text())
    print(f"| blocks | weights | algorithm | model MB | before MB | peak MB | beyond before | CPU s | wall s |\n|{'---|' * 9}")
    print(f"| {blocks} | {seen['weights'] / 1e6:.0f} × 10⁶ | {algorithm} | {seen['model']:.0f} | {seen['before']:.0f} "
          f"| {seen['peak']:.0f} | {seen['peak'] - seen['before']:.0f} | {cost.cpu:.0f} | {cost.wall:.0f} |")
    if seen["peak"] - seen["before"] > BOUND:
        sys.exit(f"{seen['peak'] - seen['before']:.0f} MB beyond the model, {BOUND} allowed")


def main(blocks, algorithm, result):
    import palettizer.torch.palettization as api
    import torch
    import meter
    import transformers

    torch.manual_seed(0)
    config = transformers.LlamaConfig(num_hidden_layers=int(blocks), **SHAPE)
    model = transformers.LlamaForCausalLM(config).eval()
    items = [torch.randint(0, SHAPE["vocab_size"], (1, TOKENS)) for _ in range(SAMPLES)]
    config = api.LayerwisePalettizerConfig(
        global_config=api.ModuleLayerwisePalettizerConfig(
            n_bits=3, granularity="per_grouped_channel", group_size=1, algorithm=algorithm),
        module_name_configs={"model.embed_tokens": None, "lm_head": None}, calibration_nsamples=SAMPLES)
    palettizer = api.LayerwisePalettizer(model, config)
    before = meter.status("VmRSS")
    palettizer.compress(items, num_kmeans_workers=2, inplace=True)
    rows = [row for name, row in palettizer.report().items() if "proj" in name]
    assert len(rows) == 7 * int(blocks) and all(row["fallback"] == "" for row in rows)
    Path(result).write_text(json.dumps({
        "weights": sum(p.numel() for p in model.parameters()), "model": sum(p.nbytes for p in model.parameters()) / 1e6,
        "before": before, "peak": meter.status("VmHWM")}))


if __name__ == "__main__":
    if len(sys.argv) == 4:
        main(*sys.argv[1:])
    else:
        check(*sys.argv[1:], *("3", "gptq")[len(sys.argv) - 1:])
