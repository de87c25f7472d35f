"""Labels as a file has them, to class indices or values; a row without one stays as context."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from mcutune.data.audit import Finding
from mcutune.data.columns import Array
from mcutune.data.hints import listed, shown
from mcutune.data.text import as_text
from mcutune.domain.task import Task
from mcutune.errors import BadInput

_MOST_CLASSES = 1000


@dataclass(frozen=True)
class Labels:
    """`values`: int64 [N], 0 … K − 1 or −1, with K `names`; or float32 [N] with NaN, and no names."""

    values: Array
    names: tuple[str, ...]
    task: Task
    notes: tuple[Finding, ...] = ()


def read_labels(raw: Array, names: Array | None = None, task: Task | None = None) -> Labels:
    """Labels [N] of a file.

    Without a `task`, whole numbers and text are classes, other numbers values. Classes: negative, NaN or empty means
    none; numbers are re-coded to 0 … K − 1, and of `names` (indexed by the number in the file) only those that occur
    are kept. Raises BadInput.
    """
    if raw.ndim != 1:
        raise BadInput(f"is {raw.shape}, not one label a row")
    chosen = task or (Task.REGRESSION if raw.dtype.kind == "f" else Task.CLASSIFICATION)
    inferred = Finding("note", "task", f"{chosen.value} task, inferred from {raw.dtype} labels; --task overrides it")
    notes = () if task else (inferred,)
    if chosen is Task.CLASSIFICATION:
        return _classes(raw, names, notes)
    if raw.dtype.kind in "US":
        raise BadInput("is text, which cannot be regressed")
    values = raw.astype(np.float32)
    return Labels(np.where(np.isfinite(values), values, np.float32(np.nan)), (), chosen, notes)


def _classes(raw: Array, names: Array | None, notes: tuple[Finding, ...]) -> Labels:
    if raw.dtype.kind in "US":
        codes = as_text(raw)
        has = codes != ""
    else:
        codes = raw.astype(np.float64)
        has = np.isfinite(codes) & (codes >= 0)
        if (codes[has] % 1).any():
            raise BadInput("has fractions, which are not classes (--task regression?)")
    distinct, indices = np.unique(codes[has], return_inverse=True)
    if len(distinct) > _MOST_CLASSES:
        raise BadInput(f"has {len(distinct):,} distinct values, too many for classes (--task regression?)")
    values = np.full(len(raw), -1, dtype=np.int64)
    values[has] = indices
    if codes.dtype.kind == "U":
        return Labels(values, tuple(distinct.tolist()), Task.CLASSIFICATION, notes)
    numbers = distinct.astype(np.int64)
    kept = _names(numbers, names)
    if not np.array_equal(numbers, np.arange(len(numbers))):
        pairs = (
            f"{number} to {index} ({shown(name)})"
            for index, (number, name) in enumerate(zip(numbers, kept, strict=True))
        )
        notes += (Finding("note", "recoded", f"labels re-coded to consecutive numbers: {listed(pairs, 20)}"),)
    return Labels(values, kept, Task.CLASSIFICATION, notes)


def _names(numbers: Array, names: Array | None) -> tuple[str, ...]:
    """The name of each number that occurs."""
    if names is None:
        return tuple(str(number) for number in numbers)
    if names.ndim != 1 or (len(numbers) and numbers.max() >= len(names)):
        raise BadInput(f"has label {numbers.max()}, but there are only {names.size} label names")
    kept = tuple(as_text(names)[numbers].tolist())
    if len(set(kept)) != len(kept):
        raise BadInput(f"has two labels of one name: {listed(kept)}")
    return kept
