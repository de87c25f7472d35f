"""Which figures a report has: the curves over missing rates, and the DPFT trajectories of each fold."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from markupsafe import Markup

from mcutune.robustness.figures import Line, limits, panel, swatch
from mcutune.robustness.scenarios import AXES
from mcutune.robustness.shades import Look, looks
from mcutune.robustness.tables import Place, higher_is_better, main_first, number, place_of, title

Entry = dict[str, Any]
Array = npt.NDArray[np.float64]

_MOST_LINES = 15  # combinations that get a line each; above that one line and a band a number of modalities
_MOST_FOLDS = 15
_AXES = {axis: axis for axis in AXES.values()}  # only own words enter a figure
_QUANTITIES = {"probabilities": "probability", "divergences": "divergence"}


@dataclass(frozen=True)
class Key:
    """An entry of a legend: the tag at the line's end, its look, and a place or words."""

    tag: str
    swatch: Markup
    place: Place | None
    words: str = ""


@dataclass(frozen=True)
class Panel:
    caption: str
    svg: Markup


@dataclass(frozen=True)
class Curves:
    """Curves of a protocol, one panel a metric and series; `capped`: what was realised, and the higher rates asked for.

    `axis`: what they lie over, in own words.
    """

    legend: tuple[Key, ...]
    panels: tuple[Panel, ...]
    capped: tuple[tuple[str, tuple[str, ...]], ...]
    axis: str


@dataclass(frozen=True)
class Trajectories:
    """Probabilities and divergences of one model, a panel a fold each, and first and last values in numbers."""

    model: str
    seeds: int
    grouped: bool
    legend: tuple[Key, ...]
    probabilities: tuple[Panel, ...]
    divergences: tuple[Panel, ...]
    rows: tuple[tuple[Place, tuple[str, ...]], ...]
    folds: int
    folds_left_out: int


def curves(degradation: Sequence[Entry], name: str) -> Curves:
    """The curves of one protocol and dataset; the first model's is the subject's."""
    models = list(dict.fromkeys(one["model"] for one in degradation))
    look = dict(zip(models, looks(len(models)), strict=True))
    panels = []
    series = list(dict.fromkeys(one["series"] for one in degradation))
    for n, metric in enumerate(main_first(one["metric"] for one in degradation)):
        drawn = [[_line(one, models, look) for one in degradation if (one["metric"], one["series"]) == (metric, of)]
                 for of in series]  # fmt: skip
        shared = limits([value for lines in drawn for line in lines for value in _ends_of(line)])
        for m, (of, lines) in enumerate(zip(series, drawn, strict=True)):
            axis = _AXES.get(degradation[0]["axis"], "")
            svg = panel(
                lines, name=f"{name}-{n}-{m}", about=f"{title(metric)} against {axis}", x_title=axis, y_limits=shared
            )
            lower = "" if higher_is_better(metric) else ", lower is better"
            panels.append(Panel(title(metric) + lower + (f", {of}" if of else ""), svg))
    keys = [Key(str(n), swatch(look[model]), None, model) for n, model in enumerate(models, start=1)]
    capped: dict[str, tuple[str, ...]] = {}
    for point in (point for point in degradation[0]["points"] if point["capped"]):
        realised = number(point["realised"])
        capped[realised] = (*capped.get(realised, ()), f"{point['rate']:g}")
    return Curves(tuple(keys), tuple(panels), tuple(capped.items()), _AXES.get(degradation[0]["axis"], ""))


def _line(one: Entry, models: Sequence[str], look: dict[str, Look]) -> Line:
    """A curve as a line, with a band where it is the subject's."""
    points = sorted(one["points"], key=lambda point: float(point["realised"]))
    x, y, low, high = (_column(points, key) for key in ("realised", "value", "low", "high"))
    whole = one["model"] == models[0] and bool(np.isfinite(low + high).all())
    band = (low, high) if whole else (None, None)
    return Line(x, y, look[one["model"]], str(models.index(one["model"]) + 1), *band)


def _ends_of(line: Line) -> list[float]:
    return [value for part in (line.y, line.low, line.high) if part is not None for value in part]


def _column(points: Sequence[Entry], key: str) -> list[float]:
    return [float("nan") if point[key] is None else float(point[key]) for point in points]


def trajectories(dpft: Sequence[Entry], modalities: Sequence[str], name: str) -> Trajectories | None:
    """The trajectories of one model, mean over seeds; None where no epoch was recorded."""
    labels = dpft[0]["combinations"]
    found: dict[str, dict[str, Array]] = {}
    for fold in dict.fromkeys(one["fold"] for one in dpft):
        mine = [one for one in dpft if one["fold"] == fold and one["combinations"] == labels]
        means = {quantity: _mean([one[quantity] for one in mine]) for quantity in _QUANTITIES}
        if all(mean.size and mean.shape[1] == len(labels) for mean in means.values()):
            found[fold] = means
    if not found:
        return None
    places = [place_of({"combination": label}, modalities) for label in labels]
    grouped = len(labels) > _MOST_LINES
    members = _members(places, grouped)
    look = looks(len(members))
    tags = [str(places[of[0]].size) if grouped else str(n + 1) for n, of in enumerate(members)]
    drawn = list(found)[:_MOST_FOLDS]
    panels = {}
    for quantity, word in _QUANTITIES.items():
        shared = limits([value for fold in drawn for value in found[fold][quantity].ravel()])
        even = 1 / len(labels) if quantity == "probabilities" else None
        panels[quantity] = tuple(
            Panel(
                f"fold {fold}",
                panel(
                    _lines(found[fold][quantity], members, tags, look), name=f"{name}-{quantity[0]}{n}",
                    about=f"{word} of each combination over the epochs", x_title="epoch",
                    y_limits=shared, whole=True, even=even,
                ),
            )
            for n, fold in enumerate(drawn)
        )  # fmt: skip
    keys = (
        Key(tag, swatch(one), None if grouped else places[of[0]], _of_size(places[of[0]].size) if grouped else "")
        for tag, of, one in zip(tags, members, look, strict=True)
    )
    rows = tuple((place, _ends(found, c)) for c, place in enumerate(places))
    seeds = len({one["seed"] for one in dpft})
    return Trajectories(
        dpft[0]["model"], seeds, grouped, tuple(keys), panels["probabilities"], panels["divergences"], rows,
        len(found), len(found) - len(drawn),
    )  # fmt: skip


def _mean(runs: Sequence[Sequence[Sequence[float]]]) -> Array:
    """Mean over seeds, [epochs, C], up to the last epoch that all of them have."""
    epochs = min(map(len, runs))
    return np.mean([np.asarray(run[:epochs], float).reshape(epochs, -1) for run in runs], axis=0)


def _members(places: Sequence[Place], grouped: bool) -> list[list[int]]:
    if not grouped:
        return [[c] for c in range(len(places))]
    sizes = sorted({place.size for place in places})
    return [[c for c, place in enumerate(places) if place.size == size] for size in sizes]


def _lines(values: Array, members: Sequence[Sequence[int]], tags: Sequence[str], look: Sequence[Any]) -> list[Line]:
    epochs = list(range(1, len(values) + 1))
    lines = []
    for of, tag, one in zip(members, tags, look, strict=True):
        mine = values[:, of]
        band = (mine.min(axis=1).tolist(), mine.max(axis=1).tolist()) if len(of) > 1 else (None, None)
        lines.append(Line(epochs, mine.mean(axis=1).tolist(), one, tag, *band))
    return lines


def _of_size(size: int) -> str:
    return f"{size} modalit{'y' if size == 1 else 'ies'} present"


def _ends(found: dict[str, dict[str, Array]], c: int) -> tuple[str, ...]:
    """First and last values of a combination, mean over folds with the range where there are several."""
    made = []
    for quantity in _QUANTITIES:
        for epoch in (0, -1):
            values = [means[quantity][epoch, c] for means in found.values()]
            spread = f" ({_short(min(values))} to {_short(max(values))})" if len(values) > 1 and epoch else ""
            made.append(f"{_short(float(np.mean(values)))}{spread}")
    return tuple(made)


def _short(value: float) -> str:
    return f"{value:.4f}"
