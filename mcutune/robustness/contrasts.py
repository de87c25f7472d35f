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
        self._wholes: dict[tuple[str, str, bool], tuple[str | None, str] | None] = {}

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
            names = ("protocol",) if place.index is not None else ("protocol", "scenario")  # an index has no scenario
            several = [", ".join(f"{name}: {one[name]}" for name in names) for one in found]
            return f"{len(found)} measurements are meant: name {' or '.join(names)}", several
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
        complete = self._complete(found)
        if complete is None or complete == _where(found):
            return self._no_drop(found)
        block = self._stored[found["protocol"]].blocks[0]
        sign = METRICS[found["metric"]].signed(1.0)
        lost = weighted(found["metric"], sign * (_at(block, *complete) - _weights(block, found)))
        (interval,) = intervals(block.sums, block.group_rows, [lost], self._how)
        return _numbers(interval)

    def against(self, found: Entry, model: str) -> Entry | NotThere:
        """The subject's gain over another model of the report, positive where the subject is better."""
        if (problem := self.no_model(found, model)) is not None:
            return problem
        blocks = self._stored[found["protocol"]].blocks
        one, other = blocks[0], next(block for block in blocks if block.model == model)
        gain = weighted(found["metric"], METRICS[found["metric"]].signed(1.0) * _weights(one, found))
        (interval,) = differences(one.sums, other.sums, one.data.task, {"gain": gain}, self._how)
        return _numbers(interval)

    def no_drop(self, found: Entry) -> NotThere | None:
        """Why nothing can be said of a drop at a place, if so: known from what is measured, without a value."""
        return self._no_drop(found) if self._complete(found) in (None, _where(found)) else None

    def _no_drop(self, found: Entry) -> NotThere:
        can = [one for one in self._of("measurements", found) if self._complete(one) not in (None, _where(one))]
        places = list(dict.fromkeys(str(one["combination"] or one["scenario"]) for one in can))
        missing = self._complete(found) is None
        why = "nothing is measured there" if missing else "nothing can be lost there: it is what is measured"
        problem = f"drop_at_most: {why} with everything present under protocol {found['protocol']!r}"
        return problem, places or ["none: use at_least or at_most"]

    def no_model(self, found: Entry, model: str) -> NotThere | None:
        """Why another model cannot be compared with at a place, if so."""
        there = dict.fromkeys(
            str(one["model"]) for one in self.report["measurements"] if one["protocol"] == found["protocol"]
        )
        others = [name for name in there if name != self.subject]
        if model in others:
            return None
        if model in self.models[1:]:
            return f"model {model!r} is not measured under protocol {found['protocol']!r}", others or ["none"]
        return f"there is no other model {model!r}", others or ["none: measure again with --against"]

    def _of(self, part: str, found: Entry) -> list[Entry]:
        """What a part of the report has of the subject under the protocol of a place."""
        wanted = found["protocol"], self.subject
        return [one for one in self.report[part] if (one["protocol"], one["model"]) == wanted]

    def _complete(self, found: Entry) -> tuple[str | None, str] | None:
        """Where everything is present: looked for once a scenario, since a gate asks it of every place."""
        key = found["protocol"], found["scenario"], bool(found.get("combination"))
        if key not in self._wholes:
            self._wholes[key] = self._whole(found)
        return self._wholes[key]

    def _whole(self, found: Entry) -> tuple[str | None, str] | None:
        """The complete combination of the place's scenario, or where its curve begins."""
        if found.get("combination") or found["scenario"] == "fixed":
            same = [one for one in self._of("measurements", found) if one["scenario"] == found["scenario"]]
            widest = max((str(one["combination"]) for one in same), key=lambda label: label.count("+"))
            whole = _set("+".join(str(one["name"]) for one in self.report["data"]["modalities"]))
            at_home = same[0]["dataset"] == self.report["data"]["table"]  # elsewhere all that both have is measured
            return (widest, found["scenario"]) if not at_home or _set(widest) == whole else None
        for curve in self._of("degradation", found):
            inside = any(point["scenario"] == found["scenario"] for point in curve["points"])
            if inside or (curve["series"] or "all rates") == found["scenario"]:
                return next(((None, str(point["scenario"])) for point in curve["points"] if point["rate"] == 0), None)
        return None


def _where(found: Entry) -> tuple[str | None, str] | None:
    """The place of a measurement; a summary has none."""
    return None if "name" in found else (found["combination"], found["scenario"])


def _weights(block: Block, found: Entry) -> Array:
    """Weights [C] over the cells of a block that make a measurement or a mean."""
    if "name" in found:
        key = found["name"], found["scenario"]
        return next(one.weights for one in weighted_means(block) if (one.name, one.scenario) == key)
    return _at(block, found["combination"], found["scenario"])


def _at(block: Block, combination: str | None, scenario: str) -> Array:
    weights = np.zeros(len(block.places))
    weights[block.places.index((combination, scenario))] = 1
    return weights


def _numbers(interval: Interval) -> Entry:
    value, low, high = (number(part[0]) for part in (interval.value, interval.low, interval.high))
    return {"value": value, "low": low, "high": high, "interval": interval.method[0]}


def _set(label: str | None) -> frozenset[str] | None:
    return None if label is None else frozenset(label.split("+"))
