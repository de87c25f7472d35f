"""What report.html shows, section by section, from a report. Text only: the template makes the markup."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from mcutune.robustness.calibration_view import CalibrationView, view
from mcutune.robustness.comparators_page import Comparators, comparators, is_comparator
from mcutune.robustness.drawings import Curves, Trajectories, curves, trajectories
from mcutune.robustness.gap_page import SelectionGap, selection_gap
from mcutune.robustness.overall_view import Overall, views
from mcutune.robustness.published_page import Published, published
from mcutune.robustness.tables import (
    Cell,
    Forest,
    Heat,
    Numbers,
    Place,
    cell,
    forest,
    heat,
    main_first,
    number,
    numbers,
    place_of,
    scale,
    title,
)

Entry = dict[str, Any]

_KINDS = {
    "fixed": "combination",
    "incomplete_training": "combination",
    "random": "missing rate",
    "rate_shift": "missing rate",
    "random_batch": "missing rate",
    "imbalanced": "missing rates",
    "gaps": "share lost",
    "noise": "noise",
    "label_dependent": "missing",
    "cross_dataset": "combination",
}


@dataclass(frozen=True)
class Measured:
    """A protocol's part of the page. `numbers`: by metric, all models; `main` names the metric shown open."""

    id: str
    entry: Entry
    rows: str
    heats: tuple[Heat, ...]
    curves: Curves | None
    transfers: tuple[Transfer, ...]
    forests: tuple[Forest, ...]
    numbers: tuple[Numbers, ...]
    main: str
    intervals: str
    with_intervals: bool


@dataclass(frozen=True)
class Transfer:
    """One metric of one model from one table to another; rows: place, value at home, a value a normalisation."""

    model: str
    source: str
    target: str
    metric: str
    modes: tuple[str, ...]
    rows: tuple[tuple[Place, Cell | None, tuple[Cell | None, ...]], ...]
    left_out: int


@dataclass(frozen=True)
class Setting:
    """A key of the winners' configurations: a value a fold, with whether it is not trial 0's."""

    key: str
    searched: bool
    zero: str
    values: tuple[tuple[str, bool], ...]


@dataclass(frozen=True)
class Page:
    report: Entry
    model: str
    counts: str
    measured: tuple[Measured, ...]
    trajectories: tuple[Trajectories, ...]
    settings: tuple[Setting, ...]
    same: tuple[tuple[str, str], ...]
    published: tuple[Published, ...]
    overall: tuple[Overall, ...]
    calibration: CalibrationView | None
    comparators: tuple[Comparators, ...]
    gap: SelectionGap | None
    failed: tuple[Entry, ...]
    with_intervals: bool


@dataclass(frozen=True)
class Drawings:
    """The figures: curves by protocol, trajectories by model, reliability diagrams."""

    curves: dict[str, Curves]
    trajectories: tuple[Trajectories, ...]
    calibration: CalibrationView | None


def drawings(report: Entry) -> Drawings:
    """Raises LookupError, TypeError or ValueError for what is no report."""
    names = [one["name"] for one in report["data"]["modalities"]]
    found, shown = {}, _shown(report)
    drawn_curves = [one for one in report["degradation"] if one["model"] in shown]
    for n, protocol in enumerate(dict.fromkeys(one["protocol"] for one in drawn_curves)):
        found[protocol] = curves([one for one in drawn_curves if one["protocol"] == protocol], f"c{n}")
    models = dict.fromkeys(one["model"] for one in report["dpft"])
    mine = ([one for one in report["dpft"] if one["model"] == model] for model in models)
    drawn = (trajectories(of, names, f"d{n}") for n, of in enumerate(mine))
    return Drawings(found, tuple(one for one in drawn if one is not None), view(report))


def _shown(report: Entry) -> set[str]:
    """The models that are shown beside the subject everywhere."""
    return {one["name"] for one in report["models"] if not is_comparator(one)}


def page(report: Entry, drawn: Drawings, most: int) -> Page:
    """`most`: rows that a table may have. Raises LookupError, TypeError or ValueError for what is no report."""
    names = [one["name"] for one in report["data"]["modalities"]]
    subject = next(one for one in report["models"] if one["role"] == "subject")
    settings, same = _settings(report, subject)
    return Page(
        report=report,
        model=subject["name"],
        counts=_counts(report, subject),
        measured=tuple(
            _measured(report, one, drawn.curves.get(one["id"]), f"p{n}", names, most)
            for n, one in enumerate(report["protocols"])
        ),
        trajectories=drawn.trajectories,
        settings=settings,
        same=same,
        published=tuple(published(report, subject["name"], names)),
        overall=views(report),
        calibration=drawn.calibration,
        comparators=comparators(report, names, most),
        gap=selection_gap(report, names, most),
        failed=tuple(check for check in report["checks"] if not check["passed"]),
        with_intervals=any(one["low"] is not None for one in report["measurements"]),
    )


def _counts(report: Entry, subject: Entry) -> str:
    data, seeds = report["data"], max(len(winner["checkpoints"]) for winner in subject["winners"])
    folds = len(subject["winners"])
    parts = [_many(data["measured"], "test row"), _many(data["groups"], data["group"]), _many(folds, "fold")]
    return ", ".join([*parts, _many(seeds, "seed")])


def _many(count: int, what: str) -> str:
    return f"{count:,} {what}{'' if count == 1 else 's'}"


def _measured(
    report: Entry, protocol: Entry, drawn: Curves | None, id: str, names: Sequence[str], most: int
) -> Measured:  # fmt: skip
    shown = _shown(report)
    mine = [one for one in report["measurements"] if one["protocol"] == protocol["id"] and one["model"] in shown]
    metrics = main_first(one["metric"] for one in mine)
    models = [one["name"] for one in report["models"] if any(m["model"] == one["name"] for m in mine)]
    summaries = [one for one in report["summaries"] if one["protocol"] == protocol["id"]]
    transfers = tuple(_transfers(report, protocol, names, most))
    per_model = {name: [one for one in mine if one["model"] == name] for name in models}
    return Measured(
        id=id,
        entry=protocol,
        rows=_KINDS.get(protocol["kind"], "place"),
        heats=()
        if transfers
        else tuple(
            heat(of, [one for one in summaries if one["model"] == name], names, most) for name, of in per_model.items()
        ),
        curves=drawn,
        transfers=transfers,
        forests=tuple(_forests(report, protocol, names, most)),
        numbers=tuple(
            numbers(of, metric, names, most)
            for metric in metrics
            for of in per_model.values()
            if any(one["metric"] == metric for one in of)
        ),
        main=title(metrics[0]),
        intervals="; ".join(dict.fromkeys(one["interval"] for one in mine)),
        with_intervals=any(one["low"] is not None for one in mine),
    )


def _forests(report: Entry, protocol: Entry, names: Sequence[str], most: int) -> Iterator[Forest]:
    shown = _shown(report)
    mine = [one for one in report["comparisons"] if one["protocol"] == protocol["id"] and one["reference"] in shown]
    for reference in dict.fromkeys(one["reference"] for one in mine):
        theirs = [one for one in mine if one["reference"] == reference]
        for metric in main_first(one["metric"] for one in theirs):
            yield forest([one for one in theirs if one["metric"] == metric], names, most)


def _transfers(report: Entry, protocol: Entry, names: Sequence[str], most: int) -> Iterator[Transfer]:
    if protocol["kind"] != "cross_dataset":
        return
    entries = report["cross_dataset"]
    order = main_first(one["metric"] for one in entries)
    keys = dict.fromkeys((one["model"], one["source"], one["target"], one["metric"]) for one in entries)
    for key in sorted(keys, key=lambda key: order.index(key[3])):
        mine = [one for one in entries if (one["model"], one["source"], one["target"], one["metric"]) == key]
        modes = list(dict.fromkeys(one["normalisation"] for one in mine))
        homes = [one["within"] for one in mine if one["within"] is not None]
        worst, best = scale(key[3], [*homes, *(one["value"] for one in mine)])
        cells = {(one["combination"], one["normalisation"]): one for one in mine}
        labels = list(dict.fromkeys(one["combination"] for one in mine))
        rows = []
        for label in labels[:most]:
            home = next(one["within"] for one in mine if one["combination"] == label)
            at_home = None if home is None else cell({"value": home, "low": None, "high": None}, worst, best)
            found = (cells.get((label, mode)) for mode in modes)
            there = tuple(cell(one, worst, best, _winners(one)) if one else None for one in found)
            rows.append((place_of({"combination": label}, names), at_home, there))
        yield Transfer(*key[:3], title(key[3]), tuple(modes), tuple(rows), len(labels) - len(rows))


def _winners(one: Entry) -> str:
    """How the checkpoints spread, each having predicted all rows."""
    if one["winners"] == 1:
        return ""
    return f"{number(one['winners_low'])} to {number(one['winners_high'])}"


def _settings(report: Entry, subject: Entry) -> tuple[tuple[Setting, ...], tuple[tuple[str, str], ...]]:
    """Keys that were searched, differ between folds or differ from trial 0; and the other keys with their value."""
    searched = [one["key"] for one in report["search"]["space"]["dimensions"]] if report["search"] else []
    own = [dict(_flat(winner["configuration"])) for winner in subject["winners"]]
    zero = _trial_zero(report, subject)
    keys = list(dict.fromkeys([*searched, *(key for of in [*own, *zero] for key in of)]))
    shown, same = [], []
    for key in keys:
        values = [of.get(key, "–") for of in own]
        before = [of.get(key, "–") for of in zero]
        if key in searched or len(set(values + before)) > 1:
            at = before if len(before) == len(values) else [None] * len(values)
            differs = [was is not None and was != now for was, now in zip(at, values, strict=True)]
            words = ", ".join(dict.fromkeys(before)) if before else "not known"
            shown.append(Setting(key, key in searched, words, tuple(zip(values, differs, strict=True))))
        else:
            same.append((key, values[0]))
    return tuple(shown), tuple(same)


def _trial_zero(report: Entry, subject: Entry) -> list[dict[str, str]]:
    """Trial 0's configuration in each fold, from a reference with the same folds; [] where it is not in the report."""
    folds = [winner["fold"] for winner in subject["winners"]]
    for model in report["models"]:
        winners = model["winners"]
        if [one["fold"] for one in winners] == folds and all(one["trial"] == 0 for one in winners):
            return [dict(_flat(one["configuration"])) for one in winners]
    return []


def _flat(configuration: Entry, before: str = "") -> Iterator[tuple[str, str]]:
    for key, value in configuration.items():
        if isinstance(value, dict) and value:
            yield from _flat(value, f"{before}{key}.")
        else:
            yield f"{before}{key}", setting(value)


def setting(value: Any) -> str:
    """A configuration value as a person writes it."""
    if value is None:
        return "none"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, (list, tuple)):
        return ", ".join(map(setting, value))
    return str(value)
