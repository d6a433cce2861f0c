"""What post-training and sensitive k-means do alike: copy, plan, check, palettize, report."""

from __future__ import annotations

from typing import Dict, Mapping, Optional

import torch

from palettizer.torch._progress import progress as _progress
from palettizer.torch._report import Report
from palettizer.torch.base_model_optimizer import BaseModelOptimizer
from palettizer.torch.palettization import _metadata
from palettizer.torch.palettization._palettize import Maker, check_values, palettize_weight
from palettizer.torch.palettization._plan import Plan
from palettizer.torch.palettization._sharding import is_sharded
from palettizer.torch.palettization._walk import KINDS


class Palettizer(BaseModelOptimizer):
    """Base of the palettizers that look at a finished model."""

    _supported_modules = tuple(KINDS)
    _report: Optional[Report] = None

    def report(self) -> Report:
        """What the last `compress` did, as a dict that prints as a table: the qualified name of every parameter, with

        - `error`: the root of the mean squared difference that palettizing made, 0 for a parameter left alone,
        - `#params`: its number of elements,
        - `palettization_mode`: how many centroids there are and how long they are,
        - `dtype`: of the entries of the lookup table, if they are integers,
        - `reason`: why a parameter was left alone, or which one it shares its values with.

        What does not apply is -1. Before `compress` the report is empty.
        """
        return Report() if self._report is None else self._report

    def _target(self, inplace: bool) -> torch.nn.Module:
        if not inplace and is_sharded(self._model):
            raise ValueError("a model whose parameters are sharded cannot be copied; pass inplace=True")
        return self._get_model_for_compression(inplace)

    def _palettize(
        self,
        model: torch.nn.Module,
        plan: Plan,
        make: Maker,
        progress: bool,
    ) -> torch.nn.Module:
        """Palettizes the planned weights of the model. Nothing is changed if a value in any of them is bad."""
        check_values(plan.weights)
        rows: Dict[str, Dict[str, object]] = {}
        for weight in _progress(plan.weights, progress, "palettizing"):
            row = palettize_weight(weight, make)
            for owner in weight.owners:
                rows[owner.name] = dict(row)
                if owner is not weight.owners[0]:
                    rows[owner.name]["reason"] = f"is {weight.name}"
        _metadata.register_version(model)
        self._report = _full_report(plan, rows)
        return model


def _full_report(plan: Plan, rows: Mapping[str, Dict[str, object]]) -> Report:
    report = Report()
    for owner in plan.owners:
        left = {"error": 0.0, "#params": owner.facts.numel, "reason": plan.reasons.get(owner.name, "")}
        report[owner.name] = rows.get(owner.name, left)
    return report.aligned()
