"""What report.html shows of indices and contributions: one table each a model and protocol. Text only, no markup."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from mcutune.robustness.tables import bounds, main_first, number, title

Entry = dict[str, Any]
Shown = tuple[str, str]  # a value, and below it its interval or why there is none

LEARNING = "learning"
WORDS = {
    "relative": "relative robustness: mean of the incomplete / complete",
    "relative_worst": "worst combination / complete",
    "evenness": "evenness of the modalities' contributions (0 to 1)",
    LEARNING: "evenness of the modalities' gradients in training (0 to 1)",
    "effective": "effective robustness: above the line of the measured models",
}


@dataclass(frozen=True)
class Learning:
    """How evenly the gradients of training were spread: (modality, share, range, first, last) as rows."""

    value: str
    range: str
    rows: tuple[tuple[str, ...], ...]
    trained: str
    epochs: str
    rows_of: str


@dataclass(frozen=True)
class Overall:
    """One model under one protocol: metrics as column heads; (name, a value a metric) as rows.

    `learning`: None where it is not measured of this model.
    """

    protocol: str
    model: str
    metrics: tuple[str, ...]
    contributions: tuple[tuple[str, tuple[Shown, ...]], ...]
    indices: tuple[tuple[str, tuple[Shown, ...]], ...]
    missing: tuple[tuple[str, str], ...]
    learning: Learning | None = None


def views(report: Entry) -> tuple[Overall, ...]:
    """Of every protocol and model; none where no protocol measured every combination."""
    return tuple(_views(report.get("contributions", []), report.get("indices", []), report.get("learning")))


def _views(contributions: Sequence[Entry], indices: Sequence[Entry], learned: Entry | None) -> Iterator[Overall]:
    for protocol, model in dict.fromkeys((one["protocol"], one["model"]) for one in contributions):
        shares = [one for one in contributions if (one["protocol"], one["model"]) == (protocol, model)]
        ratios = [one for one in indices if (one["protocol"], one["model"]) == (protocol, model)]
        metrics = main_first(one["metric"] for one in shares)
        reasons = {
            one["name"]: one["reason"]
            for one in ratios
            if not any(of["value"] is not None for of in ratios if of["name"] == one["name"])
        }
        measured = any(one["name"] == LEARNING and one["value"] is not None for one in ratios)
        shown = [one for one in ratios if one["name"] not in (*reasons, LEARNING)]
        yield Overall(
            protocol,
            model,
            tuple(map(title, metrics)),
            _table(shares, "modality", metrics, {}),
            _table(shown, "name", metrics, WORDS),
            tuple((WORDS.get(name, name), reason) for name, reason in reasons.items()),
            _learning(learned) if learned and measured else None,
        )


def _learning(learned: Entry) -> Learning:
    rows = tuple(
        (one["modality"], *(number(one[key]) for key in ("share", "least", "most", "first", "last")))
        for one in learned["modalities"]
    )
    least, most = learned["epochs"]["least"], learned["epochs"]["most"]
    return Learning(
        number(learned["value"]),
        f"{number(learned['least'])} to {number(learned['most'])}",
        rows,
        f"{_count(learned['folds'], 'fold')} and {_count(learned['seeds'], 'seed')}",
        (_count(most, "epoch") if least == most else f"{least} to {most} epochs")
        + ("" if learned["epochs"]["every"] else " evenly spaced over training"),
        f"{learned['rows']:,} of {learned['available']:,}",
    )


def _count(number_of: int, what: str) -> str:
    return f"{number_of} {what}{'' if number_of == 1 else 's'}"


def learning_in_words(report: Entry) -> str:
    """One line for a terminal; '' where it is not measured."""
    learned = report.get("learning")
    if not learned or learned["value"] is None:
        return ""
    shares = ", ".join(f"{one['modality']} {number(one['share'])}" for one in learned["modalities"])
    return f"evenness of the modalities' gradients in training: {number(learned['value'])} (shares: {shares})"


def _table(
    entries: Sequence[Entry], key: str, metrics: Sequence[str], words: dict[str, str]
) -> tuple[tuple[str, tuple[Shown, ...]], ...]:
    rows = []
    for name in dict.fromkeys(one[key] for one in entries):
        of = {one["metric"]: one for one in entries if one[key] == name}
        shown = tuple((number(one["value"]), bounds(one)) if (one := of.get(m)) else ("–", "") for m in metrics)
        rows.append((words.get(name, name), shown))
    return tuple(rows)
