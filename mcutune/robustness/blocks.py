"""From stored predictions to additive sums: one block a protocol, model and table, from which every number follows.

Axes: G groups, F folds, S replicates, C cells (places), A components, N measured rows.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pyarrow as pa

from mcutune.domain.combination import Modalities, combination_index
from mcutune.domain.task import Task
from mcutune.errors import Damaged
from mcutune.robustness.evidence import Array, codes, positions
from mcutune.robustness.kinds import CrossDataset, Drawn, Fixed, Protocol
from mcutune.robustness.scenarios import Curve, Pattern, curves_of, normalisation_scenario
from mcutune.robustness.stored import Predicted, Rows, Store, asked_of, expected, read_predictions
from mcutune.robustness.sums import rows_in, unit_sums


@dataclass(frozen=True)
class Dataset:
    """A table as measured. `names`: of the subject's modalities that count here; K `classes` (1: values)."""

    name: str
    split: str
    task: Task
    classes: int
    names: Modalities
    rows: Rows


@dataclass(frozen=True)
class Replicates:
    """What the S axis is: a seed each (times masks), or a winner each: fold and seed. Codes [S]."""

    fold: tuple[str, ...]
    seed: tuple[int, ...]


@dataclass(frozen=True, eq=False)
class Block:
    """Sums of one protocol for one model.

    `places`: (combination or None, scenario) of each cell. `sums` [G, S, C, A] over groups that have rows;
    `fold_sums` [F, S, C, A]; `seen` [C], rows measured; `curves`: cells that lie on an axis.
    """

    protocol: Protocol
    model: str
    data: Dataset
    places: tuple[tuple[str | None, str], ...]
    replicates: Replicates
    sums: Array
    fold_sums: Array
    seen: Array
    curves: tuple[Curve, ...] = ()

    @cached_property
    def total(self) -> Array:
        """[S, C, A]."""
        return self.sums.sum(axis=0)

    @cached_property
    def group_rows(self) -> Array:
        """Rows of each group and cell, mean over replicates, [G, C]."""
        return rows_in(self.sums, self.data.task).mean(axis=1)


def make_block(
    protocol: Protocol, model: str, data: Dataset, places: Sequence[tuple[str | None, str]], replicates: Replicates,
    values: Array, valid: Array, curves: tuple[Curve, ...] = (),
) -> Block:  # fmt: skip
    """The block of predictions `values` [S, C, N], which count where `valid` [S, C, N]."""
    rows = data.rows
    kept = None if valid.all() else valid
    made = [
        unit_sums(values, rows.truth, unit, count, data.task, data.classes, kept)
        for unit, count in ((rows.group, len(rows.groups)), (rows.fold, len(rows.folds)))
    ]
    sums, folds = (one[rows_in(one, data.task).sum(axis=(1, 2)) > 0] for one in made)
    seen = valid.any(axis=0).sum(axis=1)
    return Block(protocol, model, data, tuple(places), replicates, sums, folds, seen, curves)


def source_predictions(
    store: Store, file: str, data: Dataset, seeds: dict[str, tuple[int, ...]], labels: Sequence[str]
) -> tuple[Predicted, Replicates]:
    """Predictions of the source's rows under the combinations `labels`, [S, C, N]: seed i of each fold's winner.

    `seeds`: of the winner of each fold. Raises Damaged where one is missing.
    """
    content = store.table(file)
    rank = {(fold, seed): i for fold, of in seeds.items() for i, seed in enumerate(of)}
    replicate = _ranks(content, rank, file)
    cell = positions(content, "combination", {label: i for i, label in enumerate(labels)}, file)
    count = len(next(iter(seeds.values())))
    found = read_predictions(content, file, data.rows, replicate, count, cell, len(labels), data.task)
    _all_there(found.valid, expected(data.rows.presence, asked_of(data.names, labels))[None], file)
    return found, Replicates(("",) * count, next(iter(seeds.values())))


def _ranks(content: pa.Table, rank: dict[tuple[str, int], int], file: str) -> Array:
    """Replicate of every line from its fold and seed. Raises Damaged for one that was not trained."""
    fold, folds = codes(content, "fold")
    seed = content["seed"].to_numpy().astype(np.int64)
    result = np.full(len(seed), -1, dtype=np.int64)
    for number, name in enumerate(folds):
        for one in np.unique(seed[fold == number]):
            if (name, int(one)) not in rank:
                raise Damaged(f"{file}: fold {name}, seed {one} is not expected")
            result[(fold == number) & (seed == one)] = rank[name, int(one)]
    return result


def _all_there(valid: Array, wanted: Array, file: str) -> None:
    if not (valid == wanted).all():
        raise Damaged(
            f"{file}: {(valid != wanted).sum():,} predictions are missing or too many", hint="run robustness again"
        )


def fixed_block(protocol: Fixed, model: str, data: Dataset, of: tuple[Predicted, Replicates], stored: Sequence[str],
                planned: Sequence[str]) -> Block:  # fmt: skip
    """The block of a fixed protocol; `stored`: labels of the stored combinations, `planned`: those measured."""
    chosen = [list(stored).index(label) for label in planned]
    found, replicates = of
    places = [(label, "fixed") for label in planned]
    return make_block(protocol, model, data, places, replicates, found.values[:, chosen], found.valid[:, chosen])


def masked_lookup(
    found: Predicted, masks: Array, stored: Sequence[str], data: Dataset, nothing: Array
) -> tuple[Array, Array]:
    """Predictions [S · masks, R, N], and validity, under masks [R, masks, N, M]: a row's own combination decides.

    `nothing` [S, F]: the answer of each replicate and fold to a row of which all is taken away.
    """
    position = np.full(len(data.names.labels), -1, dtype=np.int64)
    position[[data.names.labels.index(label) for label in stored]] = np.arange(len(stored))
    index = combination_index(masks)
    cell = position[index]  # [R, masks, N]
    row = np.arange(masks.shape[2])
    empty = index < 0
    values = np.where(empty, nothing[:, data.rows.fold][:, None, None], found.values[:, cell, row])  # [S, R, masks, N]
    valid = found.valid[:, cell, row] | empty
    shape = (-1, masks.shape[0], masks.shape[2])
    return values.swapaxes(1, 2).reshape(shape), valid.swapaxes(1, 2).reshape(shape)


def drawn_stored(
    store: Store, file: str, data: Dataset, seeds: dict[str, tuple[int, ...]], scenarios: Sequence[str], masks: Array
) -> Predicted:
    """Predictions that were made under the masks themselves, [R, masks, N, M], or the noise: [S · masks, R, N]."""
    content = store.table(file)
    rank = {(fold, seed): i for fold, of in seeds.items() for i, seed in enumerate(of)}
    count, number = len(next(iter(seeds.values()))), masks.shape[1]
    replicate = _ranks(content, rank, file) * number + content["mask"].to_numpy().astype(np.int64)
    cell = positions(content, "scenario", {name: i for i, name in enumerate(scenarios)}, file)
    found = read_predictions(content, file, data.rows, replicate, count * number, cell, len(scenarios), data.task)
    left = (masks & data.rows.presence).any(axis=3) | ~masks.any(axis=3)
    _all_there(found.valid, np.tile(np.swapaxes(left, 0, 1), (count, 1, 1)), file)
    return found


def drawn_block(
    protocol: Drawn, model: str, data: Dataset, replicates: Replicates, values: Array, valid: Array,
    patterns: Sequence[Pattern],
) -> Block:  # fmt: skip
    """The block of a protocol that is drawn, from predictions [S · masks, R, N]; cells are its scenarios."""
    seeds = tuple(seed for seed in replicates.seed for _ in range(protocol.masks))
    places = [(None, pattern.scenario.name) for pattern in patterns]
    drawn = Replicates(("",) * len(seeds), seeds)
    return make_block(protocol, model, data, places, drawn, values, valid, curves_of(protocol, patterns))


def cross_block(
    protocol: CrossDataset, store: Store, file: str, model: str, data: Dataset, seeds: dict[str, tuple[int, ...]]
) -> tuple[Block, Predicted]:
    """The block of a target: every winner and seed predicts every row; cells are normalisations × combinations."""
    content = store.table(file)
    winners = [(fold, seed) for fold, of in seeds.items() for seed in of]
    replicate = _ranks(content, {winner: i for i, winner in enumerate(winners)}, file)
    labels = data.names.labels
    scenarios = [normalisation_scenario(mode) for mode in protocol.normalisation]
    cell = positions(content, "scenario", {name: i for i, name in enumerate(scenarios)}, file) * len(labels)
    cell += positions(content, "combination", {label: i for i, label in enumerate(labels)}, file)
    places = [(label, scenario) for scenario in scenarios for label in labels]
    found = read_predictions(content, file, data.rows, replicate, len(winners), cell, len(places), data.task)
    there = expected(data.rows.presence, asked_of(data.names, labels))
    _all_there(found.valid, np.tile(there, (len(scenarios), 1))[None], file)
    replicates = Replicates(tuple(fold for fold, _ in winners), tuple(seed for _, seed in winners))
    return make_block(protocol, model, data, places, replicates, found.values, found.valid), found
