"""What a finished search says about itself."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import jsonschema
import pytest

import mcutune.search.sentences as sentences_module
import mcutune.search.summary as summary_module
from mcutune.files import read_json, sha256_file
from mcutune.search.ledger import read_ledger
from mcutune.search.run_folder import BEST
from mcutune.search.sentences import sentences
from mcutune.search.summary import Boundary, Comparison, Summary, compare, status, summarise
from tests.reference import rungs_twin
from tests.search.simulate import SPACE, Play, plan_of


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("summary") / "run"
    Play(plan_of(folder, folds=("1", "2"), trials=10, seeds=3), packs=2).run()
    return folder


@pytest.fixture(scope="module")
def found(run: Path) -> Summary:
    return summarise(run)


def test_status_follows_its_schema(run: Path) -> None:
    schema = json.loads(Path(summary_module.__file__).with_name("status.schema.json").read_text())
    jsonschema.validate(status(run), schema)
    assert status(run)["state"] == "finished"


def test_winners_are_the_best_finished_trials_with_all_their_seeds(run: Path, found: Summary) -> None:
    assert [winner.fold for winner in found.winners] == ["1", "2"]
    for winner in found.winners:
        assert winner.score == pytest.approx(sum(winner.seeds) / 3) and len(winner.seeds) == 3
        assert set(winner.scores) == {"audio", "text", "audio+text"} == set(winner.spread)
        assert winner.score == pytest.approx(sum(winner.scores.values()) / 3)
        assert winner.configuration["epochs"] == 5 and set(winner.settings) < set(winner.configuration)
        assert winner.default is not None


def test_best_json_names_checkpoints_that_are_there(run: Path, found: Summary) -> None:
    best = read_json(run / BEST)
    assert best["run"] == "run" and best["data"] == {"table": "fake", "table_hash": "table"} and best["finished"]
    for entry, winner in zip(best["best"], found.winners, strict=True):
        assert (entry["fold"], entry["trial"]) == (winner.fold, winner.trial)
        assert [c["seed"] for c in entry["checkpoints"]] == [0, 1, 2]
        for checkpoint in entry["checkpoints"]:
            assert sha256_file(run / checkpoint["folder"] / "checkpoint.json") == checkpoint["sha256"]


def test_only_finished_trials_keep_checkpoints(run: Path) -> None:
    kept = {(path.parts[-3], int(path.parts[-2]), int(path.parts[-1])) for path in run.glob("checkpoints/*/*/*")}
    studies = read_ledger(run)[0].studies
    assert kept == {
        (fold, trial.number, seed)
        for fold, study in studies.items()
        for trial in study.trials
        for seed in range(3)
        if trial.state.value == "finished" and trial.repeats is None
    }
    assert not list(run.glob("checkpoints/**/.*"))


def test_words_name_winner_noise_and_failures(found: Summary) -> None:
    text = "\n".join(sentences(found))
    assert "fold 1: trial" in text and "over 3 seeds" in text and "trial 0" in text
    if found.failures:
        assert "failed (nan)" in text


def test_a_search_in_which_all_fails_has_no_best_and_says_why(tmp_path: Path) -> None:
    plan = plan_of(tmp_path / "run", SPACE + "\n", trials=3)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("tests.search.simulate.units", lambda *facts: 0.0)
        Play(plan).run()
    summary = summarise(plan.folder)
    assert summary.state == "finished" and not summary.winners and not (plan.folder / BEST).exists()
    assert sentences(summary)[0].startswith("No trial finished") and "failed (nan)" in sentences(summary)[1]


@pytest.mark.parametrize(
    ("ours", "theirs", "verdict"),
    [
        ([0.9], [0.1], "cannot tell"),
        ([0.9, 0.91], [0.1, 0.11], "cannot tell"),
        ([0.90, 0.91, 0.92], [0.80, 0.81, 0.825], "better"),
        ([0.90, 0.70, 0.95], [0.80, 0.81, 0.82], "cannot tell"),
        ([0.80, 0.81, 0.82], [0.90, 0.91, 0.925], "cannot tell"),
    ],
)
def test_better_is_said_only_beyond_the_noise_between_seeds(
    ours: list[float], theirs: list[float], verdict: str
) -> None:
    assert compare(ours, theirs).verdict == verdict


def test_the_interval_is_that_of_a_paired_t_test() -> None:
    from scipy.stats import ttest_rel

    ours, theirs = [0.90, 0.72, 0.95, 0.8], [0.80, 0.81, 0.82, 0.7]
    expected = ttest_rel(ours, theirs).confidence_interval(0.95)
    found = compare(ours, theirs)
    assert (found.low, found.high) == (pytest.approx(expected.low), pytest.approx(expected.high))


def test_seeds_cancel_when_paired() -> None:
    """Two trials that differ by the same amount in every seed, while seeds differ far more."""
    assert compare([0.5, 0.7, 0.9], [0.4899, 0.69, 0.8901]).verdict == "better"


def test_words_on_boundaries_depend_on_the_role() -> None:
    beyond = [sentences_module._beyond(Boundary("rank", role, "high", 16)) for role in ("scientific", "nuisance")]
    assert "may lie beyond" in beyond[0] and "unfair" in beyond[1]


def test_words_on_the_default() -> None:
    assert "not beaten" in sentences_module._against(Comparison(0, 3, None, None, None, "same"))
    assert "one seed" in sentences_module._against(Comparison(0.1, 1, None, None, None, "cannot tell"))


def test_rungs_are_measured_over_scouts_and_told(tmp_path: Path) -> None:
    text = SPACE.replace("rungs: {first: 1, eta: 2}", "rungs: {first: 1, eta: 2, scouts: 8}")
    plan = plan_of(tmp_path / "run", text, sampler="random", trials=30)
    Play(plan, capacity=8).run()
    found = summarise(plan.folder)
    records = read_ledger(plan.folder, keep=True)[0]
    study = records.studies["1"]
    assert [view.epoch for view in found.rungs] == [1, 2, 4]
    assert sum(view.pruned for view in found.rungs) == sum(
        trial.state.value == "pruned" and trial.repeats is None for trial in study.trials
    )
    scouts = [trial for trial in study.trials[:8] if trial.state.value == "finished"]
    for view in found.rungs:
        expected = rungs_twin.spearman([(trial.reached[view.epoch], trial.score or 0.0) for trial in scouts])
        assert view.correlation == pytest.approx(expected) and view.scouts == len(scouts) > 4
    assert found.trained == sum(trial.epochs for trial in study.trials)
    assert found.full == 5 * 2 * sum(trial.repeats is None for trial in study.trials) > found.trained
    assert "Rung at epoch 1" in "\n".join(sentences(found)) and "scouts)" in "\n".join(sentences(found))
    schema = json.loads(Path(summary_module.__file__).with_name("status.schema.json").read_text())
    jsonschema.validate(status(plan.folder), schema)


def test_words_on_rungs() -> None:
    view = summary_module.RungView("1", 3, 60, 40, None, 0, 3, False)
    assert "not measured" in sentences_module._rung([view])
    good, low = replace(view, correlation=0.91, scouts=8), replace(view, correlation=0.2, scouts=8, eta=1, widened=True)
    assert sentences_module._rung([good]).endswith("by 0.91 (8 scouts).")
    assert "more go on." in sentences_module._rung([low]) and "in fold 1." in sentences_module._rung([good, low])


def test_a_stopped_run_is_stopped(tmp_path: Path) -> None:
    from mcutune.search.coordinator import Coordinator
    from tests.search.simulate import FakePack

    plan = plan_of(tmp_path / "run")
    coordinator, pack = Coordinator(plan), FakePack("a", 3)
    for _ in range(4):
        pack.step(coordinator)
    assert status(plan.folder)["state"] == "running"
    coordinator.close()
    assert status(plan.folder)["state"] == "stopped"
