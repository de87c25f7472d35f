"""`mcutune compare` in this process: what is trained beside the winners of a small planted run, kills, refusals."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from mcutune.cli import app as cli
from mcutune.files import read_json, sealed, sha256_file, write_json
from mcutune.search.canonical import ledger_hash
from mcutune.search.coordinator import Coordinator
from mcutune.search.ledger import read_ledger

SPACE = """
parameters:
  beta: {role: scientific, low: 1e-4, high: 1e-1, log: true}
  sensitivity: {role: scientific, values: [0.05, 0.2]}
fixed: {epochs: 4, encoder_epochs: 2, encoder_width: 16, learning_rate: 5e-3, rank: 4}
trials: 3
seeds: 2
"""
RUN = "tiny-small"
COMPARE = ["compare", RUN, "--place", "process", "--plain"]


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A home with a small planted dataset and a finished search of two folds."""
    folder = tmp_path_factory.mktemp("home")
    before, started = {name: os.environ.get(name) for name in ("MCUTUNE_HOME", "COLUMNS")}, Path.cwd()
    os.environ.update(MCUTUNE_HOME=str(folder), COLUMNS="80")
    os.chdir(folder)
    (folder / "tiny.yaml").write_text(SPACE, encoding="utf-8")
    assert cli.run(["data", "make", "planted", "--name", "small", "--rows", "600", "--seed", "3"]) == 0
    assert cli.run(search("tiny.yaml", RUN)) == 0
    yield folder
    os.chdir(started)
    for name, value in before.items():
        os.environ.pop(name, None) if value is None else os.environ.update({name: value})


def search(space: str, name: str) -> list[str]:
    options = ["--data", "small", "--place", "process", "--plain", "--folds", "all"]
    return ["search", "--space", space, "--name", name, *options]


@pytest.fixture(scope="module")
def told(home: Path) -> dict[str, Any]:
    """models.json of the comparators, trained once for this file."""
    assert cli.run(COMPARE) == 0
    return models(home, "comparators")


def models(home: Path, word: str) -> dict[str, Any]:
    facts: dict[str, Any] = read_json(home / "runs" / RUN / "compare" / word / "models.json")
    assert facts == sealed(facts)
    return facts


def model(told: dict[str, Any], key: str) -> dict[str, Any]:
    return next(one for one in told["models"] if one["key"] == key)


def files_of(run: Path) -> dict[str, str]:
    own = (path for path in run.rglob("*") if path.is_file() and "compare" not in path.relative_to(run).parts)
    return {str(path): sha256_file(path) for path in own if path.suffix not in (".db-shm", ".db-wal")}


def test_the_run_itself_is_left_alone(home: Path) -> None:
    run = home / "runs" / RUN
    before, files = ledger_hash(read_ledger(run)[0]), files_of(run)
    assert cli.run([*COMPARE, "--with", "epochs"]) == 0
    assert ledger_hash(read_ledger(run)[0]) == before
    assert files_of(run) == files


def test_the_winner_trained_again_is_the_winner(told: dict[str, Any]) -> None:
    assert told["same_weights"] is True
    assert told["winners"].keys() == {"1", "2", "3", "4", "5"}


def test_without_dpft_is_a_trial_of_a_search_bit_for_bit(home: Path, told: dict[str, Any]) -> None:
    """A search that has that configuration by itself, among others, trains the same weights."""
    for fold in model(told, "without_dpft")["folds"][:2]:
        part = fold["parts"][0]
        assert part["configuration"]["sensitivity"] == 0.0
        changed = {key: part["configuration"][key] for key in ("beta", "sensitivity")}
        listed = [{"beta": 0.5, "sensitivity": 0.1}, changed]
        name = f"twin{fold['fold']}"
        (home / f"{name}-list.yaml").write_text(json.dumps(listed), encoding="utf-8")
        fixed = SPACE[SPACE.index("fixed") : SPACE.index("trials")]
        (home / f"{name}.yaml").write_text(f"configurations: {name}-list.yaml\n{fixed}seeds: 2\n", encoding="utf-8")
        assert cli.run(search(f"{name}.yaml", name)) == 0
        for seed in part["seeds"]:
            own = home / "runs" / RUN / "compare" / "comparators" / seed["folder"] / "model.safetensors"
            theirs = home / "runs" / name / "checkpoints" / fold["fold"] / "2" / str(seed["seed"]) / "model.safetensors"
            assert sha256_file(own) == sha256_file(theirs)


def test_what_is_changed_is_one_thing(told: dict[str, Any]) -> None:
    winner = read_json(Path(os.environ["MCUTUNE_HOME"]) / "runs" / RUN / "best.json")["best"]
    for key, changed in (("without_orthogonality", {"beta"}), ("without_weight", {"fusion"})):
        for own, fold in zip(winner, model(told, key)["folds"], strict=True):
            theirs = fold["parts"][0]["configuration"]
            assert {name for name in theirs if theirs[name] != own["configuration"].get(name)} == changed
    special = model(told, "specialists")["folds"][0]["parts"]
    assert [one["combination"] for one in special][-1] == "audio+text+video" and len(special) == 7
    complete = model(told, "complete_only")["folds"][0]["parts"][0]
    assert complete["seeds"] == special[-1]["seeds"]  # the same configuration is trained once
    assert [one["combination"] for one in model(told, "late_fusion")["folds"][0]["parts"]] == ["audio", "text", "video"]


def test_a_kill_loses_nothing_and_the_same_command_continues(
    home: Path, told: dict[str, Any], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = home / "runs" / RUN / "compare" / "comparators"
    shutil.move(folder, home / "whole")
    calls, advance = [], Coordinator.advance

    def killed(self: Coordinator, *arguments: Any) -> Any:
        calls.append(arguments)
        if len(calls) == 9:
            raise RuntimeError("killed")
        return advance(self, *arguments)

    monkeypatch.setattr(Coordinator, "advance", killed)
    assert cli.run(COMPARE) == 1
    monkeypatch.undo()
    assert not (folder / "models.json").exists()
    assert any(folder.glob("ledger.db"))
    assert cli.run(COMPARE) == 0
    assert models(home, "comparators") == told
    capsys.readouterr()
    assert cli.run([*COMPARE, "--json"]) == 0  # nothing is trained a second time
    out, err = capsys.readouterr()
    assert json.loads(out)["words"] == [told]
    assert "has been trained already" in err


def refused(capsys: pytest.CaptureFixture[str], code: int, *arguments: str) -> str:
    capsys.readouterr()
    assert cli.run([*arguments]) == code
    err = capsys.readouterr().err
    assert err.startswith("error: ") and len(err.splitlines()) == 1
    return err


def test_what_cannot_be_compared_is_refused_in_a_line(
    home: Path, told: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    said = refused(capsys, 2, *COMPARE, "--with", "comparators,epoch")
    assert "did you mean 'epochs'" in said and "rate_shift" in said
    assert "did you mean" in refused(capsys, 2, "compare", "tiny-smal")
    run = home / "runs" / RUN
    (run / "best.json").rename(run / "kept.json")
    try:
        assert "best.json of run tiny-small is gone" in refused(capsys, 2, *COMPARE)
    finally:
        (run / "kept.json").rename(run / "best.json")
    best = (run / "best.json").read_text(encoding="utf-8")
    try:
        write_json(run / "best.json", sealed(json.loads(best.replace('"beta": ', '"beta": 1'))))
        assert "beside other winners" in refused(capsys, 2, *COMPARE)
        other = best.replace(json.loads(best)["data"]["table_hash"], "0" * 64)
        write_json(run / "best.json", sealed(json.loads(other)))
        assert "is not the one that" in refused(capsys, 2, *COMPARE)
    finally:
        (run / "best.json").write_text(best, encoding="utf-8")


def test_the_report_reads_what_was_trained(
    home: Path, told: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    """A specialist's cell is what the specialist itself answers for the test rows; every epoch's best is above."""
    import pandas as pd

    from mcutune.data.splits import split_of
    from mcutune.data.table import open_table
    from mcutune.model.predictor import load_predictor

    assert cli.run([*COMPARE, "--with", "epochs"]) == 0
    capsys.readouterr()
    assert cli.run(["robustness", "--ckpt", RUN, "--protocol", "fixed", "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    names = [one["name"] for one in report["models"]]
    assert names[0] == RUN and f"{RUN}:specialists" in names
    folder = home / "runs" / RUN / "robustness" / report["provenance"]["evidence"]["folder"]
    stored = pd.read_parquet(folder / f"predictions-{names.index(f'{RUN}:specialists')}-small.parquet")
    fold = model(told, "specialists")["folds"][0]
    part = next(one for one in fold["parts"] if one["combination"] == "audio+text")
    table = open_table("small")
    rows = split_of(table, fold["fold"]).test
    place = home / "runs" / RUN / "compare" / "comparators" / part["seeds"][0]["folder"]
    features = {name: table.features(name)[rows] for name in table.modalities.names}
    every = load_predictor(place).all_combinations(features, table.dialogue[rows], table.order[rows], table.group[rows])
    own = every[table.modalities.labels.index("audio+text")]
    mine = stored[(stored.fold == fold["fold"]) & (stored.seed == 0) & (stored.combination == "audio+text")]
    logits = mine.set_index("id")[[f"logit_{k}" for k in range(own.shape[1])]].loc[table.ids[rows]].to_numpy()
    assert (logits == own).all()
    gaps = [one for one in report["selection_gap"] if one["combination"] is None]
    assert gaps and all(one["least"] >= 0 for one in gaps)
    assert {one["key"] for one in report["answers"]} >= {"shared_only", "specialists", "late_fusion", "without_dpft"}
