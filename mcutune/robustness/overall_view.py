"""What report.html shows of indices and contributions: one table each a model and protocol. Text only, no markup."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from mcutune.robustness.tables import bounds, main_first, number, title

Entry = dict[str, Any]
Shown = tuple[str, str]  # a value, and below it its interval or why there is none

WORDS = {
    "relative": "relative robustness: mean of the incomplete / complete",
    "relative_worst": "worst combination / complete",
    "evenness": "evenness of the modalities' contributions (0 to 1)",
    "learning": "evenness of the modalities' gradients (MissBench's MLI)",
    "effective": "effective robustness: above the line of the measured models",
}


@dataclass(frozen=True)
class Overall:
    """One model under one protocol: metrics as column heads; (name, a value a metric) as rows."""

    protocol: str
    model: str
    metrics: tuple[str, ...]
    contributions: tuple[tuple[str, tuple[Shown, ...]], ...]
    indices: tuple[tuple[str, tuple[Shown, ...]], ...]
    missing: tuple[tuple[str, str], ...]


def views(report: Entry) -> tuple[Overall, ...]:
    """Of every protocol and model; none where no protocol measured every combination."""
    return tuple(_views(report.get("contributions", []), report.get("indices", [])))


def _views(contributions: Sequence[Entry], indices: Sequence[Entry]) -> Iterator[Overall]:
    for protocol, model in dict.fromkeys((one["protocol"], one["model"]) for one in contributions):
        shares = [one for one in contributions if (one["protocol"], one["model"]) == (protocol, model)]
        ratios = [one for one in indices if (one["protocol"], one["model"]) == (protocol, model)]
        metrics = main_first(one["metric"] for one in shares)
        reasons = {
            one["name"]: one["reason"]
            for one in ratios
            if not any(of["value"] is not None for of in ratios if of["name"] == one["name"])
        }
        yield Overall(
            protocol,
            model,
            tuple(map(title, metrics)),
            _table(shares, "modality", metrics, {}),
            _table([one for one in ratios if one["name"] not in reasons], "name", metrics, WORDS),
            tuple((WORDS.get(name, name), reason) for name, reason in reasons.items()),
        )


def _table(
    entries: Sequence[Entry], key: str, metrics: Sequence[str], words: dict[str, str]
) -> tuple[tuple[str, tuple[Shown, ...]], ...]:
    rows = []
    for name in dict.fromkeys(one[key] for one in entries):
        of = {one["metric"]: one for one in entries if one[key] == name}
        shown = tuple((number(one["value"]), bounds(one)) if (one := of.get(m)) else ("–", "") for m in metrics)
        rows.append((words.get(name, name), shown))
    return tuple(rows)
