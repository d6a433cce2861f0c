"""The choice for a budget that is best by what it does to the outputs of the model, as for Core ML models.

1. *Responses*: what a few forms of each weight do to the outputs, alone (see `outputs.py`), and by their errors what all others do.
   These forms are palettes by k-means: one that is fitted to the samples tells too little of what it does to others.
2. *Candidates*: harms add up as far as errors are small and independent. So the best choice by their sum is held against that
   by the errors of the layers' outputs, and against the largest forms that all weights can have alike: each is put into the model,
   which is run, and the one whose outputs are nearest is taken.
3. *A quality that was asked for* is measured in the same way, and asked for anew by what was missing.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterator
from contextlib import suppress

from palettizer import _native
from palettizer.torch.palettization._layerwise.outputs import Outputs
from palettizer.torch.palettization._plan.budget import Allotment, Chosen
from palettizer.torch.palettization._plan.plan import Plan, Weight

_logger = logging.getLogger(__name__)

_ALIKE = 2
"""Forms that all weights have alike which are measured."""
_ROUNDS = 4
"""How often a quality is asked for anew at most."""
_LITTLE, _MUCH = 0.1, 1.0
"""Decibels that are asked for beyond what is missing, at first, and that are too many to be left."""

Responses = dict[str, list[tuple[float, float]]]
"""The errors of some forms of each weight, by its name, and what they do to the outputs of the model."""

MakePalettes = Callable[[list[Weight]], Iterator[_native.Palette]]
"""Makes the palettes of some weights in the forms that their configs say, in their order."""

Starts = Callable[[list[Weight]], Iterator[tuple[float, _native.Palette]]]
"""Gives the palettes that fits start from in such forms, with their errors."""


def calibrated(allotment: Allotment, plan: Plan, outputs: Outputs, make: MakePalettes, starts: Starts) -> Chosen:
    """The best choice by measurement.

    A model without a way back from its outputs to its weights is told of in the log; then the candidates are measured alone.

    Raises:
        ValueError: the budget cannot be met.
    """
    candidates = _Candidates(allotment, outputs, make)
    try:
        responses = _responses(allotment, plan, outputs, starts)
    except RuntimeError as error:  # of autograd
        if isinstance(error, MemoryError) or "out of memory" in str(error):
            raise
        _logger.warning("no gradients come from the outputs to the weights (%s); only whole choices are measured", error)
        responses = None
    if allotment.goal == "min_snr":
        return candidates.reach(responses)
    return candidates.best(responses)


def _responses(allotment: Allotment, plan: Plan, outputs: Outputs, starts: Starts) -> Responses:
    """What the errors of a few forms of each weight do to the outputs: of palettes that are not fitted to the same samples."""
    found = {weight.name: list(starts([form for _, form in allotment.telling(weight)])) for weight in plan.weights}
    harms = outputs.harms(plan.weights, {name: [palette for _, palette in forms] for name, forms in found.items()})
    return {name: [(error, harm) for (error, _), harm in zip(found[name], harms[name])] for name in harms}


class _Candidates:
    """Choices that are measured."""

    def __init__(self, allotment: Allotment, outputs: Outputs, make: MakePalettes) -> None:
        self._allotment, self._outputs, self._make = allotment, outputs, make

    def best(self, responses: Responses | None) -> Chosen:
        candidates = [self._allotment.chosen(responses)]
        if responses is not None:
            blind = self._allotment.chosen()
            candidates.append(self._allotment.chosen(responses, forms=blind.forms))
        candidates.extend(self._alike(responses))
        found = [one for at, one in enumerate(candidates) if all(one.forms != other.forms for other in candidates[:at])]
        return max(map(self._measured, found), key=_snr)

    def _alike(self, responses: Responses | None) -> list[Chosen]:
        """The choices in which all weights have the same form, the largest that fit."""
        found = []
        for form in self._allotment.all_forms():
            with suppress(ValueError):  # it does not fit
                forms = self._allotment.chosen(responses, alike=form).forms
                chosen = self._allotment.chosen(responses, forms=forms)
                if chosen.forms == forms:
                    found.append(chosen)
        return sorted(found, key=lambda chosen: -int(chosen.report["bytes"]))[:_ALIKE]

    def reach(self, responses: Responses | None) -> Chosen:
        asked = ask = float(self._allotment.asked)
        found = self._measured(self._allotment.chosen(responses))
        best, more = found, _LITTLE
        for _ in range(_ROUNDS):
            missing = asked - _snr(found)
            if -_MUCH < missing <= 0.0:
                break
            # what is missing, and more than that each time: the next form may be as far off again
            ask += missing + more
            more *= 2 if missing > 0.0 else 1
            try:
                found = self._measured(self._allotment.chosen(responses, min_snr=ask))
            except ValueError:  # there is nothing better to be had
                break
            best = min(best, found, key=lambda one: (max(0.0, asked - _snr(one)), one.report["bytes"]))
        if _snr(best) < asked:
            raise ValueError(
                f"min_snr is {asked:g}; the best that was measured is {_snr(best):.2f} dB: allow more forms, or ask for less"
            )
        best.report["asked"] = asked
        return best

    def _measured(self, chosen: Chosen) -> Chosen:
        """The same with its signal-to-noise ratio in the report."""
        weights = chosen.plan.weights
        palettes = dict(zip((weight.name for weight in weights), self._make(weights)))
        with self._outputs.changed(weights, palettes):
            noise = self._outputs.noise()
        chosen.report["measured_snr_db"] = -10 * math.log10(noise) if noise > 0 else math.inf
        return chosen


def _snr(chosen: Chosen) -> float:
    return float(chosen.report["measured_snr_db"])

