"""Validation rows and their predictions, kept in the evidence so that calibration can be fitted again from files.

They belong to the training side of each fold: no test label is read for them. A row may be validation in several
folds, so a row is known by fold and id.

EVIDENCE/
  validation-TABLE.parquet                 id, fold, label, has.MODALITY
  validation-predictions-K-TABLE.parquet   id, fold, seed, scenario, combination, logit_0 …: model K
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa

from mcutune.data.splits import Split
from mcutune.data.table import Table
from mcutune.domain.combination import Modalities
from mcutune.errors import Damaged
from mcutune.robustness.batches import Batch, Mode, batch_of
from mcutune.robustness.calibration import Scored
from mcutune.robustness.evidence import Array, Coded, ParquetFile, codes, positions
from mcutune.robustness.stored import Rows, Store, asked_of, expected

Seeds = dict[str, tuple[int, ...]]  # of the winner of each fold


def rows_file(table: str) -> str:
    return f"validation-{table}.parquet"


def predictions_file(number: int, table: str) -> str:
    return f"validation-predictions-{number}-{table}.parquet"


def validation_batch(table: Table, split: Split, mode: Mode) -> Batch:
    """The labelled validation rows of a fold, with the others of their dialogues as context.

    Where a model normalises each group by its own rows, the group's training rows are context, too.
    """
    rows = split.validation
    if mode == "group":
        near = split.train[np.isin(table.group[split.train], np.unique(table.group[rows]))]
        rows = np.sort(np.concatenate([rows, near]))
    return batch_of(table, rows, table.labelled[rows] & np.isin(rows, split.validation))


def write_validation(folder: Path, table: Table, splits: dict[str, Split]) -> None:
    """Write the labelled validation rows of every fold."""
    with ParquetFile(folder / rows_file(table.manifest.name)) as file:
        for fold, split in splits.items():
            rows = split.validation[table.labelled[split.validation]]
            columns: dict[str, Array | Coded] = {
                "id": (np.arange(len(rows)), table.ids[rows].tolist()),
                "fold": (np.zeros(len(rows), dtype=np.int64), [fold]),
                "label": table.labels(rows),
            }
            presence = table.presence[rows]
            file.append(columns | {f"has.{name}": presence[:, m] for m, name in enumerate(table.modalities.names)})


def read_validation(
    store: Store, number: int, table: str, folds: Sequence[str], names: Modalities, labels: Sequence[str], seeds: Seeds
) -> Scored | None:
    """Validation logits of a model under the combinations `labels`; None where the evidence has none.

    Fold codes are those of `folds`. Raises Damaged where a line is missing, twice, or was not asked for.
    """
    if rows_file(table) not in store.files:
        return None
    content = store.table(rows_file(table))
    fold = positions(content, "fold", {name: n for n, name in enumerate(folds)}, rows_file(table))
    index, ids = codes(content, "id")
    place = {(int(f), ids[i]): row for row, (f, i) in enumerate(zip(fold, index, strict=True))}
    presence = np.stack([content[f"has.{name}"].to_numpy() for name in names.names], axis=1)
    file = predictions_file(number, table)
    found = store.table(file)
    line_fold = positions(found, "fold", {name: n for n, name in enumerate(folds)}, file)
    index, ids = codes(found, "id")
    row = np.full(len(index), -1, dtype=np.int64)
    for f in range(len(folds)):
        known = np.array([place.get((f, name), -1) for name in ids], dtype=np.int64)
        row[line_fold == f] = known[index[line_fold == f]]
    truth = content["label"].to_numpy()
    made = _scored(found, file, row, line_fold, folds, labels, seeds, (truth, fold, np.zeros_like(fold)))
    _all_there(made.valid, expected(presence, asked_of(names, labels)), file)
    return made


def read_test(store: Store, file: str, rows: Rows, labels: Sequence[str], seeds: Seeds) -> Scored:
    """Test logits of a model, its lines already checked where its predictions were read."""
    found = store.table(file)
    index, ids = codes(found, "id")
    row = np.array([rows.place.get(name, -1) for name in ids], dtype=np.int64)[index]
    fold = positions(found, "fold", {name: n for n, name in enumerate(rows.folds)}, file)
    return _scored(found, file, row, fold, rows.folds, labels, seeds, (rows.truth, rows.fold, rows.group))


def _scored(
    found: pa.Table, file: str, row: Array, fold: Array, folds: Sequence[str], labels: Sequence[str], seeds: Seeds,
    rows: tuple[Array, Array, Array],
) -> Scored:  # fmt: skip
    """Lines brought into place; those of combinations beside `labels`, and of rows not measured, are left out."""
    index, names = codes(found, "combination")
    wanted = {label: c for c, label in enumerate(labels)}
    cell = np.array([wanted.get(name, -1) for name in names], dtype=np.int64)[index]
    seed = found["seed"].to_numpy().astype(np.int64)
    replicate = np.full(len(seed), -1, dtype=np.int64)
    for number, name in enumerate(folds):
        for place, one in enumerate(seeds[name]):
            replicate[(fold == number) & (seed == one)] = place
    if (replicate < 0).any():
        raise Damaged(f"{file} has a seed that was not trained", hint="run robustness again")
    kept = np.flatnonzero((cell >= 0) & (row >= 0))
    columns = [name for name in found.column_names if name.startswith("logit_")]
    shape = (len(next(iter(seeds.values()))), len(labels), len(rows[0]))
    logits = np.zeros((*shape, len(columns)), dtype=np.float32)
    valid = np.zeros(shape, dtype=bool)
    where = (replicate[kept], cell[kept], row[kept])
    logits[where] = np.stack([found[name].to_numpy() for name in columns], axis=1)[kept]
    valid[where] = True
    if int(valid.sum()) != len(kept):
        raise Damaged(f"{file} has rows twice", hint="run robustness again")
    return Scored(logits, valid, *rows)


def _all_there(valid: Array, wanted: Array, file: str) -> None:
    if not (valid == wanted[None]).all():
        raise Damaged(
            f"{file}: {(valid != wanted[None]).sum():,} predictions are missing or too many",
            hint="run robustness again",
        )
