"""What every lane trains on in an epoch: order of rows, combinations drawn, weights. Made on the host, ahead of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from mcutune.domain.combination import combination_index, membership
from mcutune.model.alignment import ROWS, padded_length, up
from mcutune.model.dpft import draw
from mcutune.model.noise import Place, stream
from mcutune.training.config import Configuration
from mcutune.training.lane import Lane
from mcutune.training.resident import Resident, containment, draws_by_dialogue

Rows = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Batch:
    """One step. rows, drawn [P, B]: row numbers (0 where padding) and combination of each; target [P, B].

    weight [P, B] sums to 1 over the rows of a lane's step that are learned from (0 elsewhere: padding, context);
    share [P, B, M] likewise over their present modalities. `there` [P, B]: not padding. Where a unit is a whole
    dialogue, B = units × `length`. cohorts: see the function.
    """

    rows: Tensor
    there: Tensor
    drawn: Tensor
    target: Tensor
    weight: Tensor
    share: Tensor
    seeds: tuple[int, ...]
    cohorts: tuple[int, ...]
    length: int


@dataclass(frozen=True)
class Plan:
    """An epoch of P lanes: rows, drawn [P, S·B], −1 for padding and for rows left with nothing.

    `length`: rows of a unit (T where it is a dialogue, else 1). rank, world: this process's share of every step.
    """

    resident: Resident
    rows: Rows
    drawn: Rows
    seeds: tuple[int, ...]
    cohorts: tuple[int, ...]
    length: int
    per_step: int
    rank: int = 0
    world: int = 1

    @property
    def steps(self) -> int:
        return -(-self.rows.shape[1] // self.per_step)

    def batch(self, step: int, device: torch.device) -> Batch:
        """The rows of a step; of this rank's share of it, where data-parallel."""
        piece = slice(step * self.per_step, (step + 1) * self.per_step)
        rows, drawn = self.rows[:, piece], self.drawn[:, piece]
        lacking = up(rows.shape[1], max(ROWS, self.length) * self.world) - rows.shape[1]
        rows, drawn = (np.pad(a, ((0, 0), (0, lacking)), constant_values=-1) for a in (rows, drawn))
        weight = np.where((rows >= 0) & (drawn >= 0), self.resident.row_weight[rows], 0)
        present = membership(len(self.resident.data.modalities))[drawn] & (weight > 0)[..., None]
        share = present / np.maximum(present.sum((1, 2), keepdims=True), 1)
        weight = weight / np.maximum(weight.sum(1, keepdims=True), 1e-12)
        truth = self.resident.truth[rows]
        target = np.where(weight > 0, truth, np.zeros_like(truth))  # any valid class where the weight is zero
        mine = self._mine(rows.shape[1])

        def on(values: npt.NDArray[Any]) -> Tensor:
            return torch.from_numpy(np.ascontiguousarray(values[:, mine])).to(device)

        return Batch(
            rows=on(rows.clip(0)), there=on(rows >= 0), drawn=on(drawn.clip(0)), target=on(target),
            weight=on(weight.astype(np.float32)), share=on(share.astype(np.float32)),
            seeds=self.seeds, cohorts=self.cohorts, length=self.length,
        )  # fmt: skip

    def _mine(self, count: int) -> Rows | slice:
        if self.world == 1:
            return slice(None)
        units = np.arange(count // self.length)[self.rank :: self.world]
        return (units[:, None] * self.length + np.arange(self.length)).ravel()


def epoch_plan(
    resident: Resident, lanes: Sequence[Lane], search_seed: int, shape: Configuration, rank: int = 0, world: int = 1
) -> Plan:
    """The plan of the next epoch of every lane. Order and uniforms depend on (search seed, seed, epoch) only."""
    made: dict[tuple[int, int], tuple[Rows, npt.NDArray[np.float64], int]] = {}
    rows, drawn = [], []
    for lane in lanes:
        key = (lane.seed, lane.epoch)
        if key not in made:
            made[key] = _order(resident, search_seed, *key, whole=shape.encoder == "trained")
        order, uniform, length = made[key]
        rows.append(order)
        drawn.append(_drawn(resident, lane, order, uniform, shape))
    per_step = shape.batch if length == 1 else max(1, round(shape.batch / _mean_length(resident))) * length
    return Plan(
        resident, np.stack(rows), np.stack(drawn), tuple(lane.seed for lane in lanes), cohorts(lanes), length, per_step,
        rank, world,
    )  # fmt: skip


def cohort(lane: Lane) -> tuple[float, ...]:
    """What lanes have in common that read the same rows, encoder outputs and dropout noise in an epoch."""
    return lane.seed, lane.epoch, lane.configuration.adapter_dropout, lane.configuration.dropout


def cohorts(lanes: Sequence[Lane]) -> tuple[int, ...]:
    """How many lanes in a row are of one cohort; they sum to P. Fewest where lanes are sorted by `cohort`."""
    return tuple(len(list(same)) for _, same in groupby(lanes, cohort))


def _mean_length(resident: Resident) -> float:
    return float((resident.dialogues >= 0).sum(1).mean())


def _order(
    resident: Resident, search_seed: int, seed: int, epoch: int, *, whole: bool
) -> tuple[Rows, npt.NDArray[np.float64], int]:
    """Rows in training order, a uniform number for every row and one for every dialogue, and the unit's length."""
    order = stream(search_seed, seed, Place.ORDER, epoch)
    uniform = stream(search_seed, seed, Place.DRAW, epoch).random(len(resident.own) + len(resident.dialogues))
    if not whole:
        return order.permutation(resident.training), uniform, 1
    dialogues = order.permutation(np.unique(resident.dialogue_of[resident.training]))
    block = resident.dialogues[dialogues]
    block = np.pad(block, ((0, 0), (0, padded_length(block.shape[1]) - block.shape[1])), constant_values=-1)
    return block.ravel(), uniform, block.shape[1]


def _drawn(resident: Resident, lane: Lane, order: Rows, uniform: npt.NDArray[np.float64], shape: Configuration) -> Rows:
    """Combination of every row in order: what was drawn, less what the row itself lacks; −1 for nothing."""
    count = len(resident.data.modalities)
    inside = containment(count)
    if not draws_by_dialogue(shape):
        return draw(lane.dpft.q, uniform[order], resident.own[order], inside)
    member = membership(count)
    has = np.zeros((len(resident.dialogues), count), dtype=bool)
    np.logical_or.at(has, resident.dialogue_of, resident.data.presence)
    own = combination_index(has)
    of_dialogue = draw(lane.dpft.q, uniform[len(resident.own) :], own.clip(0), inside)
    rows = order.clip(0)
    of_row = of_dialogue[resident.dialogue_of[rows]]
    drawn = member[of_row] & resident.data.presence[rows]
    return np.where((order >= 0) & (of_row >= 0), combination_index(drawn), -1)
