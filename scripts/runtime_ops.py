"""Writes the table of operations in docs/runtime.md: what the peer's registry knows, and what becomes of each here.

    cargo xtask python scripts/runtime_ops.py
"""

from pathlib import Path

from coremltools.converters.mil.mil.ops.registry import SSAOpRegistry

from palettizer._native import known_ops

PAGE = Path(__file__).parents[1] / "docs/runtime.md"
HEADING = "## Operations\n"
# what a program on disk never holds, or holds under another name
NOT_IN_PROGRAMS = {"_const_symbolic"}

def table():
    """The lines of the table, by the peer's families."""
    known = dict(known_ops())
    families = {}
    for name, versions in SSAOpRegistry.core_ops.items():
        if name not in NOT_IN_PROGRAMS:
            family = list(versions.values())[-1].__module__.split(".")[-1].replace("_", " ")
            families.setdefault(family, set()).add(name)
    named = set().union(*families.values())
    families.setdefault("states", set()).update(set(known) - named)
    lines = ["| family | runs and differentiates | runs | not |", "|---|---|---|---|"]
    for family, names in sorted(families.items()):
        cells = [[], [], []]
        for name in sorted(names):
            constant = name == "const" or name.startswith("constexpr_")
            cells[1 if constant else 2 if name not in known else 0 if known[name] else 1].append(f"`{name}`")
        lines.append(f"| {family} | " + " | ".join(", ".join(cell) for cell in cells) + " |")
    return lines


def section():
    """The section of the page, from its heading on."""
    return HEADING + """
Those of coremltools' registry, by its families. What runs without a gradient gives integers, booleans or random numbers, none of which move
with the inputs, or is a list, which passes no gradient on; `const` and the `constexpr_` operations are constants, which may be differentiated by.

""" + "\n".join(table()) + "\n"


if __name__ == "__main__":
    text = PAGE.read_text(encoding="utf-8")
    PAGE.write_text(text[:text.index(HEADING)] + section(), encoding="utf-8")
