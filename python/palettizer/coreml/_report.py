"""What became of every weight."""

from __future__ import annotations

import json
import logging
from typing import Any

_LOGGER = logging.getLogger("palettizer")

# What coremltools logs of a weight that it skips, by the start of our reason: scripts look for it.
_PEERS_WORDS = {
    "cluster_dim ": "The `cluster_dim` is invalid for {}",
    "group_size ": "Cannot perform palettization on {} as block_sizes is None",
    "more than 256 distinct values": "Unique values in weight cannot be represented by 8 bits palettization. {}",
}

# of one reason, how many weights are named
_MOST_NAMES = 3

_HEADER = ("weight", "shape", "dtype", "bits", "luts", "bytes", "SNR dB", "")


def _row(name: str, weight: dict[str, Any]) -> tuple[str, ...]:
    shape = "x".join(map(str, weight["shape"]))
    if weight["status"] == "skipped":
        return (name, shape, weight["dtype"], "", "", "", "", f"skipped: {weight['reason']}")
    bits = str(weight["nbits"]) + (f"/{weight['cluster_dim']}" if weight["cluster_dim"] > 1 else "")
    noise = "exact" if weight["snr_db"] is None else f"{weight['snr_db']:.1f}"
    return (
        name, shape, weight["dtype"], bits, str(weight["luts"]),
        f"{weight['bytes_before']:,} -> {weight['bytes_after']:,}", noise, "",
    )  # fmt: skip


def _of_all(name: str) -> Any:
    """A figure of the report that is about all weights."""
    return property(lambda report: report._whole[name])


class Report(dict[str, dict[str, Any]]):
    """A dictionary from the names of weights to what became of each, which prints as a table.

    The fields of a weight are those of the JSON report: `status` (`"compressed"` or `"skipped"`), `reason`,
    `refused`, `shape`, `dtype`, `nbits`, `mode`, `granularity`, `group_size`, `cluster_dim`, `luts`,
    `bytes_before`, `bytes_after`, `mse`, `snr_db` and others.

    Attributes:
        bytes_before, bytes_after: bytes of the program and its weight files.
        bits_per_weight: over all weights of the report.
        seconds: how long it took.
        target: the deployment target of the new model, such as `"iOS18"`.
        unmatched: op types and names of the configuration that fit nothing in the model.
        notes: forms that were written of which there are public reports of trouble on devices: `code`, `text`,
            `reference` and how many `weights` have it.
        near_names: for those of them that are near to names in the model: these.

    >>> import palettizer.coreml as cto
    >>> config = cto.OptimizationConfig(global_config=cto.OpPalettizerConfig(nbits=4))
    >>> report = cto.palettize_weights(cto.demo(), config).report
    >>> [row["status"] for row in report.values()]
    ['compressed', 'compressed', 'compressed']
    >>> report.target
    'iOS18'
    """

    def __init__(self, text: str) -> None:
        self._whole: dict[str, Any] = json.loads(text)
        # two functions of a model may each have a constant of the same name
        rows: dict[str, dict[str, Any]] = {}
        for row in self._whole["weights"]:
            name, again = row["name"], 1
            while name in rows:
                again += 1
                name = f"{row['name']} ({again})"
            rows[name] = row
        super().__init__(rows)

    bytes_before: int = _of_all("bytes_before")
    bytes_after: int = _of_all("bytes_after")
    bits_per_weight: float = _of_all("bits_per_weight")
    seconds: float = _of_all("seconds")
    target: str = _of_all("target")
    unmatched: list[str] = _of_all("unmatched")
    notes: list[dict[str, Any]] = _of_all("notes")
    near_names: dict[str, list[str]] = _of_all("near_names")

    def warn(self) -> None:
        """Logs what was asked for and did not happen: a line for each reason, and one for each name that fits nothing."""
        compressed = any(row["status"] == "compressed" for row in self.values())
        if not compressed:
            _LOGGER.warning("None of the %d weights was palettized", len(self))
        by_reason: dict[str, list[str]] = {}
        for name, row in self.items():
            if row["refused"] or (not compressed and row["reason"]):
                by_reason.setdefault(row["reason"], []).append(name)
        for reason, names in by_reason.items():
            more = f" and {len(names) - _MOST_NAMES} more" if len(names) > _MOST_NAMES else ""
            listed = ", ".join(names[:_MOST_NAMES]) + more
            theirs = next((words for start, words in _PEERS_WORDS.items() if reason.startswith(start)), "Cannot palettize {}")
            _LOGGER.warning("%s: %s. Skipped this op.", theirs.format(listed), reason)
        for name in self.unmatched:
            near = self.near_names.get(name)
            hint = f"; did you mean {' or '.join(near)}?" if near else ""
            _LOGGER.warning("The configuration names %r, which fits no weight of the model%s", name, hint)

    def __repr__(self) -> str:
        rows = [_HEADER, *(_row(name, weight) for name, weight in self.items())]
        widths = [max(len(row[column]) for row in rows) for column in range(len(_HEADER) - 1)]
        lines = ["  ".join([*(cell.ljust(width) for cell, width in zip(row, widths)), row[-1]]) for row in rows]
        total = (
            f"{self.bytes_before:,} -> {self.bytes_after:,} bytes, {self.bits_per_weight:.2f} bits per weight, "
            f"{self.seconds:.1f} s, {self.target}"
        )
        notes = (f"note: {note['weights']} weights: {note['text']} ({note['reference']})" for note in self.notes)
        return "\n".join([*(line.rstrip() for line in lines), total, *notes])

    __str__ = __repr__

    def to_json(self) -> str:
        """The whole report, laid out as `palettizer compress --report` writes it."""
        return json.dumps(self._whole, indent=2)
