"""scikit-learn's handwritten digits as three views: real images, 1,797 of 8 × 8 pixels, cut into bands of rows."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from mcutune.data.columns import Columns
from mcutune.data.table import Table, datasets_folder, write_table
from mcutune.domain.task import Task

BANDS = {"top": slice(0, 3), "middle": slice(3, 5), "bottom": slice(5, 8)}
FOLDS = 5


def columns() -> Columns:
    """Every image a row, its own dialogue and group; five stratified folds."""
    from sklearn.datasets import load_digits
    from sklearn.model_selection import StratifiedKFold

    images, labels = load_digits(return_X_y=True)
    images = (images.reshape(-1, 8, 8) / 16).astype(np.float32)
    rows = len(images)
    fold = np.zeros(rows, dtype=np.int64)
    folds = StratifiedKFold(FOLDS, shuffle=True, random_state=0).split(images, labels)
    for number, (_, test) in enumerate(folds, 1):
        fold[test] = number
    ids = np.array([f"digit{number:04}" for number in range(rows)])
    return Columns(
        features={name: images[:, band].reshape(rows, -1) for name, band in BANDS.items()},
        ids=ids,
        labels=labels.astype(np.int64),
        dialogue=ids,
        order=np.zeros(rows, dtype=np.int64),
        group=ids,
        presence=np.ones((rows, len(BANDS)), dtype=bool),
        task=Task.CLASSIFICATION,
        label_names=tuple(str(digit) for digit in range(10)),
        fold=fold.astype(str),
        group_kind="row",
    )


def make(home: Path | None = None, name: str = "digits") -> Table:
    """Write the table under a home."""
    return write_table(datasets_folder(home) / name, columns())
