"""What happened to each parameter, as a dict that prints as a table."""

from __future__ import annotations

from collections import UserDict
from typing import Any


class Report(UserDict):  # type: ignore[type-arg]
    """Qualified parameter name -> a row: a dict with the same columns for every parameter.

    >>> report = Report({"fc.weight": {"error": 0.25, "#params": 6}, "fc.bias": {"reason": "a bias"}}.items())
    >>> print(report.aligned())
         name |   error | #params | reason
    --------- | ------- | ------- | ------
    fc.weight | 0.25000 |       6 |     -1
      fc.bias |      -1 |      -1 | a bias

    `budget` is what a budget came to, as a dict, if there was one: `goal`, `asked`, `bytes` at most, `measure` of the `harm`,
    `expected_snr_db`, `gap` to the best choice.
    """

    budget: dict[str, Any] | None = None

    def aligned(self) -> Report:
        """The same rows with all columns of any of them; what does not apply to a row is -1, as in coremltools."""
        columns: dict[str, None] = {}
        for row in self.data.values():
            columns.update(dict.fromkeys(row))
        return Report({name: {c: row.get(c, -1) for c in columns} for name, row in self.data.items()})

    def __repr__(self) -> str:
        if not self.data:
            return ""
        header = ["name", *next(iter(self.data.values()))]
        lines = [header, *([name, *(_text(v) for v in row.values())] for name, row in self.data.items())]
        widths = [max(map(len, column)) for column in zip(*lines)]
        lines.insert(1, ["-" * width for width in widths])
        return "\n".join(" | ".join(cell.rjust(width) for cell, width in zip(line, widths)) for line in lines)

    __str__ = __repr__


def _text(value: Any) -> str:
    return f"{value:.5f}" if isinstance(value, float) else str(value)
