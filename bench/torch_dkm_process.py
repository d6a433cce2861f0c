"""Training steps of one side in a process of its own: ORDER-AS-JSON RESULT-FILE.

The order names the side ("none" trains without palettization), the case, the bits, how many steps are measured, and how
much memory the process may take beyond what the model and the libraries have. A step is forward, backward, and the steps
of the optimizer (SGD without momentum: no state) and of the palettizer.

The first step, which seeds the centroids, is measured for itself. After it, each step's CPU time is counted, and how far
resident memory rises above what it was before the step, when there are no gradients.
"""

import ctypes
import json
import resource
import statistics
import sys
import time
from pathlib import Path

import torch
import torch_dkm_models
from torch.nn import functional
from meter import Meter, status
from torch_process import side


def prepared(order, model):
    """(the model to train, what counts its steps)."""
    if order["side"] == "none":
        return model, lambda: None
    api = side(order["side"])
    options = api.ModuleDKMPalettizerConfig(n_bits=order["bits"], **order["options"])
    palettizer = api.DKMPalettizer(model, api.DKMPalettizerConfig(global_config=options))
    return palettizer.prepare(inplace=True), palettizer.step


def palettized(model):
    """Bytes of the weights that are palettized by default: those with more than 2048 elements, each once."""
    return sum(p.nbytes for p in model.parameters() if p.dim() > 1 and p.numel() > 2048)


def limit_memory(more):
    """The process may map so many MB more than now; beyond that, an allocation fails and is told from other failures."""
    now = status("VmSize") * 1e6
    resource.setrlimit(resource.RLIMIT_AS, (int(now + more * 1e6), resource.RLIM_INFINITY))


def release():
    """Gives memory back that the C library keeps for later, so that what a step takes is seen to rise."""
    if sys.platform == "linux":
        ctypes.CDLL(None).malloc_trim(0)


def steps(order, model, inputs, labels):
    """(the first step's CPU seconds and wall-clock seconds, the meters of those after it)."""
    optimizer = torch.optim.SGD(model.parameters(), 1e-4)
    trained, count = prepared(order, model)
    meters = []
    for _ in range(1 + order["steps"]):
        optimizer.zero_grad()
        release()
        with Meter() as meter:
            before = time.process_time()
            functional.cross_entropy(trained(inputs), labels).backward()
            optimizer.step()
            count()
            spent = time.process_time() - before
        meter.cpu = spent  # the clock of `Meter` ticks in hundredths of a second
        meters.append(meter)
    return meters[0], meters[1:]


def out_of_memory(error):
    return isinstance(error, MemoryError) or "allocate memory" in str(error)


def main():
    order, result = json.loads(sys.argv[1]), Path(sys.argv[2])
    torch.set_num_threads(1)
    model, inputs, labels = torch_dkm_models.make(order["case"])
    seen = {"weights": palettized(model) / 1e6, "parameters": sum(p.numel() for p in model.parameters())}
    if order["side"] != "none":
        side(order["side"])  # its libraries are no part of what a step needs
    limit_memory(order["limit"])
    seen["before"] = status("VmRSS")
    try:
        first, later = steps(order, model, inputs, labels)
    except (MemoryError, RuntimeError) as error:
        if not out_of_memory(error):
            raise
        seen["failed"] = f"over {order['limit'] / 1000:g} GB"
    else:
        seen |= {"first_cpu": first.cpu, "first_wall": first.wall, "first_peak": first.peak}
        seen |= {what: statistics.median(getattr(meter, what) for meter in later) for what in ("cpu", "wall", "peak")}
    result.write_text(json.dumps(seen))


if __name__ == "__main__":
    main()
