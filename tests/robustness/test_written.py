"""Tables for a paper: golden files, hostile names, no formula for a spreadsheet, every number in full."""

from __future__ import annotations

import csv
import io
import re
from pathlib import Path

import pytest

from mcutune.cli import app as cli
from mcutune.files import write_json
from mcutune.robustness import written
from tests.robustness.made_reports import HOSTILE, hostile, made_report, sample

GOLDEN = Path(__file__).with_name("golden")
FORMULAS = ("=1+1", "+1", "-1", "@SUM(A1)", "\t=1", "\r=1", '=HYPERLINK("x")')


def test_latex_is_as_it_was() -> None:
    report = made_report(2, folds=1, seeds=1, epochs=2)
    assert written.latex(report) == (GOLDEN / "report.tex").read_text(encoding="utf-8")


def test_csv_is_as_it_was() -> None:
    assert written.csv(made_report(2, folds=1, seeds=1, epochs=2)) == (GOLDEN / "report.csv").read_text(
        encoding="utf-8"
    )


def test_csv_has_every_number_in_full() -> None:
    report = sample()
    lines = list(csv.DictReader(io.StringIO(written.csv(report))))
    assert len(lines) == len(report["measurements"]) + len(report["summaries"])
    for line, one in zip(lines, [*report["measurements"], *report["summaries"]], strict=True):
        for key in ("value", "low", "high"):
            assert (float(line[key]) if line[key] else None) == one[key]
        assert (line["metric"], line["model"], int(line["n"])) == (one["metric"], one["model"], one["n"])
        assert line["summary"] == one.get("name", "")


@pytest.mark.parametrize("bad", FORMULAS)
def test_no_cell_of_the_csv_is_a_formula(bad: str) -> None:
    report = sample()
    for one in [*report["measurements"], *report["summaries"]]:
        one["model"] = one["dataset"] = bad
    for line in csv.DictReader(io.StringIO(written.csv(report))):
        for key in ("model", "dataset"):
            assert not line[key].startswith(("=", "+", "-", "@", "\t", "\r"))
            assert line[key].startswith("'") or line[key][0] == "\\"


@pytest.mark.parametrize(
    "bad", [*HOSTILE, *FORMULAS, "a & b \\\\ c", "\\input{/etc/passwd}", "50% #1 _x^y~z {", "\n\\end{table}"]
)
def test_latex_obeys_no_name(bad: str) -> None:
    """Nothing of a name is left that TeX acts on: commands are the ones of the tables, and braces are in pairs."""
    text = written.latex(hostile(sample(), bad))
    known = {
        "usepackage", "begin", "end", "centering", "caption", "toprule", "midrule", "bottomrule", "textbackslash",
        "textasciicircum", "textasciitilde", "textless", "textgreater", "textbar", "dots",
    }  # fmt: skip
    assert set(re.findall(r"(?<!\\)(?:\\\\)*\\([A-Za-z]+)", text)) <= known
    bare = re.sub(r"\\[{}$&#_%\\]", "", "\n".join(text.splitlines()[2:]))
    assert bare.count("{") == bare.count("}")
    assert not set("#%^~_") & set(bare.replace("$-$", ""))
    plain = written.latex(hostile(sample(), "x"))
    columns = [[len(re.findall(r"(?<!\\)&", line)) for line in of.splitlines()] for of in (text, plain)]
    assert columns[0] == columns[1]


def test_the_command_writes_both(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MCUTUNE_HOME", str(tmp_path))
    write_json(tmp_path / "runs" / "r" / "robustness" / "report.json", sample())
    tex, table = tmp_path / "t.tex", tmp_path / "t.csv"
    assert cli.run(["report", "r", "--latex", str(tex), "--csv", str(table)]) == 0
    assert tex.read_text() == written.latex(sample()) and table.read_text() == written.csv(sample())
