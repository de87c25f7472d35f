"""`--refit`: which configuration is trained on all rows, and for how long, from what the folds' winners say."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

from mcutune.data.catalog import ensure
from mcutune.data.hints import listed
from mcutune.domain.combination import Modalities
from mcutune.errors import BadInput
from mcutune.export.make import Chosen
from mcutune.export.use import chosen_fold, chosen_seeds
from mcutune.files import canonical_json, read_json
from mcutune.model.checkpoint import FACTS
from mcutune.robustness.selection import Selection, Winner
from mcutune.training.refit import Recipe, Step, refit, rounded_mean


def refitted(selection: Selection, fold: str | None, seed: int | None, home: Path, step: Step) -> Chosen:
    """A model trained on all rows of the run's table.

    Raises BadInput where winners disagree and none is named, or the table is another one now.
    """
    recipe = recipe_of(selection, fold, seed)
    table = ensure(selection.table, home)
    if table.manifest.hash != selection.table_hash:
        raise BadInput(f"{selection.name} was trained on another table {selection.table} than the one here")
    made = refit(table, recipe, step)
    return Chosen(name_of(selection), selection.run, made.files, None, made.facts)


def name_of(selection: Selection) -> str:
    """What the model is called."""
    return f"{selection.name} refit"


def recipe_of(selection: Selection, fold: str | None, seed: int | None) -> Recipe:
    """The configuration of the named fold's winner, else the one that most winners share; their mean best epoch."""
    winners = [chosen_fold(selection, fold)] if fold is not None else list(selection.winners)
    facts = {one.fold: [read_json(place.folder / FACTS) for place in one.seeds] for one in winners}
    keys = {name: canonical_json(every[0]["configuration"]) for name, every in facts.items()}
    kept = [one for one in winners if keys[one.fold] == _shared(selection, keys)]
    agreed = [each for one in kept for each in facts[one.fold]]
    first = agreed[0]
    labels = Modalities(tuple(first["modalities"])).labels
    return Recipe(
        configuration={**first["configuration"], "kept": "best"},
        trial=_trial(kept),
        seeds=tuple(chosen_seeds({one.seed: one.folder for one in kept[0].seeds}, seed)),
        epochs=rounded_mean([each["best_epoch"] for each in agreed]),
        folds=tuple(one.fold for one in kept),
        search_seed=first["search_seed"],
        metric=first["metric"],
        combinations=tuple(index for index, label in enumerate(labels) if label in first["scores"]),
        normalisation=first["normalisation"]["mode"],
    )


def _trial(winners: list[Winner]) -> int:
    """Trials of several folds are numbered apart: the first fold's number stands for their configuration."""
    return winners[0].trial or 0


def _shared(selection: Selection, keys: dict[str, Any]) -> bytes:
    """The configuration that more winners share than any other. Raises BadInput where there is none."""
    counts = Counter(keys.values()).most_common(2)
    if len(counts) > 1 and counts[0][1] == counts[1][1]:
        raise BadInput(
            f"the winners of {selection.name} do not agree: no configuration won in more folds than another",
            hint=f"name the fold whose configuration is trained on all rows: --fold {listed(keys, 30)}",
        )
    most: bytes = counts[0][0]
    return most
