"""What is palettized in training, as a table."""

from __future__ import annotations

from typing import Any

from palettizer.torch._report import Report
from palettizer.torch.palettization._dkm.plan import DKMPlan
from palettizer.torch.palettization._plan.metadata import conversion


def plan_report(plan: DKMPlan, errors: dict[str, float]) -> Report:
    """A row for each parameter of a plan, with the errors of those that are palettized by now."""
    report = Report()
    of = {id(owner): weight for weight in plan.weights.values() for owner in weight.owners}
    for owner in plan.owners:
        weight = of.get(id(owner))
        row: dict[str, Any] = {"device": -1, "error": 0.0, "#params": owner.facts.numel, "#dtype": -1}
        if weight is None:
            report[owner.name] = {**row, "reason": plan.reasons[owner.name]}
            continue
        settings, reason = weight.settings, ""
        row["error"] = errors.get(weight.name, 0.0)
        if weight.name not in errors:
            reason = f"is palettized from milestone {weight.config.milestone} on"
        elif owner is not weight.owners[0]:
            reason = f"is {weight.name}"
        row["device"] = getattr(owner.module, owner.parameter).device
        kind = (weight.config.lut_dtype, settings.permutation)
        row["#dtype"] = f":num_clusters: {2**settings.nbits} <{kind}> dim={settings.cluster_dim}"
        key = owner.module_name if owner.parameter == "weight" and owner.module_name else owner.name
        report[key] = {**row, "reason": reason}
        note = conversion(owner.module, owner.parameter, settings.cluster_dim > 1, weight.integers)
        if note:
            report[key]["conversion"] = note
    return report.aligned()
