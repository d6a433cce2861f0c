"""Bits chosen for a budget: every form of every weight is priced, and then each weight is given one.

The choice itself is made by the native module, as for Core ML models and checkpoints. Bytes are those of the file that
`save_safetensors` writes.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from palettizer import _native
from palettizer._budget import Budget
from palettizer.torch.palettization._io.lengths import MOST, lengths
from palettizer.torch.palettization._plan.palettize import SensitivityOf, native_arguments
from palettizer.torch.palettization._plan.plan import Plan, Weight
from palettizer.torch.palettization._plan.reasons import check_config, reason_to_leave
from palettizer.torch.palettization._plan.sharding import by_the_first, is_sharded
from palettizer.torch.palettization._plan.tensors import as_bytes, to_native

Price = tuple["_native.Palette", float, float | None]
"""A palette; its error as a part of the weight's energy; and this energy in a unit that all weights share, if it is known."""

MakePrice = Callable[[Weight, torch.Tensor], Price]
"""Prices the values of a weight, as the native module can read them, in the form that its config says."""

_SAMPLES = 1 << 12
"""Elements that are looked at to tell whether a weight is the same as that of a curve."""

_OPTIONS = {"nbits": "n_bits"}
"""Options of choices that are called otherwise in the configs of modules."""


@dataclass(frozen=True)
class Sensitivities:
    """How much each element of weights counts: nothing of it is known, unless it is given."""

    of: SensitivityOf | None = None
    """Those of a weight, up to 1."""
    largest: Callable[[Weight], float | None] = lambda weight: None
    """What the largest of them was before, in a unit that all weights share, if that is known."""
    release: Callable[[Weight], object] = lambda weight: None
    """Lets those of a weight go."""


def pricer(threads: int, sensitivity: NDArray[np.float32] | None, largest: float | None) -> MakePrice:
    """Prices by k-means, with the sensitivities of the weight, of which the largest was so large."""

    def make(weight: Weight, dense: torch.Tensor) -> Price:
        of = None if sensitivity is None else lambda weight: sensitivity
        palette = _native.palettize(**native_arguments(weight, dense, of), threads=threads)
        if sensitivity is None:
            return palette, part(palette.error["squared_error"], palette.error["energy"]), None
        error, energy = palette.weighted_error(as_bytes(dense), sensitivity)
        return palette, part(error, energy), None if largest is None else energy * largest

    return make


def part(error: float, energy: float) -> float:
    """An error as a part of an energy; that of a weight of zeros, which loses nothing, is 0."""
    return error / energy if error > 0 else 0.0


@dataclass(frozen=True)
class Chosen:
    """A form for each weight."""

    plan: Plan
    """The plan with these forms."""
    forms: dict[str, str]
    """What they are called, by the names of the weights."""
    columns: dict[str, dict[str, Any]]
    """What the report says of each weight."""
    report: dict[str, Any]
    """What the budget came to."""


class Allotment:
    """Forms of the weights of a plan: priced one weight after the other, then chosen.

    Raises:
        ValueError: choices that no config can have, a file of curves that is none, or a size of a model in shards.
    """

    def __init__(self, budget: Budget, model: torch.nn.Module, plan: Plan) -> None:
        self._budget, self._plan = budget, plan
        native = budget._native(None)
        self.goal, self.asked, self._path = native["goal"], native["number"], native["curves"]
        self._choices = [_settings(form) for form in _native.budget_forms(_named(native["choices"]))]
        known = None if self._path is None else _native.read_curves(self._path)
        self._known: dict[str, Any] = {} if known is None else json.loads(known)["weights"]
        self._curves: dict[str, Any] = {}
        self._forms: dict[str, dict[str, Any]] = {}
        self._before, self._other, self._most = 0, 0, MOST
        if not is_sharded(model):
            owners = [owner for weight in plan.weights for owner in weight.owners]
            quantized = any(form.get("lut_dtype") is not None for form in self._choices)
            quantized = quantized or any(weight.config.lut_dtype is not None for weight in plan.weights)
            self._before, self._other, self._most = lengths(model, owners, quantized)
        elif self.goal in ("target_size", "target_ratio"):
            raise ValueError(
                f"{self.goal} is of the file that a model makes, and the parameters of this one are sharded; "
                "give target_bpw or min_snr"
            )

    def price(self, weight: Weight, basis: Iterable[Any], make: MakePrice) -> None:
        """Prices the forms of a weight that no curve knows. `basis` is what prices depend on, beside the values."""
        self._forms[weight.name] = forms = {_form(config): config for config in self._configs(weight)}
        with torch.no_grad(), weight.owners[0].values() as tensor:
            dense = to_native(tensor)
            made_from = _basis(dense, weight.owners[0].axes, (len(str(self._most)), *basis))
            curve = self._known.get(weight.name)
            if curve is None or curve["basis"] != made_from:
                curve = {"basis": made_from, "weighted_energy": None, "forms": {}}
            curve["work"] = float(weight.owners[0].facts.numel)
            for form, config in forms.items():
                if form not in curve["forms"]:
                    priced, energy = _priced(replace(weight, config=config), dense, make, self._most)
                    curve["forms"][form] = priced
                    if curve["weighted_energy"] is None:
                        curve["weighted_energy"] = energy
        self._curves[weight.name] = curve

    def keep(self) -> None:
        """Writes the curves to the file that was named for them, if one was."""
        path = self._path
        if path is not None:
            by_the_first(lambda: _native.write_curves(path, self._json()))

    def telling(self, weight: Weight) -> list[tuple[float, Weight]]:
        """The errors of the few forms of a weight that tell most about what its error does to outputs, and the weight in each."""
        priced = self._curves[weight.name]["forms"]
        forms = self._forms[weight.name].items()
        known = [(priced[form]["costs"]["error"], config) for form, config in forms if "costs" in priced[form]]
        found = (known[at] for at in _native.telling_errors([error for error, _ in known]))
        return [(error, replace(weight, config=config)) for error, config in found]

    def all_forms(self) -> list[str]:
        """The forms that weights which are free may take."""
        return list(dict.fromkeys(form for weight in self._plan.weights if weight.free for form in self._forms[weight.name]))

    def chosen(
        self,
        responses: Mapping[str, Sequence[tuple[float, float]]] | None = None,
        *,
        alike: str | None = None,
        forms: Mapping[str, str] | None = None,
        min_snr: float | None = None,
    ) -> Chosen:
        """The forms that lose least in the bytes, or have the quality in the fewest bytes.

        Args:
            responses: what errors of each weight do to the outputs of the model, where that is known.
            alike: the one form that there is for weights that are free.
            forms: a choice that was made already, by name; if it is none for all weights, or does not fit, the best is chosen.
            min_snr: another quality than that which was asked for.

        Raises:
            ValueError: the budget cannot be met; the least that can be had, and what is in the way.
        """
        plan = self._plan
        candidates = [
            (weight.name, _bytes(weight), [alike] if alike and weight.free else list(self._forms[weight.name]), not weight.free)
            for weight in plan.weights
        ]
        kept = list(_kept(plan))
        elements = sum(weight.owners[0].facts.numel for weight in [*plan.weights, *kept])
        text = _native.choose(
            self.goal, self.asked if min_snr is None else str(min_snr), self._json(), candidates, before=self._before,
            other=self._other, elements=elements, kept=[(weight.name, _bytes(weight)) for weight in kept], responses=responses,
            forms=forms,
        )  # fmt: skip
        report, found = json.loads(text)
        weights: list[Weight] = []
        names: dict[str, str] = {}
        reasons = dict(plan.reasons)
        columns: dict[str, dict[str, Any]] = {}
        for weight, one in zip(plan.weights, found):
            if "Err" in one:
                reasons.update(dict.fromkeys((owner.name for owner in weight.owners), one["Err"]))
                continue
            allotted = one["Ok"]
            names[weight.name] = allotted["form"]
            weights.append(replace(weight, config=self._forms[weight.name][allotted["form"]]))
            columns[weight.name] = {
                "form": allotted["form"] + " (its own)" * allotted["pinned"],
                "bytes": allotted["bytes"],
                "harm": allotted["harm"],
                "next_better": _neighbour(allotted["next_better"]),
                "next_worse": _neighbour(allotted["next_worse"]),
            }
        return Chosen(Plan(plan.owners, weights, reasons), names, columns, report)

    def _json(self) -> str:
        return json.dumps({"version": 1, "weights": self._curves})

    def _configs(self, weight: Weight) -> Iterator[Any]:
        """The configs that a weight may have."""
        if not weight.free:
            yield weight.config
            return
        for settings in self._choices:
            try:
                config = replace(weight.config, **settings)
                check_config(config, weight.name)
            except (AssertionError, TypeError, ValueError) as error:
                raise ValueError(f"choices {settings} of the budget cannot be: {error}") from error
            yield config


def _priced(weight: Weight, dense: torch.Tensor, make: MakePrice, most: int) -> tuple[dict[str, Any], float | None]:
    """A form as files of curves have it."""
    reason = reason_to_leave(weight.owners[0], weight.config)
    if reason is not None:
        return {"refused": reason[0]}, None
    try:
        palette, error, energy = make(weight, dense)
    except _native.Refusal as refusal:
        return {"refused": str(refusal)}, None
    return {"costs": {"bytes": palette.stored_len(weight.name, most), "error": error}}, energy


def _named(choices: Sequence[tuple[str, Sequence[str]]]) -> list[tuple[str, Sequence[str]]]:
    """Choices with the native module's names of options."""
    native = {ours: theirs for theirs, ours in _OPTIONS.items()}
    return [(native.get(key, key), values) for key, values in choices]


def _settings(form: str) -> dict[str, Any]:
    """The settings of a module's config that a form such as "nbits=4,group_size=none" stands for."""
    settings: dict[str, Any] = {}
    for key, value in (option.split("=") for option in form.split(",")):
        if key == "group_size" and value == "none":
            settings.update(granularity="per_tensor", group_size=None)
        elif key == "group_size":
            settings.update(granularity="per_grouped_channel", group_size=int(value))
        elif key == "lut_dtype":
            settings[key] = None if value == "float" else value
        elif key == "enable_per_channel_scale":
            settings[key] = value == "true"
        elif key in ("nbits", "cluster_dim", "channel_axis"):
            settings[_OPTIONS.get(key, key)] = int(value)
        else:
            raise ValueError(f"choices: {key} is no setting of a module's config here; leave it out")
    return settings


_UNSAID = ("granularity", "weight_threshold", "enable_fast_kmeans_mode", "rounding_precision")


def _form(config: Any) -> str:
    """What a form is called: what it differs in from one float table for the whole weight."""
    plain = type(config)(n_bits=config.n_bits)
    own = {name: getattr(config, name) for name in config._settings if name not in _UNSAID}
    said = {name: value for name, value in own.items() if name == "n_bits" or value != getattr(plain, name)}
    return ",".join(f"{name}={str(value).removeprefix('torch.')}" for name, value in said.items())


def _basis(dense: torch.Tensor, axes: tuple[int, int], more: Iterable[Any]) -> str:
    """A number that changes with what a curve is made from."""
    found = hashlib.sha256(f"{dense.dtype} {tuple(dense.shape)} {axes}".encode())
    for values in (as_bytes(dense), *more):
        if isinstance(values, np.ndarray):
            found.update(sampled(values))
        else:
            found.update(repr(values).encode())
    return found.hexdigest()[:16]


def sampled(values: NDArray[Any]) -> bytes:
    """Some of an array's elements, evenly spread. Of bytes, an odd step takes in all of those of a number by and by."""
    flat = values.reshape(-1)
    return flat[:: max(1, flat.size // _SAMPLES) | 1].tobytes()


def _bytes(weight: Weight) -> int:
    facts = weight.owners[0].facts
    return facts.numel * facts.dtype.itemsize


def _kept(plan: Plan) -> Iterator[Weight]:
    """The weights of layers that stay as they are."""
    for weight in plan.others():
        if any(owner.supported for owner in weight.owners):
            yield weight


def _neighbour(form: Mapping[str, Any] | None) -> str:
    return "" if form is None else f"{form['form']}: {form['bytes']} bytes, harm {form['harm']:.3g}"
