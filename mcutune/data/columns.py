"""The columns of a dataset in memory: what every importer and generator produces, and what a table is written from."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from mcutune.domain.combination import Modalities
from mcutune.domain.task import Task
from mcutune.errors import BadInput

Array = npt.NDArray[Any]
NormalisationMode = Literal["train", "group", "none"]
SPLITS = ("train", "validation", "test")


@dataclass(frozen=True, eq=False)
class Columns:
    """N rows of M modalities, not yet audited.

    `features`: modality to [N, D] float32, in the dataset's order. `labels`: int64 [N] with −1, or float32 [N] with
    NaN, where there is none. `dialogue`, `group`, `fold`, `split`: names, [N] str; `split` holds `train`,
    `validation`, `test`. `order`: int64 [N], position within the dialogue. `presence`: bool [N, M]. `group_kind`: what
    the inference group is, such as `speaker`. `extra`: JSON-able facts for the manifest.

    Raises BadInput where lengths, dimensions or types do not fit each other.
    """

    features: dict[str, Array]
    ids: Array
    labels: Array
    dialogue: Array
    order: Array
    group: Array
    presence: Array
    task: Task
    label_names: tuple[str, ...] = ()
    fold: Array | None = None
    split: Array | None = None
    group_kind: str = "row"
    normalisation: NormalisationMode = "train"
    extra: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        modalities = Modalities(tuple(self.features))
        rows = len(self.ids)
        if not rows:
            raise BadInput("there are no rows")
        for name, values in self.features.items():
            if values.ndim != 2 or values.dtype != np.float32 or not values.shape[1]:
                raise BadInput(f"features of {name} are {values.dtype} {values.shape}, not float32 [N, D]")
        if self.presence.shape != (rows, len(modalities)) or self.presence.dtype != np.bool_:
            raise BadInput(f"presence is {self.presence.dtype} {self.presence.shape}, not bool [N, M]")
        lengths = {name: len(values) for name, values in (*self.features.items(), *self.named().items())}
        wrong = [f"{name} {length:,}" for name, length in lengths.items() if length != rows]
        if wrong:
            raise BadInput(f"lengths differ: ids {rows:,}, but {', '.join(wrong)}")
        for name, values in self.named().items():
            if values.dtype.kind == "U" and not all(_encodable(text) for text in np.unique(values).tolist()):
                raise BadInput(f"{name} holds text that is not valid Unicode")
        wanted = np.int64 if self.task is Task.CLASSIFICATION else np.float32
        if self.labels.dtype != wanted:
            raise BadInput(f"labels are {self.labels.dtype}, a {self.task.value} task has {np.dtype(wanted)}")
        if self.task is Task.CLASSIFICATION and self.labels.max() >= len(self.label_names):
            raise BadInput(f"label {self.labels.max()} has no name among {len(self.label_names)}")

    def named(self) -> dict[str, Array]:
        """The columns of one value a row, by name, without the labels' file."""
        columns = {"id": self.ids, "dialogue": self.dialogue, "order": self.order, "group": self.group}
        columns |= {"labels": self.labels}
        if self.fold is not None:
            columns["fold"] = self.fold
        if self.split is not None:
            columns["split"] = self.split
        return columns

    @property
    def labelled(self) -> Array:
        """Which rows have a label, bool [N]."""
        return self.labels >= 0 if self.task is Task.CLASSIFICATION else np.isfinite(self.labels)


def _encodable(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def natural_order(names: Array) -> tuple[str, ...]:
    """The distinct names, digits compared as numbers: 1, 2, 10."""

    def key(name: str) -> list[tuple[bool, int, str]]:
        pieces = re.findall(r"[0-9]+|[^0-9]+", name)
        return [(not piece.isdecimal(), int(piece) if piece.isdecimal() else 0, piece) for piece in pieces]

    return tuple(sorted((str(name) for name in np.unique(names)), key=key))
