"""A gate that cannot be decided is refused before a label is read; scores in per cent; calibration as a ceiling."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from mcutune.cli import app as cli
from mcutune.domain.task import Task
from mcutune.errors import Problems
from mcutune.robustness.fitting import planned, refuse_unfit
from mcutune.robustness.gate import load_gate
from mcutune.robustness.job import prepare
from mcutune.robustness.openings import FILE as OPENINGS
from mcutune.robustness.reports import find_report
from mcutune.robustness.run import certify
from tests.robustness.test_gate import decided, gate_file
from tests.robustness.worlds import load_fake, make_run, make_table

Entry = dict[str, Any]
_KEYS = {"measurements": ("combination", "scenario"), "summaries": ("name", "scenario"), "indices": ("name",)}


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    home = tmp_path_factory.mktemp("home")
    make_run(home, table := make_table(home, rows=240))
    make_run(home, table, "fresh")
    make_run(home, make_table(home, "far", rows=120, task=Task.REGRESSION), "values")
    make_table(home, "other", rows=120, modalities=("text", "video"), seed=5)
    return home


def places(report: Entry, part: str) -> set[tuple[Any, ...]]:
    subject = report["models"][0]["name"]
    mine = [one for one in report[part] if one["model"] == subject and one["metric"] is not None]
    return {(one["protocol"], one["metric"], *(one[key] for key in _KEYS[part])) for one in mine}


@pytest.mark.parametrize(
    ("run", "protocols", "target"),
    [("run", ("all",), "other"), ("values", ("fixed", "gaps"), None), ("run", ("random", "noise"), None)],
)
def test_what_is_planned_is_what_the_report_has(
    home: Path, run: str, protocols: tuple[str, ...], target: str | None
) -> None:
    """The twin of the planning is a report itself."""
    job = prepare(run, protocols, home, target, None)
    report = certify(run, protocols, home=home, target=target, load=load_fake)
    for part in _KEYS:
        expected = {one for one in places(report, part) if one[2] != "learning"}
        assert places(planned(job), part) == expected
    measures = [
        {(one["measure"], one["stage"], one["combination"]) for one in of["calibration"]["measures"]
         if one["model"] == run and one["measure"] != "ece_debiased"}
        for of in (planned(job), report)
    ]  # fmt: skip
    assert measures[0] == measures[1]
    assert (planned(job)["calibration"]["reason"] is None) == (report["calibration"]["reason"] is None)


UNFIT = [
    ("metric: ua, protocol: gaps, combination: audio, at_least: 0.5", "fixed"),
    ("metric: mae, combination: audio, at_most: 0.5", "wa, ua, f1"),
    ("metric: ua, combination: smell, at_least: 0.5", "audio+text"),
    ("metric: ua, scenario: rate=0.5, at_least: 0.5", ""),
    ("metric: ua, summary: area, at_least: 0.5", "mean_all"),
    ("metric: ua, combination: audio, not_worse_than: {model: 'run:7', margin: 0.1}", "run:0"),
    ("metric: ece, combination: smell, at_most: 0.1", "audio+text"),
]


@pytest.mark.parametrize(("condition", "word"), UNFIT)
def test_what_will_not_be_measured_is_refused_before_a_label_is_read(
    home: Path, tmp_path: Path, condition: str, word: str
) -> None:
    gate = gate_file(tmp_path, "metric: ua, combination: audio, at_least: 0.1", condition.replace("run:7", "fresh:7"))
    with pytest.raises(Problems) as caught:
        certify("fresh", ("fixed",), home=home, gate=load_gate(gate), load=load_fake)
    assert "floor.yaml:6: conditions.1" in str(caught.value)
    assert word.replace("run:0", "fresh:0") in str(caught.value)
    assert not list((home / "runs" / "fresh").rglob(OPENINGS))
    assert not (home / "runs" / "fresh" / "robustness").exists()


def test_the_command_refuses_it_too(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("searched", "refuse_untrusted"):  # there is no ledger here
        monkeypatch.setattr(f"mcutune.cli.searched.{name}", lambda *given: None)
    monkeypatch.setenv("MCUTUNE_HOME", str(home))
    gate = gate_file(tmp_path, "metric: ua, protocol: gaps, combination: audio, at_least: 0.1")
    assert cli.run(["robustness", "--ckpt", "fresh", "--protocol", "fixed", "--gate", gate]) == 2
    assert "is measured under protocol 'gaps' (valid: fixed)" in capsys.readouterr().err
    assert not (home / "runs" / "fresh" / "robustness").exists()


def test_a_gate_that_fits_is_not_refused(home: Path, tmp_path: Path) -> None:
    job = prepare("run", ("fixed", "random"), home, None, None)
    refuse_unfit(load_gate("example"), job)
    fits = gate_file(
        tmp_path, "metric: ua, combination: video+audio, not_worse_than: {model: 'run:0', margin: 0.1}",
        "metric: ece, combination: audio, at_most: 0.2", "metric: nll, combination: audio, stage: after, at_most: 2",
        "metric: ua, index: relative, at_least: 0.8",
    )  # fmt: skip
    refuse_unfit(load_gate(fits), job)
    with pytest.raises(Problems, match="no ece: a model of values states no confidence"):
        refuse_unfit(load_gate(gate_file(tmp_path, "metric: ece, combination: audio, at_most: 0.2")),
                     prepare("values", ("fixed",), home, None, None))  # fmt: skip


@pytest.mark.parametrize(
    ("condition", "word"),
    [
        ("metric: ua, combination: audio, at_least: 70", "did you mean 0.70?"),
        ("metric: wa, summary: worst, at_least: 72.5", "did you mean 0.725?"),
        ("metric: f1, scenario: rate=0.5, at_least: 1.01", "did you mean 0.0101?"),
        ("metric: acc2, combination: audio, at_least: 300", "(got 300)"),
        ("metric: ua, combination: audio, drop_at_most: 5", "did you mean 0.05?"),
        ("metric: ua, combination: audio, not_worse_than: {model: x, margin: 2}", "did you mean 0.02?"),
        ("metric: ua, combination: audio, at_least: -0.1", "(got -0.1)"),
        ("metric: ece, combination: audio, at_most: 5", "did you mean 0.05?"),
    ],
)
def test_a_score_in_per_cent_is_refused(tmp_path: Path, condition: str, word: str) -> None:
    with pytest.raises(Problems) as caught:
        load_gate(gate_file(tmp_path, condition))
    assert "between 0 and 1" in str(caught.value) and word in str(caught.value)


@pytest.mark.parametrize(
    "condition",
    ["metric: mae, combination: audio, at_most: 3", "metric: ua, index: relative, at_least: 1.2",
     "metric: pearson, combination: audio, at_least: -0.5", "metric: nll, combination: audio, at_most: 1.5"],
)  # fmt: skip
def test_what_may_be_above_one_is_not(tmp_path: Path, condition: str) -> None:
    load_gate(gate_file(tmp_path, condition))


def test_calibration_is_held_below_a_ceiling(home: Path, tmp_path: Path) -> None:
    certify("run", ("fixed",), home=home, load=load_fake)
    found = find_report("run", home)
    assert found.report is not None
    of = {
        one["stage"]: one for one in found.report["calibration"]["measures"]
        if (one["model"], one["measure"], one["combination"]) == ("run", "ece", "audio+video")
    }  # fmt: skip
    verdict = decided(
        home, tmp_path, f"metric: ece, combination: video+audio, at_most: {of['before']['high']!r}",
        f"metric: ece, combination: audio+video, stage: after, at_most: {of['after']['low'] / 2!r}",
        f"metric: ece, combination: audio+video, at_most: {of['before']['value']!r}",
    )  # fmt: skip
    one, after, middle = verdict["conditions"][1:]
    assert [of["outcome"] for of in (one, after, middle)] == ["pass", "fail", "inconclusive"]
    assert (one["value"], one["low"], one["high"]) == tuple(of["before"][key] for key in ("value", "low", "high"))
    assert after["condition"].startswith("ece audio+video, after the temperature at most")
