"""The robustness report in the terminal: 80 columns, hostile names inert, many modalities."""

from __future__ import annotations

import copy
import io
import json
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from mcutune.cli.render_report import report_view
from mcutune.cli.screen import shares, sparkline
from mcutune.cli.text import score

SAMPLE = Path(__file__).parents[1] / "robustness" / "sample_report.json"


@pytest.fixture
def report() -> dict[str, Any]:
    return json.loads(SAMPLE.read_text(encoding="utf-8"))


def drawn(report: dict[str, Any], *, colour: bool = False, width: int = 80) -> str:
    console = Console(
        file=io.StringIO(), width=width, force_terminal=colour, color_system="truecolor" if colour else None,
        markup=False, emoji=False, highlight=False,
    )  # fmt: skip
    console.print(report_view(report))
    return console.file.getvalue()


def test_it_shows_every_combination_and_the_curve_in_80_columns(report: dict[str, Any]) -> None:
    lines = drawn(report).splitlines()
    assert max(map(len, lines)) <= 80
    mine = [m for m in report["measurements"] if m["model"] == report["models"][0]["name"]]
    fixed = [m for m in mine if m["protocol"] == "fixed" and m["metric"] == "ua"]
    for measurement in fixed:
        row = next(line for line in lines if line.startswith(f"{measurement['combination']} "))
        assert f"{measurement['value']:.3f}"[1:] in row
    assert any("█▇▆▅▄▃▂▁" in line for line in lines)
    assert "…" not in "".join(lines)


@pytest.mark.parametrize("width", [40, 60, 80, 200])
def test_no_interval_is_cut(report: dict[str, Any], width: int) -> None:
    long = "wrist temperature of the left arm"
    text = json.dumps(report).replace("audio", long)
    lines = drawn(json.loads(text), width=width).splitlines()
    assert max(map(len, lines)) <= width
    assert "…" not in "".join(lines)
    mine = [m for m in report["measurements"] if m["model"] == report["models"][0]["name"]]
    squeezed = [" ".join(line.split()) for line in lines]
    for one in (m for m in mine if m["protocol"] == "fixed"):
        cell = f"{score(one['value'])} {score(one['low'])}–{score(one['high'])}"
        assert any(cell in line for line in squeezed), cell


def test_hostile_names_are_shown_and_not_obeyed(report: dict[str, Any]) -> None:
    hostile = "\x1b[2J\x1b]0;owned\x07[bold red]x[/]\u202eevil"
    text = json.dumps(report).replace("msp_improv", "TARGET")
    hostile_report = json.loads(text.replace("TARGET", json.dumps(hostile)[1:-1]))
    hostile_report["warnings"] = [hostile]
    hostile_report["checks"][0] = {"name": hostile, "passed": False, "detail": hostile}
    shown = drawn(hostile_report)
    assert "\x1b" not in shown
    assert "\x07" not in shown
    assert "\u202e" not in shown
    assert "[bold red]x[/]" in shown
    assert "\x1b[2J" not in drawn(hostile_report, colour=True)


def test_a_better_value_is_lighter_and_mae_counts_the_other_way() -> None:
    assert shares([0.2, 0.4, 0.3]) == pytest.approx([0.0, 1.0, 0.5])
    assert shares([0.2, 0.4, 0.3], higher_is_better=False) == pytest.approx([1.0, 0.0, 0.5])
    assert shares([0.2, 0.2]) == [0.5, 0.5]
    assert sparkline([3.0, 2.0, 1.0]) == "█▅▁"


def test_of_many_combinations_the_worst_are_shown(report: dict[str, Any]) -> None:
    template = next(m for m in report["measurements"] if m["protocol"] == "fixed" and m["metric"] == "wa")
    many = []
    for number in range(63):
        row = copy.deepcopy(template)
        row.update(combination=f"c{number:02d}", value=0.3 + number / 100, low=None, high=None)
        many.append(row)
    report["measurements"] = many
    shown = drawn(report)
    assert "the 10 worst of 63 combinations" in shown
    assert "c00" in shown
    assert "c62" not in shown
