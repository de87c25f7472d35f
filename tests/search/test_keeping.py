"""Checkpoints of ended trials: the best stay, the disk does not fill, and no kill changes which."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path
from typing import Any

import pytest

from mcutune.domain.trial import State
from mcutune.errors import BadInput
from mcutune.files import read_json, sha256_file
from mcutune.search import artefacts, keeping
from mcutune.search.coordinator import Coordinator
from mcutune.search.ledger import read_ledger
from mcutune.search.records import Records, StudyRow, TrialRow
from mcutune.search.run_folder import BEST
from tests.search.kill import forked
from tests.search.rows import STUDY
from tests.search.simulate import SPACE, Play, plan_of

NO_RUNGS = SPACE.replace("rungs: {first: 1, eta: 2}", "rungs: none")


def on_disk(run: Path, fold: str = "1") -> set[int]:
    return {int(path.parent.name) for path in run.glob(f"checkpoints/{fold}/[0-9]*/0")}


def best_trials(run: Path, count: int, fold: str = "1") -> set[int]:
    """Trial 0 if it finished, and the best, as slowly as one can: sort all."""
    trials = [
        trial
        for trial in read_ledger(run)[0].studies[fold].trials
        if trial.state is State.FINISHED and trial.repeats is None
    ]
    others = sorted((t for t in trials if t.number), key=lambda t: (-(t.score or 0.0), t.number))
    return {trial.number for trial in others[:count]} | {t.number for t in trials if t.number == 0}


@pytest.mark.parametrize("keep", [1, 2, 5])
@pytest.mark.parametrize(("packs", "kill"), [(1, 0.0), (3, 0.05)])
def test_the_best_stay_in_every_fold_after_any_kill(tmp_path: Path, keep: int, packs: int, kill: float) -> None:
    text = NO_RUNGS.replace("trials: 14", "trials: 24")
    plan = plan_of(tmp_path / "run", text, folds=("1", "2"), keep=keep)
    expected = Play(plan_of(tmp_path / "all", text, folds=("1", "2"))).run()
    assert Play(plan, packs=packs, seed=keep, kill=kill).run() == expected
    for fold in ("1", "2"):
        assert len(on_disk(tmp_path / "all", fold)) > keep + 2
        assert on_disk(plan.folder, fold) == best_trials(plan.folder, keep, fold)
    for one in read_json(plan.folder / BEST)["best"]:
        for checkpoint in one["checkpoints"]:
            assert sha256_file(plan.folder / checkpoint["folder"] / "checkpoint.json") == checkpoint["sha256"]


def test_the_disk_is_bounded_on_the_way(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    most = [0]
    real = Coordinator._conclude

    def noted(self: Coordinator, *given: Any) -> bool:
        done = real(self, *given)
        ended = {t.number for t in self._records.studies["1"].trials if t.state is not State.RUNNING}
        most[0] = max(most[0], len(on_disk(self.plan.folder) & ended))
        return done

    monkeypatch.setattr(Coordinator, "_conclude", noted)
    Play(plan_of(tmp_path / "run", NO_RUNGS, trials=40, keep=2), packs=2, seed=3, kill=0.02).run()
    assert 2 < most[0] <= 2 + 2


def row(number: int, score: float, repeats: int | None = None) -> TrialRow:
    return TrialRow("1", number, "finished", repeats=repeats, score=score)


def test_ties_stay_with_the_lower_number_in_whatever_order_they_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    dropped: list[int] = []
    monkeypatch.setattr(keeping, "drop_checkpoints", lambda run, fold, number: dropped.append(number))
    for order in ([1, 2, 3], [3, 2, 1], [2, 3, 1]):
        keeper = keeping.Keeper(tmp_path, 1)
        for number in order:
            keeper.ended(row(number, 0.5))
        keeper.ended(row(4, 0.9, repeats=9))  # has no checkpoint of its own
        keeper.drop()
        assert sorted(dropped) == [2, 3], order
        dropped.clear()


def test_what_best_json_names_stays_while_the_search_goes_on(tmp_path: Path) -> None:
    first = plan_of(tmp_path / "run", NO_RUNGS, trials=6, keep=1)
    Play(first).run()
    (winner,) = (one["trial"] for one in read_json(first.folder / BEST)["best"])
    records = Records(partial=True)
    study: Any = StudyRow(*STUDY)
    records.apply(study)
    keeper = keeping.Keeper(first.folder, 1)
    keeper.open(records)
    keeper.ended(row(winner, 0.1))
    keeper.ended(row(winner + 1, 0.2))
    keeper.drop()
    assert winner in on_disk(first.folder)


def test_a_removal_that_a_kill_prevented_is_made_up(tmp_path: Path) -> None:
    plan = plan_of(tmp_path / "run", NO_RUNGS, trials=30, keep=1)

    def die(run: Path, *_: Any, **__: Any) -> None:
        if run.exists():
            os.kill(os.getpid(), signal.SIGKILL)

    def work(where: str) -> None:
        setattr(*{"before": (keeping, "drop_checkpoints"), "amid": (artefacts.shutil, "rmtree")}[where], die)
        Play(plan, packs=2).run()

    for where in ("before", "amid", "before"):
        assert os.WIFSIGNALED(os.waitpid(forked(lambda where=where: work(where)), 0)[1])  # type: ignore[misc]
        for trial in on_disk(plan.folder):  # never a trial with some of its seeds only, once it has ended
            ended = read_ledger(plan.folder)[0].studies["1"].trials[trial].state is State.FINISHED
            assert not ended or len(list((plan.folder / f"checkpoints/1/{trial}").glob("[0-9]"))) == 2
    Play(plan, packs=2).run()
    assert on_disk(plan.folder) == best_trials(plan.folder, 1)
    assert not list(plan.folder.glob("checkpoints/**/.*"))


@pytest.mark.parametrize("given", ["0", "-1", "none", "1.5", "９", ""])
def test_other_bounds_are_refused(given: str) -> None:
    from mcutune.cli.searching import Asked

    asked = ("quick", None, None, None, None, None, {}, None, False)
    with pytest.raises(BadInput, match="keep-checkpoints"):
        Asked(*asked, keep=given)  # type: ignore[arg-type]
    bounds = [Asked(*asked, keep=word).kept() for word in ("all", "best", "7")]  # type: ignore[arg-type]
    assert bounds == [None, 1, 7]


def test_a_trial_without_checkpoint_is_named_with_those_that_have_one(tmp_path: Path) -> None:
    from mcutune.robustness.selection import select

    run = tmp_path / "runs" / "r"
    (run / "checkpoints" / "1" / "3" / "0").mkdir(parents=True)
    (run / "checkpoints" / "1" / "3" / "0" / "checkpoint.json").write_text("{}")
    entry = {"fold": "1", "trial": 3, "score": 1.0, "scores": {}, "configuration": {}}
    entry["checkpoints"] = [{"seed": 0, "folder": "checkpoints/1/3/0", "sha256": "0" * 64}]
    data = {"table": "planted", "table_hash": "0" * 64}
    (run / BEST).write_text(json.dumps({"schema": 1, "run": "r", "data": data, "finished": "x", "best": [entry]}))
    with pytest.raises(BadInput, match=r"trial 7 of r has no checkpoint.*not kept.*kept: 3; "):
        select("r:7", tmp_path)
