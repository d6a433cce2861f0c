"""What post-training and sensitive k-means do alike: plan, check, copy, palettize, report."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch

from palettizer._budget import Budget
from palettizer._progress import shown
from palettizer.torch._report import Report
from palettizer.torch.base_model_optimizer import BaseModelOptimizer
from palettizer.torch.palettization._plan import metadata
from palettizer.torch.palettization._plan.budget import Allotment, Sensitivities, pricer
from palettizer.torch.palettization._plan.config import BudgetedConfig
from palettizer.torch.palettization._plan.layers import KINDS
from palettizer.torch.palettization._plan.palettize import Made, check_values, make_palette, maker, put, undisturbed
from palettizer.torch.palettization._plan.plan import Plan, make_plan
from palettizer.torch.palettization._plan.sharding import is_sharded


class Compressor(BaseModelOptimizer):
    """Base of the palettizers that look at a finished model."""

    _supported_modules = tuple(cls for cls, kind in KINDS.items() if not kind.in_training)
    _config: BudgetedConfig
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

        and, where bits were chosen for a budget, what a parameter got and could have had:

        - `form`, `bytes` in the file of `save_safetensors`, `harm`: a part of the expected error,
        - `next_better`, `next_worse`: the nearest forms with less harm, and with fewer bytes.

        What the whole budget came to is in the attribute `budget` of the report.

        What does not apply is -1. Before `compress` the report is empty.
        """
        return Report() if self._report is None else self._report

    def _budget(self, given: Budget | None) -> Budget | None:
        """The budget that was given, or that of the config."""
        if given is not None and not isinstance(given, Budget):
            raise TypeError(f"budget must be a Budget or None, found {given!r} ({type(given).__name__})")
        return self._config.budget if given is None else given

    def _plan(self, inplace: bool, budget: Budget | None) -> Plan:
        """What will become of each parameter. All weights that are in it can be palettized.

        With a budget the forms of the weights that are free are still to be chosen.

        Raises:
            ValueError: NaN or infinite values in a weight, settings that cannot be, or shards that cannot be copied.
        """
        if not inplace and is_sharded(self._model):
            raise ValueError("a model whose parameters are sharded cannot be copied; pass inplace=True")
        plan = make_plan(self._model, self._config if budget is None else self._config.for_budget())
        check_values(weight.owners[0] for weight in plan.weights)
        return plan

    def _palettize(
        self, plan: Plan, budget: Budget | None, threads: int, sensitivities: Sensitivities, inplace: bool, progress: bool
    ) -> torch.nn.Module:
        """Palettizes the planned weights of the model, or of a copy, by k-means."""
        more: Mapping[str, Mapping[str, Any]] = {}
        came_to = None
        of = sensitivities.of
        if budget is not None:
            allotment = Allotment(budget, self._model, plan)
            for weight in shown(plan.weights, progress, "pricing"):
                values = None if of is None else of(weight)
                energy = sensitivities.largest(weight)
                allotment.price(weight, (values, energy), pricer(threads, values, energy))
            allotment.keep()
            chosen = allotment.chosen()
            plan, more, came_to = chosen.plan, chosen.columns, chosen.report
        make = maker(threads, of)
        palettes = []
        for weight in shown(plan.weights, progress, "palettizing"):
            palettes.append(make_palette(weight, make))
            sensitivities.release(weight)
        return self._put(plan, palettes, inplace, more, came_to)

    def _put(
        self,
        plan: Plan,
        palettes: Sequence[Made],
        inplace: bool,
        more: Mapping[str, Mapping[str, Any]],
        came_to: dict[str, Any] | None,
    ) -> torch.nn.Module:
        """Changes the planned weights of the model, or of a copy.

        `more` has further columns for rows of the report, and `came_to` what a budget came to.
        """
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
            self._report.budget = came_to
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
