"""What post-training and sensitive k-means do alike: plan, check, copy, palettize, report."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch

from palettizer._progress import shown
from palettizer.torch._report import Report
from palettizer.torch.base_model_optimizer import BaseModelOptimizer
from palettizer.torch.palettization._plan import metadata
from palettizer.torch.palettization._plan.layers import KINDS
from palettizer.torch.palettization._plan.palettize import Made, MakePalette, check_values, make_palette, put, undisturbed
from palettizer.torch.palettization._plan.plan import Plan, make_plan
from palettizer.torch.palettization._plan.sharding import is_sharded


class Compressor(BaseModelOptimizer):
    """Base of the palettizers that look at a finished model."""

    _supported_modules = tuple(cls for cls, kind in KINDS.items() if not kind.in_training)
    _report: Report | None = None

    def report(self) -> Report:
        """What the last `compress` did, as a dict that prints as a table.

        It has the qualified name of every parameter, with

        - `error`: the root of the mean squared difference that palettizing made, 0 for a parameter left alone,
        - `#params`: its number of elements,
        - `palettization_mode`: how many centroids there are and how long they are,
        - `dtype`: of the entries of the lookup table, if they are integers,
        - `reason`: why a parameter was left alone, or which one it shares its values with,
        - `conversion`: what `coremltools.convert` will not do with it, if there is such a parameter.

        What does not apply is -1. Before `compress` the report is empty.
        """
        return Report() if self._report is None else self._report

    def _plan(self, inplace: bool) -> Plan:
        """What will become of each parameter. All weights that are in it can be palettized.

        Raises:
            ValueError: NaN or infinite values in a weight, settings that cannot be, or shards that cannot be copied.
        """
        if not inplace and is_sharded(self._model):
            raise ValueError("a model whose parameters are sharded cannot be copied; pass inplace=True")
        plan = make_plan(self._model, self._config)
        check_values(weight.owners[0] for weight in plan.weights)
        return plan

    def _palettize(self, plan: Plan, make: MakePalette, inplace: bool, progress: bool) -> torch.nn.Module:
        """Palettizes the planned weights of the model, or of a copy."""
        palettes = [make_palette(weight, make) for weight in shown(plan.weights, progress, "palettizing")]
        return self._put(plan, palettes, inplace, {})

    def _put(
        self, plan: Plan, palettes: Sequence[Made], inplace: bool, more: Mapping[str, Mapping[str, Any]]
    ) -> torch.nn.Module:
        """Changes the planned weights of the model, or of a copy; `more` has further columns for rows of the report."""
        model = self._model if inplace else _copied(self._model, plan)
        rows: dict[str, dict[str, object]] = {}
        with undisturbed():
            for weight, made in zip(plan.weights, palettes):
                targets = owners = weight.owners
                if not inplace:
                    targets = [replace(owner, module=model.get_submodule(owner.module_name)) for owner in owners]
                row = {**put(made, owners[0], targets), **more.get(weight.name, {})}
                for owner in owners:
                    rows[owner.name] = row if owner is owners[0] else {**row, "reason": f"is {weight.name}"}
            metadata.register_version(model)
            self._report = _full_report(plan, rows)
        return model


def _copied(model: torch.nn.Module, plan: Plan) -> torch.nn.Module:
    """A deep copy of the model, but for the values of the weights that will be palettized: they are not set yet."""
    memo: dict[int, Any] = {}
    for weight in plan.weights:
        for parameter in weight.parameters():
            memo[id(parameter)] = type(parameter)(torch.empty_like(parameter.data), parameter.requires_grad)
    return copy.deepcopy(model, memo)


def _full_report(plan: Plan, rows: Mapping[str, dict[str, object]]) -> Report:
    report = Report()
    for owner in plan.owners:
        left = {"error": 0.0, "#params": owner.facts.numel, "reason": plan.reasons.get(owner.name, "")}
        report[owner.name] = rows.get(owner.name, left)
    return report.aligned()
