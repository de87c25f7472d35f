"""Models that `mcutune compare` trained beside a run's winners, read from RUN/compare/WORD/models.json."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from mcutune.errors import BadInput, Damaged
from mcutune.files import canonical_json, sha256
from mcutune.robustness.selection import (
    Comparator,
    Lenient,
    Seed,
    Selection,
    Winner,
    hash_of,
    inside,
    of_run,
    validated,
)

FOLDER, MODELS = "compare", "models.json"
COMPARATORS, RATE_SHIFT, INCOMPLETE, EPOCHS = "comparators", "rate_shift", "incomplete_training", "epochs"
OWN_KIND = (RATE_SHIFT, INCOMPLETE)  # words whose models a kind of protocol of that name measures
# The kinds of protocol under which the models of a word are measured; one asked for by name is measured under all.
MEASURED_UNDER: Mapping[str, tuple[str, ...]] = {
    COMPARATORS: ("fixed", "random"),
    RATE_SHIFT: ("rate_shift",),
    INCOMPLETE: ("incomplete_training", "random"),
}
CALIBRATION = "calibration"  # asked of takes_part as if it were a kind of protocol
_HASH = "^[0-9a-f]{64}$"


class _Seed(Lenient):
    seed: int
    folder: str
    sha256: str = Field(pattern=_HASH)


class _Part(Lenient):
    combination: str | None
    configuration: dict[str, Any]
    seeds: list[_Seed] = Field(min_length=1)


class _Fold(Lenient):
    fold: str
    parts: list[_Part] = Field(min_length=1)


class _Model(Lenient):
    key: str = Field(pattern=r"^[a-z][a-z0-9_.]{0,63}$")
    title: str
    how: Literal["single", "specialists", "late_fusion"]
    rate: float | None
    changes: dict[str, Any]
    same_as_winner: list[str]
    failed: str | None
    folds: list[_Fold]


class _Models(Lenient):
    schema_: Literal[1] = Field(alias="schema")
    word: str
    winners: dict[str, list[str]]
    same_weights: bool
    models: list[_Model]


def compared(name: str, home: Path, word: str) -> tuple[Selection, ...]:
    """The models that a word trained beside the present winners of a run; none where it was not trained.

    Raises Damaged where a file is not what was written.
    """
    path = home / "runs" / name / FOLDER / word / MODELS
    if not path.is_file():
        return ()
    found, own = validated(_Models, path), of_run(name, name, home)
    if found.winners != {one.fold: [seed.sha256 for seed in one.seeds] for one in own.winners}:
        return ()
    return tuple(_selection(one, found.word, own, path.parent) for one in found.models if one.failed is None)


def notes(name: str, home: Path) -> list[str]:
    """What a reader must know of what was trained beside a run: failures, other bits, other winners."""
    told = []
    for path in sorted((home / "runs" / name / FOLDER).glob(f"*/{MODELS}")):
        found, own = validated(_Models, path), of_run(name, name, home)
        if found.winners != {one.fold: [seed.sha256 for seed in one.seeds] for one in own.winners}:
            told.append(f"What {found.word} trained is left out: it belongs to other winners of {name}.")
            continue
        told += [f"{one.title} is left out: {one.failed}." for one in found.models if one.failed is not None]
        if not found.same_weights:
            told.append(
                f"The winners of {name}, trained again beside {found.word}, have other bits (another machine, device "
                "or version): what is compared differs by that, too."
            )
    return told


def of_key(given: str, name: str, key: str, home: Path) -> Selection:
    """The model `NAME:KEY`. Raises BadInput naming those that exist."""
    known: dict[str, Selection] = {}
    for word in MEASURED_UNDER:
        known |= {one.comparator.key: one for one in compared(name, home, word) if one.comparator is not None}
    if key not in known:
        trained = f", or one of {', '.join(known)}" if known else "; `mcutune compare` trains others"
        raise BadInput(f"{name} has no model {key!r}", hint=f"NAME:TRIAL with a trial's number{trained}")
    found = known[key]
    assert found.comparator is not None
    where = found.opened / key
    return replace(found, given=given, folder=where, comparator=replace(found.comparator, asked=True))


def _selection(model: _Model, word: str, own: Selection, folder: Path) -> Selection:
    winners = tuple(_winner(one, model.how, folder) for one in model.folds)
    if [one.fold for one in winners] != [one.fold for one in own.winners]:
        raise Damaged(f"{folder / MODELS}: {model.key} has other folds than the run")
    comparator = Comparator(
        word, model.key, model.title, model.how, model.rate, model.changes, tuple(model.same_as_winner)
    )
    return replace(own, name=f"{own.name}:{model.key}", winners=winners, comparator=comparator)


def _winner(fold: _Fold, how: str, folder: Path) -> Winner:
    numbers = [seed.seed for seed in fold.parts[0].seeds]
    seeds = tuple(_seed(fold, k, how, folder) for k in range(len(numbers)))
    configuration = fold.parts[0].configuration if how == "single" else {}
    return Winner(fold.fold, None, None, {}, configuration, seeds)


def _seed(fold: _Fold, k: int, how: str, folder: Path) -> Seed:
    """The k-th seed of a model in a fold. Raises Damaged where a checkpoint is not the one that is named."""
    if len({tuple(seed.seed for seed in part.seeds) for part in fold.parts}) > 1:
        raise Damaged(f"{folder / MODELS}: the parts of a model in fold {fold.fold} have different seeds")
    places = [(part.combination, part.seeds[k]) for part in fold.parts]
    for _, one in places:
        if hash_of(inside(folder, one.folder, MODELS)) != one.sha256:
            raise Damaged(
                f"{folder / one.folder} is not the checkpoint that {MODELS} names", hint="its SHA-256 differs"
            )
    first = places[0][1]
    if how == "single":
        return Seed(first.seed, folder / first.folder, first.sha256)
    parts = tuple((str(label), folder / one.folder) for label, one in places)
    digest = sha256(canonical_json([how, [[label, one.sha256] for label, one in places]]))
    return Seed(first.seed, folder / first.folder, digest, how, parts)


def comparator_of(model: dict[str, Any]) -> Comparator | None:
    """Of a model of a report."""
    return Comparator(**model["comparator"]) if model["comparator"] is not None else None


def word_of(model: dict[str, Any]) -> str:
    """The question of a reference of a report, which is its family in tests: trials share that of the comparators."""
    return str(model["comparator"]["word"]) if model["comparator"] else COMPARATORS


def takes_part(comparator: Comparator | None, kind: str) -> bool:
    """Whether a model is measured under protocols of a kind."""
    if comparator is None or comparator.asked:
        return True
    return kind in MEASURED_UNDER.get(comparator.word, ())
