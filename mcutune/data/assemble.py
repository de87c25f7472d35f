"""From the arrays of a file, and what each of them is, to the columns of a dataset. All problems are named at once."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np

from mcutune.data.audit import Finding
from mcutune.data.columns import Array, Columns, NormalisationMode
from mcutune.data.hints import did_you_mean, shown
from mcutune.data.labels import Labels, read_labels
from mcutune.data.text import as_text
from mcutune.domain.combination import Modalities
from mcutune.domain.task import Task
from mcutune.errors import BadInput, Problems

_TEXT_ROLES = ("id", "dialogue", "speaker", "group", "fold", "split")
_SPLIT_WORDS = {
    "train": ("train", "training"),
    "validation": ("validation", "val", "valid", "dev"),
    "test": ("test", "testing"),
}


class Source(Protocol):
    """Named arrays of a file."""

    path: Path
    keys: tuple[str, ...]

    def read(self, key: str) -> Array:
        """The array of a key. Raises BadInput naming file and key."""


@dataclass(frozen=True)
class Roles:
    """Which key of a file is what. `modalities`: modality to key, in the dataset's order; the rest are keys or None.

    `group`: the inference group; without it the speaker, else the dialogue, else the row. `task`: inferred from the
    label's type if None. `absent_where_nonfinite`: a row whose features are not finite lacks that modality, instead
    of the import being refused.
    """

    modalities: dict[str, str]
    label: str
    label_names: str | None = None
    id: str | None = None
    dialogue: str | None = None
    order: str | None = None
    speaker: str | None = None
    group: str | None = None
    fold: str | None = None
    split: str | None = None
    presence: str | None = None
    task: Task | None = None
    normalisation: NormalisationMode = "train"
    drop_unlabelled: bool = False
    absent_where_nonfinite: bool = False

    def keys(self) -> dict[str, str]:
        """Role to key, of all that are given; a modality's role is `modality NAME`."""
        named = {f"modality {name}": key for name, key in self.modalities.items()}
        others = ("label", "label_names", "order", "presence", *_TEXT_ROLES)
        return named | {role: key for role in others if (key := getattr(self, role)) is not None}


@dataclass(frozen=True)
class Reading:
    """What was read of a source, not yet audited, and what was decided on the way."""

    columns: Columns
    notes: tuple[Finding, ...] = ()


class Collector:
    """Gathers problems, so that they are reported all at once."""

    def __init__(self) -> None:
        self.problems: list[str] = []

    @contextlib.contextmanager
    def at(self, where: str) -> Iterator[None]:
        """A BadInput raised inside is kept, with the place it belongs to."""
        try:
            yield
        except BadInput as error:
            self.problems.append(f"{where} {error}" if where else str(error))

    def refuse(self, source: Path) -> None:
        """Raise Problems if there are any."""
        if self.problems:
            message = f"{shown(source, 200)} cannot be imported, {len(self.problems)} problem(s):"
            raise Problems(message, problems=tuple(self.problems))


def assemble(source: Source, roles: Roles) -> Reading:
    """The columns that the roles name. Raises Problems with every key that is missing or does not fit."""
    Modalities(tuple(roles.modalities))
    raw = _read(source, roles)
    rows = len(raw["label"])
    keys, collector = roles.keys(), Collector()

    def at(role: str) -> contextlib.AbstractContextManager[None]:
        return collector.at(f"{role} ({shown(keys[role])})")

    features: dict[str, Array] = {}
    for name in roles.modalities:
        with at(f"modality {name}"):
            features[name] = as_features(raw[f"modality {name}"])
    text: dict[str, Array] = {}
    for role in _TEXT_ROLES:
        if role in raw:
            with at(role):
                text[role] = as_text(raw[role])
    labels = Labels(np.zeros(rows, np.int64), (), Task.CLASSIFICATION)
    with at("label"):
        labels = read_labels(raw["label"], raw.get("label_names"), roles.task)
    order, presence = np.arange(rows), np.ones((rows, len(roles.modalities)), dtype=bool)
    if "order" in raw:
        with at("order"):
            order = _whole_numbers(raw["order"])
    if "presence" in raw:
        with at("presence"):
            presence = _presence(raw["presence"], presence.shape)
    collector.refuse(source.path)
    notes = labels.notes
    if "dialogue" in raw and "order" not in raw:
        notes += (Finding("note", "file_order", "no order given: rows of a dialogue are in file order"),)
    columns = _columns(roles, features, text, labels, order, presence)
    return finish(columns, notes, roles.absent_where_nonfinite, roles.drop_unlabelled)


def finish(
    columns: Columns, notes: tuple[Finding, ...], absent_where_nonfinite: bool, drop_unlabelled: bool
) -> Reading:
    """The reading after the options that every importer has: not finite means absent, rows without a label dropped."""
    if absent_where_nonfinite:
        columns, more = _absent_where_nonfinite(columns)
        notes += more
    if drop_unlabelled and (dropped := int((~columns.labelled).sum())):
        columns = _kept(columns, columns.labelled)
        notes += (Finding("note", "dropped", f"{dropped:,} rows without a label were dropped"),)
    return Reading(columns, notes)


def _read(source: Source, roles: Roles) -> dict[str, Array]:
    """The array of every role, one row each but the label names."""
    keys, collector = roles.keys(), Collector()
    collector.problems += [
        f"{role}: there is no key {shown(key)!r} ({did_you_mean(key, source.keys)})"
        for role, key in keys.items()
        if key not in source.keys
    ]
    collector.refuse(source.path)
    arrays: dict[str, Array] = {}
    for role, key in keys.items():
        with collector.at(""):
            arrays[role] = source.read(key)
    collector.refuse(source.path)
    lengths = {role: array.shape[0] if array.ndim else 0 for role, array in arrays.items() if role != "label_names"}
    if len(set(lengths.values())) > 1:
        found = ", ".join(f"{shown(keys[role])} {length:,}" for role, length in lengths.items())
        raise BadInput(f"{shown(source.path, 200)}: the numbers of rows differ: {found}")
    return arrays


def as_features(raw: Array) -> Array:
    """Numbers [N, D] or [N] as float32 [N, D]. Raises BadInput."""
    if raw.dtype.kind not in "biuf":
        raise BadInput(f"is {raw.dtype}, not numbers")
    if raw.ndim not in (1, 2):
        hint = "average over time first" if raw.ndim == 3 else None
        raise BadInput(f"has shape {raw.shape}, not [rows, features]", hint=hint)
    with np.errstate(over="ignore"):  # what does not fit becomes infinite, and is found by the audit
        return np.ascontiguousarray(raw.reshape(len(raw), -1), dtype=np.float32)


def _whole_numbers(raw: Array) -> Array:
    numbers = raw.ndim == 1 and raw.dtype.kind in "biuf"
    if not numbers or not np.isfinite(raw).all() or (raw % 1).any() or np.abs(raw.astype(np.float64)).max() >= 2**53:
        raise BadInput("is not a whole number in every row")
    return raw.astype(np.int64)


def _presence(raw: Array, shape: tuple[int, ...]) -> Array:
    if raw.shape != shape or raw.dtype.kind not in "biuf" or not np.isin(raw, (0, 1)).all():
        raise BadInput(f"is {raw.dtype} {raw.shape}, not 0 or 1 of shape {shape}")
    return raw.astype(bool)


def _columns(
    roles: Roles, features: dict[str, Array], text: dict[str, Array], labels: Labels, order: Array, presence: Array
) -> Columns:
    ids = text.get("id", np.array([f"row{number:06}" for number in range(len(order))]))
    dialogue = text.get("dialogue", ids)
    split = text.get("split")
    group, kind = ids, "row"
    for role, name in (("group", roles.group), ("speaker", "speaker"), ("dialogue", "dialogue")):
        if role in text:
            group, kind = text[role], str(name)
            break
    return Columns(
        features=features,
        ids=ids,
        labels=labels.values,
        dialogue=dialogue,
        order=order,
        group=group,
        presence=presence,
        task=labels.task,
        label_names=labels.names,
        fold=text.get("fold"),
        split=None if split is None else split_words(split),
        group_kind=kind,
        normalisation=roles.normalisation,
    )


def split_words(split: Array) -> Array:
    """The usual words for the parts as train, validation, test; others stay, for the audit to name."""
    known = {word: part for part, words in _SPLIT_WORDS.items() for word in words}
    return np.array([known.get(word.lower(), word) for word in split.tolist()])


def _absent_where_nonfinite(columns: Columns) -> tuple[Columns, tuple[Finding, ...]]:
    presence, notes = columns.presence.copy(), []
    for m, (name, values) in enumerate(columns.features.items()):
        broken = presence[:, m] & ~np.isfinite(values).all(axis=1)
        presence[broken, m] = False
        if broken.any():
            message = f"{name} marked absent in {broken.sum():,} rows, where it is not finite"
            notes.append(Finding("note", "not_finite_absent", message))
    return dataclasses.replace(columns, presence=presence), tuple(notes)


def _kept(columns: Columns, rows: Array) -> Columns:
    per_row = ("ids", "labels", "dialogue", "order", "group", "presence", "fold", "split")
    changes = {name: values[rows] for name in per_row if (values := getattr(columns, name)) is not None}
    features = {name: values[rows] for name, values in columns.features.items()}
    return dataclasses.replace(columns, features=features, **changes)
