"""The evaluator suspects itself: models that leak, stand still or break are told, and so are odd tables."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mcutune.data.splits import folds_of, split_of
from mcutune.domain.task import Task
from mcutune.errors import CheckFailed
from mcutune.files import read_json
from mcutune.robustness.batches import batch_of
from mcutune.robustness.checks import shared_groups, split_check
from mcutune.robustness.rebuild import rebuild
from mcutune.robustness.run import certify
from mcutune.robustness.stored import Rows
from tests.reference.report_twin import fixed_value, random_value
from tests.robustness.test_certify import Report, certified, evidence, measured
from tests.robustness.worlds import FakeModel, load_fake, make_run, make_table


def failing(home: Path, **given: Any) -> tuple[Report, str]:
    """The report that was written, and what the failure says."""
    with pytest.raises(CheckFailed) as caught:
        certify("best", ["fixed"], home=home, **{"load": load_fake, **given})
    assert caught.value.exit_code == 7
    report = read_json(home / "runs" / "run" / "robustness" / "report.json")
    return report, str(caught.value)


def failed_checks(report: Report) -> list[str]:
    return [check["name"] for check in report["checks"] if not check["passed"]]


def test_a_leaking_modality_is_told_and_the_report_says_so(tmp_path: Path) -> None:
    make_run(tmp_path, make_table(tmp_path), leak=0.01)
    report, said = failing(tmp_path)
    assert failed_checks(report) == ["absent modalities have no influence"]
    assert "absent modalities have no influence" in said
    assert len(report["measurements"]) == 42


def test_a_constant_predictor_is_told(tmp_path: Path) -> None:
    make_run(tmp_path, make_table(tmp_path), constant=True)
    report, said = failing(tmp_path)
    assert failed_checks(report) == ["predictions are not constant"]
    assert "run, fold 0, audio" in said
    assert any("names no class but" in warning for warning in report["warnings"])


def test_a_model_that_is_not_the_same_twice_is_told(tmp_path: Path) -> None:
    class Moody(FakeModel):
        def all_combinations(self, *given: Any, **named: Any) -> Any:  # type: ignore[no-untyped-def]
            noise = np.random.default_rng().normal(0, 1e-7)
            return super().all_combinations(*given, **named) + np.float32(noise)

    make_run(tmp_path, make_table(tmp_path))
    report, _ = failing(tmp_path, load=lambda folder: Moody(read_json(folder / "checkpoint.json")))
    assert failed_checks(report) == ["same input, same output"]


def test_one_pass_that_differs_from_one_by_one_is_told(tmp_path: Path) -> None:
    class Split(FakeModel):
        def all_combinations(self, *given: Any, **named: Any) -> Any:  # type: ignore[no-untyped-def]
            every = super().all_combinations(*given, **named)
            every[-1] += 0.1
            return every

    make_run(tmp_path, make_table(tmp_path))
    report, _ = failing(tmp_path, load=lambda folder: Split(read_json(folder / "checkpoint.json")))
    assert failed_checks(report) == ["one pass equals one by one"]


class Broken(FakeModel):
    """Not a number for one row, where only audio is left."""

    def all_combinations(self, *given: Any, **named: Any) -> Any:  # type: ignore[no-untyped-def]
        every = super().all_combinations(*given, **named)
        every[0, 0] = np.nan
        return every


def test_logits_that_are_not_finite_are_told(tmp_path: Path) -> None:
    make_run(tmp_path, make_table(tmp_path))
    report, _ = failing(tmp_path, load=lambda folder: Broken(read_json(folder / "checkpoint.json")))
    assert "predictions are finite" in failed_checks(report)


def test_a_cell_that_is_not_a_number_stops_the_report(tmp_path: Path) -> None:
    make_run(tmp_path, make_table(tmp_path, task=Task.REGRESSION))
    certified(tmp_path, "best", "fixed")
    path = tmp_path / "runs" / "run" / "robustness" / "report.json"
    assert path.exists()
    with pytest.raises(CheckFailed, match="is not finite"):
        certify("best", ["fixed"], home=tmp_path, load=lambda folder: Broken(read_json(folder / "checkpoint.json")))
    assert not path.exists()  # an older report must not pass for this one


def test_values_are_measured_too(tmp_path: Path) -> None:
    make_run(tmp_path, make_table(tmp_path, task=Task.REGRESSION))
    report = certified(tmp_path, "best", "fixed", "random")
    folder = evidence(tmp_path, report)
    assert [one["metric"] for one in report["measurements"][:4]] == ["acc2", "f1_nonzero", "mae", "pearson"]
    for metric in ("acc2", "f1_nonzero", "mae", "pearson"):
        found = measured(report, protocol="fixed", combination="audio+text", metric=metric, model="run")
        assert found["value"] == pytest.approx(fixed_value(folder, "toy", 0, "audio+text", metric), abs=1e-6)
        assert found["low"] < found["value"] < found["high"]
        found = measured(report, scenario="rate=0.5", metric=metric, model="run")
        assert found["value"] == pytest.approx(random_value(folder, "toy", 0, "rate=0.5", metric), abs=1e-6)
    worst = next(s for s in report["summaries"] if (s["name"], s["metric"]) == ("worst", "mae"))
    assert worst["value"] == max(
        m["value"]
        for m in report["measurements"]
        if (m["protocol"], m["metric"], m["model"]) == ("fixed", "mae", "run")
    )
    assert "MAE" in report["summary"][0]
    assert report["data"]["classes"] == []
    assert rebuild(folder) == report


def test_rows_with_gaps_are_cut_to_what_they_have_and_counted(tmp_path: Path) -> None:
    table = make_table(tmp_path, gaps=0.3)
    make_run(tmp_path, table)
    report = certified(tmp_path, "best", "fixed", "random")
    folder = evidence(tmp_path, report)
    rows = np.flatnonzero(table.labelled)
    presence = table.presence[rows]
    for label, has in (("audio", presence[:, 0]), ("text+video", presence[:, 1:].any(axis=1))):
        found = measured(report, protocol="fixed", combination=label, metric="ua", model="run")
        assert found["n"] == has.sum() < len(rows)
        assert found["value"] == pytest.approx(fixed_value(folder, "toy", 0, label, "ua"), abs=1e-9)
    found = measured(report, scenario="rate=0.5", metric="ua", model="run")
    assert found["value"] == pytest.approx(random_value(folder, "toy", 0, "rate=0.5", "ua"), abs=1e-9)
    data = report["data"]
    assert data["incomplete"] == (~presence.all(axis=1)).sum()
    assert {one["scenario"] for one in data["excluded"]} >= {"fixed", "rate=0.5"}
    assert all(one["rows"] and set(one["examples"]) <= set(table.ids[rows]) for one in data["excluded"])
    assert any("nothing left" in warning for warning in report["warnings"])
    realised = [s["realised"] for s in report["protocols"][1]["fingerprint"]["datasets"][0]["scenarios"]]
    assert realised[0] == pytest.approx(1 - presence.mean(), abs=1e-6)
    assert rebuild(folder) == report


def test_a_combination_of_which_a_row_has_a_part_is_predicted_from_that_part(tmp_path: Path) -> None:
    """With text+video asked and only text there, the stored logits are those of text."""
    import pandas as pd

    table = make_table(tmp_path, gaps=0.3)
    make_run(tmp_path, table, seeds=1)
    report = certified(tmp_path, "best", "fixed")
    stored = pd.read_parquet(evidence(tmp_path, report) / "predictions-0-toy.parquet").astype(
        {"combination": str, "id": str}
    )
    only_text = set(table.ids[table.presence[:, 1] & ~table.presence[:, 2] & table.labelled])
    logits = {
        label: stored[(stored.combination == label) & stored.id.isin(only_text)].filter(like="logit_").to_numpy()
        for label in ("text", "text+video")
    }
    assert len(logits["text"]) > 20
    assert (logits["text"] == logits["text+video"]).all()


def test_random_scenarios_of_models_that_attend_are_predicted_under_the_masks(tmp_path: Path) -> None:
    table = make_table(tmp_path, gaps=0.1)
    make_run(tmp_path, table, seeds=1, attends=True)
    report = certified(tmp_path, "best", "fixed", "random", against=())
    folder = evidence(tmp_path, report)
    assert (folder / "predictions-0-toy-random.parquet").exists()
    assert rebuild(folder) == report
    expected = _direct(tmp_path, table, folder, "rate=0.4")
    assert measured(report, scenario="rate=0.4", metric="wa")["value"] == pytest.approx(expected, abs=1e-9)
    looked_up = random_value(folder, "toy", 0, "rate=0.4", "wa")
    assert looked_up != pytest.approx(expected, abs=1e-9)  # the lookup would be another number


def _direct(home: Path, table: Any, folder: Path, scenario: str) -> float:
    """Accuracy with every row and its whole dialogue (unlabelled rows too) masked, model by model."""
    import pandas as pd

    masks = pd.read_parquet(folder / "presence-random-toy.parquet").astype({"id": str, "scenario": str})
    masks = masks[masks.scenario == scenario]
    right: dict[int, list[bool]] = {}
    for fold in folds_of(table):
        model = load_fake(home / "runs" / "run" / "checkpoints" / fold / "3" / "0")
        rows = split_of(table, fold).test
        batch = batch_of(table, rows, table.labelled[rows])
        for number, mask in masks.groupby("mask"):
            presence = mask.set_index("id").loc[table.ids[rows], ["audio", "text", "video"]].to_numpy()
            named = batch.under(model, presence).argmax(axis=1)
            kept = table.labelled[rows] & (presence & table.presence[rows]).any(axis=1)
            right.setdefault(int(number), []).extend(named[kept] == table.labels(rows[kept]))
    return float(np.mean([np.mean(one) for one in right.values()]))


def test_rows_in_two_parts_are_told(tmp_path: Path) -> None:
    table = make_table(tmp_path)
    splits = [split_of(table, fold) for fold in folds_of(table)]
    assert split_check(table, splits).passed
    assert shared_groups(table, splits) == 0
    first = splits[0]
    for part, said in (("train", "2 rows in two parts"), ("validation", "dialogues in two parts")):
        more = np.sort(np.concatenate([getattr(first, part), first.test[:2]]))
        found = split_check(table, [dataclasses.replace(first, **{part: more}), *splits[1:]])
        assert not found.passed
        assert said in found.detail
    found = split_check(table, [dataclasses.replace(splits[1], fold="again"), *splits])
    assert not found.passed
    assert "tested in two folds" in found.detail
    more = np.sort(np.concatenate([first.train, first.test[:2]]))
    assert shared_groups(table, [dataclasses.replace(first, train=more)]) == 1


def test_labels_of_test_rows_are_sealed_from_what_a_search_sees(tmp_path: Path) -> None:
    from mcutune.data.views import fold_data

    table = make_table(tmp_path)
    split = split_of(table, "0")
    seen = fold_data(table, "0")
    assert len(seen.labels) == len(split.train) + len(split.validation)
    with pytest.raises(Exception, match="sealed"):
        table.seal(split.test).labels(split.test[:1])


def test_a_protocol_of_some_combinations_and_one_metric(tmp_path: Path) -> None:
    make_run(tmp_path, make_table(tmp_path, rows=200), seeds=1)
    path = tmp_path / "some.yaml"
    path.write_text(
        "id: some\nversion: 3\nkind: fixed\ntitle: t\ncitation: c\ncombinations: [text, video+audio]\nmetrics: [ua]\n"
    )
    report = certified(tmp_path, "best", str(path), against=())
    assert [(m["protocol"], m["combination"]) for m in report["measurements"]] == [
        ("some", "text"),
        ("some", "audio+video"),
    ]
    assert [one["name"] for one in report["summaries"]] == ["worst"]
    assert (report["protocols"][0]["version"], report["comparisons"]) == (3, [])


def test_one_modality_is_enough(tmp_path: Path) -> None:
    make_run(tmp_path, make_table(tmp_path, modalities=("text",)), seeds=1)
    report = certified(tmp_path, "best", "fixed", "random")
    assert {p["capped"] for c in report["degradation"] for p in c["points"][1:]} == {True}
    values = {m["value"] for m in report["measurements"] if (m["metric"], m["model"]) == ("ua", "run")}
    assert len(values) == 1
    assert all(report["summary"])


def test_rows_keep_their_order_and_names() -> None:
    rows = Rows(("b", "a"), np.zeros(2, int), ("0",), np.zeros(2, int), ("s",), np.array([0, 1]), np.ones((2, 1), bool))
    assert rows.place == {"b": 0, "a": 1}
