"""The selection gap as report.html shows it: a table a way of choosing on test, by the metric that speaks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from mcutune.robustness.tables import Place, gap, main_metric, number, place_of, title

Entry = dict[str, Any]


@dataclass(frozen=True)
class GapRow:
    """`values`: chosen on validation; on test, one epoch and the gap; an epoch a combination and the gap."""

    place: Place
    values: tuple[str, ...]
    mean: bool


@dataclass(frozen=True)
class SelectionGap:
    """`others`: words on the mean gap of each other metric."""

    metric: str
    folds: int
    seeds: int
    rows: tuple[GapRow, ...]
    range: str
    others: tuple[str, ...]


def selection_gap(report: Entry, names: Sequence[str], most: int) -> SelectionGap | None:
    """None where not every epoch was kept. `most`: rows that the table may have."""
    entries = report.get("selection_gap") or []
    if not entries:
        return None
    metric = main_metric(one["metric"] for one in entries)
    mine = {(one["how"], one["combination"]): one for one in entries if one["metric"] == metric}
    ways = list(dict.fromkeys(how for how, _ in mine))
    labels = list(dict.fromkeys(label for _, label in mine))[: most + 1]
    rows = []
    for label in labels:
        found = [mine[how, label] for how in ways]
        shown = [number(found[0]["honest"])]
        for one in found:
            shown += [number(one["chosen_on_test"]), gap(one["gap"])]
        at = {"combination": label, "scenario": "" if label else "mean over the combinations"}
        rows.append(GapRow(place_of(at, names, label is None), tuple(shown), label is None))
    means = [one for one in entries if one["combination"] is None]
    others = [f"{title(one['metric'])} {gap(one['gap'])} ({one['how']})" for one in means if one["metric"] != metric]
    first = mine[ways[-1], None]
    return SelectionGap(
        title(metric), first["folds"], first["seeds"], tuple(rows),
        f"{gap(first['least'])} to {gap(first['most'])}", tuple(others),
    )  # fmt: skip


def in_words(report: Entry) -> str:
    """One line for a terminal; '' where there is nothing to say."""
    entries = [one for one in report.get("selection_gap") or [] if one["combination"] is None]
    if not entries:
        return ""
    metric = main_metric(one["metric"] for one in entries)
    mine = {one["how"]: one for one in entries if one["metric"] == metric}
    told = "; ".join(f"{gap(one['gap'])} with {how} chosen on test" for how, one in mine.items())
    return f"selection gap, {title(metric)} on average (what not to do): {told}"
