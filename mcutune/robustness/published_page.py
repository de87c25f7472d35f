"""Published numbers beside own ones, as report.html shows them: a row a method, what belongs to it said first."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from mcutune.robustness.tables import Place, bounds, number, place_of, title

Entry = dict[str, Any]

_MEANS = {"mean_all": "mean of all", "mean_incomplete": "mean of incomplete"}


@dataclass(frozen=True)
class Published:
    """One protocol and metric. `cautions`: each once; `rows`: method, source, the caution's number, a value a place;
    `own`: value and interval of each place."""

    protocol: str
    metric: str
    places: tuple[Place, ...]
    own: tuple[tuple[str, str], ...]
    rows: tuple[tuple[str, str, int, tuple[str, ...]], ...]
    cautions: tuple[str, ...]


def published(report: Entry, model: str, names: Sequence[str]) -> Iterator[Published]:
    """A table for every protocol and metric of which published numbers are in the report."""
    kinds = {one["id"]: one["kind"] for one in report["protocols"]}
    entries = report["published"]
    for protocol, metric in dict.fromkeys((one["protocol"], one["metric"]) for one in entries):
        methods = [one for one in entries if (one["protocol"], one["metric"]) == (protocol, metric)]
        own: dict[str, Entry] = {}
        for one in [*report["measurements"], *report["summaries"]]:
            if kinds[one["protocol"]] == protocol and (one["metric"], one["model"]) == (metric, model):
                own.setdefault(one.get("name") or one["combination"] or one["scenario"], one)
        rank = {key: n for n, key in enumerate(own)}
        keys = sorted({key for one in methods for key in one["values"]}, key=lambda key: rank.get(key, len(rank)))
        cautions = list(dict.fromkeys(str(one["warning"]) for one in methods))
        yield Published(
            protocol,
            title(metric),
            tuple(_place(key, names) for key in keys),
            tuple((number(own[key]["value"]), bounds(own[key])) if key in own else ("–", "") for key in keys),
            tuple(
                (one["method"], one["source"], cautions.index(one["warning"]) + 1,
                 tuple(number(one["values"].get(key)) for key in keys))
                for one in methods
            ),
            tuple(cautions),
        )  # fmt: skip


def _place(key: str, names: Sequence[str]) -> Place:
    if key in _MEANS or "=" in key:
        return place_of({"combination": None, "scenario": _MEANS.get(key, key)}, names)
    return place_of({"combination": key, "scenario": ""}, names, scenarios=False)
