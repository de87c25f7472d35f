"""Models made of several: a specialist a combination, or the late fusion of models of single modalities."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from scipy import special

from mcutune.domain.combination import combination_index, membership
from mcutune.domain.task import Task
from mcutune.errors import Damaged
from mcutune.robustness.batches import Array, Model


class Composed:
    """A model whose parts predict one combination each. `parts`: label of a combination to the model trained on it.

    how: `specialists` has a part for every combination, which alone predicts it. `late_fusion` has one a modality: what
    is predicted is the mean of the probabilities (of the values, in regression) of the modalities that are present;
    what is absent adds nothing. Logits are logarithms of probabilities then. Raises Damaged where a part is lacking.
    """

    def __init__(self, how: str, parts: Mapping[str, Model]) -> None:
        first = next(iter(parts.values()))
        self.modalities, self.dims, self.classes = first.modalities, first.dims, first.classes
        self.label_names, self.task = first.label_names, first.task
        self.info = {**first.info, "best_epoch": None, "dpft": None}
        self.attends = any(part.attends for part in parts.values())
        wanted = self.modalities.labels if how == "specialists" else self.modalities.names
        lacking = [label for label in wanted if label not in parts]
        if lacking:
            raise Damaged(f"a model of {how} has no part for {lacking[0]}")
        self._late = how == "late_fusion"
        self._parts = [parts[label] for label in wanted]
        self._cells = [self.modalities.labels.index(label) for label in wanted]

    def all_combinations(
        self, features: dict[str, Array], dialogue: Array, order: Array, group: Array, **how: Any
    ) -> Array:  # fmt: skip
        """Logits [C, N, K] of every row under every combination."""
        every = (part.all_combinations(features, dialogue, order, group, **how) for part in self._parts)
        own = np.stack([logits[c] for c, logits in zip(self._cells, every, strict=True)])  # [parts, N, K]
        if not self._late:
            return own
        member = membership(len(self.modalities))
        return self._fused(own[None], np.broadcast_to(member[:, :, None], (*member.shape, own.shape[1])))

    def with_presence(
        self, features: dict[str, Array], presence: Array, dialogue: Array, order: Array, group: Array, **how: Any
    ) -> Array:  # fmt: skip
        """Logits [N, K], each row under its own presence [N, M]."""
        if self._late:
            own = np.stack(
                [
                    part.with_presence(features, presence & only, dialogue, order, group, **how)
                    for part, only in zip(self._parts, np.eye(len(self._parts), dtype=bool), strict=True)
                ]
            )
            return self._fused(own[None], presence.T[None])[0]
        cell = combination_index(np.asarray(presence))
        cell = np.where(cell < 0, len(self._parts) - 1, cell)  # nothing: as the one that was trained on everything
        result = np.zeros((len(presence), self.classes), dtype=np.float32)
        for c in np.unique(cell):
            every = self._parts[c].with_presence(features, presence, dialogue, order, group, **how)
            result[cell == c] = every[cell == c]
        return result

    def _fused(self, logits: Array, present: Array) -> Array:
        """The mean over present modalities, [.., N, K], of logits [1, M, N, K] under present [.., M, N].

        Of a row with nothing present, the mean over what every part says of nothing.
        """
        present = np.where(present.any(axis=-2, keepdims=True), present, True)[..., None]
        classified = self.task is Task.CLASSIFICATION
        said = special.softmax(logits.astype(np.float64), axis=-1) if classified else logits.astype(np.float64)
        mean = np.where(present, said, 0).sum(axis=-3) / present.sum(axis=-3)
        return np.asarray(np.log(np.maximum(mean, np.finfo(np.float32).tiny)) if classified else mean, dtype=np.float32)
