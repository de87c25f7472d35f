"""What is predicted, and by what: rows of a table as a model reads them, and the model as this part needs it.

Axes: N rows, M modalities, C combinations in canonical order, A combinations asked for, K classes (1: a value).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import numpy as np
import numpy.typing as npt

from mcutune.data.table import Table
from mcutune.domain.combination import Modalities, combination_index
from mcutune.domain.task import Task

Array = npt.NDArray[Any]
Mode = Literal["train", "group", "none"]


class Model(Protocol):
    """What is needed of mcutune.model.predictor.Predictor. Features are raw, float32 [N, D] by modality."""

    modalities: Modalities
    dims: tuple[int, ...]
    classes: int
    label_names: tuple[str, ...]
    task: Task
    info: dict[str, Any]

    @property
    def attends(self) -> bool:
        """Whether a row's prediction depends on the presence of other rows of its dialogue."""

    def all_combinations(
        self, features: dict[str, Array], dialogue: Array, order: Array, group: Array,
        *, presence: Array | None = None, normalisation: Mode | None = None,
    ) -> Array:  # fmt: skip
        """Logits [C, N, K] of every row under every combination."""

    def with_presence(
        self, features: dict[str, Array], presence: Array, dialogue: Array, order: Array, group: Array,
        *, normalisation: Mode | None = None, noise: dict[str, Array] | None = None,
    ) -> Array:  # fmt: skip
        """Logits [N, K], each row under its own presence [N, M], with `noise` added to normalised features."""


@dataclass(frozen=True, eq=False)
class Batch:
    """N rows to predict. `presence` [N, M]: what they have at all. `measured` [N]: the others are only context."""

    ids: Array
    features: dict[str, Array]
    presence: Array
    dialogue: Array
    order: Array
    group: Array
    measured: Array

    def __len__(self) -> int:
        return len(self.ids)

    def take(self, rows: Array) -> Batch:
        """Some of the rows."""
        plain = {f.name: getattr(self, f.name)[rows] for f in dataclasses.fields(self) if f.name != "features"}
        return Batch(features={name: values[rows] for name, values in self.features.items()}, **plain)

    def as_one_group(self) -> Batch:
        """The same rows as one group, so that normalising by group is normalising by corpus."""
        return dataclasses.replace(self, group=np.zeros(len(self), dtype=np.int64))

    def every(self, model: Model, mode: Mode | None = None) -> Array:
        """Logits [C, N, K]."""
        return model.all_combinations(
            self.features, self.dialogue, self.order, self.group, presence=self.presence, normalisation=mode
        )

    def under(self, model: Model, presence: Array, noise: dict[str, Array] | None = None) -> Array:
        """Logits [N, K] with no more present than `presence` [N, M], and noise on that."""
        have = presence & self.presence
        return model.with_presence(self.features, have, self.dialogue, self.order, self.group, noise=noise)


def batch_of(table: Table, rows: Array, measured: Array) -> Batch:
    """Rows of a table."""
    return Batch(
        ids=table.ids[rows],
        features={name: np.asarray(table.features(name)[rows]) for name in table.modalities.names},
        presence=table.presence[rows],
        dialogue=table.dialogue[rows],
        order=table.order[rows],
        group=table.group[rows],
        measured=measured,
    )


def foreign_batch(table: Table, model: Model, common: Sequence[str], measured: Array) -> Batch:
    """All rows of another table as the model reads them: what is not in common is absent everywhere."""
    rows = len(table)
    features, presence = {}, np.zeros((rows, len(model.modalities)), dtype=bool)
    for m, (name, dim) in enumerate(zip(model.modalities.names, model.dims, strict=True)):
        if name in common:
            features[name] = np.asarray(table.features(name))
            presence[:, m] = table.presence[:, table.modalities.names.index(name)]
        else:
            features[name] = np.zeros((rows, dim), dtype=np.float32)
    return Batch(table.ids, features, presence, table.dialogue, table.order, table.group, measured)


def own_combinations(every: Array, presence: Array, asked: Array) -> tuple[Array, Array]:
    """Logits [A, N, K] of each row under what it has of the combinations asked, and whether that is anything, [A, N].

    `every` [C, N, K]; `presence` [N, M]; `asked` [A, M].
    """
    own = combination_index(presence[None] & asked[:, None])
    return every[own.clip(0), np.arange(len(presence))], own >= 0
