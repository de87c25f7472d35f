"""Numbers of a report that a gate may ask for: measured ones, and contrasts from the stored predictions.

A contrast is a drop from everything present, or a difference to another model, with an interval of its own.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from mcutune.domain.task import METRICS
from mcutune.robustness.blocks import Block
from mcutune.robustness.evidence import Array
from mcutune.robustness.measure import Entry, weighted_means
from mcutune.robustness.paired import differences, number, weighted
from mcutune.robustness.rebuild import Stored, stored
from mcutune.robustness.statistics import Interval, Resampling, intervals

CALIBRATED = ("ece", "brier", "nll")  # measures of calibration that a gate may hold below a ceiling
NotThere = tuple[str, list[str]]  # a problem, and what would have been right


@dataclass(frozen=True)
class Place:
    """What a condition names: None where it does not say."""

    protocol: str | None
    metric: str
    combination: str | None
    scenario: str | None
    summary: str | None
    index: str | None
    stage: str | None = None  # of a measure of calibration


class Contrasts:
    """Looks numbers of the subject up in a report, or makes them from its evidence, which is read once if needed."""

    def __init__(self, report: Entry, evidence: Path) -> None:
        self.report, self.evidence = report, evidence
        self.models = [str(one["name"]) for one in report["models"]]
        self.subject = self.models[0]

    @cached_property
    def _stored(self) -> dict[str, Stored]:
        return {one.entry["id"]: one for one in stored(self.evidence)[2]}

    @property
    def _how(self) -> Resampling:
        told = self.report["provenance"]["statistics"]
        return Resampling(told["confidence"], told["resamples"], told["seed"])

    def find(self, place: Place) -> Entry | NotThere:
        """The one measurement, summary, index or measure of calibration that a place names."""
        if place.metric in CALIBRATED:
            return self._calibration(place)
        part, key = self._part(place)
        mine = [one for one in self.report.get(part, []) if one["model"] == self.subject]
        protocols = list(dict.fromkeys(str(one["protocol"]) for one in mine))
        if place.protocol is not None and place.protocol not in protocols:
            return f"nothing of that kind is measured under protocol {place.protocol!r}", protocols
        mine = [one for one in mine if place.protocol in (None, one["protocol"])]
        metrics = list(dict.fromkeys(str(one["metric"]) for one in mine))
        if place.metric not in metrics:
            return f"metric {place.metric!r} is not measured there", metrics
        mine = [one for one in mine if one["metric"] == place.metric]
        found = [one for one in mine if key(one)]
        if not found:
            return self._none_there(place, mine)
        if len(found) > 1:
            several = [f"protocol: {one['protocol']}, scenario: {one['scenario']}" for one in found]
            return f"{len(found)} measurements are meant: name protocol or scenario", several
        return found[0]

    def _calibration(self, place: Place) -> Entry | NotThere:
        """A measure of calibration, which belongs to no protocol."""
        of = self.report.get("calibration") or {"reason": "calibration is not measured", "measures": []}
        mine = [one for one in of["measures"] if (one["model"], one["measure"]) == (self.subject, place.metric)]
        if not mine:
            return f"there is no {place.metric}: {of['reason']}", []
        wanted = _set(place.combination)
        found = next((one for one in mine if _set(one["combination"]) == wanted and one["stage"] == place.stage), None)
        if found is None:
            return f"{place.combination!r} is not measured", list(dict.fromkeys(one["combination"] for one in mine))
        return {**found, "protocol": ""}

    def _part(self, place: Place) -> tuple[str, Callable[[Entry], bool]]:
        if place.summary is not None:
            return "summaries", lambda one: one["name"] == place.summary and place.scenario in (None, one["scenario"])
        if place.index is not None:
            return "indices", lambda one: one["name"] == place.index
        wanted = _set(place.combination)
        return (
            "measurements",
            lambda one: _set(one["combination"]) == wanted and place.scenario in (None, one["scenario"]),
        )

    def _none_there(self, place: Place, mine: Sequence[Entry]) -> NotThere:
        if place.summary is not None or place.index is not None:
            named = place.summary or place.index
            return f"no such summary: {named!r}", list(dict.fromkeys(str(one["name"]) for one in mine))
        named = ", ".join(part for part in (place.combination, place.scenario) if part)
        key = "combination" if place.combination else "scenario"
        return f"{named!r} is not measured", list(dict.fromkeys(str(one[key]) for one in mine if one[key]))

    def drop(self, found: Entry) -> Entry | NotThere:
        """What is lost against everything present, positive where something is lost."""
        block = self._stored[found["protocol"]].blocks[0]
        here, complete = self._weights(block, found), self._complete(block, found)
        if here is None:
            return f"no drop can be had in {found.get('name')!r}", ["a combination, a scenario or a mean"]
        if complete is None:
            return "no drop can be had: nothing was measured with everything present under that protocol", []
        sign = METRICS[found["metric"]].signed(1.0)
        lost = weighted(found["metric"], sign * (complete - here))
        (interval,) = intervals(block.sums, block.group_rows, [lost], self._how)
        return _numbers(interval)

    def against(self, found: Entry, model: str) -> Entry | NotThere:
        """The subject's gain over another model of the report, positive where the subject is better."""
        if (problem := self.no_model(model)) is not None:
            return problem
        blocks = self._stored[found["protocol"]].blocks
        one, other = blocks[0], blocks[self.models.index(model)]
        here = self._weights(one, found)
        if here is None:
            return f"no difference can be had in {found.get('name')!r}", ["a combination, a scenario or a mean"]
        gain = weighted(found["metric"], METRICS[found["metric"]].signed(1.0) * here)
        (interval,) = differences(one.sums, other.sums, one.data.task, {"gain": gain}, self._how)
        return _numbers(interval)

    def no_model(self, model: str) -> NotThere | None:
        """What is wrong with the name of another model, if anything."""
        others = self.models[1:]
        if model in others:
            return None
        return f"there is no other model {model!r}", others or ["none: measure again with --against"]

    def _weights(self, block: Block, found: Entry) -> Array | None:
        """Weights [C] over the cells of a block that make a measurement or a mean; None for other summaries."""
        if "name" in found:
            key = found["name"], found["scenario"]
            return next((one.weights for one in weighted_means(block) if (one.name, one.scenario) == key), None)
        return _at(block, found["combination"], found["scenario"])

    def _complete(self, block: Block, found: Entry) -> Array | None:
        """Where everything is present: the complete combination of the scenario, or where the cell's curve begins."""
        if found.get("combination") or found["scenario"] == "fixed":
            return _at(block, "+".join(block.data.names.names), found["scenario"])
        for curve in block.curves:
            inside = any(block.places[c][1] == found["scenario"] for c in curve.cells)
            if inside or (curve.series or "all rates") == found["scenario"]:
                start = next((c for c, asked in zip(curve.cells, curve.asked, strict=True) if asked == 0), None)
                return None if start is None else _at(block, *block.places[start])
        return None


def _at(block: Block, combination: str | None, scenario: str) -> Array | None:
    if (combination, scenario) not in block.places:
        return None
    weights = np.zeros(len(block.places))
    weights[block.places.index((combination, scenario))] = 1
    return weights


def _numbers(interval: Interval) -> Entry:
    value, low, high = (number(part[0]) for part in (interval.value, interval.low, interval.high))
    return {"value": value, "low": low, "high": high, "interval": interval.method[0]}


def _set(label: str | None) -> frozenset[str] | None:
    return None if label is None else frozenset(label.split("+"))
