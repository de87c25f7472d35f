"""A certification with models that were really trained, of every architecture, read by the real predictor."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mcutune.data.splits import split_of
from mcutune.data.table import Table
from mcutune.data.views import fold_data
from mcutune.files import sha256_file, write_json
from mcutune.model.predictor import load_predictor
from mcutune.robustness.batches import batch_of
from mcutune.robustness.rebuild import rebuild
from mcutune.robustness.run import certify
from mcutune.training.result import lane_files
from tests.robustness.test_certify import evidence, measured
from tests.robustness.worlds import make_table
from tests.training.fold import order, pack_of, trained

SHAPES: dict[str, dict[str, Any]] = {
    "utterance": {"encoder": "frozen", "encoder_kind": "utterance"},
    "dialogue": {"encoder": "frozen", "encoder_kind": "dialogue"},
    "trained": {"encoder": "trained"},
}


def train_run(home: Path, table: Table, shape: dict[str, Any], folds: tuple[str, ...] = ("0", "2")) -> None:
    """A finished run of one trial and two seeds a fold, trained for a few epochs without Ray."""
    folder, best = home / "runs" / "run", []
    for fold in folds:
        data = fold_data(table, fold)
        pack = pack_of(data, shape)
        lanes, _ = trained(pack, [order(0, seed, **shape) for seed in range(2)], epochs=3)
        checkpoints = []
        for seed, lane in enumerate(lanes):
            place = folder / "checkpoints" / fold / "0" / str(seed)
            place.mkdir(parents=True)
            encoder = [] if shape["encoder"] == "trained" else pack.encoder_files(seed)
            for name, content in lane_files(lane, pack, encoder).items():
                (place / name).write_bytes(content)
            digest = sha256_file(place / "checkpoint.json")
            checkpoints.append({"seed": seed, "folder": str(place.relative_to(folder)), "sha256": digest})
        best.append(
            {"fold": fold, "trial": 0, "score": 0.5, "scores": {}, "configuration": {}, "checkpoints": checkpoints}
        )
    data_facts = {"table": table.manifest.name, "table_hash": table.manifest.hash}
    write_json(folder / "best.json", {"schema": 1, "run": "run", "data": data_facts, "finished": "2026", "best": best})


@pytest.mark.parametrize(("kind", "gaps"), [("utterance", 0.0), ("dialogue", 0.2), ("trained", 0.2)])
def test_real_models_pass_every_check(tmp_path: Path, kind: str, gaps: float) -> None:
    table = make_table(tmp_path, gaps=gaps, rows=200)
    train_run(tmp_path, table, SHAPES[kind])
    make_table(tmp_path, "other", modalities=("text", "audio"), rows=100, seed=3)
    report = certify("best", (), home=tmp_path, target="other")
    assert [check for check in report["checks"] if not check["passed"]] == []
    folder = evidence(tmp_path, report)
    assert (folder / "predictions-0-toy-random.parquet").exists() == (kind != "utterance")
    assert rebuild(folder) == report
    full = measured(report, protocol="fixed", combination="audio+text+video", metric="wa")
    nothing_missing = measured(report, scenario="rate=0", metric="wa")
    assert nothing_missing["value"] == pytest.approx(full["value"], abs=1e-9)
    assert full["value"] > 0.3  # guessing gives 0.25
    assert full["n"] == np.isin(table.fold, ["0", "2"])[table.labelled].sum()
    assert [len(one["probabilities"]) for one in report["dpft"]] == [3] * 4
    assert report["provenance"]["versions"]["torch"]


@pytest.mark.parametrize(("protocol", "scenario"), [("random", "rate=0.5"), ("gaps", "share=0.8, all")])
def test_rows_of_an_utterance_model_may_be_looked_up(tmp_path: Path, protocol: str, scenario: str) -> None:
    """Stored predictions of a row's own combination, or of nothing, are those under the masks themselves."""
    import pandas as pd

    table = make_table(tmp_path, rows=200)
    train_run(tmp_path, table, SHAPES["utterance"], folds=("1",))
    report = certify("best", [protocol], home=tmp_path)
    folder = evidence(tmp_path, report)
    masks = pd.read_parquet(folder / f"presence-{protocol}-toy.parquet").astype({"id": str, "scenario": str})
    rows = split_of(table, "1").test
    batch = batch_of(table, rows, table.labelled[rows])
    right = []
    for seed in range(2):
        model = load_predictor(tmp_path / "runs" / "run" / "checkpoints" / "1" / "0" / str(seed))
        for _, mask in masks[masks.scenario == scenario].groupby("mask"):
            presence = mask.set_index("id").loc[table.ids[rows], ["audio", "text", "video"]].to_numpy()
            named = batch.under(model, presence).argmax(axis=1)[batch.measured]
            right.append(np.mean(named == table.labels(rows[batch.measured])))
    assert measured(report, scenario=scenario, metric="wa")["value"] == pytest.approx(np.mean(right), abs=1e-9)


@pytest.mark.parametrize("kind", list(SHAPES))
def test_noise_is_added_to_the_normalised_features(tmp_path: Path, kind: str) -> None:
    """Where training rows normalise, σ noise on normalised features is σ · deviation · noise on raw ones."""
    table = make_table(tmp_path, rows=120, gaps=0.2)
    train_run(tmp_path, table, SHAPES[kind], folds=("1",))
    rows = split_of(table, "1").test
    batch = batch_of(table, rows, table.labelled[rows])
    model = load_predictor(tmp_path / "runs" / "run" / "checkpoints" / "1" / "0" / "0")
    random = np.random.default_rng(0)
    noise = {"text": random.standard_normal(batch.features["text"].shape).astype(np.float32)}
    raw = {**batch.features, "text": batch.features["text"] + noise["text"] * model.normalisation.std["text"]}
    noisy = batch.under(model, batch.presence, noise)
    assert noisy == pytest.approx(dataclasses.replace(batch, features=raw).under(model, batch.presence), abs=1e-3)
    quiet = batch.under(model, batch.presence)
    assert np.abs(noisy - quiet).max() > 0.05
    alone = np.zeros_like(batch.presence)
    alone[:, 0] = True
    assert (batch.under(model, alone, noise) == batch.under(model, alone)).all()  # absent: not disturbed


def test_every_protocol_of_a_model_that_attends(tmp_path: Path) -> None:
    table = make_table(tmp_path, gaps=0.2, rows=120)
    train_run(tmp_path, table, SHAPES["dialogue"], folds=("1",))
    report = certify("best", ["all"], home=tmp_path)
    assert [check for check in report["checks"] if not check["passed"]] == []
    assert len(report["protocols"]) == 8
    assert rebuild(evidence(tmp_path, report)) == report
