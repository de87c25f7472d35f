"""Predictions of a loaded model: the same as those that robustness stored, and every wrong input named."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

import mcutune
from mcutune.data.splits import split_of
from mcutune.data.table import Table, open_table
from mcutune.domain.task import Task
from mcutune.errors import BadInput, Damaged
from mcutune.export.make import chosen, export
from mcutune.export.use import Model
from mcutune.robustness.run import certify
from mcutune.robustness.selection import select
from tests.export.models import KINDS
from tests.robustness.test_certify import evidence
from tests.robustness.test_real_models import train_run
from tests.robustness.worlds import make_table
from tests.schemas import CARD, hold

NAMES = ("audio", "text", "video")
GOOD = {"audio": np.ones((2, 5)), "text": np.ones((2, 7)), "video": np.ones((2, 4))}


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of utterance models in two folds, exported of fold 0."""
    folder = tmp_path_factory.mktemp("home")
    train_run(folder, make_table(folder, rows=200), KINDS["utterance"])
    export(chosen(select("run", folder), "0", None), folder / "model", onnx=False)
    return folder


@pytest.fixture
def model(home: Path) -> Model:
    return mcutune.load(home / "model")


@pytest.mark.parametrize("kind", [*KINDS, "values"])
def test_predictions_are_those_of_the_report_bit_for_bit(tmp_path: Path, kind: str) -> None:
    """After a move: the folder alone, without the home that it came from."""
    given: dict[str, Any] = {"task": Task.REGRESSION} if kind == "values" else {}
    table = make_table(tmp_path / "home", rows=200, **given)
    train_run(tmp_path / "home", table, KINDS.get(kind, KINDS["utterance"]), folds=("1",))
    report = certify("best", ["fixed"], home=tmp_path / "home")
    stored = pd.read_parquet(evidence(tmp_path / "home", report) / "predictions-0-toy.parquet")
    stored = stored.astype({"id": str, "combination": str})
    export(chosen(select("run", tmp_path / "home"), None, None), tmp_path / "made", onnx=False)
    table = _moved(tmp_path)
    rows = split_of(table, "1").test
    model = mcutune.load(tmp_path / "elsewhere" / "model")
    assert model.seeds == (0, 1)
    assert model.by_dialogue == (kind in ("dialogue", "trained"))
    ids = {name: place for place, name in enumerate(table.ids[rows].tolist())}
    for label in ("audio", "text", "video", "audio+text", "audio+video", "text+video", "audio+text+video"):
        features = {name: np.asarray(table.features(name)[rows]) for name in label.split("+")}
        said = model.predict(features, dialogue=table.dialogue[rows])
        assert set(said.combinations) == {label}
        for seed in model.seeds:
            part = stored[(stored.combination == label) & (stored.seed == seed)]
            assert len(part) == table.labelled[rows].sum()
            expected = part[[c for c in part if c.startswith("logit_")]].to_numpy()
            assert np.array_equal(said.logits[seed][part["id"].map(ids)], expected)
        _consistent(said, model)


def _moved(folder: Path) -> Table:
    """The exported folder and the table elsewhere, the home gone."""
    (folder / "elsewhere").mkdir()
    shutil.move(folder / "made", folder / "elsewhere" / "model")
    shutil.move(folder / "home" / "datasets", folder / "elsewhere" / "datasets")
    shutil.rmtree(folder / "home")
    return open_table("toy", home=folder / "elsewhere")


def _consistent(said: Any, model: Model) -> None:
    """Labels, probabilities and values are made of the logits."""
    if model.task == "regression":
        assert said.labels is None
        np.testing.assert_allclose(said.values, said.logits[..., 0].mean(0), rtol=1e-6)
        return
    raised = np.exp(said.logits.astype(np.float64))
    np.testing.assert_allclose(said.probabilities, (raised / raised.sum(-1, keepdims=True)).mean(0), rtol=1e-9)
    assert said.labels.tolist() == [model.labels[k] for k in said.probabilities.argmax(1)]


def test_four_ways_of_being_absent(model: Model) -> None:
    random = np.random.default_rng(0)
    features = {name: random.normal(size=(6, dim)) for name, dim in model.dims.items()}
    without = {name: features[name] for name in ("audio", "text")}
    missing = model.predict(without)
    none = model.predict({**without, "video": None})
    nan = model.predict({**without, "video": np.full((6, 4), np.nan)})
    flagged = model.predict(features, presence=np.tile([True, True, False], (6, 1)))
    assert set(missing.combinations) == {"audio+text"}
    for other in (none, nan, flagged):
        assert np.array_equal(missing.logits, other.logits)
        assert other.combinations == missing.combinations
    mixed = model.predict(features, presence=[[1, 0, 0], [1, 1, 1], [0, 1, 0], [0, 0, 1], [0, 1, 1], [1, 0, 1]])
    assert mixed.combinations == ("audio", "audio+text+video", "text", "video", "text+video", "audio+video")
    alone = model.predict({"audio": features["audio"][:1]})
    np.testing.assert_allclose(mixed.logits[:, 0], alone.logits[:, 0], atol=1e-6)


@pytest.mark.parametrize(
    ("features", "given", "says"),
    [
        ({"audoi": np.ones((2, 5))}, {}, "no modality 'audoi' (did you mean 'audio'? valid: audio, text, video)"),
        ({}, {}, "no modality is given"),
        ({"audio": None}, {}, "no modality is given"),
        ([1, 2], {}, "features are a list"),
        ({"audio": np.ones((2, 6))}, {}, "'audio' has shape (2, 6), the model reads [N, 5]"),
        ({"audio": np.ones(5)}, {}, "a single row is array[None]"),
        ({"audio": np.array([[None] * 5], dtype=object)}, {}, "'audio' has dtype object, expected numbers"),
        ({"audio": [["a"] * 5]}, {}, "expected numbers"),
        ({"audio": [[1, 2], [3]]}, {}, "'audio' is not a rectangular array"),
        ({"audio": np.ones((2, 5)), "text": np.ones((3, 7))}, {}, "modalities differ in rows: audio 2, text 3"),
        ({"audio": np.ones((0, 5))}, {}, "there are no rows"),
        ({"audio": [[1, 2, 3, 4, np.nan]]}, {}, "row 0 of 'audio' has a feature that is not finite"),
        ({"audio": [[1, 2, 3, 4, 1e300]]}, {}, "row 0 of 'audio' has a feature that is not finite"),
        ({"audio": np.full((2, 5), np.nan)}, {}, "2 of 2 rows have nothing present: 0, 1 (leave them out"),
        (GOOD, {"presence": np.zeros((2, 3), bool)}, "2 of 2 rows have nothing present"),
        (
            {"audio": GOOD["audio"]},
            {"presence": np.ones((2, 3), bool)},
            "presence says that 'text' is there, which is not",
        ),
        (GOOD, {"presence": np.ones((2, 2), bool)}, "presence has shape (2, 2), expected (2, 3)"),
        (GOOD, {"presence": np.full((2, 3), 0.5)}, "presence has dtype float64 (booleans, or 0 and 1)"),
        (GOOD, {"dialogue": [1]}, "dialogue has shape (1,), expected (2,)"),
    ],
)
def test_wrong_input_is_named(model: Model, features: Any, given: dict[str, Any], says: str) -> None:
    with pytest.raises(BadInput) as error:
        model.predict(features, **given)
    assert says in str(error.value)


def test_dialogues_and_groups_are_asked_for_where_they_matter(tmp_path: Path) -> None:
    train_run(tmp_path, make_table(tmp_path, rows=200), KINDS["dialogue"], folds=("1",))
    export(chosen(select("run", tmp_path), None, 1), tmp_path / "model", onnx=False)
    model = mcutune.load(tmp_path / "model")
    assert model.seeds == (1,)
    with pytest.raises(BadInput, match="reads whole dialogues: dialogue= is missing"):
        model.predict(GOOD)
    together, apart = model.predict(GOOD, dialogue=["d", "d"]), model.predict(GOOD, dialogue=["d", "e"])
    assert together.logits.shape == apart.logits.shape == (1, 2, 4)


def test_a_run_is_loaded_by_its_name(home: Path, model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MCUTUNE_HOME", str(home))
    assert np.array_equal(mcutune.load("run", fold="0").predict(GOOD).logits, model.predict(GOOD).logits)
    assert mcutune.load("run:0", fold="2", seed=1).seeds == (1,)
    for name, given, says in (
        ("run", {}, "has a winner in each of 2 folds (name one fold: 0, 2)"),
        ("run", {"fold": "9"}, "no winner in fold '9' (valid: 0, 2)"),
        ("run", {"fold": "0", "seed": 5}, "seed 5 was not trained (there are 0, 1)"),
        ("rum", {}, "there is no run rum"),
        ("nowhere/at/all", {}, "is not a checkpoint folder"),
    ):
        with pytest.raises(BadInput) as error:
            mcutune.load(name, **given)
        assert says in str(error.value)
    with pytest.raises(BadInput, match="is of fold 0, not 2"):
        mcutune.load(home / "model", fold="2")


@pytest.mark.parametrize("name", ["card.json", "README.md", "seed-0/model.safetensors", "seed-1/checkpoint.json"])
def test_a_changed_or_missing_file_is_refused(home: Path, tmp_path: Path, name: str) -> None:
    folder = tmp_path / "model"
    shutil.copytree(home / "model", folder)
    content = bytearray((folder / name).read_bytes())
    content[len(content) // 2] ^= 1
    (folder / name).write_bytes(content)
    with pytest.raises(Damaged, match="is not the file that was exported"):
        mcutune.load(folder)
    (folder / name).unlink()
    if name == "card.json":
        with pytest.raises(BadInput):
            mcutune.load(folder)
        return
    with pytest.raises(Damaged, match="missing"):
        mcutune.load(folder)


def test_sums_that_leave_out_a_weight_are_refused(home: Path, tmp_path: Path) -> None:
    shutil.copytree(home / "model", tmp_path / "model")
    sums = tmp_path / "model" / "SHA256SUMS"
    sums.write_text("".join(line for line in sums.read_text().splitlines(True) if "seed-1/model" not in line))
    with pytest.raises(Damaged, match="does not name seed-1/model.safetensors"):
        mcutune.load(tmp_path / "model")
    sums.write_text("0" * 64 + "  ../../elsewhere\n")
    with pytest.raises(Damaged, match="is not what was written"):
        mcutune.load(tmp_path / "model")


def test_the_card_says_what_was_trained_and_measured(home: Path, tmp_path: Path) -> None:
    card = json.loads((home / "model" / "card.json").read_text())
    assert card["robustness"] is None
    assert any("no report was made" in line for line in card["not_for"])
    assert card["validation"]["scores"].keys() == {"audio", "text", "video", "audio+text", "audio+video", "text+video",
                                                   "audio+text+video"}  # fmt: skip
    report = certify("run", ["fixed"], home=home)
    export(chosen(select("run", home), "2", None), tmp_path / "model", onnx=False)
    card = json.loads((tmp_path / "model" / "card.json").read_text())
    hold(card, CARD)
    assert card["robustness"]["sentences"] == report["summary"]
    assert report["summary"][2] in card["not_for"]
    mine = [one for one in report["measurements"] if one["model"] == "run"]
    assert [one["value"] for one in card["robustness"]["measurements"]] == [one["value"] for one in mine]
    assert any("this one is that of fold 2" in line for line in card["intended_use"])
    page = (tmp_path / "model" / "README.md").read_text()
    assert f"{mine[0]['value']:.3f}" in page
    assert "happy(+excited)" in page
