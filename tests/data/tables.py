"""Small tables for the tests of the data part."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np

from mcutune.data.columns import Columns
from mcutune.data.table import Table, write_table
from mcutune.domain.task import Task


def small_columns(rows: int = 60, seed: int = 0, **changes: Any) -> Columns:
    """Ten dialogues of two speakers each, five folds of two dialogues, 3 classes, a twelfth of the rows unlabelled."""
    random = np.random.default_rng(seed)
    number = np.arange(rows)
    dialogue = number * 10 // rows
    presence = random.random((rows, 2)) < 0.8
    presence[:, 0] |= ~presence.any(axis=1)
    columns = Columns(
        features={"audio": random.normal(size=(rows, 4)).astype(np.float32), "text": np.ones((rows, 3), np.float32)},
        ids=np.array([f"u{n:03}" for n in number]),
        labels=np.where(number % 12 == 5, -1, number % 3).astype(np.int64),
        dialogue=np.array([f"d{d}" for d in dialogue]),
        order=number.astype(np.int64),
        group=np.array([f"s{d}_{n % 2}" for d, n in zip(dialogue, number, strict=True)]),
        presence=presence,
        task=Task.CLASSIFICATION,
        label_names=("calm", "glad", "sad"),
        fold=np.array([f"{d // 2 + 1}" for d in dialogue]),
        group_kind="speaker",
    )
    return dataclasses.replace(columns, **changes)


def small_table(folder: Path, rows: int = 60, **changes: Any) -> Table:
    return write_table(folder, small_columns(rows, **changes))
