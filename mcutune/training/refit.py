"""A last training on all rows, test rows too, with a configuration and a number of epochs that a search has settled."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from mcutune.data.columns import NormalisationMode
from mcutune.data.table import Table
from mcutune.data.views import EVERY, every_row, fold_data
from mcutune.domain.pack import PackStart
from mcutune.domain.trial import LaneFailure, LaneId, LaneOrder
from mcutune.errors import NoResult
from mcutune.training.config import Configuration, configuration
from mcutune.training.encoder_stage import encoder_outputs, train_encoder
from mcutune.training.pack import Pack
from mcutune.training.resident import resident
from mcutune.training.result import lane_files

Step = Callable[[str], None]
Entries = dict[int, list[dict[str, bytes]]]


@dataclass(frozen=True)
class Recipe:
    """What is trained: a trial's configuration, with seeds, for `epochs`.

    folds: those whose winners have this configuration; encoders are trained for the mean of the best epochs there.
    combinations: canonical indices, as in the search.
    """

    configuration: dict[str, Any]
    trial: int
    seeds: tuple[int, ...]
    epochs: int
    folds: tuple[str, ...]
    search_seed: int
    metric: str
    combinations: tuple[int, ...]
    normalisation: NormalisationMode


@dataclass(frozen=True)
class Refitted:
    """Checkpoint files by seed, and the facts of the training for the card."""

    files: dict[int, dict[str, bytes]]
    facts: dict[str, Any]


def refit(table: Table, recipe: Recipe, step: Step) -> Refitted:
    """Train in this process, on the CPU, all seeds as one pack. Raises NoResult where the loss is not finite."""
    # As in training/loop.py: the same engine under the same rules.
    torch.use_deterministic_algorithms(True, warn_only=True)
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    shape = configuration(recipe.configuration)
    names = table.modalities.names
    start = PackStart(
        EVERY, shape.shape(), shape.rank, recipe.search_seed, recipe.metric, recipe.combinations, "mean", names
    )
    data = every_row(table, recipe.folds[0], normalisation=recipe.normalisation)
    device = torch.device("cpu")
    entries: Entries = {}
    pack = Pack(data, start, lambda seed: _outputs(entries, seed), device)
    encoder_epochs = _encoder_epochs(table, recipe, shape, step) if shape.encoder == "frozen" else []
    for seed in recipe.seeds if shape.encoder == "frozen" else ():
        step(f"training the encoders of seed {seed} on all rows")
        entries[seed] = [
            train_encoder(pack.resident, shape, recipe.search_seed, seed, m, epochs)
            for m, epochs in enumerate(encoder_epochs)
        ]
    files = _train(pack, recipe, entries, step)
    facts = {
        "rows": len(pack.resident.training) + len(pack.resident.probe),
        "probe_rows": len(pack.resident.probe),
        "epochs": recipe.epochs,
        "encoder_epochs": dict(zip(names, encoder_epochs, strict=False)),
        "folds": list(recipe.folds),
        "measured": False,
    }
    return Refitted(files, facts)


def _outputs(entries: Entries, seed: int) -> list[Tensor]:
    return encoder_outputs(entries[seed], torch.device("cpu"))


def _encoder_epochs(table: Table, recipe: Recipe, shape: Configuration, step: Step) -> list[int]:
    """Of every modality: the mean over folds of the best epoch, found as in the search, with the first seed."""
    found = []
    for fold in recipe.folds:
        step(f"finding how long encoders train, in fold {fold}")
        here = resident(fold_data(table, fold, normalisation=recipe.normalisation), shape, torch.device("cpu"))
        made = [
            train_encoder(here, shape, recipe.search_seed, recipe.seeds[0], m)
            for m in range(len(table.modalities))
        ]  # fmt: skip
        found.append([int(json.loads(entry["encoder.json"])["epoch"]) for entry in made])
    return [rounded_mean(epochs) for epochs in zip(*found, strict=True)]


def rounded_mean(epochs: tuple[int, ...] | list[int]) -> int:
    """Half an epoch is rounded up; at least 1."""
    return max(1, int(sum(epochs) / len(epochs) + 0.5))


def _train(pack: Pack, recipe: Recipe, entries: Entries, step: Step) -> dict[int, dict[str, bytes]]:
    """Checkpoint files by seed, of the last epoch."""
    lanes = [
        pack.lane(LaneOrder(LaneId(EVERY, recipe.trial, seed), 1, recipe.configuration, recipe.epochs))
        for seed in recipe.seeds
    ]
    for epoch in range(1, 1 + recipe.epochs):
        step(f"epoch {epoch} of {recipe.epochs} on all rows")
        failed = [report for report in pack.epoch(lanes) if isinstance(report, LaneFailure)]
        if failed:
            raise NoResult(f"seed {failed[0].lane.seed} failed in epoch {epoch}: {failed[0].message}")
    for lane in lanes:
        lane.best, lane.best_epoch = lane.vectors.parameters.detach().clone(), lane.epoch
    return {
        lane.seed: lane_files(lane, pack, entries.get(lane.seed, []), scored=False)
        for lane in sorted(lanes, key=lambda one: one.seed)
    }
