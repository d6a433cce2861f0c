"""README and the guides do what they say: every block runs, top to bottom, as it stands; README's table, row by row."""

import json
import re
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
import torch
from coremltools.converters.mil import Builder as mb
from pages import ROOT, Page, blocks
from safetensors.numpy import save_file
from sklearn.datasets import load_digits
from torch import nn

import peer
import zoo
import zoo_graphs

DEMO = ROOT / "crates/cli/demo/digits.mlpackage"


def network():
    """What the pages call `model`: layers of the names and types that their configurations speak of."""
    class Block(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = nn.Conv2d(16, 16, 3, padding=1)
            self.mix = nn.Linear(64, 64)

        def forward(self, x):
            x = torch.relu(self.conv(x))
            return x + self.mix(x.flatten(2)).reshape(x.shape)

    class Network(nn.Module):
        def __init__(self):
            super().__init__()
            self.stem = nn.Conv2d(1, 16, 3, padding=1)
            self.blocks = nn.Sequential(*[Block() for _ in range(2)])
            self.head = nn.Linear(16 * 64, 10)

        def forward(self, x):
            return self.head(self.blocks(self.stem(x)).flatten(1))

    torch.manual_seed(0)
    return Network()


def names():
    """What the reader of a page has before its first line."""
    images, labels = torch.rand(8, 1, 8, 8), torch.arange(8) % 10
    model = network()
    return {
        "model": model,
        "fresh_model": network(),
        "images": images,
        "loader": [(images, labels)] * 2,
        "dataloader": [(images[i:i + 1], labels[i:i + 1]) for i in range(8)],
        "loss_fn": lambda model, data: nn.functional.cross_entropy(model(data[0]), data[1]),
        "optimizer": torch.optim.SGD(model.parameters(), lr=0.01),
    }


def llama(folder):
    """A checkpoint in two shards with their index."""
    folder.mkdir()
    tensors = {f"model.layers.{i}.mlp.up_proj.weight": zoo.random(f"up{i}", (64, 96)) for i in range(2)}
    shards = dict(zip(("model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"), tensors.items()))
    for shard, (name, tensor) in shards.items():
        save_file({name: tensor}, folder / shard, {"format": "pt"})
    index = {"metadata": {"total_size": 0}, "weight_map": {name: shard for shard, (name, _) in shards.items()}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))


@pytest.fixture
def page(binary, tmp_path):
    """`page(name, **names)`: a page in a folder with a model and a checkpoint."""
    def get(name, **more):
        folder = tmp_path / "reader"
        folder.mkdir()
        shutil.copytree(DEMO, folder / "Model.mlpackage")
        llama(folder / "llama")
        return Page(name, folder, binary, more)
    return get


def test_readme(page):
    assert page("README.md", **names()).run() == {"sh": 4, "text": 1, "python": 1, "rust": 1}


def test_guide(page):
    count = page("docs/guide.md", **names()).run()
    assert count["sh"] >= 5 and count["python"] >= 1 and count["yaml"] == 1 and count["swift"] == 1


def test_python(page):
    assert page("docs/python.md", **names()).run()["python"] >= 6


def test_distributed(page):
    assert page("docs/distributed.md").run() == {"python": 2}


def test_statistics(page, tmp_path):
    x = zoo.random("x", (200, 64))
    reader = page("docs/statistics.md", x=x)
    save_file({"layers.0.fc.weight": zoo.random("fc", (48, 64))}, tmp_path / "reader/model.safetensors")
    assert reader.run() == {"python": 1, "sh": 1}


def test_budget(page, tmp_path):
    reader = page("docs/budget.md")
    images = (load_digits().images[:16] / 16).astype(np.float32)
    np.savez(tmp_path / "reader/x.npz", image=images[:, None, None])
    assert reader.run() == {"sh": 4, "yaml": 1, "python": 2}


def test_runtime(page, tmp_path):
    reader = page("docs/runtime.md")
    images = (load_digits().images[:16] / 16).astype(np.float32)
    np.savez(tmp_path / "reader/x.npz", image=images[:, None])
    assert reader.run() == {"sh": 3, "python": 1}


@pytest.mark.parametrize("name", ["docs/differences.md", "docs/report.md", "ARCHITECTURE.md", "CONTRIBUTING.md"])
def test_the_other_pages_have_nothing_to_run(name):
    assert {language for _, language, _ in blocks(name)} <= {"text"}


def test_links_lead_somewhere():
    for name in ("README.md", "CONTRIBUTING.md", "ARCHITECTURE.md", *(f"docs/{p.name}" for p in (ROOT / "docs").glob("*.md"))):
        text = (ROOT / name).read_text(encoding="utf-8")
        for link in re.findall(r"\]\(([^)#]+)", text):
            assert link.startswith("http") or (ROOT / name).parent.joinpath(link).exists(), f"{name}: {link}"


def test_every_room_is_there():
    """What ARCHITECTURE.md names with a folder, or by a file's name, is a file or folder of the repository, by the end of its path."""
    files = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout.split()
    places = {f"/{place}" for file in files for place in (Path(file), *Path(file).parents)}
    text = re.sub("```.*?```", "", (ROOT / "ARCHITECTURE.md").read_text(encoding="utf-8"), flags=re.DOTALL)
    named = re.findall(r"`([\w.-]+(?:/[\w.-]+)+|[\w-]+\.(?:rs|py|pyi|md|toml|tsv|html|js))`", text)
    assert len(named) > 100
    missing = [name for name in named if not any(place.endswith(f"/{name}") for place in places)]
    assert not missing, missing


def differences():
    """(number, what the last brackets name) of each row of the list of differences."""
    text = (ROOT / "docs/differences.md").read_text(encoding="utf-8")
    for row in re.split(r"^(?=\d+\. )", text, flags=re.MULTILINE)[1:]:
        number, paragraph = int(row.split(".")[0]), row.split("\n\n")[0].rstrip()
        brackets = re.search(r"\(([^()]*)\)$", paragraph)
        yield number, re.findall("`([^`]+)`", brackets[1]) if brackets else []


def exists(test):
    """Whether a test is in its file: `test_file.py::Class::test`, or `crate/tests/file.rs::test`."""
    place, *classes, name = test.split("::")
    file = ROOT / ("crates" if place.endswith(".rs") else "tests/python") / place
    if not file.is_file():
        return False
    text = file.read_text(encoding="utf-8")
    if place.endswith(".rs"):
        return re.search(rf"#\[test\]\s(?:\s*#\[.*\]\s)*\s*fn {name}\(", text) is not None
    return re.search(rf"^ *def {name}\(", text, re.MULTILINE) is not None and all(f"class {each}" in text for each in classes)


def test_every_difference_names_the_tests_that_hold_it():
    rows = list(differences())
    assert sorted(number for number, _ in rows) == list(range(1, len(rows) + 1)), "each number once, none left out"
    assert not [number for number, tests in rows if not tests], "rows without a test"
    missing = {number: [test for test in tests if not exists(test)] for number, tests in rows}
    assert not {number: tests for number, tests in missing.items() if tests}
    assert exists("test_pages.py::test_readme") and not exists("test_pages.py::test_nothing") and not exists("nothing.rs::test")


def dense(target, values="tails"):
    """A model with a conv1 and a linear, whose channels can be grouped."""
    def program(x):
        x = mb.conv(x=x, weight=zoo.random("page conv", (64, 32, 1, 3), values), name="conv1")
        x = mb.reshape(x=x, shape=(6, 64))
        return mb.linear(x=x, weight=zoo.random("page linear", (64, 64), values), name="linear1")
    return zoo.convert(mb.program(input_specs=zoo_graphs._spec((1, 32, 1, 8)), opset_version=zoo.TARGETS[target])(program), target)


def pruned(target):
    return peer.pruned(dense(target))


def rows():
    """(command, oldest target that the model may have or None) of README's table."""
    lines = (ROOT / "README.md").read_text(encoding="utf-8").splitlines()
    start = lines.index("| you want | you type | M is for |")
    compress = "palettizer compress M.mlpackage -o S.mlpackage"
    for line in lines[start + 2:]:
        if not line.startswith("|"):
            return
        _, command, target = (cell.strip() for cell in line.strip("|").split("|"))
        assert re.fullmatch("`.+`", command), line
        yield command.strip("`").replace("… ", f"{compress} "), re.search(r"iOS\d\d|$", target).group() or None


def test_the_rows_of_the_table(page, models, palettizer):
    """Each row works on a model of the target that it names, and says what is missing on an older one."""
    run, seen = page("README.md"), 0
    config = {"config_type": "OpPalettizerConfig", "global_config": {"nbits": 4}}
    (run.folder / "config.yaml").write_text(json.dumps(config))
    listed = json.loads(palettizer("inspect", models(dense, "iOS18"), "--json").stdout)["weights"]
    everything = {weight["name"]: np.ones(weight["shape"], np.float32) for weight in listed}
    save_file(everything, run.folder / "s.safetensors")
    np.savez(run.folder / "x.npz", x=zoo.random("page inputs", (3, 32, 1, 8)))
    for command, target in rows():
        seen += 1
        if not command.startswith("palettizer compress M.mlpackage"):
            run.shell(command)
            continue
        older = list(zoo.TARGETS)[:list(zoo.TARGETS).index(target)][-1:]
        for at in (*older, target):
            for place in ("M.mlpackage", "S.mlpackage"):
                shutil.rmtree(run.folder / place, ignore_errors=True)
            shutil.copytree(models(pruned if "joint" in command else dense, at), run.folder / "M.mlpackage")
            done = run.shell(command, check=at == target)
            assert at == target or (done.returncode == 1 and target in done.stderr), f"{command} on {at}:\n{done.stderr}"
    assert seen >= 16


def allowed():
    """(flags, {target: whether the guide says that it can}) of the guide's table of targets."""
    lines = (ROOT / "docs/guide.md").read_text(encoding="utf-8").splitlines()
    start = next(i for i, line in enumerate(lines) if line.startswith("| | iOS15"))
    targets = re.findall(r"iOS\d\d", lines[start])
    assert targets == list(zoo.TARGETS)
    for line in lines[start + 2:]:
        if not line.startswith("|"):
            return
        what, *cells = (cell.strip() for cell in line.strip("|").split("|"))
        said = {"yes": True, "no": False}
        first, *others = re.findall("`([^`]+)`", what)
        for flags in (first, *(f"{first.split()[0]} {other}" for other in others)):
            yield flags, dict(zip(targets, (said[cell] for cell in cells), strict=True))


@pytest.mark.parametrize("flags, said", allowed(), ids=lambda value: value if isinstance(value, str) else "")
def test_what_a_target_allows(flags, said, models, palettizer, tmp_path):
    """The command writes what the guide's table allows, and names the target that it asks for otherwise."""
    values = "lattice" if "unique" in flags else "tails"
    bits = () if "nbits" in flags or "unique" in flags else ("--nbits", 4)
    for target, works in said.items():
        done = palettizer("compress", models(dense, target, values), "-o", tmp_path / f"{target}.mlpackage", *flags.split(), *bits, "--strict",
                          check=False)
        assert (done.returncode == 0) == works, f"{flags} on {target}: {done.stdout}{done.stderr}"
