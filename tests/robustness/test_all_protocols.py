"""Every shipped protocol, certified: values by the slow twin, files rebuilt, labels opened when they are used."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mcutune.data.splits import split_of
from mcutune.data.table import open_table
from mcutune.domain.combination import Modalities
from mcutune.domain.task import Task
from mcutune.errors import CheckFailed, Damaged
from mcutune.robustness.batches import batch_of
from mcutune.robustness.html import write
from mcutune.robustness.job import facts_of
from mcutune.robustness.kinds import Noise
from mcutune.robustness.noise import NoiseSource
from mcutune.robustness.protocol import load_protocol
from mcutune.robustness.rebuild import rebuild
from mcutune.robustness.run import certify
from mcutune.robustness.scenarios import scenarios_of
from tests.reference.report_twin import metric_of, random_value
from tests.robustness.test_certify import certified, evidence, measured
from tests.robustness.worlds import load_fake, make_run, make_table

Report = dict[str, Any]
DRAWN = ("random", "random_dialogue", "random_batch", "imbalanced", "gaps", "label_dependent")


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three modalities; rows lack some by themselves."""
    home = tmp_path_factory.mktemp("home")
    make_run(home, make_table(home, gaps=0.1, rows=300))
    return home


@pytest.fixture(scope="module")
def report(home: Path) -> Report:
    return certified(home, "best", "all")


def test_all_that_fit_are_measured_and_the_others_named(home: Path, report: Report) -> None:
    assert [one["id"] for one in report["protocols"]] == ["fixed", *DRAWN[:5], "noise", "label_dependent"]
    named = [one for one in report["warnings"] if "was not measured" in one]
    assert named == [
        "Protocol cross_dataset was not measured: needs a second table.",
        "Protocol rate_shift was not measured: needs mcutune compare NAME --with rate_shift.",
        "Protocol incomplete_training was not measured: needs mcutune compare NAME --with incomplete_training.",
    ]
    assert len(report["measurements"]) == 2 * sum(one["cells"] for one in report["protocols"])
    assert all(check["passed"] for check in report["checks"])


@pytest.mark.parametrize(
    ("protocol", "scenario"),
    [
        ("random_dialogue", "rate=0.4"),
        ("random_batch", "rate=0.5"),
        ("imbalanced", "audio=0.5 text=0.3 video=0.7"),
        ("gaps", "share=0.6, text"),
        ("gaps", "share=0.8, all"),
        ("label_dependent", "rate=0.4, strength=4"),
    ],
)
def test_values_are_those_of_the_slow_twin(home: Path, report: Report, protocol: str, scenario: str) -> None:
    folder = evidence(home, report)
    for number, model in enumerate(("run", "run:0")):
        for metric in ("wa", "ua", "f1"):
            found = measured(report, protocol=protocol, scenario=scenario, metric=metric, model=model)
            expected = random_value(folder, "toy", number, scenario, metric, protocol)
            assert found["value"] == pytest.approx(expected, abs=1e-9)


def test_noisy_values_are_those_of_noisy_features(home: Path, report: Report) -> None:
    """The fake model does not normalise, so that noise may be added to the features themselves."""
    protocol, table = load_protocol("noise"), open_table("toy", home=home)
    assert isinstance(protocol, Noise)
    scenarios = {one.name: one for one in scenarios_of(protocol, facts_of(table))}
    source = NoiseSource(protocol, tuple(scenarios.values()), tuple(table.manifest.modalities.items()))
    for name in ("sigma=0", "sigma=1, text", "sigma=2, all"):
        values = []
        for seed in range(2):
            for number in range(3):
                named, truth = [], []
                for code, fold in enumerate(table.manifest.folds):
                    rows = split_of(table, fold).test
                    batch = batch_of(table, rows, table.labelled[rows])
                    noise = source.of(scenarios[name], number, code, len(rows))
                    features = {key: values + noise.get(key, 0) for key, values in batch.features.items()}
                    model = load_fake(home / "runs" / "run" / "checkpoints" / fold / "3" / str(seed))
                    logits = model.with_presence(features, batch.presence, batch.dialogue, batch.order, batch.group)
                    named.append(logits.argmax(axis=1)[batch.measured])
                    truth.append(table.labels(rows[batch.measured]))
                values.append(metric_of("ua", np.concatenate(truth), np.concatenate(named)))
        found = measured(report, protocol="noise", scenario=name, metric="ua", model="run")
        assert found["value"] == pytest.approx(np.mean(values), abs=1e-9)


def test_levels_at_zero_are_the_complete_input(report: Report) -> None:
    full = measured(report, protocol="fixed", combination="audio+text+video", metric="wa", model="run")["value"]
    for protocol, scenario in (("gaps", "share=0"), ("noise", "sigma=0"), ("random_batch", "rate=0")):
        found = measured(report, protocol=protocol, scenario=scenario, metric="wa", model="run")
        assert found["value"] == pytest.approx(full, abs=1e-9)


def test_curves_have_a_series_a_modality_and_an_area_each(report: Report) -> None:
    for protocol, axis in (("gaps", "share of rows lost"), ("noise", "noise, in standard deviations")):
        mine = [
            one for one in report["degradation"]
            if (one["protocol"], one["metric"], one["model"]) == (protocol, "ua", "run")
        ]  # fmt: skip
        assert [one["series"] for one in mine] == ["audio", "text", "video", "all"]
        areas = {s["scenario"]: s for s in report["summaries"]
                 if (s["protocol"], s["metric"], s["model"], s["name"]) == (protocol, "ua", "run", "area")}  # fmt: skip
        for one in mine:
            assert one["axis"] == axis
            x, y = ([point[key] for point in one["points"]] for key in ("realised", "value"))
            assert x == sorted(x)
            assert areas[one["series"]]["value"] == pytest.approx(np.trapezoid(y, x) / np.ptp(x))
            assert areas[one["series"]]["over"] == 6


def test_rows_left_with_nothing_count_only_where_all_was_taken(report: Report) -> None:
    printed = {one["id"]: one["fingerprint"] for one in report["protocols"]}
    shown = {one["scenario"]: one for one in printed["gaps"]["datasets"][0]["scenarios"]}
    data = report["data"]
    assert shown["share=0.8, all"]["nothing"] > 3 * 0.3 * data["measured"]
    everything = measured(report, protocol="gaps", scenario="share=0.8, all", metric="ua", model="run")
    assert everything["n"] == data["measured"]
    lost = {one["scenario"]: one["rows"] for one in data["excluded"] if one["protocol"] == "gaps"}
    assert lost
    assert all(not scenario.endswith("all") for scenario in lost)
    assert {one["seed"] for one in printed.values()} == {None, *range(20250711, 20250718)}


def test_the_report_can_be_made_again_and_shown(home: Path, report: Report, tmp_path: Path) -> None:
    assert json.dumps(rebuild(evidence(home, report))) == json.dumps(report)
    path = tmp_path / "report.json"
    shutil.copy(home / "runs" / "run" / "robustness" / "report.json", path)
    page = write(path).read_text(encoding="utf-8")
    for words in (
        "UA, text",
        "share of rows lost",
        "block of 0.6, text",
        "σ 4, all",
        "mean over the curve (6 points), all",
    ):
        assert words in page


@pytest.mark.parametrize("file", ["nothing-0-toy", "predictions-0-toy-noise", "presence-gaps-toy"])
def test_lines_that_are_missing_are_noticed(home: Path, report: Report, tmp_path: Path, file: str) -> None:
    import pyarrow.parquet as pq

    from tests.robustness.test_certify import _copy, _reseal

    folder = _copy(evidence(home, report), tmp_path)
    table = pq.read_table(folder / f"{file}.parquet")
    pq.write_table(table.slice(1), folder / f"{file}.parquet")
    _reseal(folder)
    with pytest.raises(Damaged):
        rebuild(folder)


def test_an_undeclared_scenario_is_refused(home: Path, report: Report, tmp_path: Path) -> None:
    """The plan is made again from the protocol in the manifest: masks of other scenarios do not fit it."""
    from mcutune.files import read_json
    from mcutune.robustness.evidence import write_manifest
    from tests.robustness.test_certify import _copy

    folder = _copy(evidence(home, report), tmp_path)
    facts = read_json(folder / "manifest.json")["facts"]
    gaps = next(one for one in facts["protocols"] if one["id"] == "gaps")
    gaps["shares"] = gaps["shares"][:-1]
    write_manifest(folder, facts)
    with pytest.raises((Damaged, CheckFailed)):
        rebuild(folder)


def test_labels_that_decide_what_is_missing_are_opened_before(tmp_path: Path) -> None:
    make_run(tmp_path, make_table(tmp_path, rows=100), seeds=1)
    log = tmp_path / "runs" / "run" / "robustness" / "openings.jsonl"

    def broken(folder: Path) -> Any:
        seen.append(log.exists())
        raise Damaged("no model")

    for protocol, opened in (("gaps", False), ("label_dependent", True)):
        seen: list[bool] = []
        with pytest.raises(Damaged, match="no model"):
            certify("best", [protocol], home=tmp_path, load=broken)
        assert seen == [opened]
        assert log.exists() == opened


def test_models_that_attend_are_predicted_under_the_masks(tmp_path: Path) -> None:
    make_run(tmp_path, make_table(tmp_path, gaps=0.1, rows=200), seeds=1, attends=True)
    report = certified(tmp_path, "best", "all")
    folder = evidence(tmp_path, report)
    for protocol in (*DRAWN, "noise"):
        assert (folder / f"predictions-0-toy-{protocol}.parquet").exists()
    assert rebuild(folder) == report
    assert all(check["passed"] for check in report["checks"])
    alone = measured(report, protocol="gaps", scenario="share=0.8, all", metric="wa", model="run")
    assert alone["n"] == report["data"]["measured"]


@pytest.mark.parametrize("modalities", [("audio",), ("audio", "text")])
def test_values_and_few_modalities(tmp_path: Path, modalities: tuple[str, ...]) -> None:
    make_run(tmp_path, make_table(tmp_path, task=Task.REGRESSION, modalities=modalities, rows=200), seeds=1)
    report = certified(tmp_path, "best", "all")
    ids = [one["id"] for one in report["protocols"]]
    assert ("label_dependent" in ids) == (len(modalities) > 1)
    assert {"imbalanced", "random_batch"}.isdisjoint(ids)
    if len(modalities) > 1:
        shown = next(one for one in report["protocols"] if one["id"] == "label_dependent")["fingerprint"]
        rates = shown["datasets"][0]["scenarios"][-1]["classes"]
        assert list(rates) == ["q1", "q2", "q3", "q4"]
        assert np.diff(list(rates.values())).min() > -0.02  # the highest two are at the cap, to rounding
        assert rates["q4"] - rates["q1"] > 0.2


def test_masks_of_one_fold_alone_are_those_among_all(tmp_path: Path, home: Path, report: Report) -> None:
    """A checkpoint of one fold meets the masks and the noise that its fold meets in the whole run."""
    import pandas as pd

    from mcutune.files import write_json
    from tests.robustness.worlds import checkpoint

    shutil.copytree(home / "datasets", tmp_path / "datasets")
    table = open_table("toy", home=tmp_path)
    folder = tmp_path / "moved"
    write_json(folder / "checkpoint.json", checkpoint(table, "2", 3, 0, {"noise": 0.3}))
    alone = certified(tmp_path, str(folder), "gaps", "noise", "label_dependent")
    mine = folder / "robustness" / alone["provenance"]["evidence"]["folder"]
    if not mine.exists():
        mine = next(tmp_path.rglob(alone["provenance"]["evidence"]["folder"]))
    for protocol in ("gaps", "label_dependent"):
        files = (place / f"presence-{protocol}-toy.parquet" for place in (mine, evidence(home, report)))
        few, many = (pd.read_parquet(file).astype({"id": str, "scenario": str}) for file in files)
        assert len(few) < len(many)
        assert len(few.merge(many)) == len(few)
    files = (place / "predictions-0-toy-noise.parquet" for place in (mine, evidence(home, report)))
    few, many = (pd.read_parquet(file).astype({"id": str, "scenario": str, "fold": str}) for file in files)
    assert len(few.merge(many)) == len(few)


def test_rows_of_which_all_was_taken_are_valid_with_the_answer_to_nothing() -> None:
    """Even where the row itself has no prediction under any combination."""
    from mcutune.robustness.blocks import Dataset, masked_lookup
    from mcutune.robustness.stored import Predicted, Rows

    names = Modalities(("audio", "text"))
    presence = np.array([[False, False], [True, True]])
    rows = Rows(("a", "b"), np.array([0, 1]), ("x", "y"), np.array([0, 0]), ("g",), np.array([0, 1]), presence)
    data = Dataset("toy", "test", Task.CLASSIFICATION, 4, names, rows)
    valid = np.array([[[False, True]] * 3])  # [S, C, N]
    found = Predicted(np.full((1, 3, 2), 1), valid, 0, True, ())
    masks = np.array([[[[False, False], [False, False]]], [[[True, True], [True, True]]]])  # [R, masks, N, M]
    values, counted = masked_lookup(found, masks, names.labels, data, np.array([[2, 3]]))
    assert values[0, 0].tolist() == [2, 3]
    assert counted[0].tolist() == [[True, True], [False, True]]
