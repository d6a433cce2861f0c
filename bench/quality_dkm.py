"""Differentiable k-means with the temperature that is found by the weight ("auto") against other ways to train palettes.

    cargo xtask python bench/quality_dkm.py                      # all, one thread; some minutes
    cargo xtask python bench/quality_dkm.py --parts digits,gpt --seeds 2

- `snr`: how many dB tables lose against exact k-means when nothing but the table is trained, the most over scales and distributions.
- `digits`: right answers in percent of 360 test images, mean over seeds with the standard error of the difference to the fixed numbers;
  every weight is palettized, fine-tuned for 5 epochs (110 steps) from a trained network.
- `gpt`: validation loss of a GPT over characters, and of the same function with weights four times smaller.

"fixed" are the numbers of coremltools: a temperature of 1e-4 and thresholds of 1e-7.
"""

import argparse
import statistics
import sys
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests/python"))

import test_torch_dkm_auto as auto
from torch_support import chars, dkm, sides, trained

WAYS = {
    "fixed": dkm.THE_PEERS_NUMBERS,
    "auto": {},
    "hard": {"palett_mode": "hard"},
    "straight-through": {"palett_mode": "ste"},
}
NETS = {"mlp": 25, "cnn": 15}  # epochs of the float training
TUNING, RATE = 5, 2e-3  # epochs, and the rate, which is that of the float training
BITS = (1, 2, 3, 4)
GPT_BITS = (2, 3)


def snr(args):
    head = [f"std {std}" for std in auto.STDS]
    print("\n| bits | dB lost | " + " | ".join(head) + " |\n|" + "---|" * (2 + len(head)))
    for nbits in (1, 2, 3, 4, 6, 8):
        for way in ("fixed", "auto"):
            most = [max(auto.lost(auto.drawn(name, nbits, std), nbits=nbits, **auto.GIVEN[way]) for name in auto.DISTRIBUTIONS)
                    for std in auto.STDS]
            print(f"| {nbits} | {way} | " + " | ".join(f"{dB:.2f}" for dB in most) + " |", flush=True)


def digits(args):
    data = trained.digits()
    print("\n| digits | bits | " + " | ".join([*WAYS, "auto − fixed"]) + " |\n|" + "---|" * (3 + len(WAYS)))
    for name, epochs in NETS.items():
        nets = [trained.train(trained.NETS[name], data, seed, epochs) for seed in range(args.seeds)]
        right = [trained.accuracy(net, data) for net in nets]
        print(f"| {name} | float | {statistics.mean(right):.2f}" + " |" * (len(WAYS) + 1), flush=True)
        for bits in BITS:
            found = {way: [trained.accuracy(trained.fine_tuned(sides.ours, net, data, seed, TUNING, RATE, weight_threshold=0,
                                                               n_bits=bits, **options), data)
                           for seed, net in enumerate(nets)] for way, options in WAYS.items()}
            gains = [a - b for a, b in zip(found["auto"], found["fixed"])]
            error = statistics.stdev(gains) / len(gains) ** 0.5 if len(gains) > 1 else 0.0
            print(f"| {name} | {bits} | " + " | ".join(f"{statistics.mean(each):.2f}" for each in found.values())
                  + f" | {statistics.mean(gains):+.2f} ± {error:.2f} |", flush=True)


def gpt(args):
    codes, test = chars.text()
    torch.manual_seed(0)
    model = chars.train(chars.Gpt(), codes, args.gpt_steps, 2e-3)
    print(f"\nGPT over characters: float {chars.tested(model, test):.3f}; standard deviations of the weights "
          + ", ".join(f"{float(m.weight.std()):.3f}" for m in model.modules() if isinstance(m, chars.Scaled)))
    print("\n| bits | weights | " + " | ".join(WAYS) + " |\n|" + "---|" * (2 + len(WAYS)))
    for bits in GPT_BITS:
        for by in (1, 4):
            found = [chars.tested(chars.fine_tuned(sides.ours, model, codes, 100, 3e-4, by, n_bits=bits, **options), test)
                     for options in WAYS.values()]
            print(f"| {bits} | {'as they are' if by == 1 else 'a quarter'} | "
                  + " | ".join(f"{loss:.3f}" for loss in found) + " |", flush=True)


PARTS = {"snr": snr, "digits": digits, "gpt": gpt}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--parts", default=",".join(PARTS), help="with commas between (default: all)")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--gpt-steps", type=int, default=1500, help="of the float training (default: 1500)")
    args = parser.parse_args()
    torch.set_num_threads(1)
    for part in args.parts.split(","):
        if part not in PARTS:
            parser.error(f"{part} is none of {', '.join(PARTS)}")
        PARTS[part](args)


if __name__ == "__main__":
    main()
