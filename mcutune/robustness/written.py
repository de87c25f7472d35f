"""A report as CSV: its lists of PARTS, an entry a line with its interval. No spreadsheet runs what stands in it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import pandas as pd

from mcutune.inert import inert

Entry = dict[str, Any]

PARTS = ("measurements", "summaries", "indices", "contributions", "comparisons", "mean_differences")
_COLUMNS = (
    "part", "protocol", "dataset", "split", "combination", "scenario", "name", "over", "which", "modality", "metric",
    "model", "reference", "value", "difference", "low", "high", "interval", "test", "p", "p_holm", "family",
    "detectable", "margin", "answer", "p_not_worse", "p_worse", "n", "groups", "seeds", "seeds_sd", "folds",
    "folds_sd", "reason",
)  # fmt: skip
_COUNTS = ("over", "family", "n", "groups", "seeds", "folds")
# What a spreadsheet takes for the start of a formula, also in full width, and behind `;`, which parts cells in many
# countries.
_FORMULA = re.compile(r"(^|;)(?=[ '\"]*[=+\-@\t\r＝＋－＠])")  # noqa: RUF001


def csv(report: Entry) -> str:
    """Every entry of PARTS, one a line and in full; columns are the keys of report.json, `part` the list there."""
    return _text_of(_table(report, PARTS))


def csv_tables(report: Entry) -> dict[str, str]:
    """The same, a file a part, each with the columns that it fills; by file name without ending."""
    return {part: _text_of(_table(report, (part,)).dropna(axis=1, how="all")) for part in PARTS if report.get(part)}


def _table(report: Entry, parts: tuple[str, ...]) -> pd.DataFrame:
    lines = [{key: line.get(key) for key in _COLUMNS} for line in _lines(report, parts)]
    table = pd.DataFrame(lines, columns=list(_COLUMNS))
    for name in _COLUMNS:
        if name in _COUNTS:
            table[name] = table[name].astype("Int64")
        elif not pd.api.types.is_numeric_dtype(table[name]):
            table[name] = table[name].map(_text, na_action="ignore")
    return table


def _lines(report: Entry, parts: tuple[str, ...]) -> Iterator[Entry]:
    """`margin` of a comparison is an object, whose keys become columns."""
    for part in parts:
        for one in report.get(part, []):
            yield {**one, **(one.get("margin") or {"margin": None}), "part": part}


def _text_of(table: pd.DataFrame) -> str:
    return str(table.to_csv(index=False, lineterminator="\n"))


def _text(value: object) -> object:
    """Text that no spreadsheet runs: a quote before what looks like a formula, control characters written out."""
    if not isinstance(value, str):
        return value
    return inert(_FORMULA.sub(r"\1'", value))  # before a tab that starts a formula is written out
