"""A robustness report in the terminal, from report.json alone: combinations as heat, degradation, checks, warnings."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from rich.console import Group, RenderableType
from rich.text import Text

from mcutune.cli.render_compared import compared_lines
from mcutune.cli.screen import heat, plain, shares, sparkline, table
from mcutune.cli.split_table import SplitTable
from mcutune.cli.text import count, score
from mcutune.inert import inert

_MOST_ROWS = 31  # combinations of five modalities; above that the worst are shown
_WORST = 10
_LABEL = 120  # characters of a row's name; it wraps
_AXES = {"missing rate": "missing", "share of rows lost": "lost", "noise, in standard deviations": "σ"}
_TITLES = {
    "wa": "accuracy (WA)",
    "ua": "recall (UA)",
    "f1": "weighted F1",
    "acc2": "ACC2",
    "f1_nonzero": "F1 non-zero",
    "mae": "MAE",
    "pearson": "Pearson r",
}
_SUMMARY_TITLES = {
    "mean_all": "mean of all",
    "mean_incomplete": "mean of incomplete",
    "worst": "worst",
    "cvar": "worst quarter of",
}


def report_view(report: dict[str, Any]) -> RenderableType:
    """All that fits a terminal of 80 columns; `report.html` shows the rest."""
    parts: list[RenderableType] = [plain(report["title"], "bold"), _facts(report)]
    for protocol in report["protocols"]:
        made = list(_PROTOCOLS[protocol["kind"]](report, protocol))
        if made:
            parts += [Text(), plain(f"{protocol['id']}: {protocol['title']}", "bold"), *made]
    beside = list(compared_lines(report))
    parts += [Text(), *beside] if beside else []
    parts += [Text(), *_checks(report), *_warnings(report)]
    return Group(*parts, Text(), *(plain(sentence) for sentence in report["summary"]))


def subject(report: dict[str, Any]) -> str:
    """The name of the model that the report is about."""
    return str(next(model["name"] for model in report["models"] if model["role"] == "subject"))


def _facts(report: dict[str, Any]) -> Text:
    data, opened = report["data"], report["openings"]["count"]
    winners = next(model["winners"] for model in report["models"] if model["role"] == "subject")
    seeds = max(len(winner["checkpoints"]) for winner in winners)
    confidence = report["provenance"]["statistics"]["confidence"]
    return plain(
        f"{data['measured']:,} of {data['rows']:,} rows measured, {count(data['groups'], data['group'])}, "
        f"{count(len(winners), 'fold')}, {count(seeds, 'seed')}. Beside each value its {confidence:.0%} interval: "
        f"{report['measurements'][0]['interval']}. Test labels opened {count(opened, 'time')}.",
        "dim",
    )


def _mine(report: dict[str, Any], protocol: dict[str, Any], part: str) -> list[dict[str, Any]]:
    name = subject(report)
    return [row for row in report[part] if row["protocol"] == protocol["id"] and row["model"] == name]


def _fixed(report: dict[str, Any], protocol: dict[str, Any]) -> Iterator[RenderableType]:
    rows = [row for row in _mine(report, protocol, "measurements") if row["combination"] is not None]
    metrics = list(dict.fromkeys(row["metric"] for row in rows))
    cells = {(row["combination"], row["metric"]): row for row in rows}
    labels = list(dict.fromkeys(row["combination"] for row in rows))
    if not labels:
        return
    shown = labels
    if len(labels) > _MOST_ROWS:
        rank = dict(zip(labels, _shares(cells, labels, metrics[0]), strict=True))
        shown = sorted(labels, key=lambda label: rank[label])[:_WORST]
        yield plain(f"the {_WORST} worst of {len(labels)} combinations by {_TITLES[metrics[0]]}", "dim")
    made = table("combination", *(_TITLES[metric] for metric in metrics), right=range(1, len(metrics) + 1))
    colours = {metric: dict(zip(labels, _shares(cells, labels, metric), strict=True)) for metric in metrics}
    for label in shown:
        made.add_row(
            plain(label, limit=_LABEL),
            *(_cell(cells[label, metric], heat(colours[metric][label])) for metric in metrics),
        )
    _add_summaries(made, _mine(report, protocol, "summaries"), metrics)
    yield made
    yield from _contributions(report, protocol)
    yield from _calibration(report)


def _calibration(report: dict[str, Any]) -> Iterator[RenderableType]:
    """One line: how far confidence is off with everything present and at worst, and after the temperature."""
    measures = (report.get("calibration") or {}).get("measures", [])
    rows = [row for row in measures if row["model"] == subject(report) and row["measure"] == "ece"]
    before, after = (
        {row["combination"]: row["value"] for row in rows if row["stage"] == s} for s in ("before", "after")
    )
    if before:
        full = max(before, key=lambda label: label.count("+"))
        worst = max(before, key=lambda label: before[label])
        shown = (f"{inert(label)} {before[label]:.3f} → {after[label]:.3f}" for label in dict.fromkeys((full, worst)))
        yield plain(f"calibration error, before → after one temperature: {', '.join(shown)}", "dim")


def _contributions(report: dict[str, Any], protocol: dict[str, Any]) -> Iterator[RenderableType]:
    """One line: what each modality brings, by the metric that speaks for the report."""
    rows = _mine(report, protocol, "contributions") if report.get("contributions") else []
    metric = next((name for name in ("ua", "mae") if any(row["metric"] == name for row in rows)), None)
    shown = [f"{inert(row['modality'])} {row['value']:+.3f}" for row in rows if row["metric"] == metric]
    if metric is not None and shown:
        yield plain(f"what each modality brings, {_TITLES[metric]} (Shapley): {', '.join(shown)}", "dim")


def _shares(cells: dict[tuple[str, str], dict[str, Any]], labels: list[str], metric: str) -> list[float]:
    return shares([cells[label, metric]["value"] for label in labels], higher_is_better=metric != "mae")


def _cell(row: dict[str, Any], style: str = "") -> Text:
    made = Text(f" {score(row['value'])} ", style=style)
    if row["low"] is not None:
        made.append(f" {score(row['low'])}–{score(row['high'])}", style="default on default dim")
    return made


def _add_summaries(made: SplitTable, rows: list[dict[str, Any]], metrics: list[str]) -> None:
    names = [name for name in _SUMMARY_TITLES if any(row["name"] == name for row in rows)]
    if names:
        made.add_section()
    for name in names:
        of = {row["metric"]: row for row in rows if row["name"] == name}
        title = f"{_SUMMARY_TITLES[name]} {next(iter(of.values()))['over'] if name != 'worst' else ''}".strip()
        made.add_row(plain(title, "italic"), *(_cell(of[metric]) if metric in of else Text("–") for metric in metrics))


def _curves(report: dict[str, Any], protocol: dict[str, Any]) -> Iterator[RenderableType]:
    curves = _mine(report, protocol, "degradation")
    if not curves:
        return
    rates = [point["rate"] for point in curves[0]["points"]]
    word = _AXES[curves[0]["axis"]]
    made = table("metric", f"{word} {rates[0]:g}", "", f"{word} {rates[-1]:g}", "lost", right=(1, 3, 4))
    several = len({curve["series"] for curve in curves}) > 1
    shown = [curve for curve in curves if not several or curve["metric"] == _main(curves)]
    for curve in shown:
        first, last = curve["points"][0], curve["points"][-1]
        made.add_row(
            plain(str(curve["series"]) if several else _TITLES[curve["metric"]], limit=_LABEL),
            _cell(first),
            Text(sparkline([point["value"] for point in curve["points"]]), style="cyan"),
            _cell(last),
            plain(score(abs(first["value"] - last["value"]))),
        )
    if several:
        yield plain(f"{_TITLES[shown[0]['metric']]}, each modality alone and all", "dim")
    yield made
    if any(point["capped"] for point in curves[0]["points"]):
        realised = curves[0]["points"][-1]["realised"]
        yield plain(f"rates above (M−1)/M were capped: {rates[-1]:g} became {realised:.3f}", "dim")


def _main(rows: list[dict[str, Any]]) -> str:
    """The metric that speaks for a protocol where there is room for one."""
    metrics = list(dict.fromkeys(row["metric"] for row in rows))
    return next((metric for metric in ("ua", "mae") if metric in metrics), metrics[0])


def _scenarios(report: dict[str, Any], protocol: dict[str, Any]) -> Iterator[RenderableType]:
    rows = _mine(report, protocol, "measurements")
    metrics = list(dict.fromkeys(row["metric"] for row in rows))
    made = table("scenario", *(_TITLES[metric] for metric in metrics), right=range(1, len(metrics) + 1))
    cells = {(row["scenario"], row["metric"]): row for row in rows}
    for scenario in dict.fromkeys(row["scenario"] for row in rows):
        made.add_row(plain(scenario, limit=_LABEL), *(_cell(cells[scenario, metric]) for metric in metrics))
    yield made


def _cross(report: dict[str, Any], protocol: dict[str, Any]) -> Iterator[RenderableType]:
    rows = [row for row in report["cross_dataset"] if row["model"] == subject(report)]
    for source, target in dict.fromkeys((row["source"], row["target"]) for row in rows):
        of = [row for row in rows if (row["source"], row["target"]) == (source, target)]
        metric = "ua" if any(row["metric"] == "ua" for row in of) else of[0]["metric"]
        modes = list(dict.fromkeys(row["normalisation"] for row in of))
        made = table(
            "combination", "within", *(f"{mode} norm." for mode in modes), "winners ±", right=range(1, len(modes) + 3)
        )
        cells = {(row["combination"], row["normalisation"]): row for row in of if row["metric"] == metric}
        for label in dict.fromkeys(row["combination"] for row in of):
            last = cells[label, modes[-1]]
            made.add_row(
                plain(label, limit=_LABEL),
                plain(score(last["within"])),
                *(_cell(cells[label, mode]) for mode in modes),
                plain(score(last["winners_sd"])),
            )
        yield plain(f"{inert(source)} → {inert(target)}, {_TITLES[metric]}", "dim")
        yield made


def _checks(report: dict[str, Any]) -> Iterator[RenderableType]:
    failed = [check for check in report["checks"] if not check["passed"]]
    passed = len(report["checks"]) - len(failed)
    yield plain(f"self-checks: {passed} of {len(report['checks'])} passed", "green" if not failed else "red")
    for check in failed:
        yield plain(f"  failed: {check['name']}: {check['detail']}", "red")


def _warnings(report: dict[str, Any]) -> Iterator[RenderableType]:
    for warning in report["warnings"]:
        yield plain(f"warning: {warning}", "yellow")


_PROTOCOLS = {
    "fixed": _fixed,
    "incomplete_training": _fixed,
    "random": _curves,
    "rate_shift": _curves,
    "random_batch": _curves,
    "imbalanced": _scenarios,
    "gaps": _curves,
    "noise": _curves,
    "label_dependent": _scenarios,
    "cross_dataset": _cross,
}
