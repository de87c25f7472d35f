"""Which models are measured: `best`, a run, a trial of a run, or a checkpoint folder."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from mcutune.errors import BadInput, Damaged, NoResult
from mcutune.files import checked_name, read_json, read_sealed, sha256_file, whole

BEST = "best.json"
_FACTS = "checkpoint.json"
_RELATIVE = re.compile(r"(?!/)(?!.*(^|/)\.\.(/|$))[^\0]+")


@dataclass(frozen=True)
class Seed:
    """A trained seed of a winner: its checkpoint folder, and the SHA-256 of its checkpoint.json.

    Of a model made of several (robustness/composed.py): how, the checkpoint folder of each part, and a hash over all.
    """

    seed: int
    folder: Path
    sha256: str
    how: str = "single"
    parts: tuple[tuple[str, Path], ...] = ()


@dataclass(frozen=True)
class Winner:
    """The model that predicts the test rows of a fold, with all its seeds, ascending."""

    fold: str
    trial: int | None
    score: float | None
    scores: dict[str, float]
    configuration: dict[str, Any]
    seeds: tuple[Seed, ...]


@dataclass(frozen=True)
class Comparator:
    """What a model is that was trained beside the winners: by which word of `mcutune compare`, and what is changed.

    rate: what it was trained at, where that is the question. same_as_winner: folds in which nothing is changed by it.
    asked: whether it was asked for by name.
    """

    word: str
    key: str
    title: str
    how: str
    rate: float | None
    changes: dict[str, Any]
    same_as_winner: tuple[str, ...]
    asked: bool = False


@dataclass(frozen=True)
class Selection:
    """The winners of all folds of a run (or one checkpoint), the table they were trained on, where the report goes.

    `given`: as asked for. `name`: of the model in the report. `run`: None for a checkpoint outside a run.
    """

    given: str
    name: str
    run: str | None
    table: str
    table_hash: str
    winners: tuple[Winner, ...]
    folder: Path
    opened: Path
    comparator: Comparator | None = None


class Lenient(BaseModel):
    """What is needed of a file that may hold more."""

    model_config = ConfigDict(frozen=True, extra="ignore")


_Read = TypeVar("_Read", bound=Lenient)


class _Data(Lenient):
    table: str
    table_hash: str = Field(pattern="^[0-9a-f]{64}$")
    fold: str = ""


class _BestCheckpoint(Lenient):
    seed: int
    folder: str = Field(pattern=r"^[^/]")
    sha256: str = Field(pattern="^[0-9a-f]{64}$")


class _BestFold(Lenient):
    fold: str
    trial: int
    score: float
    scores: dict[str, float]
    configuration: dict[str, Any]
    checkpoints: list[_BestCheckpoint] = Field(min_length=1)


class _Best(Lenient):
    run: str
    data: _Data
    order: int = 0
    finished: str
    best: list[_BestFold]


class _Lane(Lenient):
    trial: int | None = None
    seed: int = 0


class _Facts(Lenient):
    configuration: dict[str, Any]
    data: _Data
    lane: _Lane
    scores: dict[str, float] = {}


def select(given: str, home: Path) -> Selection:
    """The models that `given` names: `best` (of the run finished last in this home), NAME, NAME:TRIAL, NAME:KEY of
    a model that `mcutune compare` trained, or a folder.

    Raises BadInput where there is no such run, trial or folder, NoResult where the run has no winner, Damaged where a
    file is not what was written.
    """
    if given == "best":
        return of_run(given, _last_finished(home), home)
    if "/" in given or ((Path(given) / _FACTS).is_file() and not (home / "runs" / given).is_dir()):
        return _of_folder(given, Path(given), home)
    name, _, trial = given.partition(":")
    if not trial:
        return of_run(given, checked_name(name, "run"), home)
    if not trial.isdecimal() or not trial.isascii():
        from mcutune.robustness.compared import of_key  # which reads such files as this module does

        return of_key(given, checked_name(name, "run"), trial, home)
    return _of_trial(given, checked_name(name, "run"), int(trial), home)


def runs_with_best(home: Path) -> tuple[str, ...]:
    """Names of the finished runs of a home, sorted."""
    return tuple(sorted(path.parent.name for path in (home / "runs").glob(f"[!.]*/{BEST}")))


def _last_finished(home: Path) -> str:
    names = runs_with_best(home)
    if not names:
        raise BadInput(f"no run in {home} has finished", hint="mcutune search makes one")
    return max((best.order, best.finished, name) for name in names for best in [_read_best(name, home)])[-1]


def _read_best(name: str, home: Path) -> _Best:
    folder = home / "runs" / name
    if not folder.is_dir():
        known = ", ".join(runs_with_best(home)) or "none"
        raise BadInput(f"there is no run {name} in {home}", hint=f"finished runs: {known}")
    if not (folder / BEST).exists():
        raise NoResult(f"run {name} has no winner yet", hint="search until a trial has its full budget")
    best = validated(_Best, folder / BEST)
    if not best.best:
        raise NoResult(f"run {name} ended without a winner")
    return best


def validated(model: type[_Read], path: Path) -> _Read:
    """A JSON file as a model. Raises Damaged where it is not what was written."""
    try:
        return model.model_validate(read_sealed(path) if path.name == BEST else whole(read_json(path), path))
    except ValidationError as error:
        where = ".".join(map(str, error.errors()[0]["loc"]))
        raise Damaged(f"{path} is not what was written: {where}: {error.errors()[0]['msg']}") from None


def of_run(given: str, name: str, home: Path) -> Selection:
    """The winners of a run, named as `given`."""
    best, folder = _read_best(name, home), home / "runs" / name
    winners = tuple(
        Winner(one.fold, one.trial, one.score, one.scores, one.configuration, _seeds(one.checkpoints, folder))
        for one in best.best
    )
    _same_seeds(winners, name)
    where = folder / "robustness"
    return Selection(given, name, name, best.data.table, best.data.table_hash, winners, where, where)


def _seeds(checkpoints: list[_BestCheckpoint], folder: Path) -> tuple[Seed, ...]:
    """The seeds of a winner. Raises Damaged where a checkpoint.json is not the one that best.json names."""
    seeds = []
    for one in sorted(checkpoints, key=lambda c: c.seed):
        place = inside(folder, one.folder, BEST)
        if hash_of(place) != one.sha256:
            raise Damaged(f"{place / _FACTS} is not the one that {BEST} names", hint="its SHA-256 differs")
        seeds.append(Seed(one.seed, place, one.sha256))
    return tuple(seeds)


def inside(folder: Path, named: str, file: str) -> Path:
    """A folder that a file of `folder` names. Raises Damaged where it lies outside."""
    if not _RELATIVE.fullmatch(named):
        raise Damaged(f"{folder / file} names a folder outside the run: {named}")
    return folder / named


def hash_of(folder: Path) -> str:
    """SHA-256 of a folder's checkpoint.json. Raises Damaged where there is none."""
    path = folder / _FACTS
    if not path.is_file() or path.is_symlink():
        raise Damaged(f"{path} is missing or not a regular file")
    return sha256_file(path)


def _of_trial(given: str, name: str, trial: int, home: Path) -> Selection:
    best, folder = _read_best(name, home), home / "runs" / name
    winners = []
    for fold in (one.fold for one in best.best):
        places = sorted(p.parent for p in (folder / "checkpoints" / fold / str(trial)).glob(f"*/{_FACTS}"))
        if not places:
            raise BadInput(
                f"trial {trial} of {name} has no checkpoint in fold {fold}: it did not use its full budget, or its "
                "checkpoint was not kept",
                hint=f"kept: {_kept(folder / 'checkpoints' / fold)}; `mcutune search --keep-checkpoints all` keeps all",
            )
        winners.append(_winner(fold, trial, places))
    _same_seeds(tuple(winners), name)
    where = folder / "robustness"
    model = f"{name}:{trial}"
    data = best.data
    return Selection(
        given, model, name, data.table, data.table_hash, tuple(winners), where / f"trial-{trial}", where
    )  # fmt: skip


def _kept(folder: Path) -> str:
    """The trials of a fold that have a checkpoint, as text."""
    numbers = sorted({int(p.parts[-3]) for p in folder.glob(f"*/*/{_FACTS}") if p.parts[-3].isdecimal()})
    return ", ".join(map(str, numbers)) or "none"


def _winner(fold: str, trial: int | None, places: list[Path]) -> Winner:
    """A winner from its checkpoint folders; its validation scores are the mean over its seeds."""
    facts = [validated(_Facts, place / _FACTS) for place in places]
    seeds = [Seed(one.lane.seed, place, hash_of(place)) for one, place in zip(facts, places, strict=True)]
    common = set.intersection(*(set(one.scores) for one in facts))
    labels = [label for label in facts[0].scores if label in common]
    scores = {label: sum(one.scores[label] for one in facts) / len(facts) for label in labels}
    ordered = tuple(sorted(seeds, key=lambda seed: seed.seed))
    return Winner(fold, trial, None, scores, facts[0].configuration, ordered)


def _same_seeds(winners: tuple[Winner, ...], name: str) -> None:
    counts = {len(winner.seeds) for winner in winners}
    if len(counts) > 1:
        raise Damaged(f"the winners of {name} have different numbers of seeds: {', '.join(map(str, sorted(counts)))}")


def _of_folder(given: str, place: Path, home: Path) -> Selection:
    if not (place / _FACTS).is_file():
        raise BadInput(f"{place} is not a checkpoint folder", hint=f"it holds model.safetensors and {_FACTS}")
    facts = validated(_Facts, place / _FACTS)
    winner = _winner(facts.data.fold, facts.lane.trial, [place])
    run = _run_of(place, home)
    digest = winner.seeds[0].sha256[:12]
    where = home / "runs" / run / "robustness" if run else home / "robustness" / digest
    folder = where / f"checkpoint-{digest}" if run else where
    name = f"{run}:{winner.trial}/{winner.seeds[0].seed}" if run else f"checkpoint-{digest}"
    shown = place.resolve().name if not run else f"{run}/{place.resolve().relative_to(home.resolve() / 'runs' / run)}"
    return Selection(shown, name, run, facts.data.table, facts.data.table_hash, (winner,), folder, where)


def _run_of(place: Path, home: Path) -> str | None:
    """The run of this home in whose folder a checkpoint lies."""
    runs = (home / "runs").resolve()
    resolved = place.resolve()
    return resolved.relative_to(runs).parts[0] if resolved.is_relative_to(runs) and resolved != runs else None
