"""What is wrong, or worth knowing, about the columns of a dataset: every finding at once, not the first."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np

from mcutune.data.columns import SPLITS, Array, Columns, natural_order
from mcutune.data.hints import listed, shown
from mcutune.domain.task import Task
from mcutune.errors import Problems

_INTERVAL_FROM, _FEW_LABELS = 8, 10  # groups for an interval; labelled rows of a class


@dataclass(frozen=True)
class Finding:
    """An `error` keeps the data from being used; a `note` does not. `kind` is a fixed word for programs."""

    level: Literal["error", "note"]
    kind: str
    message: str

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def audit(columns: Columns) -> list[Finding]:
    """All findings, errors first."""
    found = [finding for check in _CHECKS for finding in check(columns)]
    return sorted(found, key=lambda finding: finding.level != "error")


def refuse_errors(findings: list[Finding], source: object) -> None:
    """Raise Problems with every error among the findings."""
    errors = tuple(finding.message for finding in findings if finding.level == "error")
    if errors:
        raise Problems(f"{shown(source, 200)} cannot be used, {len(errors)} problem(s):", problems=errors)


def _ids(columns: Columns) -> Iterator[Finding]:
    values, counts = np.unique(columns.ids, return_counts=True)
    if len(repeated := values[counts > 1]):
        yield Finding("error", "duplicate_id", f"{len(repeated):,} ids occur more than once: {listed(repeated)}")
    if empty := int((columns.ids == "").sum()):
        yield Finding("error", "empty_id", f"{empty:,} rows have an empty id")


def _positions(columns: Columns) -> Iterator[Finding]:
    dialogue = np.unique(columns.dialogue, return_inverse=True)[1]
    pairs, counts = np.unique(np.stack([dialogue, columns.order]), axis=1, return_counts=True)
    if len(np.unique(pairs[0][counts > 1])):
        names = np.unique(columns.dialogue)[np.unique(pairs[0][counts > 1])]
        message = f"{len(names):,} dialogues have two rows in one place, kept in file order: {listed(names)}"
        yield Finding("note", "repeated_order", message)


def _straddling(names: Array, part: Array) -> Array:
    """The names that occur in more than one part."""
    pairs = np.unique(np.stack([names, part]), axis=1)
    values, counts = np.unique(pairs[0], return_counts=True)
    return values[counts > 1]


def _leaks(columns: Columns) -> Iterator[Finding]:
    parts: dict[str, Array] = {}
    if columns.fold is not None:
        parts["fold"] = columns.fold
    if columns.split is not None:
        # Only test must stand apart: a validation part that shares groups with training is carved anew.
        parts["split"] = np.where(columns.split == "test", "test", "train or validation")
    for column, part in parts.items():
        for kind, names in {"dialogue": columns.dialogue, columns.group_kind: columns.group}.items():
            if len(leaked := _straddling(names, part)):
                mend = f"name a --{column} column that keeps them whole, or leave it out"
                message = f"{len(leaked):,} of {kind} lie in more than one {column}: {listed(leaked)}; {mend}"
                yield Finding("error", f"{column}_leak", message)


def _parts(columns: Columns) -> Iterator[Finding]:
    labelled = columns.labelled
    if columns.fold is not None:
        folds = natural_order(columns.fold)
        if len(folds) < 2:
            yield Finding("error", "one_fold", f"the fold column has one value only: {listed(folds)}")
        if bare := [fold for fold in folds if not labelled[columns.fold == fold].any()]:
            yield Finding("error", "unlabelled_fold", f"folds without any labelled row: {listed(bare)}")
    if columns.fold is not None and columns.split is not None:
        yield Finding("note", "split_unused", "there is a fold column, so the split column is not used")
    if columns.split is not None:
        if unknown := sorted(set(columns.split.tolist()) - set(SPLITS)):
            message = f"the split column has {listed(unknown)}; valid: {', '.join(SPLITS)}"
            yield Finding("error", "unknown_split", message)
        if bare := [part for part in ("train", "test") if not labelled[columns.split == part].any()]:
            yield Finding("error", "unlabelled_split", f"no labelled row in: {', '.join(bare)}")


def _groups(columns: Columns) -> Iterator[Finding]:
    count = len(np.unique(columns.group))
    if columns.group_kind != "row" and count < _INTERVAL_FROM:
        message = f"only {count} of {columns.group_kind}: too few for confidence intervals (from {_INTERVAL_FROM})"
        yield Finding("note", "few_groups", message)


def _features(columns: Columns) -> Iterator[Finding]:
    for m, (name, values) in enumerate(columns.features.items()):
        present = columns.presence[:, m]
        broken = present & ~np.isfinite(values).all(axis=1)
        if count := int(broken.sum()):
            mend = "mend them, or count them as absent with --absent-where-nonfinite"
            message = f"{name} is not finite in {count:,} of the rows: {listed(columns.ids[broken])}; {mend}"
            yield Finding("error", "not_finite", message)
        zero = present & ~values.any(axis=1)
        if count := int(zero.sum()):
            message = f"{name} is all zero in {count:,} rows that count as present: {listed(columns.ids[zero])}"
            yield Finding("note", "all_zero", message)
        if count := int((~present).sum()):
            yield Finding("note", "absent", f"{name} is absent in {count:,} of {len(present):,} rows")
    if count := int((~columns.presence.any(axis=1)).sum()):
        yield Finding("note", "nothing_present", f"{count:,} rows have no modality at all: context, never trained on")


def _labels(columns: Columns) -> Iterator[Finding]:
    labelled = columns.labelled
    if count := int((~labelled).sum()):
        yield Finding("note", "unlabelled", f"{count:,} of {len(labelled):,} rows have no label: context only")
    if not labelled.any():
        yield Finding("error", "no_label", "no row has a label")
    elif columns.task is Task.CLASSIFICATION:
        counts = np.bincount(columns.labels[labelled], minlength=len(columns.label_names))
        if len(columns.label_names) < 2:
            yield Finding("error", "one_class", f"there is one class only: {listed(columns.label_names)}")
        few = [f"{shown(name)} {n}" for name, n in zip(columns.label_names, counts, strict=True) if n < _FEW_LABELS]
        if few:
            yield Finding("note", "few_labels", f"classes with under {_FEW_LABELS} labelled rows: {listed(few)}")
    elif np.ptp(columns.labels[labelled]) == 0:
        yield Finding("error", "constant_label", "every label is the same")


def _unseen_classes(columns: Columns) -> Iterator[Finding]:
    """Classes that some test part has, and the rows to train on have not."""
    if columns.task is not Task.CLASSIFICATION:
        return
    if columns.fold is not None:
        tests = {f"outside fold {shown(fold)}": columns.fold == fold for fold in natural_order(columns.fold)}
    else:
        tests = {} if columns.split is None else {"outside test": columns.split == "test"}
    every = range(len(columns.label_names))
    for where, test in tests.items():
        unseen = [shown(columns.label_names[k]) for k in every if not (columns.labels[~test] == k).any()]
        if unseen:
            yield Finding("note", "unseen_class", f"no labelled row {where} for: {listed(unseen)}")


_CHECKS: tuple[Callable[[Columns], Iterator[Finding]], ...] = (
    _ids,
    _positions,
    _leaks,
    _parts,
    _groups,
    _features,
    _labels,
    _unseen_classes,
)
