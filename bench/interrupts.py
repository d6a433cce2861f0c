"""How long a call takes to end after Ctrl-C, inside one large weight.

    cargo xtask python bench/interrupts.py

A linear layer of 16 million weights, palettized in several ways; SIGINT comes at moments spread over each call.
"""

import argparse
import os
import signal
import threading
import time

import torch
from palettizer.torch.palettization import PostTrainingPalettizer, PostTrainingPalettizerConfig
from torch import nn

VALUES = {"normal": lambda weight: weight.normal_(), "Cauchy": lambda weight: weight.cauchy_()}
WAYS = {
    "4 bits": {"n_bits": 4},
    "8 bits": {"n_bits": 8},
    "8 bits, cluster_dim 4": {"n_bits": 8, "cluster_dim": 4},
    "8 bits, groups of 8 channels": {"n_bits": 8, "granularity": "per_grouped_channel", "group_size": 8},
}


def seconds(model, config, after=None):
    """Seconds that a call takes, or from the signal, which comes so late, to the end; `None` if it ends before."""
    palettizer = PostTrainingPalettizer(model, config)
    sent = []
    timer = threading.Timer(after or 0.0, lambda: (sent.append(time.monotonic()), os.kill(os.getpid(), signal.SIGINT)))
    start = time.monotonic()
    try:
        if after is not None:
            timer.start()
        palettizer.compress(num_kmeans_workers=1)
        if after is None:
            return time.monotonic() - start
        timer.cancel()
        timer.join()
        time.sleep(0.1)
    except KeyboardInterrupt:
        return time.monotonic() - sent[0] if len(sent) == 1 else None
    return None


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--side", type=int, default=4096, help="rows and columns of the weight")
    parser.add_argument("--moments", type=int, default=8, help="signals for each way")
    args = parser.parse_args()
    model = nn.Linear(args.side, args.side, bias=False).requires_grad_(False)
    for kind, fill in VALUES.items():
        torch.manual_seed(0)
        fill(model.weight)
        for way, options in WAYS.items():
            config = PostTrainingPalettizerConfig.from_dict({"global_config": options})
            whole = seconds(model, config)
            found = [seconds(model, config, whole * (at + 0.5) / args.moments) for at in range(args.moments)]
            found = [one for one in found if one is not None]
            print(f"{kind}, {way}: {whole:.1f} s; ends {max(found, default=0.0):.2f} s after the signal at most, of {len(found)}", flush=True)


if __name__ == "__main__":
    main()
