"""What other tools read of a search."""

from __future__ import annotations

from pathlib import Path

import optuna
import pyarrow.parquet as pq
import pytest
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend

from mcutune.domain.trial import State
from mcutune.search.export import _write, export_study
from mcutune.search.ledger import read_ledger
from tests.search.simulate import Play, plan_of


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("export") / "run"
    Play(plan_of(folder, folds=("1", "2")), packs=2).run()
    export_study(folder, folder.parent / "out")
    export_study(folder, folder.parent / "out")  # again: replaced, not added to
    return folder


def test_optuna_reads_a_study_a_fold(run: Path) -> None:
    storage = JournalStorage(JournalFileBackend(str(run.parent / "out" / "optuna.log")))
    assert sorted(study.study_name for study in storage.get_all_studies()) == ["run/1", "run/2"]
    study = optuna.load_study(study_name="run/1", storage=storage)
    record = read_ledger(run, keep=True)[0].studies["1"]
    assert len(study.trials) == len(record.trials)
    assert record.best is not None and study.best_trial.user_attrs["trial"] == record.best.number
    assert study.best_value == record.best.score
    for found, trial in zip(study.trials, record.trials, strict=True):
        assert found.state.name == {"finished": "COMPLETE", "pruned": "PRUNED", "failed": "FAIL"}[trial.state.value]
        assert found.params.items() <= record.configuration(trial).items()
        if trial.state is State.PRUNED and trial.repeats is None:
            assert found.value is not None or found.intermediate_values


def test_parquet_has_a_row_a_trial_and_a_row_a_lane_epoch(run: Path) -> None:
    records, _ = read_ledger(run, keep=True)
    trials = pq.read_table(run.parent / "out" / "trials.parquet", page_checksum_verification=True).to_pylist()
    epochs = pq.read_table(run.parent / "out" / "epochs.parquet", page_checksum_verification=True).to_pylist()
    assert len(trials) == sum(len(study.trials) for study in records.studies.values())
    assert len(epochs) == records.epochs
    best = records.studies["2"].best
    assert best is not None
    row = next(row for row in trials if (row["fold"], row["trial"]) == ("2", best.number))
    assert row["score"] == best.score and row["learning_rate"] == 1e-4
    assert row["score"] == pytest.approx(sum(row[f"score.{c}"] for c in ("audio", "text", "audio+text")) / 3)
    assert {"probability.audio+text", "divergence.text", "objective", "loss"} <= set(epochs[0])


def test_columns_that_the_first_row_lacks_are_written(tmp_path: Path) -> None:
    _write(tmp_path / "x", [{"a": 1}, {"a": 2, "score": 0.5}])
    assert pq.read_table(tmp_path / "x").to_pylist() == [{"a": 1, "score": None}, {"a": 2, "score": 0.5}]


def test_listed_configurations_export_as_categories(tmp_path: Path) -> None:
    (tmp_path / "list.json").write_text('[{"rank": 2}, {"rank": 8, "beta": 1.0}]')
    plan = plan_of(tmp_path / "run", "configurations: list.json\nfixed: {epochs: 2}\n")
    Play(plan).run()
    (log, _, _) = export_study(plan.folder, tmp_path / "out")
    study = optuna.load_study(study_name="run/1", storage=JournalStorage(JournalFileBackend(str(log))))
    assert [trial.params for trial in study.trials] == [
        {"beta": 0.001, "rank": 4},
        {"beta": 0.001, "rank": 2},
        {"beta": 1.0, "rank": 8},
    ]
