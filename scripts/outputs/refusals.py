"""Runs of the command that fail, and what the command says of itself: texts and exit codes."""

from outputs import inputs
from outputs.runs import IN, Run, words

MODEL = f"{IN}/digits.mlpackage"
TO = f"compress {MODEL} -o out.mlpackage"
FOUR = f"{TO} --nbits 4"

USAGE = [
    "", "shrink", "compress", f"compress {MODEL} --nbits 4", TO, f"{TO} --mode uniform", f"{TO} --op-type linear=skip",
    f"{TO} --nbits 5", f"{FOUR} --mode kmean", f"{FOUR} --mode custom", f"{FOUR} --mode unique", f"{FOUR} --granularity per_channel",
    f"{FOUR} --granularity per_tensor --group-size 8", f"{FOUR} --granularity per_tensor --channel-axis 0", f"{FOUR} --group-size x",
    f"{FOUR} --group-size -1", f"{FOUR} --channel-axis x", f"{FOUR} --cluster-dim 0", f"{FOUR} --mode uniform --cluster-dim 2",
    f"{TO} --mode unique --lut-dtype int8", f"{FOUR} --lut-dtype int4", f"{FOUR} --weight-threshold -1", f"{FOUR} --seed x",
    f"{FOUR} --threads 5000", f"{FOUR} --minimum-deployment-target iOS12", f"{FOUR} --op-type linear", f"{FOUR} --op-type linear=5",
    f"{FOUR} --op-name a=bits=4", f"{FOUR} --op-type linear=8 --op-type linear=skip", f"{FOUR} --op-type const=8",
    f"{TO} --op-type linear=mode=uniform", f"{FOUR} --op-name a=mode=custom", f"{FOUR} --op-type a=granularity=per_tensor,group-size=2",
    f"{FOUR} --op-name a=nbits=4,mode=unique", f"{FOUR} --op-name a=cluster-dim=2,mode=uniform", f"{FOUR} --op-name a=group-size=-1",
    f"{FOUR} --report {MODEL}/report.json", f"{FOUR} --report out.mlpackage/r.json", f"{FOUR} --preset gan", f"{FOUR} --sensitivity-default ones",
    f"{TO} --config {IN}/global.yaml --nbits 4", f"{TO} --config {IN}/global.yaml --lut-dtype int8", "inspect",
    f"inspect {MODEL} --weight-threshold x", f"decompress {MODEL}", "demo --force", "completions tcsh",
]

FAILURES = [
    "inspect missing.mlpackage", f"inspect {IN}/notes.txt", f"compress {IN}/notes.txt -o out.mlpackage --nbits 4", f"inspect {MODEL}/Data",
    "compress missing.safetensors -o out.safetensors --nbits 4", f"compress {MODEL} -o out.bin --nbits 4",
    f"compress {MODEL} -o no/such/out.mlpackage --nbits 4", f"{FOUR} --report no/such/r.json", f"{FOUR} --report .",
    f"compress {MODEL} -o out.safetensors --nbits 4", f"compress {IN}/model.safetensors -o out.mlpackage --nbits 4",
    f"compress {IN}/shards -o out.safetensors --nbits 4", f"{TO} --config missing.yaml", f"{FOUR} --sensitivity missing.safetensors",
    f"{FOUR} --sensitivity {IN}/other-sensitivity.safetensors",
    f"compress {IN}/model.safetensors -o out.safetensors --nbits 4 --sensitivity {IN}/other-sensitivity.safetensors",
    f"compress {IN}/model.safetensors -o out.safetensors --nbits 4 --op-type linear=2",
    f"compress {IN}/model.safetensors -o out.safetensors --nbits 4 --minimum-deployment-target iOS18",
    f"compress {IN}/model.safetensors -o out.safetensors --nbits 4 --joint-compression",
    f"compress {IN}/model.safetensors -o out.safetensors --nbits 4 --strict", f"decompress {IN}/model.safetensors -o out.safetensors",
    f"decompress {MODEL} -o out.mlpackage --max-expansion 1", f"decompress {MODEL} -o ../{'n' * 300}.mlpackage",
    f"compress {IN}/graph-CoreML5.mlpackage -o out.mlpackage --nbits 4", f"compress {IN}/graph-CoreML6.mlpackage -o out.mlpackage --nbits 3",
    f"compress {IN}/graph-CoreML7.mlpackage -o out.mlpackage --nbits 4 --group-size 16",
    f"compress {IN}/form-sparse-iOS16.mlpackage -o out.mlpackage --nbits 4 --joint-compression",
]

SAID = [
    "--version", "--help", "compress --help", "compress -h", "inspect --help", "decompress --help", "demo --help", "completions --help",
    "demo", "demo --save kept", "completions bash", "completions zsh", f"inspect {MODEL}", f"inspect {IN}/model.safetensors",
    f"inspect {IN}/shards --json", f"{FOUR} --report -", f"{FOUR} --quiet",
]


def refusals():
    for place, line in enumerate(USAGE):
        yield Run("refusals, usage", f"usage-{place:02}", (words(line),))
    for place, line in enumerate(FAILURES):
        yield Run("refusals, failures", f"failure-{place:02}", (words(line),))
    for name in inputs.BAD_CONFIGS:
        yield Run("refusals, configurations", name.replace(" ", "-"), (words(f"{TO} --config {IN}/bad-{name.replace(' ', '-')}.json"),))
    for name in inputs.TEXTS:
        yield Run("refusals, configurations", name, (words(f"{TO} --config {IN}/{name}"),))
    for number, name in enumerate(inputs.BROKEN):
        source = f"{IN}/bad-{number:02}-{name.replace(' ', '-')}.mlpackage"
        lines = (f"compress {source} -o out.mlpackage --nbits 4", f"inspect {source}", f"decompress {source} -o out.mlpackage")
        yield Run("refusals, broken files", name.replace(" ", "-"), (words(lines[number % 3]),))
    for name in ("bad-cut", "bad-longer", "bad-header", "bad-nothing", "bad-type", "bad-text", "shard-missing"):
        source = f"{IN}/{name}" + (".safetensors" if name.startswith("bad") else "")
        commands = words("inspect", [source]), words(f"compress {source} -o out.safetensors --nbits 4")
        yield Run("refusals, broken files", name, commands)
    there = words(FOUR)
    yield Run("refusals, failures", "the-output-exists", (there, there, (*there, "--force"), words("decompress out.mlpackage -o out.mlpackage")))


def said():
    for place, line in enumerate(SAID):
        yield Run("help, tables, demo", f"said-{place:02}", (words(line),))
