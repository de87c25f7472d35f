"""`mcutune export` as a person uses it: folders that are whole or absent, names that are wrong, a last training."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import mcutune
from mcutune.cli import app as cli
from mcutune.data.table import open_table
from mcutune.errors import BadInput, CheckFailed
from mcutune.export import make
from mcutune.export.refit import recipe_of
from mcutune.files import read_json, sealed, write_json
from mcutune.model.onnx_graph import Checked
from mcutune.robustness.selection import select
from tests.export.models import KINDS
from tests.robustness.test_real_models import train_run
from tests.robustness.worlds import make_table
from tests.schemas import CARD, hold

GOOD = {"audio": np.ones((2, 5)), "text": np.ones((2, 7))}


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("home")
    train_run(folder, make_table(folder, rows=200), KINDS["utterance"])
    return folder


@pytest.fixture
def home(built: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Path:
    monkeypatch.setenv("MCUTUNE_HOME", str(built))
    capsys.readouterr()
    return built


def left(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir()) if folder.exists() else []


def test_the_whole_command_with_onnx(home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    ort = pytest.importorskip("onnxruntime", reason="the extra `export` is not installed")
    target = tmp_path / "model"
    assert cli.run(["export", "run", "--fold", "2", "--to", str(target)]) == 0
    assert "ONNX agrees with torch on 7 combinations" in capsys.readouterr().out
    files = ["README.md", "SHA256SUMS", "card.json", "model.onnx", "seed-0", "seed-1"]
    assert left(target) == files
    done = subprocess.run(["sha256sum", "--check", "--quiet", "SHA256SUMS"], cwd=target, check=False)
    assert done.returncode == 0
    features = {name: np.float32(np.random.default_rng(0).normal(size=(5, d))) for name, d in _dims().items()}
    said = mcutune.load(target).predict(features)
    session = ort.InferenceSession(str(target / "model.onnx"), providers=["CPUExecutionProvider"])
    logits, probabilities = session.run(None, {**features, "presence": np.ones((5, 3), bool)})
    np.testing.assert_allclose(logits, said.logits, atol=1e-4)
    np.testing.assert_allclose(probabilities, said.probabilities, atol=1e-4)
    card = read_json(target / "card.json")
    hold(card, CARD)
    assert card["onnx"]["largest"] < card["onnx"]["bound"] == 1e-4
    assert str(home) not in (target / "README.md").read_text() + json.dumps(card)
    before = (target / "card.json").read_bytes()
    assert cli.run(["export", "run", "--fold", "2", "--to", str(target)]) == 2
    assert "exists (choose another folder with --to, or remove it)" in capsys.readouterr().err
    assert (target / "card.json").read_bytes() == before


def _dims() -> dict[str, int]:
    return {"audio": 5, "text": 7, "video": 4}


def test_one_seed_without_onnx_into_the_home(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run(["export", "run:0", "--fold", "0", "--seed", "1", "--no-onnx", "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert said["folder"] == str(home / "exports" / "run-0-fold-0-seed-1")
    hold(said["card"], CARD)
    assert said["card"]["onnx"] == {"file": None, "reason": "it was not asked for"}
    assert left(Path(said["folder"])) == ["README.md", "SHA256SUMS", "card.json", "seed-1"]
    assert mcutune.load(said["folder"]).seeds == (1,)


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (
            ["run"],
            2,
            "run has a winner in each of 2 folds (choose one with --fold 0, 2, or train one on all rows with --refit)",
        ),
        (["run", "--fold", "1"], 2, "run has no winner in fold '1'"),
        (["run:7", "--fold", "0"], 2, "trial 7 of run has no checkpoint in fold 0"),
        (["run:x"], 2, "run has no model 'x'"),
        (["rum"], 2, "there is no run rum"),
        (["../run"], 2, "is not a checkpoint folder"),
        (["run", "--fold", "0", "--seed", "5"], 2, "seed 5 was not trained (there are 0, 1)"),
        (["run", "--fold", "0", "--seed", "-1"], 2, "is not a seed (a number, or all)"),
    ],
)
def test_wrong_names_are_one_line(
    home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], code: int, says: str
) -> None:
    assert cli.run(["export", *arguments, "--to", str(tmp_path / "model")]) == code
    err = capsys.readouterr().err
    assert says in err
    assert len(err.strip().splitlines()) == 1
    assert left(tmp_path) == []


@pytest.fixture
def differing(monkeypatch: pytest.MonkeyPatch) -> None:
    def check(content: bytes, predictors: Any) -> Checked:
        raise CheckFailed("ONNX and torch differ by 1 (audio, batch 1), allowed is 0.0001")

    monkeypatch.setattr(make, "obstacle", lambda predictors: None)
    monkeypatch.setattr(make, "onnx_file", lambda predictors, facts: b"")
    monkeypatch.setattr(make, "check", check)


def test_a_failed_check_leaves_no_folder(
    home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], differing: None
) -> None:
    assert cli.run(["export", "run", "--fold", "0", "--to", str(tmp_path / "model")]) == 7
    assert "differ by 1" in capsys.readouterr().err
    assert left(tmp_path) == []


def test_without_the_extra(
    home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(make, "obstacle", lambda predictors: BadInput("ONNX needs onnx", hint="pip install it"))
    assert cli.run(["export", "run", "--fold", "0", "--to", str(tmp_path / "model")]) == 0
    assert "no ONNX: ONNX needs onnx (pip install it)" in capsys.readouterr().err
    assert cli.run(["export", "run", "--fold", "0", "--onnx", "--to", str(tmp_path / "other")]) == 2
    assert left(tmp_path) == ["model"]


def test_a_disk_that_fills_leaves_no_folder(home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(folder: Path) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("mcutune.export.folder.sync_folder", full)
    assert cli.run(["export", "run", "--fold", "0", "--no-onnx", "--to", str(tmp_path / "model")]) == 5
    assert left(tmp_path) == []


@pytest.mark.parametrize("kind", KINDS)
def test_refit_trains_on_every_row_and_says_that_it_was_never_measured(
    tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    table = make_table(tmp_path, rows=200, gaps=0.1)
    train_run(tmp_path, table, KINDS[kind])
    monkeypatch.setenv("MCUTUNE_HOME", str(tmp_path))
    assert cli.run(["export", "run", "--refit", "--no-onnx", "--to", str(tmp_path / "model")]) == 0
    card = read_json(tmp_path / "model" / "card.json")
    hold(card, CARD)
    assert card["trained_on"]["fold"] == "all"
    assert card["refit"]["rows"] == table.labelled.sum()
    assert card["refit"]["folds"] == ["0", "2"]
    assert card["validation"] is None
    assert card["robustness"] is None
    assert any("never measured" in line for line in card["not_for"])
    best = [read_json(path)["best_epoch"] for path in (tmp_path / "runs" / "run").glob("**/checkpoint.json")]
    assert [one["best_epoch"] for one in card["seeds"]] == [int(np.mean(best) + 0.5)] * 2
    model = mcutune.load(tmp_path / "model")
    rows = np.flatnonzero(table.labelled & table.presence.all(1))
    features = {name: np.asarray(table.features(name)[rows]) for name in table.modalities.names}
    said = model.predict(features, dialogue=table.dialogue[rows])
    truth = np.array(model.labels)[table.labels(rows)]
    assert (said.labels == truth).mean() > 0.3  # guessing gives 0.25
    assert cli.run(["robustness", "--ckpt", str(tmp_path / "model" / "seed-0")]) == 2


def test_refit_is_refused_where_winners_disagree_or_data_changed(home: Path, tmp_path: Path) -> None:
    train_run(tmp_path, make_table(tmp_path, rows=200), KINDS["utterance"])
    for fold, seeds in (("0", 2), ("2", 2)):
        for seed in range(seeds):
            path = tmp_path / "runs" / "run" / "checkpoints" / fold / "0" / str(seed) / "checkpoint.json"
            facts = read_json(path)
            write_json(path, sealed({**facts, "configuration": {**facts["configuration"], "beta": float(fold)}}))
    selection = select("run:0", tmp_path)
    with pytest.raises(BadInput, match="do not agree.*--fold 0, 2"):
        recipe_of(selection, None, None)
    assert recipe_of(selection, "2", 1).configuration["beta"] == 2.0
    assert recipe_of(selection, "2", 1).seeds == (1,)


def test_the_data_of_a_refit_keeps_copies_apart(home: Path) -> None:
    from mcutune.data.splits import split_of
    from mcutune.data.views import every_row

    table = open_table("toy", home=home)
    data = every_row(table, "0", normalisation="train")
    count, copies = len(table), split_of(table, "0").validation
    assert data.validation.sum() == len(copies) > 0
    assert not data.validation[:count].any()
    assert np.array_equal(data.labels[:count], table.labels(np.arange(count)))
    assert np.array_equal(data.labels[count:], table.labels(copies))
    for codes in (data.dialogue, data.group):
        assert not set(codes[:count].tolist()) & set(codes[count:].tolist())


def test_importing_mcutune_loads_nothing_to_predict_with() -> None:
    code = "import sys, mcutune; assert not {'torch', 'numpy'} & set(sys.modules); mcutune.load"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
