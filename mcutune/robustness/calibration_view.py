"""What report.html shows of calibration: a table a model, and a reliability diagram a combination."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from mcutune.robustness.drawings import Key, Panel
from mcutune.robustness.figures import Line, panel, swatch
from mcutune.robustness.shades import Look, looks
from mcutune.robustness.tables import Place, bounds, number, place_of

Entry = dict[str, Any]
Shown = tuple[str, str]  # a value, and below it its interval

_MOST_PANELS = 15  # diagrams; of more combinations, those of one modality and of all
_COLUMNS = (
    ("ECE", "ece", "before"),
    ("ECE, calibrated", "ece", "after"),
    ("less chance", "ece_debiased", "after"),
    ("log-likelihood loss", "nll", "before"),
    ("the same, calibrated", "nll", "after"),
    ("Brier, calibrated", "brier", "after"),
    ("rows answered", "coverage", "after"),
    ("wrong among them", "risk", "after"),
)


@dataclass(frozen=True)
class ModelCalibration:
    """One model: columns, rows of (place, values), diagrams, and how its temperatures spread."""

    model: str
    columns: tuple[str, ...]
    rows: tuple[tuple[Place, tuple[Shown, ...]], ...]
    legend: tuple[Key, ...]
    panels: tuple[tuple[Place, Panel], ...]
    temperatures: str


@dataclass(frozen=True)
class CalibrationView:
    reason: str | None
    bins: int
    risk: str
    models: tuple[ModelCalibration, ...]


def view(report: Entry) -> CalibrationView | None:
    """None where the report says nothing of calibration. Diagrams are drawn for the subject alone."""
    of = report.get("calibration")
    if not of:
        return None
    names = [one["name"] for one in report["data"]["modalities"]]
    return CalibrationView(of["reason"], of["bins"], f"{of['risk']:.0%}", tuple(_models(of, names)))


def _models(of: Entry, names: Sequence[str]) -> Iterator[ModelCalibration]:
    for n, model in enumerate(dict.fromkeys(one["model"] for one in of["measures"])):
        mine = [one for one in of["measures"] if one["model"] == model]
        cells = {(one["combination"], one["measure"], one["stage"]): one for one in mine}
        places = {one["combination"]: place_of({"combination": one["combination"]}, names) for one in mine}
        rows = tuple(
            (place, tuple(_shown(cells.get((label, *key))) for _, *key in _COLUMNS)) for label, place in places.items()
        )
        drawn = [one for one in of["reliability"] if one["model"] == model] if n == 0 else []
        values = [one["temperature"] for one in of["temperatures"] if one["model"] == model]
        spread = f"{number(min(values))} to {number(max(values))} over {len(values)} checkpoints" if values else ""
        titles = tuple(title for title, *_ in _COLUMNS)
        yield ModelCalibration(model, titles, rows, _legend(), tuple(_panels(drawn, places)), spread)


def _shown(one: Entry | None) -> Shown:
    return (number(one["value"]), bounds(one)) if one else ("–", "")


def _looks() -> tuple[Look, ...]:
    return looks(2)


def _legend() -> tuple[Key, ...]:
    words = ("as the model says", "after the temperature")
    return tuple(
        Key(str(n), swatch(look), None, word) for n, (look, word) in enumerate(zip(_looks(), words, strict=True), 1)
    )


def _panels(reliability: Sequence[Entry], places: dict[str, Place]) -> Iterator[tuple[Place, Panel]]:
    few = len(places) <= _MOST_PANELS
    whole = max((place.size for place in places.values()), default=0)
    for n, (label, place) in enumerate(places.items()):
        mine = [one for one in reliability if one["combination"] == label]
        if mine and (few or place.size in (1, whole)):
            yield place, Panel("", _diagram(mine, f"r{n}"))


def _diagram(stages: Sequence[Entry], name: str) -> Any:
    start = min(min(one["confidence"] + one["accuracy"]) for one in stages)
    even = Line([start, 1.0], [start, 1.0], Look("#888888", (2.0, 2.0), "o"))
    lines = [
        Line(one["confidence"], one["accuracy"], look, str(n))
        for n, (one, look) in enumerate(zip(stages, _looks(), strict=True), start=1)
    ]
    about = "accuracy against confidence, a point a bin; on the dashed line confidence is right"
    return panel([even, *lines], name=name, about=about, x_title="confidence", y_limits=(start - 0.03, 1.03))
