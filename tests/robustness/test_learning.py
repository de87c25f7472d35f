"""Do the modalities learn alike: norms stored, read again and told; from training rows alone."""

from __future__ import annotations

import io
import json
import math
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mcutune.data.splits import split_of
from mcutune.data.table import Table
from mcutune.data.views import fold_data
from mcutune.errors import Damaged
from mcutune.files import canonical_json, read_json, sealed, sha256, sha256_file, write_json
from mcutune.model.predictor import load_predictor
from mcutune.robustness import html
from mcutune.robustness.learning import KEEP, Training, looked_at, sample, usable_rows
from mcutune.robustness.rebuild import rebuild
from mcutune.robustness.run import certify
from tests.robustness.test_certify import SCHEMA, evidence
from tests.robustness.test_compared import every_epoch, report_of
from tests.robustness.test_real_models import SHAPES, train_run
from tests.robustness.worlds import FakeModel, checkpoint, make_run, make_table

NAMES = ("audio", "text", "video")


def told(table: Table, home: Path, only: str | None = None, **configuration: Any) -> None:
    """The kept epochs' checkpoints, or those of one fold only, with other settings; their hashes put right."""
    folder = home / "runs" / "run" / "compare" / "epochs"
    facts = read_json(folder / "models.json")
    for fold in facts["models"][0]["folds"]:
        if only not in (None, fold["fold"]):
            continue
        for seed in fold["parts"][0]["seeds"]:
            path = folder / seed["folder"] / "checkpoint.json"
            one = read_json(path)
            write_json(path, {**one, "configuration": {**one["configuration"], **configuration}})
            seed["sha256"] = sha256_file(path)
    write_json(folder / "models.json", facts)


def world(home: Path, **configuration: Any) -> Table:
    table = make_table(home, rows=300)
    make_run(home, table)
    every_epoch(home, table)
    told(table, home, **configuration)
    return table


def entropy(shares: list[float]) -> float:
    return -sum(s * math.log(s) for s in shares if s > 0) / math.log(len(shares))


def test_the_index_is_that_of_the_stored_norms(tmp_path: Path) -> None:
    table = world(tmp_path)
    report = report_of(tmp_path, "fixed")
    found = report["learning"]
    stored = pd.read_parquet(evidence(tmp_path, report) / "gradients-toy.parquet")
    stored = stored.astype({"fold": str, "modality": str})
    assert len(stored) == 2 * 3 * (3 * 5 + 4)
    values, shares, norms, ends = [], [], [], []
    for _, lane in stored.groupby(["fold", "seed"]):
        means = [lane[lane.modality == name].norm.mean() for name in NAMES]
        shares.append([one / sum(means) for one in means])
        norms.append(means[0])
        last = lane[lane.epoch == lane.epoch.max()].norm
        ends.append(last[lane.modality == "audio"].iloc[0] / last.sum())
        values.append(entropy(shares[-1]))
    assert found["value"] == pytest.approx(np.mean(values), abs=1e-12)
    assert (found["least"], found["most"]) == pytest.approx((min(values), max(values)), abs=1e-12)
    assert [one["share"] for one in found["modalities"]] == pytest.approx(np.mean(shares, axis=0), abs=1e-12)
    assert found["modalities"][0]["last"] == pytest.approx(np.mean(ends), abs=1e-12)
    assert sum(one["share"] for one in found["modalities"]) == pytest.approx(1)
    assert found["modalities"][0]["norm"] == pytest.approx(np.mean(norms), abs=1e-12)
    assert found["least"] < found["value"] < found["most"]
    assert (found["folds"], found["seeds"], found["epochs"]) == (4, 2, {"least": 4, "most": 5, "every": True})
    usable = sum(int(table.labelled[split_of(table, fold).train].sum()) for fold in table.manifest.folds)
    assert (found["rows"], found["available"]) == (usable, usable)
    mine = {one["model"]: one for one in report["indices"] if one["name"] == "learning"}
    assert mine["run"]["value"] == found["value"]
    assert (mine["run"]["low"], mine["run"]["high"], mine["run"]["reason"]) == (None, None, None)
    assert "no test row" in mine["run"]["interval"]
    assert (mine["run:0"]["value"], "winners only" in mine["run:0"]["reason"]) == (None, True)


def test_the_same_files_give_the_same_report(tmp_path: Path) -> None:
    world(tmp_path)
    report = report_of(tmp_path, "fixed")
    again = rebuild(evidence(tmp_path, report))
    assert report["learning"]["value"] is not None
    assert json.dumps(again) == json.dumps(report)


@pytest.mark.parametrize(
    ("norms", "value"), [([2, 2, 2], 1.0), ([0, 3, 0], 0.0), ([1, 1, 0], math.log(2) / math.log(3))]
)
def test_one_where_all_are_alike_and_zero_where_one_has_all(tmp_path: Path, norms: list[float], value: float) -> None:
    world(tmp_path, norms=norms)
    report = report_of(tmp_path, "fixed")
    found = report["learning"]
    assert found["value"] == pytest.approx(value)
    assert "-0.0" not in json.dumps(found)
    assert [one["share"] for one in found["modalities"]] == pytest.approx([one / sum(norms) for one in norms])
    page = html.render(report)
    assert "Do the modalities learn alike?" in page
    assert f"<b>{value:.3f}</b> (1: all alike" in page
    assert "Not measured: evenness" in page  # of trial 0, whose epochs are gone


def test_no_gradient_at_all_is_not_a_value(tmp_path: Path) -> None:
    world(tmp_path, norms=[0, 0, 0])
    found = report_of(tmp_path, "fixed")["learning"]
    assert (found["value"], found["modalities"]) == (None, [])
    assert "no gradient" in found["reason"]


def resealed(folder: Path, change: Any) -> None:
    """Change the stored norms, and put every hash right, as someone could who knows how."""
    path, manifest = folder / "gradients-toy.parquet", read_json(folder / "manifest.json")
    table = change(pq.read_table(path))
    pq.write_table(table, path, write_page_checksum=True, compression="zstd")
    manifest["files"][path.name] = sha256_file(path)
    rehashed(folder, manifest)


def rehashed(folder: Path, manifest: dict[str, Any]) -> None:
    rest = {key: value for key, value in manifest.items() if key != "hash"}
    write_json(folder / "manifest.json", {**rest, "hash": sha256(canonical_json(rest))})


def doubled(table: pa.Table) -> pa.Table:
    return table.set_column(4, "norm", pa.array(table["norm"].to_numpy() * 2))


def negative(table: pa.Table) -> pa.Table:
    return table.set_column(4, "norm", pa.array(-table["norm"].to_numpy()))


def one_for_another(table: pa.Table) -> pa.Table:
    return pa.concat_tables([table.slice(1), table.slice(1, 1)])


def other_seed(table: pa.Table) -> pa.Table:
    more = table.slice(0, 3).set_column(1, "seed", pa.array(np.full(3, 9, dtype=np.int32)))
    return pa.concat_tables([table, more]).unify_dictionaries()


def test_norms_that_were_changed_are_refused(tmp_path: Path) -> None:
    world(tmp_path)
    folder = evidence(tmp_path, report_of(tmp_path, "fixed"))
    path = folder / "gradients-toy.parquet"
    before = path.read_bytes()
    for at in (100, len(before) // 2, len(before) - 10):
        path.write_bytes(before[:at] + bytes([before[at] ^ 1]) + before[at + 1 :])
        with pytest.raises(Damaged, match="SHA-256 differs"):
            rebuild(folder)
    path.unlink()
    with pytest.raises(Damaged, match="missing"):
        rebuild(folder)
    path.write_bytes(before)
    pq.write_table(doubled(pq.read_table(path)), path)
    with pytest.raises(Damaged, match="SHA-256 differs"):
        rebuild(folder)


@pytest.mark.parametrize("change", [
    lambda table: table.slice(1), lambda table: table.slice(0, 30), lambda table: pa.concat_tables([table, table]),
    negative, one_for_another, other_seed,
], ids=["one lost", "a fold lost", "twice", "negative", "one for another", "another seed"])  # fmt: skip
def test_norms_that_do_not_fit_are_refused_even_under_right_hashes(tmp_path: Path, change: Any) -> None:
    world(tmp_path)
    folder = evidence(tmp_path, report_of(tmp_path, "fixed"))
    resealed(folder, change)
    with pytest.raises(Damaged, match="gradients-toy.parquet"):
        rebuild(folder)


def test_no_test_row_is_seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    table, seen = world(tmp_path), []
    plain = FakeModel.gradient_norms

    def spied(self: FakeModel, epochs: Any, features: Any, labels: Any, *rest: Any, **named: Any) -> Any:
        seen.append((self.info["data"]["fold"], features, labels, named["rows"]))
        return plain(self, epochs, features, labels, *rest, **named)

    monkeypatch.setattr(FakeModel, "gradient_norms", spied)
    report_of(tmp_path, "fixed")
    assert len(seen) == 8
    for fold, features, labels, rows in seen:
        split = split_of(table, fold)
        for name in NAMES:
            known = {row.tobytes(): n for n, row in enumerate(np.asarray(table.features(name)))}
            given = np.array([known[row.tobytes()] for row in features[name]])
            assert not np.isin(given, split.test).any()
            assert np.isin(given[rows], split.train).all()  # nor is the loss over validation rows
            assert (labels[rows] == table.labels(given[rows])).all()


def test_without_every_epoch_it_says_how_to_get_them(tmp_path: Path) -> None:
    make_run(tmp_path, make_table(tmp_path, rows=300))
    report = report_of(tmp_path, "fixed")
    assert report["learning"]["reason"] == KEEP
    assert "mcutune compare NAME --with epochs" in KEEP
    assert {one["reason"] for one in report["indices"] if one["name"] == "learning"} == {KEEP}
    page = html.render(report)
    assert "Do the modalities learn alike?" not in page
    assert "mcutune compare NAME --with epochs" in page


def test_hidden_training_rows_and_older_evidence_are_said(tmp_path: Path) -> None:
    world(tmp_path / "hidden", training_missing=0.2)
    report = report_of(tmp_path / "hidden", "fixed")
    assert "training_missing" in report["learning"]["reason"]
    assert "gradients-toy.parquet" not in report["provenance"]["evidence"]["files"]
    assert report["selection_gap"]
    world(tmp_path / "older")
    folder = evidence(tmp_path / "older", report_of(tmp_path / "older", "fixed"))
    manifest = read_json(folder / "manifest.json")
    del manifest["facts"]["every_epoch"]["gradients"], manifest["files"]["gradients-toy.parquet"]
    rehashed(folder, manifest)
    again = rebuild(folder)
    jsonschema.validate(again, SCHEMA)
    assert "run robustness again" in again["learning"]["reason"]


def test_the_sample_is_fixed_and_of_whole_dialogues_where_rows_depend_on_each_other() -> None:
    rows, dialogue = np.arange(0, 9000, 2), np.arange(9000) // 7
    found = sample(rows, None, 1000)
    assert len(np.unique(found)) == 1000
    assert (found == sample(rows, None, 1000)).all() and np.isin(found, rows).all()
    assert (sample(rows[:50], dialogue, 50) == rows[:50]).all()
    whole = sample(rows, dialogue, 1000)
    assert 1000 <= len(whole) < 1004
    assert (whole == rows[np.isin(dialogue[rows], dialogue[whole])]).all()


def test_epochs_are_fewer_where_a_gradient_is_dear(tmp_path: Path) -> None:
    assert looked_at(30, True).tolist() == [0, 6, 12, 17, 23, 29]
    assert looked_at(4, True).tolist() == [0, 1, 2, 3] == looked_at(4, False).tolist()
    table = make_table(tmp_path, rows=300)
    make_run(tmp_path, table)
    every_epoch(tmp_path, table, epochs=(2.0, 0.5, *np.linspace(0.4, 0.9, 18)))
    told(table, tmp_path, encoder="trained")
    report = report_of(tmp_path, "fixed")
    stored = pd.read_parquet(evidence(tmp_path, report) / "gradients-toy.parquet").astype({"fold": str})
    assert sorted(stored[stored.fold == "0"].epoch.unique()) == [1, 5, 9, 12, 16, 20]
    assert report["learning"]["epochs"] == {"least": 6, "most": 6, "every": False}
    assert "6 epochs evenly spaced" in html.render(report)
    folder = evidence(tmp_path, report)
    assert rebuild(folder) == report
    resealed(folder, lambda of: of.filter(pa.array(of["epoch"].to_numpy() != 5)))
    with pytest.raises(Damaged, match="one norm an epoch"):
        rebuild(folder)


@pytest.mark.parametrize("fold", ["0", "3"], ids=["the first", "the last"])
def test_one_fold_of_another_encoder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fold: str) -> None:
    """`encoder` may be searched: then each winner has its own epochs that gradients are taken after."""
    monkeypatch.setattr("mcutune.robustness.learning.EPOCHS_TRAINED", 3)
    told(world(tmp_path), tmp_path, fold, encoder="trained")
    report = report_of(tmp_path, "fixed")
    folder = evidence(tmp_path, report)
    stored = pd.read_parquet(folder / "gradients-toy.parquet").astype({"fold": str, "modality": str})
    epochs = {one: sorted(of.epoch.unique()) for one, of in stored.groupby("fold")}
    five = [1, 2, 3, 4, 5]
    assert epochs == {"0": five, "1": [1, 2, 3, 4], "2": five, "3": five} | {fold: [1, 3, 5]}
    assert report["learning"]["epochs"] == {"least": 3, "most": 5, "every": False}
    assert rebuild(folder) == report
    values = []
    for _, lane in stored.groupby(["fold", "seed"]):
        means = [lane[lane.modality == name].norm.mean() for name in NAMES]
        values.append(entropy([one / sum(means) for one in means]))
    assert report["learning"]["value"] == pytest.approx(np.mean(values), abs=1e-12)


@pytest.mark.parametrize("encoder", ["frozen", "trained"])
def test_evidence_with_one_word_for_all_folds_is_still_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, encoder: str
) -> None:
    monkeypatch.setattr("mcutune.robustness.learning.EPOCHS_TRAINED", 3)
    world(tmp_path, encoder=encoder)
    report = report_of(tmp_path, "fixed")
    folder = evidence(tmp_path, report)
    manifest = read_json(folder / "manifest.json")
    facts = manifest["facts"]["every_epoch"]
    for one in facts["chosen"]:
        del one["thinned"]
    facts["gradients"]["thinned"] = encoder == "trained"
    rehashed(folder, manifest)
    assert rebuild(folder)["learning"] == report["learning"]
    assert report["learning"]["epochs"]["every"] == (encoder == "frozen")


@pytest.mark.parametrize("bad", [math.nan, math.inf, Damaged("not the probabilities of 5 epochs")], ids=str)
def test_what_is_not_finite_costs_the_index_and_not_the_report(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, bad: float | Damaged
) -> None:
    world(tmp_path)
    plain = FakeModel.gradient_norms

    def broken(self: FakeModel, *given: Any, **named: Any) -> Any:
        norms = plain(self, *given, **named)
        if (self.info["lane"]["fold"], self.info["lane"]["seed"]) == ("2", 1):
            if isinstance(bad, Damaged):
                raise bad
            norms[3, 1] = bad
        return norms

    monkeypatch.setattr(FakeModel, "gradient_norms", broken)
    report = report_of(tmp_path, "fixed")
    jsonschema.validate(report, SCHEMA)
    found = report["learning"]
    assert (found["value"], found["modalities"]) == (None, [])
    assert "in fold 2, seed 1" in found["reason"]
    assert ("not finite" in found["reason"]) == isinstance(bad, float)
    assert found["reason"] in {one["reason"] for one in report["indices"] if one["name"] == "learning"}
    assert report["selection_gap"] and report["measurements"]
    assert rebuild(evidence(tmp_path, report)) == report
    assert "in fold 2, seed 1" in html.render(report)


@pytest.mark.parametrize(("encoder", "rows"), [("frozen", 3000), ("trained", 1170)])
def test_rows_are_fewer_where_a_gradient_is_dear(tmp_path: Path, encoder: str, rows: int) -> None:
    table = make_table(tmp_path, rows=6000, unlabelled=0.0)
    model = FakeModel({**checkpoint(table, "0", 1, 0, {"encoder": encoder, "noise": 0.1})})
    training = Training(table, "0", model)
    assert (len(training.rows), training.available) == (rows, len(split_of(table, "0").train))


@pytest.mark.parametrize("kind", list(SHAPES))
def test_real_models(tmp_path: Path, kind: str) -> None:
    """Stored are the norms that the predictor gives for the fold's training rows; the page and terminal tell them."""
    from rich.console import Console

    from mcutune.cli.render_report import report_view

    table = make_table(tmp_path, gaps=0.2, rows=200)
    train_run(tmp_path, table, {**SHAPES[kind], "kept": "every"}, folds=("0",))
    run = tmp_path / "runs" / "run"
    best = read_json(run / "best.json")["best"]
    (run / "compare" / "epochs").mkdir(parents=True)
    (run / "compare" / "epochs" / "checkpoints").symlink_to(run / "checkpoints")
    parts = [{"combination": None, "configuration": {}, "seeds": best[0]["checkpoints"]}]
    model = {"key": "every_epoch", "title": "every epoch kept", "how": "single", "rate": None, "failed": None,
             "changes": {}, "same_as_winner": [], "folds": [{"fold": "0", "parts": parts}]}  # fmt: skip
    winners = {"0": [one["sha256"] for one in best[0]["checkpoints"]]}
    facts = {"schema": 1, "word": "epochs", "winners": winners, "same_weights": True, "models": [model]}
    write_json(run / "compare" / "epochs" / "models.json", sealed(facts))
    report = certify("run", ["fixed"], home=tmp_path)
    jsonschema.validate(report, SCHEMA)
    assert rebuild(evidence(tmp_path, report)) == report
    found = report["learning"]
    assert 0 < found["least"] <= found["value"] <= found["most"] < 1
    stored = pd.read_parquet(evidence(tmp_path, report) / "gradients-toy.parquet").astype({"modality": str})
    data = fold_data(table, "0")
    rows = usable_rows(data)
    for seed in range(2):
        predictor = load_predictor(run / "checkpoints" / "0" / "0" / str(seed))
        given = (data.features, data.labels, data.dialogue, data.order, data.group)
        norms = predictor.gradient_norms(predictor.epochs(), *given, presence=data.presence, rows=rows)
        mine = stored[stored.seed == seed].pivot(index="epoch", columns="modality", values="norm")
        assert mine[list(NAMES)].to_numpy() == pytest.approx(norms, rel=1e-12)
    assert f"<b>{found['modalities'][1]['share']:.3f}</b>" in html.render(report)
    console = Console(width=200, record=True, file=io.StringIO())
    console.print(report_view(report))
    assert f"gradients in training: {found['value']:.3f}" in console.export_text()
