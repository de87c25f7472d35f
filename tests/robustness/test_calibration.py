"""Calibration against loops over stored rows, against models whose confidence is known, and against files tampered."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy import special

from mcutune.data.splits import split_of
from mcutune.domain.task import Task
from mcutune.errors import Damaged
from mcutune.files import canonical_json
from mcutune.robustness.calibration import BINS, Scored, calibrated, debiased_errors, fit, measures
from mcutune.robustness.evidence import read_manifest
from mcutune.robustness.rebuild import rebuild
from mcutune.robustness.run import certify
from mcutune.robustness.statistics import Resampling
from mcutune.robustness.stored import Store
from mcutune.robustness.validation import read_validation
from tests.robustness.test_certify import certified, evidence
from tests.robustness.worlds import load_fake, make_run, make_table

Entry = dict[str, Any]


def made(rows: int, temperature: float, seed: int, groups: int = 20) -> Scored:
    """Rows whose truth is drawn from softmax(logits / temperature): one seed, two combinations, two folds."""
    random = np.random.default_rng(seed)
    logits = random.normal(0, 2, (1, 2, rows, 3)).astype(np.float32)
    logits[:, 1] = logits[:, 0]
    p = special.softmax(logits[0, 0].astype(float) / temperature, axis=1)
    truth = (random.random(rows)[:, None] > p.cumsum(axis=1)).sum(axis=1).clip(max=2)
    return Scored(logits, np.ones((1, 2, rows), bool), truth, np.arange(rows) % 2, np.arange(rows) % groups)


def found_in(entries: list[Entry], **where: Any) -> Entry:
    (one,) = [e for e in entries if all(e[key] == value for key, value in where.items())]
    return one


def test_a_known_temperature_is_found_and_repairs_the_confidence() -> None:
    fitted = fit(made(8000, 2.5, 0), 2, 0.2)
    assert fitted.temperature == pytest.approx(np.full((1, 2), 2.5), rel=0.06)
    assert fitted.rows.tolist() == [[4000, 4000]]
    of = calibrated(made(8000, 2.5, 1), fitted)
    entries = list(measures(of, ["a", "b"], Resampling()))
    before, after = (found_in(entries, combination="a", measure="ece", stage=stage) for stage in ("before", "after"))
    assert before["value"] > 0.15 > 0.03 > after["value"]
    debiased = found_in(entries, combination="a", measure="ece_debiased", stage="after")
    assert debiased["value"] < 0.6 * after["value"]
    worse, better = (found_in(entries, combination="b", measure="nll", stage=stage) for stage in ("before", "after"))
    assert better["high"] < worse["low"]


def test_answers_are_wrong_as_seldom_as_was_asked_for() -> None:
    for risk in (0.1, 0.2):
        fitted = fit(made(8000, 1.0, 0), 2, risk)
        entries = list(measures(calibrated(made(8000, 1.0, 1), fitted), ["a", "b"], Resampling()))
        one = found_in(entries, combination="a", measure="risk", stage="after")
        assert one["value"] == pytest.approx(risk, abs=0.025)
        assert one["low"] < one["value"] < one["high"]
    hopeless = fit(made(400, 1e9, 0), 2, 0.05)
    entries = list(measures(calibrated(made(400, 1e9, 1), hopeless), ["a", "b"], Resampling()))
    assert found_in(entries, combination="a", measure="coverage", stage="after")["value"] < 0.1


def test_no_answer_is_no_risk() -> None:
    fitted = fit(made(400, 1.0, 0), 2, 0.2)
    fitted.threshold[:] = np.inf
    entries = list(measures(calibrated(made(400, 1.0, 1), fitted), ["a", "b"], Resampling()))
    assert found_in(entries, combination="a", measure="coverage", stage="after")["value"] == 0
    assert found_in(entries, combination="a", measure="risk", stage="after")["value"] is None


def test_less_chance_is_near_zero_for_a_calibrated_model() -> None:
    """The plain error of a calibrated model is far above 0 with few rows; without chance it is not, on average."""
    plain, debiased = [], []
    for seed in range(30):
        data = made(600, 1.0, seed)
        of = calibrated(data, fit(data, 2, 0.2))
        debiased.append(debiased_errors(of.sums)[0, 0])
        rows = of.sums[..., 2 * (BINS + 2)].sum(axis=0)[0, 0]
        plain.append(np.abs(of.sums[:, 0, 0, :BINS].sum(axis=0)).sum() / rows)
    assert np.mean(plain) > 0.04
    assert np.mean(debiased) < 0.7 * np.mean(plain)


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    home = tmp_path_factory.mktemp("home")
    make_run(home, make_table(home, gaps=0.1))
    return home


@pytest.fixture(scope="module")
def report(home: Path) -> Entry:
    return certified(home, "best", "fixed")


def slow(folder: Path, label: str) -> dict[str, float]:
    """Measures by loops over pandas rows, with the report's temperatures, model 0."""
    report = rebuild(folder)
    temperature = {
        (t["fold"], t["seed"]): t["temperature"] for t in report["calibration"]["temperatures"] if t["model"] == "run"
    }
    rows = pd.read_parquet(folder / "rows-toy.parquet").astype({"id": str})
    stored = pd.read_parquet(folder / "predictions-0-toy.parquet").astype({"id": str, "fold": str, "combination": str})
    stored = stored[stored.combination == label].merge(rows[["id", "label"]], on="id")
    found: dict[str, list[float]] = {"ece": [], "nll": [], "brier": []}
    for _, mine in stored.groupby("seed"):
        scored = []
        for one in mine.itertuples():
            logits = np.array([getattr(one, f"logit_{k}") for k in range(4)]) / temperature[one.fold, one.seed]
            p = special.softmax(logits)
            scored.append(
                (p.max(), p.argmax() == one.label, -np.log(p[one.label]), ((p - np.eye(4)[one.label]) ** 2).sum())
            )
        scored.sort(key=lambda row: row[0])
        bins = [scored[-(-b * len(scored) // 15) : -(-(b + 1) * len(scored) // 15)] for b in range(15)]
        found["ece"].append(sum(abs(sum(r - c for c, r, _, _ in part)) for part in bins) / len(scored))
        found["nll"].append(np.mean([row[2] for row in scored]))
        found["brier"].append(np.mean([row[3] for row in scored]))
    return {key: float(np.mean(values)) for key, values in found.items()}


@pytest.mark.parametrize("label", ["audio", "audio+text+video"])
def test_measures_are_those_of_the_slow_twin(home: Path, report: Entry, label: str) -> None:
    expected = slow(evidence(home, report), label)
    for measure, value in expected.items():
        one = found_in(
            report["calibration"]["measures"], model="run", combination=label, measure=measure, stage="after"
        )
        assert one["value"] == pytest.approx(value, abs=1e-4 if measure == "ece" else 1e-6)
        assert one["low"] < one["value"] < one["high"]


def test_temperatures_are_fitted_on_validation_rows_alone(home: Path, report: Entry) -> None:
    """The stored rows are those of the split; a test label that changes moves no temperature."""
    from mcutune.data.table import open_table

    folder, table = evidence(home, report), open_table("toy", home=home)
    rows = pd.read_parquet(folder / "validation-toy.parquet").astype({"id": str, "fold": str})
    for fold, mine in rows.groupby("fold"):
        split = split_of(table, str(fold))
        expected = split.validation[table.labelled[split.validation]]
        assert sorted(mine.id) == sorted(table.ids[expected])
        assert not set(mine.id) & set(table.ids[split.test])
    counts = {t["rows"] for t in report["calibration"]["temperatures"]}
    assert counts == {int(n) for n in rows.groupby("fold").size()}
    assert len(report["calibration"]["temperatures"]) == 2 * 4 * 2  # models, folds, seeds


def test_the_report_is_the_same_byte_for_byte_with_calibration(home: Path, report: Entry) -> None:
    again = rebuild(evidence(home, report))
    assert canonical_json(again) == canonical_json(report)
    assert report["calibration"]["reason"] is None
    assert len(report["calibration"]["reliability"]) == 2 * 7 * 2


def test_missing_validation_predictions_are_noticed(home: Path, report: Entry) -> None:
    folder = evidence(home, report)
    manifest = read_manifest(folder)
    store = Store(folder, manifest)
    data = (store, 0, "toy", ("0", "1", "2", "3"))
    from mcutune.domain.combination import Modalities

    names = Modalities(("audio", "text", "video"))
    seeds = {fold: (0, 1) for fold in "0123"}
    assert read_validation(*data, names, names.labels, seeds) is not None
    with pytest.raises(Damaged, match="seed that was not trained"):
        read_validation(*data, names, names.labels, {fold: (0,) for fold in "0123"})
    path = folder / "validation-predictions-0-toy.parquet"
    whole = path.read_bytes()
    try:
        path.write_bytes(whole[:500] + bytes([whole[500] ^ 1]) + whole[501:])
        with pytest.raises(Damaged):
            rebuild(folder)
    finally:
        path.write_bytes(whole)


def test_the_page_and_the_terminal_show_it(report: Entry) -> None:
    from rich.console import Console

    from mcutune.cli.render_report import report_view
    from mcutune.robustness.html import render

    shown = render(report)
    one = found_in(report["calibration"]["measures"], model="run", combination="audio", measure="ece", stage="before")
    assert f"<b>{one['value']:.3f}</b>" in shown
    assert shown.count("accuracy against confidence, a point a bin") == 7
    console = Console(width=200, record=True, file=io.StringIO())
    console.print(report_view(report))
    assert "calibration error, before → after one temperature: audio+text+video" in console.export_text()


def test_values_say_why_not(tmp_path: Path) -> None:
    make_run(tmp_path, make_table(tmp_path, task=Task.REGRESSION), seeds=1)
    report = certify("best", ["fixed"], home=tmp_path, load=load_fake, against=())
    assert report["calibration"]["reason"] == "a model of values states no confidence"
    assert report["calibration"]["measures"] == []
