"""A fold's rows on the device, normalised, and what each is for: gradient steps, DPFT's probe, validation."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from mcutune.data.dialogues import grouped
from mcutune.data.normalise import Normalisation, apply, fit
from mcutune.data.views import FoldData
from mcutune.domain.combination import combination_index, combinations, membership
from mcutune.domain.task import Task
from mcutune.errors import BadInput
from mcutune.model.dpft import draws_by_dialogue
from mcutune.model.losses import balance
from mcutune.model.noise import Place, stream
from mcutune.training.config import Configuration
from mcutune.training.incomplete import incomplete

Rows = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Resident:
    """One fold on one device.

    inputs[m] [N, D_m] float32, zero where absent; target [N] int64 (−1 unlabelled) or float32 (0 where unlabelled).
    own [N]: canonical index of what each row has, −1 for nothing; training, probe, validation: row numbers.
    dialogues [G, T]: rows of every dialogue in order, −1 as padding; dialogue_of [N]. class_weight [K]: see `balance`.
    """

    data: FoldData
    normalisation: Normalisation
    inputs: list[Tensor]
    presence: Tensor
    target: Tensor
    own: Rows
    training: Rows
    probe: Rows
    validation: Rows
    dialogues: Rows
    dialogue_of: Rows
    class_weight: npt.NDArray[np.float32]

    @cached_property
    def truth(self) -> npt.NDArray[Any]:
        """target on the host."""
        return self.target.cpu().numpy()

    @cached_property
    def row_weight(self) -> npt.NDArray[np.float32]:
        """Weight [N] of each row in the loss: 0 unless it is learned from."""
        weight = np.zeros(len(self.own), dtype=np.float32)
        classified = self.data.task is Task.CLASSIFICATION
        weight[self.training] = self.class_weight[self.truth[self.training]] if classified else 1
        return weight

    @property
    def outputs(self) -> int:
        """K: classes, or 1 for a value."""
        return self.data.classes if self.data.task is Task.CLASSIFICATION else 1

    @property
    def dims(self) -> tuple[int, ...]:
        return tuple(x.shape[1] for x in self.inputs)


def resident(data: FoldData, configuration: Configuration, device: torch.device) -> Resident:
    """Put a fold on a device. Raises BadInput where a part has no labelled row."""
    data = incomplete(data, configuration.training_missing)
    normalisation = fit(data.features, data.presence, np.flatnonzero(~data.validation), data.normalisation)
    features = apply(normalisation, data.features, data.presence, data.group)
    labelled = data.labels >= 0 if data.task is Task.CLASSIFICATION else np.isfinite(data.labels)
    own = combination_index(data.presence)
    usable = labelled & (own >= 0)
    validation, training = np.flatnonzero(usable & data.validation), np.flatnonzero(usable & ~data.validation)
    for name, rows in (("validation", validation), ("training", training)):
        if not len(rows):
            raise BadInput(f"fold {data.fold} has no labelled row in its {name} part", hint="see `mcutune data check`")
    dialogues, dialogue_of = grouped(data.dialogue, data.order)
    probe = probe_rows(training, own, dialogue_of, configuration, draws_by_dialogue(configuration))
    if not len(np.setdiff1d(training, probe)):
        raise BadInput(
            f"fold {data.fold} has {len(training)} labelled training row(s): too few to train on and to measure "
            "divergences on", hint="see `mcutune data check`",
        )  # fmt: skip
    target = data.labels.astype(np.int64) if data.task is Task.CLASSIFICATION else np.nan_to_num(data.labels)
    return Resident(
        data=data,
        normalisation=normalisation,
        inputs=[torch.from_numpy(np.ascontiguousarray(features[name])).to(device) for name in data.modalities],
        presence=torch.from_numpy(data.presence.copy()).to(device),
        target=torch.from_numpy(target.copy()).to(device),
        own=own,
        training=np.setdiff1d(training, probe),
        probe=probe,
        validation=validation,
        dialogues=dialogues,
        dialogue_of=dialogue_of,
        class_weight=balance(target[training], data.classes, data.task, configuration.class_weight),
    )


def probe_rows(training: Rows, own: Rows, dialogue_of: Rows, configuration: Configuration, whole: bool) -> Rows:
    """The fixed probe: at most a tenth of the training rows, complete ones first.

    Whole dialogues where asked and where one is short enough; else single rows, whose dialogues stay in training.
    """
    wanted = min(configuration.probe_rows, max(1, len(training) // 10))
    shuffled = stream(0, 0, Place.PROBE).permutation(training)
    chosen: list[int] = []
    for dialogue in dict.fromkeys(dialogue_of[shuffled].tolist()) if whole else ():
        rows = training[dialogue_of[training] == dialogue].tolist()
        if len(chosen) + len(rows) <= wanted:
            chosen += rows
    if chosen:
        return np.sort(np.asarray(chosen, dtype=np.int64))
    complete = own[shuffled] == own.max()
    return np.sort(shuffled[np.argsort(~complete, kind="stable")][:wanted])


def containment(count: int) -> npt.NDArray[np.bool_]:
    """inside [C, C] for M = count: whether combination j is contained in combination i."""
    masks = np.array([c.mask for c in combinations(count)])
    return (masks[None, :] & ~masks[:, None]) == 0


def effective(own: Rows, count: int) -> Rows:
    """Canonical index [C, N] of what is left of each row under each combination, −1 for nothing."""
    member = membership(count)
    have = np.where(own[:, None] >= 0, member[own.clip(0)], False)
    return combination_index(member[:, None] & have[None])
