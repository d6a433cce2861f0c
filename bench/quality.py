"""What the quality benchmarks share: settings, how a model is compressed by one and what that costs, results that outlive a run.

A row is one setting with one seed. It is worked out in a process of its own, so that its peak memory is its own, and is in the
file of results as soon as it is done: a run that was cut short goes on where it was.
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

import downloads
import palettizer.torch.palettization as api
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from meter import Meter

GROUPED = "per_grouped_channel"
LAYOUTS = {  # how many output channels share a table
    "channel": {"granularity": GROUPED, "group_size": 1},
    "group16-scale": {"granularity": GROUPED, "group_size": 16, "enable_per_channel_scale": True},
    "tensor-scale": {"granularity": "per_tensor", "enable_per_channel_scale": True},
    "tensor": {"granularity": "per_tensor"},
}
LAYERWISE = {  # method -> (settings of the modules, groups of channels that the loss guides: 0 where it does not)
    "layerwise": ({}, 1),
    "guided4": ({}, 4),
    "fast": ({"algorithm": "gptq"}, 1),
    "plain": ({}, 0),
}
MIXED = "-mixed"  # of a method: each weight has bits of its own, in a file that is as large as with the same for all
METHODS = ("float", "k-means", "skm", *LAYERWISE, *(name + MIXED for name in ("k-means", "skm", "layerwise", "plain")))


@dataclass(frozen=True)
class Row:
    """One setting with one seed."""

    method: str
    bits: int = 16
    layout: str = "channel"
    steps: int = 0  # of table tuning, afterwards
    seed: int = 0
    samples: int = 0

    @property
    def setting(self):
        """What rows of several seeds have in common."""
        if self.method == "float":
            return self.method
        tuned = f", tuned {self.steps} steps" if self.steps else ""
        return f"{self.method}, {self.bits} bits, {self.layout}{tuned}, {self.samples} samples"

    @property
    def key(self):
        return f"{self.setting}, seed {self.seed}"


@dataclass
class Subject:
    """A model to compress, with the data of one seed."""

    model: torch.nn.Module
    samples: list
    loss: object  # (model, sample) -> a scalar
    forward: object  # (model, sample) -> outputs
    cache: str  # a name for the statistics of this model
    skip: tuple = ()  # names of modules that stay float
    tuning: object = None  # batches, where tables are tuned
    tuning_forward: object = None  # (model, batch) -> logits, then


@dataclass
class Bench:
    """One benchmark: its model, its data, its score."""

    file: str
    subject: object  # (seed, samples) -> Subject
    score: object  # model -> name -> figure
    samples: int
    bits: tuple = (4, 3, 2)
    methods: tuple = METHODS
    seeds: tuple = (0,)
    figures: dict = field(default_factory=dict)  # name of a figure -> its format


def compress(row, subject):
    """(the compressed model, what each part of the work cost)."""
    model, costs = subject.model, {}
    mixed = row.method.endswith(MIXED)
    row = replace(row, method=row.method.removesuffix(MIXED))
    folder = downloads.cache() / f"statistics-{subject.cache}"
    folder.mkdir(parents=True, exist_ok=True)
    budget = _budget(row, subject, folder) if mixed else None
    if row.method == "k-means":
        palettizer, arguments = api.PostTrainingPalettizer(model, _config("PostTrainingPalettizer", row, subject)), {}
    elif row.method == "skm":
        palettizer = api.SKMPalettizer(model, _config("SKMPalettizer", row, subject, calibration_nsamples=row.samples))
        path = folder / f"sensitivity-{row.samples}-{row.seed}.safetensors"
        moments = folder / f"moments1-{row.samples}-{row.seed}.safetensors"
        if not path.exists() and moments.exists():
            _sensitivity_of(moments, path)
        if not path.exists():
            work = lambda: palettizer.compute_sensitivity(subject.samples, subject.loss, str(path), progress=False)
            _, costs["statistics"] = _measured(work)
        arguments = {"sensitivity_path": str(path), "progress": False}
    else:
        palettizer, arguments = _layerwise(row, subject, folder, costs)
        if mixed:  # what errors do to the outputs is measured
            arguments |= {"dataloader": subject.samples, "forward_fn": subject.forward}
    done, costs["compress"] = _measured(lambda: palettizer.compress(**arguments, budget=budget))
    if row.steps:
        run = {"forward_fn": subject.tuning_forward} if subject.tuning_forward else {}
        work = lambda: api.tune_tables(done, subject.tuning, steps=row.steps, reference=model, inplace=True, **run)
        _, costs["tuning"] = _measured(work)
    return done, costs


def _budget(row, subject, folder):
    """The size of the file with the same bits for all. What each form costs a weight is kept: the first row pays for it."""
    uniform = api.PostTrainingPalettizer(subject.model, _config("PostTrainingPalettizer", row, subject)).compress(progress=False)
    with tempfile.NamedTemporaryFile(suffix=".safetensors") as file:
        api.save_safetensors(uniform, file.name)
        size = Path(file.name).stat().st_size
    forms = {"nbits": [bits for bits in (1, 2, 3, 4, 6, 8) if bits < 2 * row.bits + 1], "group_size": [LAYOUTS[row.layout].get("group_size")]}
    curves = folder / f"curves-{row.method}-{row.layout}-{row.samples}-{row.seed}.json"
    return api.Budget(target_size=size, choices=forms, curves=curves)


def _sensitivity_of(moments, path):
    """The squared gradients that are among the statistics of layer-wise palettization are the sensitivities of the same samples."""
    with safe_open(moments, "pt") as file:
        names = [name for name in file.keys() if name.endswith(".fisher")]
        save_file({name.removesuffix(".fisher"): file.get_tensor(name) for name in names}, path)


def _layerwise(row, subject, folder, costs):
    """(the palettizer, the arguments of its compress), with the statistics in their file."""
    more, guided = LAYERWISE[row.method]
    palettizer = api.LayerwisePalettizer(subject.model, _config(
        "LayerwisePalettizer", row, subject, more, calibration_nsamples=row.samples, guided_groups=max(1, guided)))
    path = folder / f"moments{guided}-{row.samples}-{row.seed}.safetensors"
    if not path.exists():
        run = {"loss_fn": subject.loss} if guided else {"forward_fn": subject.forward}
        work = lambda: palettizer.compute_statistics(subject.samples, statistics_path=path, progress=False, **run)
        _, costs["statistics"] = _measured(work)
    return palettizer, {"statistics_path": path, "progress": False}


def _config(family, row, subject, more=None, **settings):
    module = {"n_bits": row.bits, **LAYOUTS[row.layout], **(more or {})}
    return getattr(api, f"{family}Config").from_dict({
        "global_config": module, "module_name_configs": dict.fromkeys(subject.skip), **settings})


def _measured(work):
    with Meter() as meter:
        result = work()
    return result, {"cpu": meter.cpu, "wall": meter.wall, "peak": meter.peak}


def work_out(bench, row):
    """The figures of one row."""
    subject = bench.subject(row.seed, row.samples)
    model, costs = (subject.model, {}) if row.method == "float" else compress(row, subject)
    return {**asdict(row), **bench.score(model), "costs": costs}


class Results:
    """Key of a row -> its figures, in a file."""

    def __init__(self, path):
        self.path = path

    def read(self):
        return json.loads(self.path.read_text()) if self.path.exists() else {}

    def add(self, row, figures):
        whole = self.read() | {row.key: figures}
        part = self.path.with_suffix(".part")
        part.write_text(json.dumps(whole, indent=1))
        part.replace(self.path)


def table(bench, results, rows):
    """A line for each setting: the mean over its seeds and, if there are several, how far they are apart."""
    names = list(bench.figures)
    print("| setting | seeds |", " | ".join(names), "| statistics, CPU s | compress, CPU s | wall s | peak MB | tuning, CPU s |")
    print("|---|---|" + "---|" * (len(names) + 5))
    for setting in dict.fromkeys(row.setting for row in rows):
        found = [results[row.key] for row in rows if row.setting == setting and row.key in results]
        if not found:
            continue
        cells = [_spread([one[name] for one in found], bench.figures[name]) for name in names]
        for part, figure in (("statistics", "cpu"), ("compress", "cpu"), ("compress", "wall"), ("compress", "peak"),
                             ("tuning", "cpu")):
            known = [one["costs"][part][figure] for one in found if part in one["costs"]]
            cells.append(f"{statistics.mean(known):.0f}" if known else "")
        print(f"| {setting} | {len(found)} |", " | ".join(cells), "|")


def _spread(values, form):
    mean = format(statistics.mean(values), form)
    return mean if len(values) == 1 else f"{mean} ({format(min(values), form)} to {format(max(values), form)})"


def arguments(bench, description):
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bits", type=int, nargs="+", default=bench.bits)
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=bench.methods)
    parser.add_argument("--layouts", nargs="+", choices=LAYOUTS, default=["channel"])
    parser.add_argument("--steps", type=int, nargs="+", default=[0], help="steps of table tuning (layer-wise methods)")
    parser.add_argument("--seeds", type=int, nargs="+", default=bench.seeds, help="which samples are drawn")
    parser.add_argument("--samples", type=int, default=bench.samples, help="samples to calibrate on")
    parser.add_argument("--results", type=Path, default=downloads.cache() / f"{Path(bench.file).stem}.json",
                        help="where rows are kept that are done; default: %(default)s")
    parser.add_argument("--again", action="store_true", help="work out rows that are done")
    parser.add_argument("--row", help=argparse.SUPPRESS)
    return parser.parse_args()


def rows_of(asked):
    """The rows that were asked for, the combinations that mean nothing left out."""
    for method in asked.methods:
        if method == "float":
            yield Row("float")
            continue
        for bits in asked.bits:
            for layout in asked.layouts:
                for steps in asked.steps if method.removesuffix(MIXED) in LAYERWISE else [0]:
                    for seed in asked.seeds if not method.startswith("k-means") else [0]:
                        yield Row(method, bits, layout, steps, seed, 0 if method.startswith("k-means") else asked.samples)


def main(bench, description):
    asked = arguments(bench, description)
    results = Results(asked.results)
    if asked.row:
        row = Row(**json.loads(asked.row))
        results.add(row, work_out(bench, row))
        return
    rows = list(rows_of(asked))
    for row in rows:
        if asked.again or row.key not in results.read():
            print(row.key, file=sys.stderr, flush=True)
            command = [sys.executable, bench.file, "--row", json.dumps(asdict(row)), "--results", asked.results]
            if subprocess.run(list(map(str, command)), stdout=subprocess.DEVNULL).returncode:
                sys.exit(f"failed: {row.key}")
    table(bench, results.read(), rows)
