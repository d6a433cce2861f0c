"""One network run by one side in a process of its own: ORDER-AS-JSON RESULT-FILE.

The order names the side, the network, its package, the number of threads and of runs, and whether gradients are made. One run
before counts for nothing: there, pages are read and buffers made. What is measured is each run's CPU and wall-clock time, and how far
the resident memory of all runs rises above what it is before the model is loaded, weights included.
"""

import json
import statistics
import sys
from pathlib import Path

import numpy as np
import runtime_networks as networks
import torch
from meter import Meter

MATRICES = 4096  # elements of the weights that gradients are made of, at least


def torch_side(order):
    """What runs once and gives the output."""
    module, x = networks.network(order["network"])
    weights = [parameter for parameter in module.parameters() if parameter.numel() > MATRICES]

    def forward():
        with torch.no_grad():
            return module(x).numpy().reshape(-1)

    def backward():
        output = module(x)
        torch.autograd.grad((output * factors(output.shape)).sum(), weights)
        return output.detach().numpy().reshape(-1)
    return backward if order["gradients"] else forward


def our_side(order):
    """What runs once and gives the output."""
    from palettizer import coreml
    from palettizer.runtime import Session
    x = {order["name"]: np.load(order["input"])}
    session = Session(order["package"], threads=order["threads"])
    if not order["gradients"]:
        return lambda: joined(session.predict(x))
    weights = list(coreml.get_weights_metadata(order["package"], weight_threshold=MATRICES))
    slopes = factors(session.predict(x)["y"].shape).numpy()
    return lambda: session.grad(x, {"y": slopes}, weights).outputs["y"].reshape(-1)


def onnxruntime_side(order):
    """What runs once and gives the outputs."""
    import onnxruntime
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = order["threads"]
    session = onnxruntime.InferenceSession(order["onnx"], options, providers=["CPUExecutionProvider"])
    (given,), names = session.get_inputs(), [output.name for output in session.get_outputs()]
    x = {given.name: np.load(order["input"])}
    return lambda: joined(dict(zip(names, session.run(names, x))))


def joined(outputs):
    """All outputs in a row, in the order of their names, which is the same in both models of a pair."""
    return np.concatenate([outputs[name].reshape(-1) for name in sorted(outputs)])


def factors(shape):
    """Slopes of an output, always the same."""
    return torch.randn(shape, generator=torch.Generator().manual_seed(1))


def main():
    order, result = json.loads(sys.argv[1]), Path(sys.argv[2])
    torch.set_num_threads(order["threads"])
    run = {"torch": torch_side, "onnxruntime": onnxruntime_side, "ours": our_side}[order["side"]]
    meters = []
    with Meter() as whole:
        once = run(order)
        output = once()
        for _ in range(order["runs"]):
            with Meter() as meter:
                output = once()
            meters.append(meter)
    np.save(result.with_suffix(".npy"), output)
    result.write_text(json.dumps({
        "cpu": statistics.median(one.cpu for one in meters), "wall": statistics.median(one.wall for one in meters),
        "peak": whole.peak}))


if __name__ == "__main__":
    main()
