"""Which models are measured: best, a run, a trial, a folder; and what is wrong with them."""

from __future__ import annotations

from pathlib import Path

import pytest

from mcutune.data.table import Table
from mcutune.errors import BadInput, Damaged, NoResult
from mcutune.files import read_json, write_json
from mcutune.robustness.selection import select
from tests.robustness.worlds import make_run, make_table


@pytest.fixture
def table(tmp_path: Path) -> Table:
    return make_table(tmp_path, rows=200)


def test_best_is_the_run_that_finished_last(tmp_path: Path, table: Table) -> None:
    make_run(tmp_path, table, "b", finished="2026-01-02T00:00:00Z")
    make_run(tmp_path, table, "a", finished="2026-03-01T00:00:00Z")
    make_run(tmp_path, table, "c", finished="2026-02-01T00:00:00Z")
    chosen = select("best", tmp_path)
    assert (chosen.given, chosen.name, chosen.run, chosen.table) == ("best", "a", "a", "toy")
    assert [winner.fold for winner in chosen.winners] == ["0", "1", "2", "3"]
    assert [seed.seed for seed in chosen.winners[2].seeds] == [0, 1]
    assert chosen.folder == tmp_path / "runs" / "a" / "robustness"
    assert select("b", tmp_path).name == "b"


def test_a_trial_is_taken_from_its_checkpoints(tmp_path: Path, table: Table) -> None:
    make_run(tmp_path, table)
    chosen = select("run:0", tmp_path)
    assert (chosen.name, {winner.trial for winner in chosen.winners}) == ("run:0", {0})
    assert chosen.winners[0].scores == {"audio": 0.5, "text": 0.6}
    assert chosen.folder.name == "trial-0"
    assert chosen.opened == tmp_path / "runs" / "run" / "robustness"


def test_a_folder_is_taken_from_a_run_or_alone(tmp_path: Path, table: Table) -> None:
    run = make_run(tmp_path, table)
    inside = select(str(run / "checkpoints" / "1" / "3" / "0"), tmp_path)
    assert (inside.run, inside.winners[0].fold, len(inside.winners[0].seeds)) == ("run", "1", 1)
    assert inside.opened == run / "robustness"
    alone = tmp_path / "elsewhere"
    (run / "checkpoints" / "1" / "3" / "0").rename(alone)
    outside = select(str(alone), tmp_path)
    assert (outside.run, outside.given) == (None, "elsewhere")
    assert outside.folder.parent == tmp_path / "robustness"


@pytest.mark.parametrize(
    ("given", "error", "said"),
    [
        ("nothing", BadInput, "no run nothing"),
        ("run:9", BadInput, "trial 9 of run has no checkpoint in fold 0"),
        ("run:x", BadInput, "no model .x. .*a trial.s number"),
        ("../run", BadInput, "not a checkpoint folder"),
        ("a b", BadInput, "not valid"),
        ("empty", NoResult, "ended without a winner"),
        ("young", NoResult, "no winner yet"),
    ],
)
def test_what_does_not_exist_is_refused(
    tmp_path: Path, table: Table, given: str, error: type[Exception], said: str
) -> None:  # fmt: skip
    run = make_run(tmp_path, table)
    best = read_json(run / "best.json")
    write_json(tmp_path / "runs" / "empty" / "best.json", {**best, "best": []})
    (tmp_path / "runs" / "young").mkdir()
    with pytest.raises(error, match=said):
        select(given, tmp_path)


def test_best_needs_a_finished_run(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="no run"):
        select("best", tmp_path)


@pytest.mark.parametrize("how", ["checkpoint", "outside", "shape", "json", "seeds", "link"])
def test_a_changed_run_is_refused(tmp_path: Path, table: Table, how: str) -> None:
    run = make_run(tmp_path, table)
    best = read_json(run / "best.json")
    first = run / "checkpoints" / "0" / "3" / "0" / "checkpoint.json"
    if how == "checkpoint":
        first.write_text(first.read_text().replace("7", "8", 1))
    elif how == "link":
        content = first.rename(tmp_path / "moved.json")
        first.symlink_to(content)
    elif how == "outside":
        best["best"][0]["checkpoints"][0]["folder"] = "checkpoints/../../../x"
        (tmp_path / "x").mkdir()
        (tmp_path / "x" / "checkpoint.json").write_bytes(first.read_bytes())
    elif how == "shape":
        del best["best"][0]["score"]
    elif how == "seeds":
        best["best"][0]["checkpoints"].pop()
    if how == "json":
        (run / "best.json").write_text("{")
    else:
        write_json(run / "best.json", best)
    with pytest.raises(Damaged):
        select("run", tmp_path)
