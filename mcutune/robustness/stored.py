"""Evidence read back into arrays, with every expectation checked.

Axes: N measured rows, M modalities, S replicates (seeds, or winners), C cells, K classes.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from mcutune.domain.combination import Modalities, combination_index, membership
from mcutune.domain.task import Task
from mcutune.errors import Damaged
from mcutune.robustness.evidence import Array, Coded, ParquetFile, codes, positions, read_columns
from mcutune.robustness.masks import Masks

AS_TRAINED = "as trained"  # the scenario of predictions whose normalisation is the checkpoint's own


@dataclass(frozen=True, eq=False)
class Rows:
    """The measured rows of a table: names, codes [N] of fold and group, truth [N], presence [N, M]."""

    ids: tuple[str, ...]
    fold: Array
    folds: tuple[str, ...]
    group: Array
    groups: tuple[str, ...]
    truth: Array
    presence: Array

    def __len__(self) -> int:
        return len(self.ids)

    def with_presence(self, presence: Array) -> Rows:
        return dataclasses.replace(self, presence=presence)

    @cached_property
    def place(self) -> dict[str, int]:
        """Row number of each id."""
        return {name: number for number, name in enumerate(self.ids)}


def rows_file(table: str) -> str:
    return f"rows-{table}.parquet"


def presence_file(protocol: str, table: str) -> str:
    return f"presence-{protocol}-{table}.parquet"


def predictions_file(number: int, table: str, protocol: str | None = None) -> str:
    """Of model `number` (0 is the subject); with a protocol, those made under its masks."""
    return f"predictions-{number}-{table}{f'-{protocol}' if protocol else ''}.parquet"


def nothing_file(number: int, table: str) -> str:
    """Of model `number`: its answers to rows of which nothing is present."""
    return f"nothing-{number}-{table}.parquet"


def write_rows(folder: Path, table: str, rows: Rows, names: Modalities) -> None:
    columns: dict[str, Array | Coded] = {
        "id": (np.arange(len(rows)), rows.ids),
        "fold": (rows.fold, rows.folds),
        "group": (rows.group, rows.groups),
        "label": rows.truth,
    }
    columns |= {f"has.{name}": rows.presence[:, m] for m, name in enumerate(names.names)}
    with ParquetFile(folder / rows_file(table)) as file:
        file.append(columns)


def write_presence(
    folder: Path, protocol: str, table: str, masks: Sequence[Masks], ids: Array, names: Modalities
) -> None:
    """The masks [masks, n, M] of every scenario for the rows `ids` [n]."""
    with ParquetFile(folder / presence_file(protocol, table)) as file:
        for one in masks:
            count, rows = one.presence.shape[:2]
            flat = one.presence.reshape(-1, len(names))
            columns: dict[str, Array | Coded] = {
                "id": (np.tile(np.arange(rows), count), ids.tolist()),
                "scenario": (np.zeros(len(flat), dtype=np.int64), [one.scenario]),
                "mask": np.repeat(np.arange(count, dtype=np.int16), rows),
            }
            file.append(columns | {name: np.ascontiguousarray(flat[:, m]) for m, name in enumerate(names.names)})


class Store:
    """A sealed folder and its manifest."""

    def __init__(self, folder: Path, manifest: dict[str, Any]) -> None:
        self.folder, self.facts = folder, manifest["facts"]
        self._files: dict[str, str] = manifest["files"]

    @property
    def files(self) -> dict[str, str]:
        return dict(self._files)

    def table(self, name: str) -> pa.Table:
        """A file's columns. Raises Damaged where the manifest does not name it, or it is not as written."""
        if name not in self._files:
            raise Damaged(f"{self.folder} has no {name}", hint="run robustness again")
        return read_columns(self.folder / name, self._files[name])

    def rows(self, table: str, names: Modalities) -> Rows:
        content = self.table(rows_file(table))
        fold, folds = codes(content, "fold")
        group, groups = codes(content, "group")
        index, ids = codes(content, "id")
        presence = np.stack([content[f"has.{name}"].to_numpy() for name in names.names], axis=1)
        return Rows(
            tuple(ids[i] for i in index),
            fold,
            tuple(folds),
            group,
            tuple(groups),
            content["label"].to_numpy(),
            presence,
        )

    def nothing(self, name: str, folds: Sequence[str], seeds: Mapping[str, tuple[int, ...]]) -> Array:
        """Logits [S, F, K] of each fold's winners where nothing is present. Raises Damaged where one is missing."""
        content = self.table(name)
        fold = positions(content, "fold", {one: f for f, one in enumerate(folds)}, name)
        rank = {(f, seed): s for f, one in enumerate(folds) for s, seed in enumerate(seeds[one])}
        seed = [rank.get(pair, -1) for pair in zip(fold.tolist(), content["seed"].to_pylist(), strict=True)]
        shape = (len(next(iter(seeds.values()))), len(folds))
        if not _once(shape, (np.array(seed), fold), name).all():
            raise Damaged(f"{name} lacks a fold or seed", hint="run robustness again")
        logits = logits_of(content)
        result = np.empty((*shape, logits.shape[1]), dtype=logits.dtype)
        result[np.array(seed), fold] = logits
        return result

    def masks(
        self, protocol: str, table: str, scenarios: Sequence[str], count: int, rows: Rows, names: Modalities
    ) -> Array:
        """Masks of the measured rows, bool [scenarios, masks, N, M]. Raises Damaged where one is missing."""
        name = presence_file(protocol, table)
        content = self.table(name)
        index, ids = codes(content, "id")
        place = rows.place
        row = np.array([place.get(one, -1) for one in ids], dtype=np.int64)[index]
        scenario = positions(content, "scenario", {s: i for i, s in enumerate(scenarios)}, name)
        mask = content["mask"].to_numpy().astype(np.int64)
        kept = row >= 0
        shape = (len(scenarios), count, len(rows))
        seen = _once(shape, (scenario[kept], mask[kept], row[kept]), name)
        if not seen.all():
            raise Damaged(f"{name} lacks {(~seen).sum():,} masks", hint="run robustness again")
        result = np.zeros((*shape, len(names)), dtype=bool)
        values = np.stack([content[modality].to_numpy() for modality in names.names], axis=1)
        result[scenario[kept], mask[kept], row[kept]] = values[kept]
        return result


def _once(shape: tuple[int, ...], where: tuple[Array, ...], name: str) -> Array:
    """Which places were given, bool [shape]. Raises Damaged where one is given twice or lies outside."""
    if any((index < 0).any() or (index >= size).any() for index, size in zip(where, shape, strict=True)):
        raise Damaged(f"{name} has rows that were not asked for")
    seen = np.zeros(shape, dtype=bool)
    seen[where] = True
    if int(seen.sum()) != len(where[0]):
        raise Damaged(f"{name} has rows twice")
    return seen


@dataclass(frozen=True, eq=False)
class Predicted:
    """Predictions [S, C, N], class indices or values (whatever where not `valid`), and what was seen of the logits.

    `still`: (replicate, cell, fold) of those whose logits do not differ between any two rows.
    """

    values: Array
    valid: Array
    logits: int
    finite: bool
    still: tuple[tuple[int, int, int], ...]


def read_predictions(
    content: pa.Table, name: str, rows: Rows, replicate: Array, replicates: int, cell: Array, cells: int, task: Task
) -> Predicted:
    """Predictions from columns id, logit_0 …; `replicate`, `cell`: codes [n] of each line. Other rows are left out."""
    index, ids = codes(content, "id")
    row = np.array([rows.place.get(one, -1) for one in ids], dtype=np.int64)[index]
    kept = row >= 0
    row, replicate, cell = row[kept], replicate[kept], cell[kept]
    logits = logits_of(content)[kept]
    shape = (replicates, cells, len(rows))
    valid = _once(shape, (replicate, cell, row), name)
    best = answers(logits, task)
    values = np.full(shape, -1, dtype=best.dtype)
    values[replicate, cell, row] = best
    parts = (*shape[:2], len(rows.folds))
    still = _still(logits, np.ravel_multi_index((replicate, cell, rows.fold[row]), parts), parts)
    return Predicted(values, valid, logits.size, bool(np.isfinite(logits).all()), still)


def logits_of(content: pa.Table) -> Array:
    """Logits [n, K] from columns logit_0 …."""
    names = [column for column in content.column_names if column.startswith("logit_")]
    return np.stack([content[column].to_numpy() for column in names], axis=1)


def answers(logits: Array, task: Task) -> Array:
    """Predictions [..] from logits [.., K]: class indices, or values."""
    return logits.argmax(axis=-1) if task is Task.CLASSIFICATION else logits[..., 0].astype(np.float64)


def _still(logits: Array, part: Array, shape: tuple[int, int, int]) -> tuple[tuple[int, int, int], ...]:
    """Parts of more than one row in which every row has the same logits."""
    count = np.bincount(part, minlength=int(np.prod(shape)))
    first = np.zeros(len(count), dtype=np.int64)
    first[part[::-1]] = np.arange(len(part))[::-1]
    moves = np.bincount(part[(logits != logits[first[part]]).any(axis=1)], minlength=len(count)) > 0
    found = np.unravel_index(np.flatnonzero((count > 1) & ~moves), shape)
    return tuple((int(r), int(c), int(f)) for r, c, f in zip(*found, strict=True))


def expected(presence: Array, asked: Array) -> Array:
    """Which rows have anything of each combination asked for, bool [A, N]."""
    return combination_index(presence[None] & asked[:, None]) >= 0


def asked_of(names: Modalities, labels: Sequence[str]) -> Array:
    """Presence [A, M] of combinations given by their labels."""
    table, index = membership(len(names)), {label: i for i, label in enumerate(names.labels)}
    return table[[index[label] for label in labels]]
