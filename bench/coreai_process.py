"""One call of one side on a Core AI program, in a process of its own: SIDE PROGRAM OUT OPTIONS-AS-JSON RESULT-FILE.

What is measured is the call that palettizes, of a program that is loaded: its user and system time, its wall-clock time, and how
far the resident memory rises above what it was before, and to what.
"""

import json
import os
import sys
from pathlib import Path

from coreai.authoring import AIModelAsset
from meter import Meter

side, path, out, options, result = sys.argv[1:]
options = json.loads(options)
program = AIModelAsset.load(Path(path)).program
if side == "ours":
    import palettizer.coreai as core_ai

    if "n_bits" in options:
        options["nbits"] = options.pop("n_bits")
    config = core_ai.OptimizationConfig(global_config=core_ai.OpPalettizerConfig(**options))
    call = lambda: core_ai.palettize_weights(program, config, progress=False, threads=1)
else:
    import torch
    from coreai_opt.coreai_utils import CompressionGranularity, DType, palettize_weights

    torch.set_num_threads(1)
    granularity = CompressionGranularity[options.pop("granularity", "per_tensor").upper()]
    lut = options.pop("lut_dtype", None)
    call = lambda: palettize_weights(program, lut and DType[lut.upper()], granularity=granularity, num_kmeans_workers=1, **options)
with Meter() as meter:
    made = call()
made.save_asset(Path(out))
Path(result).write_text(json.dumps({"cpu": meter.cpu, "wall": meter.wall, "peak": meter.peak, "whole": meter.whole}))
sys.stdout.flush()
os._exit(0)  # Apple's runtime sometimes aborts at the end of a process
