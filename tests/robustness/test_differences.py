"""Two reports against each other: the numbers of the report's own comparisons, refusals by name, pages."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jsonschema
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mcutune.cli import app as cli
from mcutune.errors import BadInput, Damaged
from mcutune.files import write_json
from mcutune.robustness.difference_page import render_difference
from mcutune.robustness.differences import difference
from mcutune.robustness.evidence import read_manifest, write_manifest
from mcutune.robustness.reports import find_report
from mcutune.robustness.run import certify
from tests.robustness.made_reports import HOSTILE
from tests.robustness.test_html import Parsed
from tests.robustness.worlds import load_fake, make_run, make_table
from tests.schemas import DIFFERENCE, hold

Entry = dict[str, Any]
RANDOM = Path(__file__).parents[2] / "eval_protocols" / "random.yaml"


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Runs `run` and `worse` on one table, `part` on two of its folds, `else` on another table; all measured."""
    home = tmp_path_factory.mktemp("home")
    table = make_table(home)
    make_run(home, table)
    make_run(home, table, "worse", noise=1.5, seeds=3)
    make_run(home, table, "part", folds=("0", "1"), noise=0.5)
    make_run(home, make_table(home, "else", seed=9), "else")
    own = home / "own.yaml"
    own.write_text(RANDOM.read_text().replace("seed: ", "seed: 1"))
    for selection, protocols in (
        ("run", ("fixed", "random")), ("run:0", ("fixed",)), ("worse", ("fixed", "random")), ("part", ("fixed",)),
        ("else", ("fixed",)),
    ):  # fmt: skip
        certify(selection, protocols, home=home, load=load_fake)
    make_run(home, table, "masks", noise=0.8)
    certify("masks", ("fixed", str(own)), home=home, load=load_fake)
    return home


@pytest.fixture(scope="module")
def found(home: Path) -> Entry:
    return diff(home, "run", "worse", 0.05)


def diff(home: Path, a: str, b: str, margin: float | None = None) -> Entry:
    found = difference(find_report(a, home), find_report(b, home), margin)
    hold(found, DIFFERENCE)
    return found


def test_against_trial_0_it_says_what_the_report_says(home: Path) -> None:
    report = json.loads((home / "runs" / "run" / "robustness" / "report.json").read_text())
    found = diff(home, "run", "run:0")
    theirs = [one for one in report["comparisons"] if one["protocol"] == "fixed"]
    assert len(theirs) == len(found["cells"]) == 21
    key = lambda one: (one["metric"], one["combination"])  # noqa: E731 - a short sort key
    for mine, other in zip(sorted(found["cells"], key=key), sorted(theirs, key=key), strict=True):
        shared = (
            "combination",
            "metric",
            "difference",
            "low",
            "high",
            "p",
            "p_holm",
            "detectable",
            "family",
            "n",
            "groups",
        )
        assert {name: mine[name] for name in shared} == {name: other[name] for name in shared}
        assert mine["a"] - mine["b"] == pytest.approx(mine["difference"])
    assert found["left_out"] == [{"protocol": "random", "only_in": "a"}]


def test_the_other_way_round_is_the_same_with_the_other_sign(home: Path, found: Entry) -> None:
    one, other = found, diff(home, "worse", "run", 0.05)
    for mine, theirs in zip(one["cells"] + one["overall"], other["cells"] + other["overall"], strict=True):
        assert mine["difference"] == pytest.approx(-theirs["difference"], abs=1e-12)
        assert mine["p"] == pytest.approx(theirs["p"])
        assert (mine["a"], mine["b"]) == (theirs["b"], theirs["a"])
    cells = [one for one in one["cells"] if one["protocol"] == "fixed"]
    assert any(one["verdict"] == "better" for one in cells)
    assert {one["margin"]["answer"] for one in cells if one["verdict"] == "better"} == {"not worse"}
    assert "A has 2 seeds, B has 3:" in " ".join(one["warnings"])


def test_means_are_of_the_cells_and_one_test_each(found: Entry) -> None:
    for mean in found["overall"]:
        mine = [one for one in found["cells"] if (one["protocol"], one["metric"]) == (mean["protocol"], mean["metric"])]
        if mean["name"] == "mean_all":
            assert mean["difference"] == pytest.approx(sum(one["difference"] for one in mine) / len(mine))
        assert (mean["family"], mean["p"], mean["over"]) == (1, mean["p_holm"], len(mine))
    assert {(one["protocol"], one["name"]) for one in found["overall"]} == {("fixed", "mean_all"), ("random", "area")}


@pytest.mark.parametrize(
    ("b", "words"),
    [
        ("else", "dataset: toy"),
        ("part", "folds 0, 1, 2, 3 against"),
        ("masks", "protocol random: version 1, hash"),
        ("run", "the same checkpoints"),
    ],
)
def test_what_cannot_be_paired_is_refused_by_the_name_of_what_differs(home: Path, b: str, words: str) -> None:
    with pytest.raises(BadInput, match=words):
        diff(home, "run", b)


@pytest.mark.parametrize(
    ("file", "column", "words"),
    [("rows-toy.parquet", "label", "labels of 1 rows"), ("rows-toy.parquet", "group", "speakers of"),
     ("rows-toy.parquet", "fold", "folds of"), ("presence-random-toy.parquet", "audio", "presence under random")],
)  # fmt: skip
def test_evidence_with_other_rows_or_masks_is_refused(
    home: Path, tmp_path: Path, file: str, column: str, words: str
) -> None:
    """Evidence made to fit its manifest again: nothing but the comparison can notice."""
    source = find_report("worse", home).evidence
    folder = tmp_path / source.name
    folder.mkdir()
    for path in source.iterdir():
        (folder / path.name).write_bytes(path.read_bytes())
    table = pq.read_table(folder / file)
    values = table[column].to_pylist()
    values[0] = {"label": lambda v: (v + 1) % 4, "audio": lambda v: not v}.get(
        column, lambda v: next(x for x in values if x != v)
    )(values[0])
    changed = (
        pa.array(values).cast(table.schema.field(column).type)
        if column not in ("group", "fold")
        else pa.array(values).dictionary_encode()
    )
    table = table.set_column(table.column_names.index(column), column, changed)
    pq.write_table(table, folder / file, write_page_checksum=True)
    facts = read_manifest(folder)["facts"]
    (folder / "manifest.json").unlink()
    write_manifest(folder, facts)
    with pytest.raises(BadInput, match=words):
        difference(find_report("run", home), find_report(str(folder), home))


def test_a_report_is_found_by_name_folder_and_file(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(home)
    folder = home / "runs" / "run" / "robustness"
    names = ("run", str(folder), str(folder / "report.json"), "runs/run", str(find_report("run", home).evidence))
    assert len({find_report(name, home).evidence.resolve() for name in names}) == 1
    assert find_report("run:0", home).evidence.parent.name == "trial-0"


@pytest.mark.parametrize("given", ["nope", "run:7", "run:x", "", "\0", "../../etc/passwd", "/", "x" * 5000, "run:"])
def test_no_report_is_bad_input(home: Path, given: str) -> None:
    with pytest.raises(BadInput):
        find_report(given, home)


def test_a_report_that_is_not_of_its_evidence_is_refused(home: Path, tmp_path: Path) -> None:
    source = home / "runs" / "run" / "robustness" / "report.json"
    report = json.loads(source.read_text())
    for change in ({"folder": "../x"}, {"folder": 3}):
        bad = {
            **report,
            "provenance": {**report["provenance"], "evidence": {**report["provenance"]["evidence"], **change}},
        }
        write_json(tmp_path / "report.json", bad)
        with pytest.raises(Damaged, match="names no evidence folder"):
            find_report(str(tmp_path), home)
    write_json(tmp_path / "report.json", {"schema": 1})
    with pytest.raises(Damaged, match="is not a report"):
        find_report(str(tmp_path), home)


def test_the_command(
    home: Path, found: Entry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("MCUTUNE_HOME", str(home))
    monkeypatch.setenv("COLUMNS", "80")
    page = tmp_path / "difference.html"
    assert cli.run(["diff", "run", "worse", "--margin", "0.02", "--html", str(page)]) == 0
    shown = capsys.readouterr().out
    assert max(map(len, shown.splitlines())) <= 80
    assert "…" not in shown
    assert "audio+text+video" in shown and "mean of 7" in shown and "rate=0.7" in shown
    parsed = Parsed(page.read_text())
    assert parsed.faults == [] and parsed.stack == []
    assert cli.run(["diff", "run", "worse", "--json", "--margin", "0.05"]) == 0
    assert json.loads(capsys.readouterr().out) == found
    assert cli.run(["diff", "run", "else"]) == 2
    assert capsys.readouterr().err.count("\n") == 1
    assert cli.run(["diff", "run", "worse", "--margin", "-1"]) == 2


@pytest.mark.parametrize("bad", HOSTILE[:4] + HOSTILE[9:12])
def test_names_on_the_page_are_never_obeyed(found: Entry, bad: str) -> None:
    document = json.loads(json.dumps(found))
    plain = Parsed(render_difference(document))
    for side in ("a", "b"):
        document[side] |= {key: f"{document[side][key]}{bad}" for key in ("given", "model", "run", "evidence")}
    document["warnings"] = [f"{one}{bad}" for one in document["warnings"]]
    document["data"]["table"] = bad
    made = render_difference(document)
    assert Parsed(made).shape == plain.shape
    assert all(c.isprintable() or c == "\n" for c in made)


@pytest.mark.parametrize("part", ["cells", "overall"])
def test_the_schema_lets_nothing_else_pass(found: Entry, part: str) -> None:
    first, *rest = found[part]
    for spoilt in ({**first, "more": 1}, {**first, "p": 2}, {key: one for key, one in first.items() if key != "low"}):
        with pytest.raises(jsonschema.ValidationError):
            hold({**found, part: [spoilt, *rest]}, DIFFERENCE)
