"""Models trained beside the winners, as a report reads, measures and tells them. Nothing is trained here."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import pytest

from mcutune.data.splits import split_of
from mcutune.data.table import Table
from mcutune.domain.combination import Modalities
from mcutune.domain.task import METRICS
from mcutune.errors import BadInput, Damaged
from mcutune.files import read_json, sealed, sha256_file, write_json
from mcutune.robustness import html
from mcutune.robustness.answers import in_words
from mcutune.robustness.batches import batch_of
from mcutune.robustness.blocks import Block
from mcutune.robustness.mean_differences import mean_differences
from mcutune.robustness.measure import comparisons
from mcutune.robustness.rebuild import _Rebuilding, rebuild
from mcutune.robustness.run import certify
from mcutune.robustness.selection import select
from mcutune.robustness.statistics import Resampling
from mcutune.robustness.stored import Store
from mcutune.robustness.sums import FROM_SUMS
from tests.robustness.test_certify import SCHEMA
from tests.robustness.worlds import checkpoint, load_fake, make_run, make_table

LABELS = Modalities(("audio", "text", "video")).labels


def every_epoch(home: Path, table: Table, epochs: tuple[float, ...] = (2.0, 0.5, 0.4, 1.5, 0.6), best: int = 2) -> None:
    """Winners of which every epoch was kept: five, with this noise; validation chose the second."""
    run = home / "runs" / "run"
    own, folder, folds = read_json(run / "best.json"), run / "compare" / "epochs", []
    for n, one in enumerate(own["best"]):
        seeds = []
        for seed in range(2):
            place = folder / "checkpoints" / one["fold"] / "1" / str(seed)
            kept = epochs[: len(epochs) - (n == 1)]  # a fold may have fewer epochs
            made = checkpoint(table, one["fold"], 70, seed, {"noise": epochs[best - 1], "epochs": list(kept)})
            write_json(place / "checkpoint.json", {**made, "best_epoch": best})
            digest = sha256_file(place / "checkpoint.json")
            seeds.append({"seed": seed, "folder": str(place.relative_to(folder)), "sha256": digest})
        part = {"trial": 1, "configuration": {"rank": 4}, "combination": None, "seeds": seeds}
        folds.append({"fold": one["fold"], "parts": [part]})
    model = {"key": "every_epoch", "title": "every epoch kept", "how": "single", "rate": None, "failed": None,
             "changes": {"kept": "every"}, "same_as_winner": [], "folds": folds}  # fmt: skip
    winners = {one["fold"]: [c["sha256"] for c in one["checkpoints"]] for one in own["best"]}
    write_json(folder / "models.json", {"schema": 1, "word": "epochs", "run": "run", "winners": winners,
                                        "same_weights": True, "models": [model]})  # fmt: skip


def beside(home: Path, table: Table, *, noise: float = 1.5, word: str = "comparators", **changes: Any) -> Path:
    """models.json beside the winners of `run`: one that drops DPFT, specialists, late fusion; with fake checkpoints."""
    run = home / "runs" / "run"
    best, folder = read_json(run / "best.json"), run / "compare" / word
    winners = {one["fold"]: [c["sha256"] for c in one["checkpoints"]] for one in best["best"]}

    def part(fold: str, trial: int, combination: str | None) -> dict[str, Any]:
        seeds = []
        for seed in range(2):
            place = folder / "checkpoints" / fold / str(trial) / str(seed)
            write_json(place / "checkpoint.json", checkpoint(table, fold, trial + 50, seed, {"noise": noise}))
            digest = sha256_file(place / "checkpoint.json")
            seeds.append({"seed": seed, "folder": str(place.relative_to(folder)), "sha256": digest})
        return {"trial": trial, "configuration": {"rank": 4}, "combination": combination, "seeds": seeds}

    def model(key: str, how: str, parts: dict[str | None, int], rate: float | None = None) -> dict[str, Any]:
        folds = [{"fold": fold, "parts": [part(fold, n, label) for label, n in parts.items()]} for fold in winners]
        return {"key": key, "title": key.replace("_", " "), "how": how, "rate": rate, "changes": {"sensitivity": 0.0},
                "same_as_winner": [], "failed": None, "folds": folds}  # fmt: skip

    singles = {name: n + 2 for n, name in enumerate(LABELS[:3])}
    models = [
        model("without_dpft", "single", {None: 1}),
        model("late_fusion", "late_fusion", {**singles}),
        model("specialists", "specialists", {label: n + 2 for n, label in enumerate(LABELS)}),
    ]
    if word == "rate_shift":
        models = [model(f"trained_at_{rate:g}", "single", {None: n}, rate) for n, rate in enumerate((0.0, 0.5))]
    elif word == "incomplete_training":
        models = [model("training_missing_0.4", "single", {None: 1}, 0.4)]
    facts = {"schema": 1, "word": word, "run": "run", "data": best["data"], "winners": winners, "same_weights": True,
             "ledger_hash": "0", "models": models}  # fmt: skip
    write_json(folder / "models.json", {**facts, **changes})
    return folder


def world(tmp_path: Path, **options: Any) -> Path:
    table = make_table(tmp_path, rows=300)
    make_run(tmp_path, table)
    return beside(tmp_path, table, **options)


def report_of(home: Path, *protocols: str, **options: Any) -> dict[str, Any]:
    report = certify("run", protocols, home=home, load=load_fake, **options)
    jsonschema.validate(report, SCHEMA)
    return report


def block(home: Path, report: dict[str, Any], number: int) -> tuple[_Rebuilding, Block]:
    folder = home / "runs" / "run" / "robustness" / report["provenance"]["evidence"]["folder"]
    made = _Rebuilding(Store(folder, read_json(folder / "manifest.json")), folder.name)
    protocol = made.protocols[0]
    from mcutune.robustness.protocol import plan

    cells = plan(protocol, made.source)
    return made, made._block(protocol, number, cells, made._patterns(protocol, made.data, cells))


def test_comparators_are_measured_compared_and_rebuilt(tmp_path: Path) -> None:
    world(tmp_path)
    report = report_of(tmp_path)
    names = [one["name"] for one in report["models"]]
    assert names == ["run", "run:0", "run:without_dpft", "run:late_fusion", "run:specialists"]
    assert {one["model"] for one in report["measurements"]} == set(names)
    for protocol, metric in (("fixed", "ua"), ("random", "wa")):
        family = [one for one in report["mean_differences"] if (one["protocol"], one["metric"]) == (protocol, metric)]
        assert [one["reference"] for one in family] == names[1:]
        assert {one["family"] for one in family} == {4}
    assert [one["key"] for one in report["answers"]] == ["default", "without_dpft", "late_fusion", "specialists"]
    assert report["answers"][1]["question"] == "Does DPFT help?"
    folder = tmp_path / "runs" / "run" / "robustness" / report["provenance"]["evidence"]["folder"]
    assert rebuild(folder) == report
    assert report["summary"] == report_of(tmp_path, against=["run:0"])["summary"]  # the sentences speak of trial 0


def test_contrasts_are_those_of_a_slow_twin(tmp_path: Path) -> None:
    """The mean over cells of the paired differences; p by going through every pattern of swapped groups."""
    world(tmp_path)
    report = report_of(tmp_path, "fixed")
    _, a = block(tmp_path, report, 0)
    _, b = block(tmp_path, report, 2)
    how = Resampling()
    found = next(one for one in mean_differences(a, [b], ["ua"], how))
    cells = comparisons(a, b, ["ua"], how)
    assert found["difference"] == pytest.approx(np.mean([one["difference"] for one in cells]), abs=1e-9)
    value = FROM_SUMS["ua"]
    groups, apart = len(a.sums), []
    for pattern in range(2**groups):
        swapped = np.array([pattern >> g & 1 for g in range(groups)], dtype=bool)[:, None, None, None]
        one, other = np.where(swapped, b.sums, a.sums).sum(axis=0), np.where(swapped, a.sums, b.sums).sum(axis=0)
        apart.append(abs(value(one).mean() - value(other).mean()))
    assert found["p"] == pytest.approx(np.mean(np.array(apart) >= apart[0] - 1e-12), abs=1e-9)
    assert found["low"] < found["difference"] < found["high"]


def test_answers_say_yes_no_and_not_shown(tmp_path: Path) -> None:
    world(tmp_path, noise=4.0)
    told = {one["key"]: one["answer"] for one in report_of(tmp_path, "fixed")["answers"]}
    assert told["without_dpft"].startswith("Yes: UA ")
    assert "on average over the 7 combinations" in told["without_dpft"]
    world(tmp_path / "other", noise=0.3)
    report = report_of(tmp_path / "other", "fixed")
    assert in_words(report)[1]["answer"].startswith("Not shown: ")
    for one in report["mean_differences"]:
        one.update(p_holm=0.01, difference=-0.02)
    assert in_words(report)[1]["answer"].startswith("No, it is worse: UA 0.020 worse")
    for one in report["mean_differences"]:
        one.update(p_holm=0.3, groups=12, family=4)
    assert "would have been found" in in_words(report)[1]["answer"]
    for one in report["mean_differences"]:
        one.update(groups=4)
    assert in_words(report)[1]["answer"].startswith("Cannot be shown with 4 groups")
    report["models"][2]["comparator"]["same_as_winner"] = ["0", "1", "2", "3"]
    assert in_words(report)[1]["answer"] == "The winners have that already, in every fold."


def test_the_page_shows_them_apart(tmp_path: Path) -> None:
    world(tmp_path)
    report = report_of(tmp_path)
    page = html.render(report)
    assert 'id="comparators-section"' in page and "Does DPFT help?" in page
    assert page.count("Against <bdi>run:") == 2  # trial 0 under each protocol, and no comparator
    plain = html.render({**report, "models": report["models"][:2], "answers": []})
    assert 'id="comparators-section"' not in plain
    assert len(page) - len(plain) < 250_000


def test_one_asked_for_by_name_is_like_any_other(tmp_path: Path) -> None:
    world(tmp_path)
    report = report_of(tmp_path, "fixed", against=["run:specialists"])
    assert [one["name"] for one in report["models"]] == ["run", "run:specialists"]
    assert "Against <bdi>run:specialists" in html.render(report)
    assert select("run:without_dpft", tmp_path).name == "run:without_dpft"
    with pytest.raises(BadInput, match="no model 'without'.*without_dpft, late_fusion, specialists"):
        select("run:without", tmp_path)


def test_what_does_not_belong_is_left_out_or_refused(tmp_path: Path) -> None:
    folder = world(tmp_path)
    facts = read_json(folder / "models.json")
    write_json(folder / "models.json", {**facts, "winners": {fold: ["0" * 64] * 2 for fold in facts["winners"]}})
    report = report_of(tmp_path, "fixed")
    assert len(report["models"]) == 2
    assert any("belongs to other winners" in one for one in report["warnings"]), report["warnings"]
    failed = [{**facts["models"][0], "failed": "seed 0 in fold 1: nan", "folds": []}, *facts["models"][1:]]
    write_json(folder / "models.json", {**facts, "models": failed, "same_weights": False})
    report = report_of(tmp_path, "fixed")
    assert "without dpft is left out: seed 0 in fold 1: nan." in report["warnings"]
    assert any("have other bits" in one for one in report["warnings"])
    write_json(folder / "models.json", {**sealed(facts), "same_weights": False})
    with pytest.raises(Damaged, match="its own hash differs"):
        report_of(tmp_path, "fixed")
    write_json(folder / "models.json", facts)
    for n, part in ((0, 0), (2, -1)):  # a model of one part, and the last part of one of several
        spoilt = folder / facts["models"][n]["folds"][0]["parts"][part]["seeds"][0]["folder"] / "checkpoint.json"
        sound = spoilt.read_text(encoding="utf-8")
        spoilt.write_text(f"{sound} ", encoding="utf-8")
        with pytest.raises(Damaged, match="not the checkpoint that models.json names"):
            report_of(tmp_path, "fixed")
        spoilt.write_text(sound, encoding="utf-8")
    part = facts["models"][0]["folds"][0]["parts"][0]
    part["seeds"][0]["folder"] = "../../../elsewhere"
    write_json(folder / "models.json", facts)
    with pytest.raises(Damaged, match="outside the run"):
        report_of(tmp_path, "fixed")


def gap_twin(home: Path, table: Table, metric: str, each: bool) -> tuple[float, float]:
    """Mean over folds and seeds of the chosen epochs' scores: by validation and by test, one model after another."""
    honest, chosen = [], []
    for fold in table.manifest.folds:
        split = split_of(table, fold)
        batch = batch_of(table, split.test, table.labelled[split.test])
        truth = table.labels(split.test[batch.measured])
        for seed in range(2):
            model = load_fake(home / "runs" / "run" / "compare" / "epochs" / "checkpoints" / fold / "1" / str(seed))
            scores = np.array([
                [METRICS[metric](every.argmax(axis=1)[batch.measured], truth, 4) for every in batch.every(one)]
                for one in model.epochs()
            ])  # fmt: skip
            honest.append(scores[1].mean())
            chosen.append(scores.max(axis=0).mean() if each else max(row.mean() for row in scores))
    return float(np.mean(honest)), float(np.mean(chosen))


@pytest.mark.parametrize("metric", ["ua", "wa"])
def test_the_selection_gap_is_that_of_a_slow_twin(tmp_path: Path, metric: str) -> None:
    table = make_table(tmp_path, rows=300)
    make_run(tmp_path, table)
    every_epoch(tmp_path, table)
    report = report_of(tmp_path, "fixed")
    folder = tmp_path / "runs" / "run" / "robustness" / report["provenance"]["evidence"]["folder"]
    assert rebuild(folder) == report
    for how, each in (("one epoch", False), ("an epoch a combination", True)):
        mine = [one for one in report["selection_gap"] if (one["metric"], one["how"]) == (metric, how)]
        assert [one["combination"] for one in mine] == [None, *LABELS]
        honest, chosen = gap_twin(tmp_path, table, metric, each)
        assert mine[0]["honest"] == pytest.approx(honest, abs=1e-9)
        assert mine[0]["chosen_on_test"] == pytest.approx(chosen, abs=1e-9)
        assert mine[0]["gap"] == pytest.approx(chosen - honest, abs=1e-9)
        assert 0 <= mine[0]["least"] <= mine[0]["gap"] <= mine[0]["most"]
        if each:
            assert all(one["least"] >= 0 for one in mine)
    page = html.render(report)
    assert "Selection gap: what not to do" in page and "are not results" in page


def test_without_epochs_there_is_no_gap(tmp_path: Path) -> None:
    world(tmp_path)
    report = report_of(tmp_path, "fixed")
    assert report["selection_gap"] == []
    assert "Selection gap" not in html.render(report)


def test_models_of_rates_are_measured_where_they_belong(tmp_path: Path) -> None:
    table = make_table(tmp_path, rows=300)
    make_run(tmp_path, table)
    with pytest.raises(BadInput, match="not trained beside run.*mcutune compare run --with rate_shift"):
        report_of(tmp_path, "rate_shift")
    beside(tmp_path, table, word="rate_shift")
    beside(tmp_path, table, word="incomplete_training")
    report = report_of(tmp_path)
    measured = {kind: {m["model"] for m in report["measurements"] if m["protocol"] == kind} for kind in
                ("fixed", "random", "rate_shift", "incomplete_training")}  # fmt: skip
    own = {"run", "run:0"}
    assert measured["fixed"] == own
    assert measured["random"] == own | {"run:training_missing_0.4"}
    assert measured["rate_shift"] == own | {"run:trained_at_0", "run:trained_at_0.5"}
    assert measured["incomplete_training"] == own | {"run:training_missing_0.4"}
    curves = {m["protocol"]: m["value"] for m in report["measurements"]
              if (m["model"], m["scenario"], m["metric"]) == ("run", "rate=0.5", "ua")}  # fmt: skip
    assert curves["random"] == curves["rate_shift"]  # the same masks
    families = {(one["reference"], one["family"]) for one in report["mean_differences"] if one["protocol"] == "random"}
    assert families == {("run:0", 1), ("run:training_missing_0.4", 1)}
    told = next(one for one in report["answers"] if one["key"] == "rate_shift")
    diagonal = [one for one in report["comparisons"] if (one["protocol"], one["metric"]) == ("rate_shift", "ua")
                and (one["reference"], one["scenario"]) in (("run:trained_at_0", "rate=0"),
                                                           ("run:trained_at_0.5", "rate=0.5"))]  # fmt: skip
    assert len(diagonal) == 2 and "of 2 rates" in told["answer"]
    page = html.render(report)
    assert "Every trained rate against every met rate" in page and "trained at 0.5" in page
    assert "Trained on incomplete rows" in page
    folder = tmp_path / "runs" / "run" / "robustness" / report["provenance"]["evidence"]["folder"]
    assert rebuild(folder) == report
