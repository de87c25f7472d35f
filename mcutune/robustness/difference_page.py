"""A comparison of two reports as one page, drawn as report.html is."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from markupsafe import Markup

from mcutune.robustness import html
from mcutune.robustness.equivalence import NOT_WORSE, UNDECIDED, WORSE
from mcutune.robustness.tables import Forest, bounds, chance, forest, gap, main_first, number, series_words, title

Entry = dict[str, Any]

_MOST = 255  # places a forest shows, the weakest first
_ROWS = {"random": "missing rate"}
_OVERALL = {"mean_all": "mean of {over} combinations", "area": "mean over the curve ({over} points)"}


@dataclass(frozen=True)
class Compared:
    """A protocol's part of the page. `overall`: text of each row; `margins`: in how many cells A is not worse."""

    entry: Entry
    rows: str
    intervals: str
    overall: tuple[tuple[str, ...], ...]
    forests: tuple[Forest, ...]
    margins: str


@dataclass(frozen=True)
class DifferencePage:
    document: Entry
    protocols: tuple[Compared, ...]


def render_difference(document: Entry) -> str:
    """The page of what `differences.difference` found."""
    css = html.style()
    protocols = tuple(_compared(document, entry) for entry in document["protocols"])
    template = html.environment().get_template("difference.html.j2")
    return template.render(page=DifferencePage(document, protocols), style=Markup(css), policy=html.policy(css))


def _compared(document: Entry, entry: Entry) -> Compared:
    mine = [{**one, "reference": "B"} for one in document["cells"] if one["protocol"] == entry["id"]]
    metrics = main_first(one["metric"] for one in mine)
    overall = [one for one in document["overall"] if one["protocol"] == entry["id"]]
    names = document["data"]["modalities"]
    return Compared(
        entry=entry,
        rows=_ROWS.get(entry["kind"], "combination"),
        intervals="; ".join(dict.fromkeys(one["interval"] for one in mine)),
        overall=tuple(_means(one) for metric in metrics for one in overall if one["metric"] == metric),
        forests=tuple(forest([one for one in mine if one["metric"] == metric], names, _MOST) for metric in metrics),
        margins="; ".join(_margins(mine, metrics)),
    )


def _means(one: Entry) -> tuple[str, ...]:
    words = f"{title(one['metric'])}, {_OVERALL[one['name']].format(over=one['over'])}{series_words(one)}"
    values = number(one["a"]), number(one["b"]), gap(one["difference"]), bounds(one) or "–"
    return (words, *values, chance(one["p"]), number(one["detectable"]))


def _margins(mine: list[Entry], metrics: list[str]) -> Iterator[str]:
    for metric in metrics:
        answers = [one["margin"]["answer"] for one in mine if one["metric"] == metric and one["margin"] is not None]
        if answers:
            counted = (f"{name} in {answers.count(name)}" for name in (NOT_WORSE, WORSE, UNDECIDED))
            yield f"{title(metric)}: {', '.join(counted)}"
