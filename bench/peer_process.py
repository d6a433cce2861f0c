"""One run of the peer, as a process of its own: MODEL OUT CONFIG-AS-JSON."""

import json
import sys

import coremltools as ct
import coremltools.optimize.coreml as cto

model, out, options = sys.argv[1:]
config = cto.OptimizationConfig(global_config=cto.OpPalettizerConfig(**json.loads(options)))
cto.palettize_weights(ct.models.MLModel(model, skip_model_load=True), config).save(out)
