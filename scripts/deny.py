"""Licences, bans and sources of everything the crates depend on, by the rules of deny.toml: what `cargo deny` checks, offline.
And that none of it needs a newer Rust than the crates promise.

    python scripts/deny.py [MANIFEST]

cargo-deny knows more (advisories, licences in files); this reads `cargo metadata` alone and needs nothing but Python 3.11.
"""

import json
import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def metadata(manifest):
    command = [os.environ.get("CARGO", "cargo"), "metadata", "--format-version", "1", "--locked", "--all-features",
               "--manifest-path", str(manifest)]
    return json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout)


def permits(expression, allowed):
    """Whether a licence expression can be met with the allowed ones. "/" is the old way to write OR."""
    expression = re.sub(r"\s*/\s*", " OR ", expression)
    tokens = re.findall(r"\(|\)|[^\s()]+(?:\s+WITH\s+[^\s()]+)?", expression)

    def either():
        met = both()
        while tokens and tokens[0] == "OR":
            tokens.pop(0)
            met = both() or met
        return met

    def both():
        met = one()
        while tokens and tokens[0] == "AND":
            tokens.pop(0)
            met = one() and met
        return met

    def one():
        if not tokens:
            raise ValueError(f"{expression!r} ends too early")
        token = tokens.pop(0)
        if token != "(":
            return " ".join(token.split()) in allowed
        met = either()
        if not tokens or tokens.pop(0) != ")":
            raise ValueError(f"{expression!r} has a parenthesis that nothing closes")
        return met

    met = either()
    if tokens:
        raise ValueError(f"{expression!r} goes on with {tokens[0]!r}")
    return met


def number(version):
    return tuple(int(part) for part in version.split("."))[:2]


def faults(packages, rules):
    """One line for each package that a rule forbids, or that needs a newer Rust than the workspace promises."""
    ours = (package["rust_version"] for package in packages if package["source"] is None)
    promised = min(number(version) for version in ours if version)
    allowed = set(rules["licenses"]["allow"])
    banned = {ban["name"]: ban["reason"] for ban in rules["bans"]["deny"]}
    for package in packages:
        name = f"{package['name']} {package['version']}"
        licence = package["license"]
        if licence is None:
            yield f"{name} names no licence"
        elif not permits(licence, allowed):
            yield f"{name} is under {licence}; allowed are {', '.join(sorted(allowed))}"
        if package["name"] in banned:
            yield f"{name} is banned: {banned[package['name']]}"
        needs = package["rust_version"]
        if needs and number(needs) > promised:
            yield f"{name} needs Rust {needs}; promised is {promised[0]}.{promised[1]}"
        source = package["source"]
        # which registry is in Cargo.lock, and cargo-deny knows the public one
        if source is not None and not source.startswith("registry+"):
            yield f"{name} comes from {source}, not from a registry"
        for need in package["dependencies"] if source is None else ():
            if need["req"] == "*" and "path" not in need:
                yield f"{name} takes any version of {need['name']}"


def main(manifests):
    rules = tomllib.loads((ROOT / "deny.toml").read_text())
    found = 0
    for manifest in manifests or [ROOT / "Cargo.toml"]:
        packages = metadata(manifest)["packages"]
        lines = list(faults(packages, rules))
        found += len(lines)
        print("\n".join(lines) if lines else f"{manifest}: {len(packages)} packages, all as deny.toml allows")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
