"""Selection gap: what a score would have been, had the epoch been chosen on test. What not to do, measured.

Several published codes choose the best epoch on the test rows, some a different one for every combination or metric.
From the predictions after every epoch the report shows how much that flatters, beside the epoch that validation chose.
A value here is the mean over folds and seeds of the metric on a fold's test rows, as such codes report it; it differs a
little from the pooled value of the measurements.

Axes: E epochs, F folds, S seeds, C combinations, N measured rows.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from mcutune.domain.combination import membership
from mcutune.domain.task import METRICS, Task, metrics_for
from mcutune.errors import Damaged
from mcutune.robustness.batches import Array, Batch, Model, own_combinations
from mcutune.robustness.blocks import Dataset
from mcutune.robustness.evidence import ParquetFile, codes, positions
from mcutune.robustness.paired import number
from mcutune.robustness.stored import Store
from mcutune.robustness.sums import FROM_SUMS, unit_sums

Entry = dict[str, Any]
ONE, EACH = "one epoch", "an epoch a combination"


def epochs_file(table: str) -> str:
    """Answers of the winners after every epoch."""
    return f"epochs-{table}.parquet"


def write_epoch(
    file: ParquetFile, batch: Batch, model: Model, needed: Array, fold: str, seed: int, epoch: int
) -> None:  # fmt: skip
    """Append what a model answers for the measured rows under the combinations needed: classes, or values."""
    measured = np.flatnonzero(batch.measured)
    asked = membership(len(model.modalities))[needed]
    logits, valid = own_combinations(batch.every(model)[:, measured], batch.presence[measured], asked)
    which, row = np.nonzero(valid)
    zero = np.zeros(len(row), dtype=np.int64)
    file.append(
        {
            "id": (row, batch.ids[measured].tolist()),
            "fold": (zero, [fold]),
            "seed": np.full(len(row), seed, dtype=np.int32),
            "epoch": np.full(len(row), epoch, dtype=np.int16),
            "combination": (which, [model.modalities.labels[index] for index in needed]),
            "answer": _answers(logits[which, row], model.task),
        }
    )


def _answers(logits: Array, task: Task) -> npt.NDArray[Any]:
    if task is Task.CLASSIFICATION:
        return logits.argmax(axis=-1).astype(np.int16)
    return np.ascontiguousarray(logits[..., 0], dtype=np.float32)


def selection_gap(store: Store, data: Dataset, facts: Entry | None, labels: Sequence[str]) -> list[Entry]:
    """An entry a metric, a way of choosing on test, and a combination (None: their mean); [] where nothing was kept.

    facts: `chosen`, the epoch that validation chose by fold and seed. Raises Damaged where a prediction is missing.
    """
    if facts is None:
        return []
    chosen = {(one["fold"], one["seed"]): one["epoch"] for one in facts["chosen"]}
    values, valid = _read(store, data, chosen, labels)
    found: list[Entry] = []
    for metric in metrics_for(data.task):
        scores = np.stack([_scores(v, k, data, metric.name) for v, k in zip(values, valid, strict=True)])
        found += list(gaps(scores, _validated(data, chosen), metric.name, labels))
    return found


def _validated(data: Dataset, chosen: dict[tuple[str, int], int]) -> Array:
    """The epoch (from 0) that validation chose, [F, S]."""
    seeds = sorted({seed for _, seed in chosen})
    return np.array([[chosen[fold, seed] - 1 for seed in seeds] for fold in data.rows.folds])


def _read(
    store: Store, data: Dataset, chosen: dict[tuple[str, int], int], labels: Sequence[str]
) -> tuple[Array, Array]:
    """Answers and whether there is one, [E, S, C, N]."""
    name = epochs_file(data.name)
    content = store.table(name)
    index, ids = codes(content, "id")
    row = np.array([data.rows.place.get(one, -1) for one in ids], dtype=np.int64)[index]
    seeds = sorted({seed for _, seed in chosen})
    seed = np.searchsorted(seeds, content["seed"].to_numpy())
    epoch = content["epoch"].to_numpy().astype(np.int64) - 1
    cell = positions(content, "combination", {label: c for c, label in enumerate(labels)}, name)
    answer = content["answer"].to_numpy()
    values = np.zeros((int(epoch.max()) + 1, len(seeds), len(labels), len(data.rows)), dtype=answer.dtype)
    valid = np.zeros(values.shape, dtype=bool)
    values[epoch, seed, cell, row] = answer
    valid[epoch, seed, cell, row] = True
    if (row < 0).any() or valid.sum() != len(row):
        raise Damaged(f"{name} has rows twice, or rows that were not measured", hint="run robustness again")
    return values, valid


def _scores(values: Array, valid: Array, data: Dataset, metric: str) -> Array:
    """The metric of an epoch's answers [S, C, N] on each fold's rows, [F, S, C]; NaN where a fold has no such epoch."""
    rows = data.rows
    sums = unit_sums(values, rows.truth, rows.fold, len(rows.folds), data.task, data.classes, valid)
    return FROM_SUMS[metric](sums)


def gaps(scores: Array, validated: Array, metric: str, labels: Sequence[str]) -> Iterator[Entry]:
    """From scores [E, F, S, C] and the epochs [F, S] that validation chose: entries of both ways of choosing on test.

    The gap of the mean is never negative, nor that of a combination where each has its own epoch.
    """
    sign = METRICS[metric].signed(1.0)
    fold, seed = np.indices(validated.shape)
    honest = scores[validated, fold, seed]  # [F, S, C]
    mean = np.where(np.isfinite(scores).all(axis=-1), sign * scores.mean(axis=-1), -np.inf)
    one = scores[mean.argmax(axis=0), fold, seed]
    each = sign * np.where(np.isfinite(scores), sign * scores, -np.inf).max(axis=0)
    for how, picked in ((ONE, one), (EACH, each)):
        for label, a, b in (
            (None, honest.mean(axis=-1), picked.mean(axis=-1)),
            *((label, honest[..., c], picked[..., c]) for c, label in enumerate(labels)),
        ):
            gap = sign * (b - a).mean(axis=1)  # [F]
            yield {
                "metric": metric, "how": how, "combination": label, "honest": number(a.mean()),
                "chosen_on_test": number(b.mean()), "gap": number(gap.mean()), "least": number(gap.min()),
                "most": number(gap.max()), "folds": a.shape[0], "seeds": a.shape[1],
            }  # fmt: skip
