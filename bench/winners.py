"""Test predictions of a run's winners, for the benches: each row by the winner of the fold in which it is test."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from mcutune.data.columns import Array
from mcutune.data.splits import split_of
from mcutune.data.table import Table, open_table
from mcutune.domain.task import Task
from mcutune.files import home, read_json
from mcutune.model.predictor import load_predictor


@dataclass(frozen=True, eq=False)
class Winners:
    """rows [N]: labelled test rows of all folds; predicted [S, C, N]: class indices or values of every seed."""

    table: Table
    rows: Array
    predicted: Array
    folds: tuple[str, ...]


def winners_of(run: str) -> Winners:
    """Predictions of the best trial of every fold of a run of this home, with all its seeds."""
    folder = home() / "runs" / run
    best = read_json(folder / "best.json")
    table = open_table(best["data"]["table"])
    rows, parts = [], []
    for one in best["best"]:
        test = split_of(table, one["fold"]).test
        test = test[table.labelled[test]]
        features = {name: table.features(name)[test] for name in table.modalities.names}
        seeds = []
        for checkpoint in one["checkpoints"]:
            predictor = load_predictor(folder / checkpoint["folder"])
            logits = predictor.all_combinations(
                features, table.dialogue[test], table.order[test], table.group[test], presence=table.presence[test]
            )
            seeds.append(logits.argmax(-1) if predictor.task is Task.CLASSIFICATION else logits[..., 0])
        rows.append(test)
        parts.append(np.stack(seeds))
    return Winners(table, np.concatenate(rows), np.concatenate(parts, -1), tuple(one["fold"] for one in best["best"]))
