"""The runs of the command: each a few command lines in an empty folder of its own, with the inputs in `../../../in`."""

from dataclasses import dataclass

import cover
import pairwise
import zoo
import zoo_compressed
import zoo_special

from outputs import inputs

THREADS = (1, 2, 7)
IN = "../../../in"


@dataclass(frozen=True)
class Run:
    """Some command lines, one after the other; `out` is what they write, and stands for itself in them."""

    kind: str  # the line of the table
    name: str
    commands: tuple  # of tuples of words
    format: str = ""
    setting: str = ""
    threads: int = 0


def words(*given):
    return tuple(word for each in given for word in (each.split() if isinstance(each, str) else map(str, each)))


def compressing(kind, name, source, flags, threads, format="mlpackage", more=()):
    """Compresses, with a report; then what `more` asks for with the result."""
    out = {"mlpackage": "out.mlpackage", "safetensors": "out.safetensors", "shards": "out"}[format]
    first = words("compress", [f"{IN}/{source}"], f"-o {out} --report report.json --threads {threads}", flags)
    then = {"decompress": words(f"decompress {out} -o dense-{out}"),
            "inspect": words(f"inspect {out} --json --weight-threshold 0")}
    return Run(kind, name, (first, *(then[each] for each in more)), format, " ".join(words(flags)), threads)


def core_ml_settings():
    """Every pair of settings that can occur, over the ops, opsets and dtypes of the zoo."""
    factors = {**cover.FACTORS, "threads": THREADS, "exact": (False, True), "seed": (0, 5)}
    rows, _ = pairwise.rows(factors, cover.RULES)
    for number, row in enumerate(rows):
        flags = [*cover.flags(row), "--seed", row["seed"], *(["--exact"] if row["exact"] else [])]
        source = f"{row['op']}-{row['target']}-{row['dtype']}"
        more = ("decompress", "inspect") if number % 4 == 0 else ()
        yield compressing("Core ML, settings", f"{number:03}-{source}", f"{source}.mlpackage", flags, row["threads"], more=more)


def zoo_ops():
    """The (op, target, dtype) that the settings need."""
    return {tuple(run.commands[0][1].removeprefix(f"{IN}/").removesuffix(".mlpackage").rsplit("-", 2)) for run in core_ml_settings()}


def graphs():
    settings = ["--nbits 4", "--nbits 6 --mode uniform --weight-threshold 0",
                "--nbits 3 --group-size 8 --lut-dtype int8 --minimum-deployment-target iOS18",
                "--nbits 4 --cluster-dim 2 --minimum-deployment-target iOS26", "--nbits 4 --preset llm --per-channel-scale --minimum-deployment-target iOS18",
                "--nbits 8 --group-size 0 --lut-dtype uint8 --minimum-deployment-target iOS26"]
    for place, name in enumerate(inputs.GRAPHS):
        for step in (0, 1 + place % 5, 1 + (place + 2) % 5):
            yield compressing("Core ML, graphs", f"{name}-{step}", f"graph-{name}.mlpackage", settings[step],
                              THREADS[(place + step) % 3], more=("decompress",) if step == 0 else ())


def special_values():
    settings = ["--nbits 4", "--mode unique", "--nbits 2 --group-size 4 --per-channel-scale", "--nbits 3 --lut-dtype uint8",
                "--nbits 4 --cluster-dim 2 --group-size 16", "--nbits 8 --mode uniform --strict"]
    for place, kind in enumerate(zoo_special.KINDS):
        for step in range(3):
            dtype = tuple(zoo.DTYPES)[(place + step) % 2]
            yield compressing("Core ML, special values", f"{kind}-{dtype}-{step}", f"special-{kind}-{dtype}.mlpackage",
                              settings[(place + 2 * step) % 6], THREADS[step])
    yield compressing("Core ML, special values", "immediate", "immediate.mlpackage", "--nbits 4", 2)


def compressed_already():
    """Pruned, quantized and palettized models: compressed jointly or left alone, made dense, listed."""
    settings = ["--nbits 4", "--nbits 2 --group-size 16", "--nbits 8 --lut-dtype int8", "--nbits 3 --per-channel-scale",
                "--nbits 6 --mode uniform", "--mode unique", "--nbits 4 --cluster-dim 2 --strict"]
    for place, (kind, target) in enumerate(zoo_compressed.CASES):
        source = f"form-{kind}-{target}.mlpackage"
        joint = "--joint-compression" if target == "iOS18" else "--joint-compression --minimum-deployment-target iOS26"
        yield compressing("Core ML, joint", f"{kind}-{target}", source, f"{settings[place % 7]} {joint}", THREADS[place % 3],
                          more=("decompress", "inspect") if target == "iOS18" else ())
        for command in (f"decompress {IN}/{source} -o dense.mlpackage", f"inspect {IN}/{source} --json --weight-threshold 0"):
            yield Run("Core ML, made dense and listed", f"{command.split()[0]}-{kind}-{target}", (words(command),), "mlpackage")


CHECKPOINT = {
    "mode": ("kmeans", "uniform", "unique"), "nbits": (1, 2, 3, 4, 6, 8, None), "group_size": (None, 1, 4, 8),
    "channel_axis": (None, 0, 1), "cluster_dim": (1, 2, 4), "per_channel_scale": (False, True),
    "lut_dtype": ("float", "int8", "uint8"), "threads": THREADS, "exact": (False, True), "sensitivity": (None, "error", "ones"),
    "form": ("safetensors", "shards"),
}


def checkpoints():
    rules = [rule for rule in cover.RULES if set(rule[0]) <= set(CHECKPOINT)]
    rows = [row for form in CHECKPOINT["form"] for row in pairwise.rows(CHECKPOINT, rules, {"form": form})[0]]
    for number, row in enumerate(rows):
        flags = [*cover.flags(row), *(["--exact"] if row["exact"] else [])]
        if row["sensitivity"]:
            flags += ["--sensitivity", f"{IN}/sensitivity.safetensors", "--op-name", "steps=skip"]
            flags += ["--sensitivity-default", "ones"] if row["sensitivity"] == "ones" else []
        source = {"safetensors": "model.safetensors", "shards": "shards"}[row["form"]]
        yield compressing(f"checkpoints, {row['form']}", f"{number:03}", source, flags, row["threads"], row["form"],
                          ("decompress", "inspect"))


def configurations():
    """Files, rules by type, name and pattern, presets, targets, strictness."""
    for place, name in enumerate(inputs.CONFIGS):
        kind = ("yaml", "json")[place % 2]
        yield compressing("configurations", f"file-{name}", "graph-CoreML8.mlpackage", f"--config {IN}/{name}.{kind}",
                          THREADS[place % 3])
    rules = ["--nbits 4 --op-type linear=8", "--nbits 4 --op-name conv=skip", "--nbits 6 --op-type linear=skip --op-name linear_w=1",
             "--nbits 4 --op-name conv.*=nbits=2,mode=uniform --op-name nowhere=8", "--op-type conv=nbits=3,group-size=8",
             "--mode unique --op-type linear=nbits=8,lut-dtype=int8,per-channel-scale=true"]
    rules += [f"--config {IN}/by-type.yaml --op-name conv=4 --seed 3 --strict", "--nbits 4 --preset llm", "--nbits 4 --op-name [=2",
              f"--config {IN}/groups.json --preset llm", "--nbits 4 --weight-threshold 100000", "--nbits 4 --group-size 7 --strict"]
    rules += [f"--nbits {bits} --minimum-deployment-target {target} {more}" for bits, target, more in (
        (4, "iOS16", ""), (3, "iOS17", ""), (3, "iOS18", "--group-size 16"), (8, "iOS26", "--per-channel-scale"))]
    for place, flags in enumerate(rules):
        yield compressing("configurations", f"rules-{place:02}", ("graph-CoreML8.mlpackage", "graph-attention.mlpackage")[place % 5 == 4],
                          flags, THREADS[place % 3])
        if "type" not in flags:
            yield compressing("configurations", f"rules-{place:02}-checkpoint", "model.safetensors", flags, 2, "safetensors")
    for name in ("conflict-by-name", "conflict-by-null"):
        flags = {"conflict-by-name": "--nbits 4 --op-name linear1=2", "conflict-by-null": "--nbits 4 --op-name linear2=skip"}[name]
        yield compressing("configurations", name, "graph-shared.mlpackage", flags, 1)
