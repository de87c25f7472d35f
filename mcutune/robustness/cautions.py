"""What a reader must know before believing a number, found in the report itself."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from mcutune.robustness.statistics import BOOTSTRAP_FROM, INTERVAL_FROM

Entry = dict[str, Any]


def warnings(report: Entry, more: list[str]) -> list[str]:
    """All warnings of a report, `more` (known from elsewhere) among them; each once."""
    return list(dict.fromkeys([*_openings(report), *_groups(report), *_seeds(report), *_data(report), *more]))


def _openings(report: Entry) -> Iterator[str]:
    count = report["openings"]["count"]
    if count > 1:
        chosen = "what was chosen after the first time was chosen on test"
        yield f"The labels of test rows were opened {count} times for this run: {chosen}."


def _groups(report: Entry) -> Iterator[str]:
    for data in (report["data"], *report["targets"]):
        groups, kind = data["groups"], data["group"]
        if groups < INTERVAL_FROM:
            yield f"{data['table']} has {groups} {kind}s: too few for an interval; only spreads are shown."
        elif groups < BOOTSTRAP_FROM:
            yield f"{data['table']} has {groups} {kind}s: intervals are by a small-sample method."
        if data["excluded"]:
            yield f"Rows of {data['table']} that have nothing left are excluded from some measurements."


def _seeds(report: Entry) -> Iterator[str]:
    if report["measurements"][0]["seeds"] == 1:
        yield "One seed was trained: how much another seed would change is not known."


def _data(report: Entry) -> Iterator[str]:
    data = report["data"]
    if data["test_features_normalise"]:
        yield f"Features of test rows were read to normalise each {data['group']} by its own rows."
    for target in report["targets"]:
        missing = [c["name"] for c in target["classes"] if c["rows"] == 0]
        if missing:
            yield f"{target['table']} has no row of {', '.join(missing)}: UA is the mean over the classes that occur."
