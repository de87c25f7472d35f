"""`robustness --margin`: every paired comparison says whether the model is worse by the margin or more."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import pytest
from scipy import stats
from statsmodels.stats.multitest import multipletests

from mcutune.cli import app as cli
from mcutune.cli.render_report import report_view
from mcutune.cli.screen import console
from mcutune.robustness import html
from mcutune.robustness.equivalence import NOT_WORSE, UNDECIDED, WORSE
from mcutune.robustness.rebuild import rebuild, stored
from tests.robustness.test_compared import SCHEMA, report_of, world
from tests.robustness.worlds import make_run, make_table

Entry = dict[str, Any]
MARGIN, KEYS = 0.05, ("p_not_worse", "p_worse")


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return world(tmp_path_factory.mktemp("home"), noise=0.3).parents[3]


@pytest.fixture(scope="module")
def report(home: Path) -> Entry:
    return report_of(home, margin=MARGIN)


def twin(home: Path, report: Entry, number: int, mean: bool) -> tuple[list[float], list[float]]:
    """Raw p of "not worse" and of "worse" for each cell, or the mean over cells, of UA against a model: leaving out
    one group after the other, all by loops."""
    folder = home / "runs" / "run" / "robustness" / report["provenance"]["evidence"]["folder"]
    blocks = next(one for one in stored(folder)[2] if one.entry["id"] == "fixed").blocks
    sums = [block.sums for block in (blocks[0], blocks[number])]
    groups, rows = len(sums[0]), blocks[0].group_rows[:, 0]

    def gain(kept: list[int]) -> np.ndarray:
        values = []
        for one in sums:
            counts = one[kept].sum(axis=0).reshape(*one.shape[1:3], 4, 4)
            recalls = np.array([[(np.diag(cell) / cell.sum(axis=1)).mean() for cell in of] for of in counts])
            values.append(recalls.mean(axis=0))
        apart = values[0] - values[1]
        return apart.mean(keepdims=True) if mean else apart

    every = list(range(groups))
    left = np.array([gain([g for g in every if g != out]) for out in every])
    error = np.sqrt((groups - 1) / groups * ((left - left.mean(axis=0)) ** 2).sum(axis=0))
    t, freedom = (gain(every) + MARGIN) / error, rows.sum() ** 2 / (rows**2).sum() - 1
    return stats.t.sf(t, freedom).tolist(), stats.t.cdf(t, freedom).tolist()


def test_answers_of_cells_are_those_of_a_slow_twin(home: Path, report: Entry) -> None:
    """A family is the cells of a protocol and metric against one model."""
    seen = set()
    for number, reference in ((1, "run:0"), (2, "run:without_dpft")):
        kept = ("fixed", "ua", reference)
        family = [one for one in report["comparisons"] if (one["protocol"], one["metric"], one["reference"]) == kept]
        for key, raw in zip(KEYS, twin(home, report, number, False), strict=True):
            expected = multipletests(raw, method="holm")[1]
            assert [one["margin"][key] for one in family] == pytest.approx(expected, abs=1e-9)
        for one in family:
            of = one["margin"]
            answer = NOT_WORSE if of["p_not_worse"] <= 0.025 else WORSE if of["p_worse"] <= 0.025 else UNDECIDED
            assert (of["margin"], of["answer"]) == (MARGIN, answer)
            seen.add(answer)
    assert seen == {NOT_WORSE, UNDECIDED}


def test_answers_of_means_are_those_of_a_slow_twin(home: Path, report: Entry) -> None:
    """A family is all models that the subject is compared with under a protocol and metric."""
    family = [one for one in report["mean_differences"] if (one["protocol"], one["metric"]) == ("fixed", "ua")]
    assert [one["family"] for one in family] == [4] * 4
    raw = [twin(home, report, number, True) for number in range(1, 5)]
    for place, key in enumerate(KEYS):
        expected = multipletests([of[place][0] for of in raw], method="holm")[1]
        assert [one["margin"][key] for one in family] == pytest.approx(expected, abs=1e-9)


def test_it_is_stored_rebuilt_and_valid(home: Path, report: Entry) -> None:
    jsonschema.validate(report, SCHEMA)
    assert report["provenance"]["statistics"]["margin"] == MARGIN
    folder = home / "runs" / "run" / "robustness" / report["provenance"]["evidence"]["folder"]
    assert rebuild(folder) == report
    for one in report["comparisons"]:
        jsonschema.validate(one["margin"], {**SCHEMA["$defs"]["margin"], "type": "object"})
    spoilt = {**report["comparisons"][0], "margin": {"margin": 0.02, "answer": "perhaps"}}
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate({**report, "comparisons": [spoilt]}, SCHEMA)


def test_page_terminal_and_sentences_say_it(report: Entry) -> None:
    page = html.render(report)
    assert page.count("worse by 0.05?</th>") >= 6
    assert "✓ no" in page and "? not shown" in page
    assert f"worse by {MARGIN:g} or more" in report["summary"][0]
    told = {one["key"]: one["answer"] for one in report["answers"]}
    assert f"worse by {MARGIN:g} or more." in told["without_dpft"]
    out = io.StringIO()
    console(file=out, width=200).print(report_view(report))
    assert f"worse by {MARGIN:g} or more" in out.getvalue()


def test_a_report_of_two_models_says_it_in_a_line(tmp_path: Path) -> None:
    make_run(tmp_path, make_table(tmp_path, rows=300))
    report, out = report_of(tmp_path, "fixed", margin=0.5), io.StringIO()
    console(file=out, width=200).print(report_view(report))
    assert "not worse than run:0 by 0.5 or more, UA (fixed): shown in 7 of 7, refuted in 0; on average not worse" in (
        out.getvalue()
    )


def test_without_a_margin_nothing_is_said(home: Path, report: Entry) -> None:
    without = report_of(home)
    assert without["provenance"]["statistics"]["margin"] is None
    for part in ("comparisons", "mean_differences"):
        assert [{**one, "margin": None} for one in report[part]] == without[part]
    assert without["measurements"] == report["measurements"]
    page = html.render(without)
    assert "worse by 0" not in page and "✓ no" not in page


@pytest.mark.parametrize("margin", ["0", "-0.1", "nan"])
def test_a_margin_that_says_nothing_is_refused_before_anything_is_measured(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], margin: str
) -> None:
    make_run(tmp_path, make_table(tmp_path, rows=100))
    monkeypatch.setenv("MCUTUNE_HOME", str(tmp_path))
    assert cli.run(["robustness", "--ckpt", "run", "--margin", margin]) == 2
    assert "says nothing" in capsys.readouterr().err
    assert not (tmp_path / "runs" / "run" / "robustness").exists()
