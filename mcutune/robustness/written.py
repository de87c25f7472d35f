"""A report as tables for a paper: LaTeX (booktabs), and every measurement as CSV. Names in it are never obeyed."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import pandas as pd

from mcutune.inert import inert
from mcutune.robustness.tables import SUMMARIES, main_first, series_words, title

Entry = dict[str, Any]

_COLUMNS = (
    "protocol", "dataset", "split", "combination", "scenario", "summary", "metric", "model", "value", "low", "high",
    "n", "groups", "interval", "seeds", "seeds_sd", "folds", "folds_sd",
)  # fmt: skip
_COUNTS = ("n", "groups", "seeds", "folds")
_FORMULA = ("=", "+", "-", "@", "\t", "\r")  # what a spreadsheet takes for the start of a formula
_SPECIAL = {
    "\\": r"\textbackslash{}", "{": r"\{", "}": r"\}", "$": r"\$", "&": r"\&", "#": r"\#", "_": r"\_", "%": r"\%",
    "^": r"\textasciicircum{}", "~": r"\textasciitilde{}", "<": r"\textless{}", ">": r"\textgreater{}",
    "|": r"\textbar{}", '"': "''", "–": "--", "−": "$-$", "…": r"\dots{}",
}  # fmt: skip


def csv(report: Entry) -> str:
    """Every measurement and summary of a report, one a line, numbers in full; `summary` is empty for measurements."""
    lines = [*report["measurements"], *({**one, "summary": one["name"]} for one in report["summaries"])]
    table = pd.DataFrame([{key: one.get(key) for key in _COLUMNS} for one in lines], columns=list(_COLUMNS))
    for name in _COLUMNS:
        if name in _COUNTS:
            table[name] = table[name].astype("Int64")
        elif not pd.api.types.is_numeric_dtype(table[name]):
            table[name] = table[name].map(_text, na_action="ignore")
    return str(table.to_csv(index=False, lineterminator="\n"))


def _text(value: object) -> object:
    """Text that no spreadsheet runs: a quote before what looks like a formula, control characters written out."""
    if not isinstance(value, str):
        return value
    shown = inert(value)
    return f"'{shown}" if value.startswith(_FORMULA) or shown.startswith(_FORMULA) else shown


def latex(report: Entry) -> str:
    """A table a protocol and metric: a row a combination or rate, a column a model, the interval beside the value."""
    head = f"% {_escaped(report['title'])}\n% In the preamble: \\usepackage{{booktabs}}\n"
    return head + "".join(
        _table(report, protocol, metric)
        for protocol in report["protocols"]
        for metric in main_first(one["metric"] for one in report["measurements"] if one["protocol"] == protocol["id"])
    )


def _table(report: Entry, protocol: Entry, metric: str) -> str:
    def mine(part: str) -> list[Entry]:
        return [one for one in report[part] if (one["protocol"], one["metric"]) == (protocol["id"], metric)]

    models = list(dict.fromkeys(one["model"] for one in mine("measurements")))
    rows = list(_rows(mine("measurements"), models))
    means = list(_means(mine("summaries"), models))
    confidence = f"{report['provenance']['statistics']['confidence']:.0%}"
    caption = f"{title(metric)}, {protocol['title']} ({protocol['id']}, version {protocol['version']}); {confidence}"
    lines = [
        r"\begin{table}",
        r"\centering",
        rf"\caption{{{_escaped(caption)} intervals over groups in brackets.}}",
        rf"\begin{{tabular}}{{l{'r' * len(models)}}}",
        r"\toprule",
        _line(["", *map(_escaped, models)]),
        r"\midrule",
        *map(_line, rows),
        *([r"\midrule", *map(_line, means)] if means else []),
        r"\bottomrule",
        r"\end{tabular}",
        r"\end{table}",
    ]
    return "\n" + "\n".join(lines) + "\n"


def _line(cells: Sequence[str]) -> str:
    return " & ".join(cells) + r" \\"


def _rows(measured: Sequence[Entry], models: Sequence[str]) -> Iterator[list[str]]:
    cells = {(one["combination"], one["scenario"], one["model"]): one for one in measured}
    for combination, scenario in dict.fromkeys((one["combination"], one["scenario"]) for one in measured):
        parts = [part for part in (combination, None if scenario == "fixed" else scenario) if part]
        yield [_escaped(", ".join(parts)), *(_cell(cells.get((combination, scenario, model))) for model in models)]


def _means(summaries: Sequence[Entry], models: Sequence[str]) -> Iterator[list[str]]:
    cells = {(one["name"], one["scenario"], one["model"]): one for one in summaries}
    for name, scenario in dict.fromkeys((one["name"], one["scenario"]) for one in summaries):
        found = [cells.get((name, scenario, model)) for model in models]
        over = next(one["over"] for one in found if one is not None)
        words = SUMMARIES[name].format(over=over) if name in SUMMARIES else name
        yield [_escaped(words + series_words({"scenario": scenario})), *map(_cell, found)]


def _cell(one: Entry | None) -> str:
    if one is None:
        return "--"
    bounds = "" if one["low"] is None or one["high"] is None else f" [{_decimal(one['low'])}, {_decimal(one['high'])}]"
    return _decimal(one["value"]) + bounds


def _decimal(value: float) -> str:
    shown = f"{value:.3f}"
    return f"${shown}$" if value < 0 else shown


def _escaped(text: object) -> str:
    """Text that LaTeX prints and does not obey; what is not printable is written out first."""
    return "".join(_SPECIAL.get(c, c) for c in inert(text, limit=300))
