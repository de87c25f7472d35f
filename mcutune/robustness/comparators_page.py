"""What report.html shows of the models trained beside the winners: answers, forest of means, all of them by place."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from mcutune.robustness.compared import OWN_KIND
from mcutune.robustness.mean_differences import MAIN
from mcutune.robustness.tables import (
    Cell,
    Forest,
    cell,
    forest,
    main_first,
    main_metric,
    number,
    scale,
    title,
)

Entry = dict[str, Any]

_MOST_PLACES = 15  # combinations in one table; beyond, they are in the details


@dataclass(frozen=True)
class Beside:
    """All models in one table: a row a model, the subject first. `places`: combinations; `mean`: the last column."""

    protocol: str
    metric: str
    places: tuple[str, ...]
    rows: tuple[tuple[str, tuple[Cell | None, ...]], ...]
    ends: tuple[str, str]


@dataclass(frozen=True)
class Means:
    """Paired differences of means under a protocol, a row a comparator: a forest a metric."""

    protocol: str
    over: str
    forests: tuple[Forest, ...]


@dataclass(frozen=True)
class Details:
    """Every place against one comparator."""

    title: str
    model: str
    changes: str
    forests: tuple[Forest, ...]


@dataclass(frozen=True)
class Comparators:
    """A section of the page. `lead`: what the models are; `ask`: what stands above the names of places."""

    id: str
    title: str
    lead: str
    answers: tuple[Entry, ...]
    means: tuple[Means, ...]
    beside: Beside | None
    details: tuple[Details, ...]
    main: str


def is_comparator(model: Entry) -> bool:
    """Whether a model has its place in the section on comparators rather than beside the subject everywhere."""
    comparator = model.get("comparator")
    return comparator is not None and not comparator["asked"]


_SECTIONS = {
    "comparators": (
        "Against simpler models",
        "Trained beside the winners under the same splits, seeds and normalisation; each is the winner of its fold "
        "with one thing changed.",
        "fixed",
    ),
    "rate_shift": (
        "Every trained rate against every met rate",
        "A row a model: the winner, which serves all rates, and one model trained at each rate. A column is the rate "
        "that is met; published curves of one model a rate are the diagonal.",
        "rate_shift",
    ),
    "incomplete_training": (
        "Trained on incomplete rows",
        "A row a model, trained by the winner's settings while so much of the training rows was hidden from all of "
        "training.",
        "incomplete_training",
    ),
}


def comparators(report: Entry, names: Sequence[str], most: int) -> tuple[Comparators, ...]:
    """A section a word that trained something beside the winners. `most`: rows that a table may have."""
    found = []
    for word, (words, lead, kind) in _SECTIONS.items():
        models = [one for one in report["models"] if is_comparator(one) and one["comparator"]["word"] == word]
        protocol = next((one["id"] for one in report["protocols"] if one["kind"] == kind), None)
        if not models or (word != "comparators" and protocol is None):
            continue
        answers = tuple(one for one in report["answers"] if (one["key"] in OWN_KIND) == (word != "comparators"))
        found.append(
            Comparators(
                word,
                words,
                lead,
                tuple(one for one in answers if one["key"] not in OWN_KIND or one["key"] == word),
                tuple(_means(report, models, most, word == "comparators")),
                _beside(report, models, protocol),
                tuple(_details(report, models, names, most)),
                title(main_metric(one["metric"] for one in report["measurements"])),
            )
        )
    return tuple(found)


def _means(report: Entry, models: Sequence[Entry], most: int, default: bool) -> Iterator[Means]:
    titles = {one["model"]: one["title"] for one in report["answers"] if default}
    titles |= {one["name"]: one["comparator"]["title"] for one in models}
    known = [one for one in report["mean_differences"] if one["reference"] in titles]
    for protocol in dict.fromkeys(one["protocol"] for one in known):
        mine = [one for one in known if one["protocol"] == protocol]
        rows = [{**one, "combination": None, "scenario": titles[one["reference"]]} for one in mine]
        over = {"mean_all": "mean over {} combinations", "area": "mean over {} missing rates"}[mine[0]["name"]]
        forests = tuple(
            forest([one for one in rows if one["metric"] == metric], (), most)
            for metric in main_first(one["metric"] for one in mine)
        )
        yield Means(protocol, over.format(mine[0]["over"]), forests)


def _beside(report: Entry, models: Sequence[Entry], protocol: str | None) -> Beside | None:
    """Values under a protocol, and their mean, by the main metric."""
    metric = main_metric(one["metric"] for one in report["measurements"])
    every = [one for one in report["measurements"] if (one["protocol"], one["metric"]) == (protocol, metric)]
    places = tuple(dict.fromkeys(_place(one) for one in every))
    if not 0 < len(places) <= _MOST_PLACES:
        return None
    subject = next(one for one in report["models"] if one["role"] == "subject")
    shown = [(subject["name"], subject["name"]), *((one["name"], one["comparator"]["title"]) for one in models)]
    names = {name for name, _ in shown}
    summaries = [one for one in report["summaries"] if (one["protocol"], one["metric"]) == (protocol, metric)]
    means = {one["model"]: one for one in summaries if one["name"] in MAIN}
    values = {(one["model"], _place(one)): one for one in every if one["model"] in names}
    worst, best = scale(metric, [one["value"] for one in values.values()])
    rows = []
    for name, words in shown:
        found = [*(values.get((name, place)) for place in places), means.get(name)]
        rows.append(
            (words, tuple(cell({**one, "low": None, "high": None}, worst, best) if one else None for one in found))
        )
    return Beside(str(protocol), title(metric), places, tuple(rows), (number(worst), number(best)))


def _place(one: Entry) -> str:
    """A combination, or the level of a scenario."""
    return str(one["combination"] or str(one["scenario"]).partition("=")[2] or one["scenario"])


def _details(report: Entry, models: Sequence[Entry], names: Sequence[str], most: int) -> Iterator[Details]:
    metric = main_metric(one["metric"] for one in report["measurements"])
    for model in models:
        mine = [one for one in report["comparisons"] if (one["reference"], one["metric"]) == (model["name"], metric)]
        protocols = dict.fromkeys(one["protocol"] for one in mine)
        forests = tuple(forest([one for one in mine if one["protocol"] == id], names, most) for id in protocols)
        changes = ", ".join(f"{key}: {_short(value)}" for key, value in model["comparator"]["changes"].items())
        yield Details(model["comparator"]["title"], model["name"], changes, forests)


def _short(value: Any) -> str:
    return ", ".join(f"{one:g}" for one in value) if isinstance(value, list) else str(value)
