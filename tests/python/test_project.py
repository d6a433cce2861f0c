"""What holds the project together: workflows that name what exists, manifests fit to publish, rules about dependencies."""

import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
sys.path.append(str(ROOT / "scripts"))

import deny

WORKFLOWS = sorted((ROOT / ".github/workflows").glob("*.yml"))
PUBLISHED = ("kernels", "palette", "pipeline", "coreml", "safetensors", "palettizer", "cli")


def steps(workflow):
    for job in workflow["jobs"].values():
        yield from job.get("steps", ())


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)
def test_workflows_name_what_exists(path):
    workflow = yaml.safe_load(path.read_text())
    assert workflow["permissions"] == {"contents": "read"}, "a job asks for more by itself"
    called = [job["uses"] for job in workflow["jobs"].values() if "uses" in job]
    assert all((ROOT / name).is_file() for name in called)
    for job in workflow["jobs"].values():
        assert set(job.get("needs", ()) if isinstance(job.get("needs"), list) else [job.get("needs")]) <= {None, *workflow["jobs"]}
    for step in steps(workflow):
        if "uses" in step:
            assert re.fullmatch(r"[\w-]+/[\w-]+@v\d+(\.\d+)*", step["uses"]), step["uses"]
        for script in re.findall(r"\.ci/[\w-]+", step.get("run", "")):
            assert os.access(ROOT / script, os.X_OK), script


def test_ci_runs_the_scripts_of_the_workflows():
    """What CI can do without a network is what the workflow does: the same scripts, and the same test command."""
    ours = (ROOT / ".ci/run").read_text()
    theirs = " ".join(step.get("run", "") for path in WORKFLOWS for step in steps(yaml.safe_load(path.read_text())))
    here = set(re.findall(r"\.ci/[\w-]+", ours)) - {".ci/run"}
    assert here == {".ci/rust", ".ci/apart", ".ci/lint"}
    assert all(script in theirs for script in here)
    assert "cargo xtask test" in ours and "cargo xtask test" in theirs


def test_wheels_are_built_for_every_platform():
    workflow = yaml.safe_load((ROOT / ".github/workflows/wheels.yml").read_text())
    built = {entry["target"] for entry in workflow["jobs"]["wheel"]["strategy"]["matrix"]["include"]}
    assert built == {"x86_64-unknown-linux-gnu", "aarch64-unknown-linux-gnu", "aarch64-apple-darwin", "x86_64-pc-windows-msvc"}


@pytest.mark.parametrize("folder", PUBLISHED)
def test_a_manifest_is_fit_to_publish(folder):
    package = tomllib.loads((ROOT / f"crates/{folder}/Cargo.toml").read_text())["package"]
    inherited = ("version", "edition", "rust-version", "license", "repository", "homepage", "readme", "keywords", "categories")
    assert all(package[key] == {"workspace": True} for key in inherited)
    assert package["documentation"].endswith("/" + package["name"]) and package["description"]
    assert package["metadata"]["docs"]["rs"]["targets"]


def test_workspaces_agree():
    """The workspaces of their own, and the versions that the crates ask of each other."""
    own = tomllib.loads((ROOT / "Cargo.toml").read_text())["workspace"]
    for name, need in own["dependencies"].items():
        if name.startswith("palettizer"):
            assert need["version"] == own["package"]["version"], name
    for folder in own["exclude"]:
        apart = tomllib.loads((ROOT / folder / "Cargo.toml").read_text())
        assert "workspace" in apart and (ROOT / folder / "Cargo.lock").is_file()
        assert apart["package"].get("rust-version", own["package"]["rust-version"]) == own["package"]["rust-version"]
        assert apart["package"]["publish"] is False


@pytest.mark.parametrize("tag, code", [("v9.9.9", 1), ("0.1.0", 1), ("", 1)])
def test_a_wrong_tag_is_refused(tag, code):
    done = subprocess.run(["bash", str(ROOT / ".ci/tag"), tag], capture_output=True, text=True)
    assert done.returncode == code and "expected v" in done.stderr


@pytest.mark.parametrize("expression, met", [
    ("MIT", True),
    ("GPL-3.0", False),
    ("MIT OR GPL-3.0", True),
    ("GPL-3.0 OR MIT", True),
    ("MIT/Apache-2.0", True),
    ("MIT AND GPL-3.0", False),
    ("GPL-3.0 AND MIT OR MIT", True),
    ("MIT AND (GPL-3.0 OR Zlib)", True),
    ("(MIT OR Zlib) AND LGPL-2.1", False),
    ("Apache-2.0 WITH LLVM-exception", True),
    ("Apache-2.0 WITH other-exception", False),
])
def test_licence_expressions(expression, met):
    allowed = {"MIT", "Apache-2.0", "Zlib", "Apache-2.0 WITH LLVM-exception"}
    assert deny.permits(expression, allowed) is met


@pytest.mark.parametrize("expression", ["", "MIT OR", "(MIT", "MIT MIT"])
def test_what_is_no_licence_expression(expression):
    with pytest.raises(ValueError):
        deny.permits(expression, {"MIT"})


@pytest.mark.parametrize("change, words", [
    ({}, None),
    ({"license": "GPL-3.0"}, "is under GPL-3.0"),
    ({"license": None}, "names no licence"),
    ({"name": "openssl-sys"}, "is banned"),
    ({"source": "git+ssh://somewhere"}, "comes from git"),
    ({"rust_version": "1.90"}, "needs Rust 1.90; promised is 1.88"),
    ({"source": None, "dependencies": [{"name": "b", "req": "*"}]}, "takes any version of b"),
])
def test_a_package_that_a_rule_forbids(change, words):
    ours = {"name": "ours", "version": "0.1.0", "license": "MIT", "rust_version": "1.88", "source": None, "dependencies": []}
    other = {**ours, "name": "a", "rust_version": None, "source": "registry+index", **change}
    rules = tomllib.loads((ROOT / "deny.toml").read_text())
    found = list(deny.faults([ours, other], rules))
    assert len(found) == (words is not None) and all(words in line for line in found)


# made with `..Default::default()`, as their documentation shows: a new field breaks nobody
WITH_DEFAULTS = {"SensitivityOptions", "DkmConfig", "DkmSpec"}


def test_public_structs_can_grow():
    """A struct with public fields that the crate `palettizer` shows is #[non_exhaustive]: 0.2 can add a field."""
    sources = {path: path.read_text(encoding="utf-8") for folder in PUBLISHED for path in (ROOT / f"crates/{folder}/src").rglob("*.rs")}
    shown = set()
    for path in ("lib.rs", "dkm/mod.rs"):
        for names in re.findall(r"^pub use ([^;]+);", sources[ROOT / "crates/palettizer/src" / path], re.M):
            shown |= set(re.findall(r"\b[A-Z]\w+", names))
    shown |= {"Defaults"}
    closed, seen = [], 0
    for text in sources.values():
        lines = text.splitlines()
        for at, line in enumerate(lines):
            found = re.match(r"pub struct (\w+)[^;(]*\{$", line)
            if not found or found[1] not in shown:
                continue
            fields = lines[at + 1:lines.index("}", at)]
            above = at
            while lines[above - 1].startswith(("#[", "///")):
                above -= 1
            if any(re.match(r"    pub \w+:", field) for field in fields):
                seen += 1
                if "#[non_exhaustive]" not in lines[above:at] and found[1] not in WITH_DEFAULTS:
                    closed.append(found[1])
    assert not closed, f"{closed} cannot get another field without breaking their users"
    assert seen > 15
