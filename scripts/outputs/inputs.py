"""The inputs of the runs: models, checkpoints, configurations and broken files, made with fixed seeds.

coremltools gives a package identifiers of its own and a date, so that two makings differ: both sides read one folder,
and results are compared only with results of equal inputs (`digest`).
"""

import hashlib
import json
import shutil
from pathlib import Path

import numpy as np
import test_bad_input
import test_config
import torch
import yaml
import zoo
import zoo_compressed
import zoo_graphs
import zoo_special
from safetensors.torch import save, save_file

from outputs import ROOT

GRAPHS = {**zoo_graphs.GRAPHS, "outputs": (zoo_graphs.outputs, "iOS18"), "flow": (zoo_graphs.flow,)}
BROKEN = test_bad_input.BROKEN
CONFIGS = test_config.FILES
BAD_CONFIGS = test_config.BAD
TEXTS = {  # configurations that are none
    "no-type.yaml": "global_config: {nbits: 4}\n",
    "no-yaml.yaml": "config_type: [\n",
    "empty.yaml": "",
    "list.yaml": "- 1\n",
    "twice.yaml": "config_type: OpPalettizerConfig\nconfig_type: OpPalettizerConfig\n",
    "two-documents.yaml": "a: 1\n---\nb: 2\n",
    "tag.yaml": "a: !!python/object/apply:os.system ['true']\n",
    "tab.yaml": "a:\n\tb: 1\n",
    "deep.yaml": 100_000 * "[",
    "no-json.json": "{",
    "kind.toml": "",
}


def tensors(seed=0):
    """A checkpoint: weights of all types and ranks, and what is no weight."""
    random = torch.Generator().manual_seed(seed)

    def normal(*shape, dtype=torch.float32):
        return (torch.randn(*shape, generator=random) * 0.1).to(dtype)
    return {
        "model.embed_tokens.weight": normal(96, 64, dtype=torch.bfloat16),
        "model.layers.0.conv.weight": normal(16, 8, 5, 5, dtype=torch.bfloat16),
        "model.layers.0.down_proj.weight": normal(48, 64, dtype=torch.float16),
        "model.layers.0.norm.weight": normal(4096),
        "model.layers.0.up_proj.bias": normal(64),
        "model.layers.0.up_proj.weight": normal(64, 48),
        "model.layers.1.few.weight": (normal(64, 64) * 20).round(),
        "model.layers.1.nan.weight": normal(64, 64).where(normal(64, 64) < 0.3, torch.nan),
        "model.layers.1.double.weight": normal(64, 48, dtype=torch.float64),
        "model.rotary_emb.cos_cached": normal(64, 64),
        "lm_head.weight": normal(96, 64, dtype=torch.float16),
        "steps": torch.tensor(7),
        "mask": torch.ones(64, 64, dtype=torch.bool),
        "small.weight": normal(4, 4),
        "empty": torch.zeros(0, 5),
    }


def sharded(folder):
    """The checkpoint in three shards with their index."""
    folder.mkdir()
    everything = tensors(1)
    names = sorted(everything)
    weight_map = {}
    for number, own in enumerate((names[:4], names[4:9], names[9:]), 1):
        shard = f"model-{number:05}-of-00003.safetensors"
        save_file({name: everything[name] for name in own}, folder / shard, {"format": "pt"})
        weight_map.update(dict.fromkeys(own, shard))
    index = {"metadata": {"total_size": 0}, "weight_map": weight_map}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))


def sensitivities(path):
    """Of every tensor that may be palettized, over several orders of magnitude."""
    random = np.random.default_rng(1)
    found = {name: torch.from_numpy(random.gamma(0.3, size=tuple(tensor.shape)).astype(np.float32))
             for name, tensor in tensors().items() if tensor.dim() > 1 and tensor.is_floating_point()}
    save_file(found, path)


def damaged():
    """Name -> the bytes of a checkpoint that is none."""
    whole = save(tensors(), {"format": "pt"})
    return {"cut": whole[:-1], "longer": whole + b"\0", "header": b"\xff" * 8 + whole[8:], "nothing": b"",
            "type": whole.replace(b'"F16"', b'"F61"'), "text": b"no checkpoint\n"}


def lacking(folder):
    """A folder whose index names a shard that is not there."""
    sharded(folder)
    (folder / "model-00002-of-00003.safetensors").unlink()


def checkpoints():
    yield "model.safetensors", lambda path: save_file(tensors(), path, {"format": "pt"})
    yield "shards", sharded
    yield "shard-missing", lacking
    yield "sensitivity.safetensors", sensitivities
    yield "other-sensitivity.safetensors", lambda path: save_file({"other": torch.ones(3)}, path)
    for name, content in damaged().items():
        yield f"bad-{name}.safetensors", lambda path, content=content: path.write_bytes(content)


def configurations():
    typed = lambda content: {"config_type": "OpPalettizerConfig", **content}
    for name, content in CONFIGS.items():
        yield f"{name}.yaml", lambda path, content=content: path.write_text(yaml.safe_dump(typed(content)))
        yield f"{name}.json", lambda path, content=content: path.write_text(json.dumps(typed(content), indent=2))
    for name, (content, _) in BAD_CONFIGS.items():
        yield f"bad-{name.replace(' ', '-')}.json", lambda path, content=content: path.write_text(json.dumps(typed(content)))
    for name, text in TEXTS.items():
        yield name, lambda path, text=text: path.write_text(text)
    yield "notes.txt", lambda path: path.write_text("no model\n")


def package(builder, *more):
    """What writes the package that a builder gives: a model, or a folder."""
    def write(path):
        made = builder(*more)
        shutil.copytree(made, path) if isinstance(made, Path) else made.save(str(path))
    return write


def broken(damage):
    def write(path):
        package(zoo_graphs.opset, "iOS18")(path)
        damage(path)
    return write


def packages(ops):
    """A package for each (op, target, dtype) of the settings, each graph, special constant, compressed form and damage."""
    for op, target, dtype in sorted(ops):
        yield f"{op}-{target}-{dtype}", package(zoo.build, op, target, dtype)
    for name, (builder, *more) in GRAPHS.items():
        yield f"graph-{name}", package(builder, *more)
    for kind in zoo_special.KINDS:
        for dtype in zoo.DTYPES:
            yield f"special-{kind}-{dtype}", package(zoo_special.special, kind, dtype)
    yield "immediate", package(zoo_special.immediate, "fp16")
    for kind, target in zoo_compressed.CASES:
        yield f"form-{kind}-{target}", package(zoo_compressed.compressed, kind, target)
    for number, (name, (damage, _)) in enumerate(BROKEN.items()):
        yield f"bad-{number:02}-{name.replace(' ', '-')}", broken(damage)
    yield "digits", package(lambda: next(ROOT.glob("crates/*/**/digits.mlpackage")))


def make(folder, ops, needed):
    """Makes the inputs that are needed (None: all) and not there yet; gives the digest of each."""
    folder.mkdir(parents=True, exist_ok=True)
    found = {}
    for name, write in (*checkpoints(), *configurations(), *((f"{name}.mlpackage", write) for name, write in packages(ops))):
        if needed is None or name in needed:
            path, unfinished = folder / name, folder / f"unfinished-{name}"  # coremltools looks at a path's extension
            if not path.exists():
                write(unfinished)
                unfinished.rename(path)
            found[name] = digest(path)
    return found


def digest(place):
    """One hash over a file, or over every file below a folder: names and contents."""
    found = hashlib.sha256()
    for path in sorted(place.rglob("*")) if place.is_dir() else [place]:
        found.update(str(path.relative_to(place)).encode())
        found.update(path.read_bytes() if path.is_file() else b"/")
    return found.hexdigest()
