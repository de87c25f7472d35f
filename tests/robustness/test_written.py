"""Tables for a paper: golden files, hostile names, no formula for a spreadsheet, every number in full."""

from __future__ import annotations

import csv
import io
import re
from pathlib import Path
from typing import Any

import pytest

from mcutune.cli import app as cli
from mcutune.files import write_json
from mcutune.robustness import latex, written
from tests.robustness.made_reports import HOSTILE, hostile, made_report, sample
from tests.robustness.test_compared import beside, report_of, world
from tests.robustness.worlds import make_run, make_table

Entry = dict[str, Any]
GOLDEN = Path(__file__).with_name("golden")
_MARGIN = ("margin", "answer", "p_not_worse", "p_worse")
FORMULAS = ("=1+1", "+1", "-1", "@SUM(A1)", "\t=1", "\r=1", '=HYPERLINK("x")', " =1", "＝1", "x;=1", 'x;" =1')  # noqa: RUF001


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Entry:
    """Of a run with comparators, all protocols' parts filled."""
    home = world(tmp_path_factory.mktemp("home"), noise=0.3).parents[3]
    return report_of(home, margin=0.05)


def test_latex_is_as_it_was() -> None:
    report = made_report(2, folds=1, seeds=1, epochs=2)
    assert latex.latex(report) == (GOLDEN / "report.tex").read_text(encoding="utf-8")


def test_csv_is_as_it_was() -> None:
    assert written.csv(made_report(2, folds=1, seeds=1, epochs=2)) == (GOLDEN / "report.csv").read_text(
        encoding="utf-8"
    )


def test_csv_has_every_number_in_full(report: Entry) -> None:
    lines = iter(csv.DictReader(io.StringIO(written.csv(report))))
    for part in written.PARTS:
        assert report[part], part
        for one in report[part]:
            margin = one.get("margin") or {}
            for key, text in next(lines).items():
                expected = part if key == "part" else margin.get(key) if key in _MARGIN else one.get(key)
                assert (text or None) == expected or float(text) == expected, (part, key)
    assert next(lines, None) is None


def test_csv_a_part_has_the_columns_that_it_fills(report: Entry) -> None:
    each = written.csv_tables(report)
    assert tuple(each) == written.PARTS
    for part, text in each.items():
        lines = list(csv.DictReader(io.StringIO(text)))
        assert len(lines) == len(report[part]) and set(lines[0]) <= {"part", *_MARGIN, *report[part][0]}
    assert "answer" in each["comparisons"] and "value" not in each["comparisons"].splitlines()[0].split(",")


def test_latex_holds_every_comparison(report: Entry) -> None:
    """A table a reference with every place, and one of the means with every reference; each verdict on the margin."""
    found = latex.tables(report)
    for one in report["comparisons"]:
        table = found[f"{one['protocol']}-{one['metric']}-against-{one['reference']}"]
        name = one["combination"] or one["scenario"]
        _holds(table, name, one)
        assert ". The " in table or ". Modalities" in table
        assert f"adjusted by Holm over {one['family']} places" in table and "worse by 0.05? \\\\" in table
    titles = {one["name"]: (one["comparator"] or {"title": one["name"]})["title"] for one in report["models"]}
    assert len(report["mean_differences"]) == 2 * 3 * 4
    for one in report["mean_differences"]:
        _holds(found[f"{one['protocol']}-{one['metric']}-means"], latex._escaped(titles[one["reference"]]), one)
    for part in ("indices", "contributions"):
        for one in report[part]:
            if one["value"] is not None:
                assert f"{one['value']:.3f}".lstrip("-") in found[f"{one['protocol']}-{one['metric']}"]
    assert "contribution of audio & " in found["fixed-ua"] and "relative robustness: " in found["fixed-ua"]


def test_latex_has_a_table_of_means_a_family(tmp_path: Path) -> None:
    """Comparators and models of incomplete rows are adjusted apart under one protocol: no caption counts both."""
    make_run(tmp_path, table := make_table(tmp_path, rows=240))
    beside(tmp_path, table)
    beside(tmp_path, table, word="incomplete_training")
    report = report_of(tmp_path, "random", "incomplete_training")
    found = latex.tables(report)
    for metric in ("wa", "ua", "f1"):
        one, other = found[f"random-{metric}-means"], found[f"random-{metric}-means-incomplete_training"]
        assert "less other models" in one and "adjusted by Holm over 4 models" in one
        assert "less models trained on incomplete rows" in other and "adjusted by Holm over 1 model;" in other
        rows = [[line.split(" & ")[0] for line in of.splitlines() if " & " in line] for of in (one, other)]
        assert rows == [["less", "run:0", "without dpft", "late fusion", "specialists"],
                        ["less", "training missing 0.4"]]  # fmt: skip
        assert one != other and sum(name.startswith("random") and "means" in name for name in found) == 2 * 3


def _holds(table: str, name: str, one: Entry) -> None:
    (line,) = [line for line in table.splitlines() if line.startswith(f"{name} & ")]
    cells = line.replace("$", "").removesuffix(r" \\").split(" & ")
    difference, low, high = (float(part) for part in re.findall(r"[+-]?\d\.\d{3}", cells[1]))
    assert [difference, low, high] == [round(one[key], 3) for key in ("difference", "low", "high")]
    for cell, key in zip(cells[2:4], ("p", "p_holm"), strict=True):
        assert cell == "< 0.001" if one[key] < 0.001 else float(cell) == round(one[key], 3)
    assert cells[4] == ("--" if one["detectable"] is None else f"{one['detectable']:.3f}")
    assert cells[5] == one["margin"]["answer"]


@pytest.mark.parametrize("bad", FORMULAS)
def test_no_cell_of_the_csv_is_a_formula(bad: str) -> None:
    """Whether cells are parted by commas, or by the semicolons of other countries."""
    report = sample()
    for part in written.PARTS:
        for one in report.get(part, []):
            one |= {key: bad for key in ("model", "dataset", "reference") if key in one}
            one |= {"margin": {"margin": 0.1, "answer": bad, "p_not_worse": None, "p_worse": None}}
    for text in (written.csv(report), *written.csv_tables(report).values()):
        for between in ",;":
            lines = list(csv.reader(io.StringIO(text), delimiter=between))
            assert any("'" in cell or "\\" in cell for line in lines for cell in line)
            for cell in (cell for line in lines for cell in line):
                number = re.fullmatch(r"-?[\d.e-]+", cell)
                assert number or not cell.strip(' "').startswith(("=", "+", "-", "@", "＝")), cell  # noqa: RUF001


@pytest.mark.parametrize(
    ("given", "cell"),
    [("=1", "'=1"), ("x;=1", "x;'=1"), ("=1;=1", "'=1;'=1"), ("\t=1", "'\\t=1"), (";\t=1", ";'\\t=1"),
     ("\u202e=1", "\\u202e=1"), ("a-b", "a-b")],
)  # fmt: skip
def test_one_quote_stands_before_a_formula(given: str, cell: str) -> None:
    assert written._text(given) == cell


@pytest.mark.parametrize(
    "bad",
    [*HOSTILE, *FORMULAS, "a & b \\\\ c", "\\input{/etc/passwd}", "50% #1 _x^y~z {", "\n\\end{table}", "[x]", "*"],
)
def test_latex_obeys_no_name(bad: str) -> None:
    """Nothing of a name is left that TeX acts on: commands are the ones of the tables, and braces are in pairs."""
    spoilt = hostile(sample(), bad)
    for one in [*spoilt["measurements"], *spoilt["comparisons"]]:  # at the start of a row
        one["combination"] = one["combination"] and f"{bad}{one['combination']}"
    text = latex.latex(spoilt)
    known = {
        "usepackage", "begin", "end", "centering", "caption", "toprule", "midrule", "bottomrule", "textbackslash",
        "textasciicircum", "textasciitilde", "textless", "textgreater", "textbar", "dots",
    }  # fmt: skip
    assert set(re.findall(r"(?<!\\)(?:\\\\)*\\([A-Za-z]+)", text)) <= known
    bare = re.sub(r"\\[{}$&#_%\\]", "", "\n".join(text.splitlines()[2:]))
    assert bare.count("{") == bare.count("}")
    assert not set("#%^~_") & set(bare.replace("$-$", ""))
    plain = latex.latex(hostile(sample(), "x"))
    assert not re.search(r"\\\\\s*[\[*]", text)  # a row's end would take it for its own
    columns = [[len(re.findall(r"(?<!\\)&", line)) for line in of.splitlines()] for of in (text, plain)]
    assert columns[0] == columns[1]


def test_the_command_writes_both(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MCUTUNE_HOME", str(tmp_path))
    write_json(tmp_path / "runs" / "r" / "robustness" / "report.json", sample())
    tex, table = tmp_path / "t.tex", tmp_path / "t.csv"
    assert cli.run(["report", "r", "--latex", str(tex), "--csv", str(table)]) == 0
    assert tex.read_text() == latex.latex(sample()) and table.read_text() == written.csv(sample())


def test_into_a_folder_it_writes_one_file_a_table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MCUTUNE_HOME", str(tmp_path))
    report = sample()
    for one in report["comparisons"]:
        one["reference"] = "../../x"
    write_json(tmp_path / "runs" / "r" / "robustness" / "report.json", report)
    folder = tmp_path / "paper"
    folder.mkdir()
    before = {path for path in tmp_path.rglob("*") if folder not in path.parents and path.suffix in (".tex", ".csv")}
    assert cli.run(["report", "r", "--latex", str(folder), "--csv", str(folder)]) == 0
    assert {path.name for path in folder.iterdir()} == {
        *(f"{part}.csv" for part in written.PARTS if report.get(part)),
        *(f"{p}-{m}.tex" for p in ("fixed", "random", "cross_dataset") for m in ("wa", "ua", "f1")),
        *(f"fixed-{m}-against-..-..-x.tex" for m in ("wa", "ua", "f1")),
    }
    assert before == set() == {path for path in tmp_path.rglob("*.tex") if path.parent != folder}
    for path in folder.glob("*.tex"):
        assert path.read_text().count(r"\begin{tabular}") == 1 and "booktabs" in path.read_text()
