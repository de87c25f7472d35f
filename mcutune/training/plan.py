"""What every lane trains on in an epoch: order of rows, combinations drawn, weights. Made on the host, ahead of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import groupby, pairwise
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from mcutune.domain.combination import combination_index, membership
from mcutune.model.alignment import up
from mcutune.model.dpft import draw, draws_by_dialogue
from mcutune.model.noise import Place, stream
from mcutune.training.config import Configuration
from mcutune.training.lane import Lane
from mcutune.training.resident import Resident, containment

Rows = npt.NDArray[np.int64]
Uniform = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Batch:
    """One step. rows, drawn [P, B]: row numbers (0 where padding) and combination of each; target [P, B].

    weight [P, B] sums to 1 over the rows of a lane's step that are learned from (0 elsewhere: padding, context);
    share [P, B, M] likewise over their present modalities. present [P, B, M] and dialogue [P, B], on the host: what is
    left of each row, nothing of padding, and where it belongs; combination: `drawn` there. cohorts: see the function.
    """

    rows: Tensor
    drawn: Tensor
    target: Tensor
    weight: Tensor
    share: Tensor
    present: npt.NDArray[np.bool_]
    dialogue: Rows
    combination: Rows
    seeds: tuple[int, ...]
    cohorts: tuple[int, ...]


@dataclass(frozen=True)
class Plan:
    """An epoch of P lanes: rows, drawn [P, N] in training order, drawn −1 for rows left with nothing.

    ends [P, units]: where each unit (a row, or a whole dialogue) ends; `per_step` units make a step. rank, world: this
    process's share of every step.
    """

    resident: Resident
    rows: Rows
    drawn: Rows
    ends: Rows
    per_step: int
    seeds: tuple[int, ...]
    cohorts: tuple[int, ...]
    rank: int = 0
    world: int = 1

    @property
    def steps(self) -> int:
        return -(-self.ends.shape[1] // self.per_step)

    def of(self, part: slice) -> Plan:
        """The same for some of the lanes, each a cohort of its own."""
        seeds = self.seeds[part]
        return replace(
            self, rows=self.rows[part], drawn=self.drawn[part], ends=self.ends[part], seeds=seeds,
            cohorts=(1,) * len(seeds),
        )  # fmt: skip

    def batch(self, step: int, device: torch.device) -> Batch:
        """The rows of a step; of this rank's share of it, where data-parallel."""
        ends = np.pad(self.ends, ((0, 0), (1, 0)))[:, step * self.per_step : (step + 1) * self.per_step + 1]
        rows, drawn = (_pieces(values, ends[:, 0], ends[:, -1]) for values in (self.rows, self.drawn))
        weight = np.where((rows >= 0) & (drawn >= 0), self.resident.row_weight[rows], 0)
        present = membership(len(self.resident.data.modalities))[drawn] & (drawn >= 0)[..., None]
        learned = present & (weight > 0)[..., None]
        share = learned / np.maximum(learned.sum((1, 2), keepdims=True), 1)
        weight = weight / np.maximum(weight.sum(1, keepdims=True), 1e-12)
        truth = self.resident.truth[rows]
        target = np.where(weight > 0, truth, np.zeros_like(truth))  # any valid class where the weight is zero

        def mine(values: npt.NDArray[Any]) -> npt.NDArray[Any]:
            return values if self.world == 1 else self._mine(values, ends - ends[:, :1])

        def on(values: npt.NDArray[Any]) -> Tensor:
            return torch.from_numpy(np.ascontiguousarray(mine(values))).to(device)

        return Batch(
            rows=on(rows.clip(0)), drawn=on(drawn.clip(0)), target=on(target),
            weight=on(weight.astype(np.float32)), share=on(share.astype(np.float32)), present=mine(present),
            dialogue=mine(self.resident.dialogue_of[rows]), combination=mine(drawn.clip(0)),
            seeds=self.seeds, cohorts=self.cohorts,
        )  # fmt: skip

    def _mine(self, values: npt.NDArray[Any], ends: Rows) -> npt.NDArray[Any]:
        """Every world-th unit of values [P, B, ..], from the rank-th on, padded to as many rows in all lanes."""
        kept = []
        for lane in ends.tolist():
            units = list(pairwise(lane))[self.rank :: self.world]
            kept.append([row for begin, end in units for row in range(begin, end)])
        most = up(max(1, *map(len, kept)))
        result = np.zeros((len(values), most, *values.shape[2:]), values.dtype)
        for p, places in enumerate(kept):
            result[p, : len(places)] = values[p, places]
        return result


def _pieces(values: Rows, starts: Rows, stops: Rows) -> Rows:
    """values[p, starts[p]:stops[p]] of every lane, −1 behind, to a multiple of ROWS."""
    most = up(int((stops - starts).max()))
    place = starts[:, None] + np.arange(most)
    inside = place < stops[:, None]
    return np.where(inside, np.take_along_axis(values, np.where(inside, place, 0), 1), -1)


def epoch_plan(
    resident: Resident, lanes: Sequence[Lane], search_seed: int, shape: Configuration, rank: int = 0, world: int = 1
) -> Plan:
    """The plan of the next epoch of every lane. Order and uniforms depend on (search seed, seed, epoch) only."""
    made: dict[tuple[int, int], tuple[Rows, Rows, Uniform]] = {}
    whole = shape.encoder == "trained"
    rows, drawn, ends = [], [], []
    for lane in lanes:
        key = (lane.seed, lane.epoch)
        if key not in made:
            made[key] = _order(resident, search_seed, *key, whole=whole)
        order, end, uniform = made[key]
        rows.append(order)
        ends.append(end)
        drawn.append(_drawn(resident, lane, order, uniform, shape))
    mean = float((resident.dialogues >= 0).sum(1).mean()) if whole else 1.0
    return Plan(
        resident, np.stack(rows), np.stack(drawn), np.stack(ends), max(1, round(shape.batch / mean)),
        tuple(lane.seed for lane in lanes), cohorts(lanes), rank, world,
    )  # fmt: skip


def cohort(lane: Lane) -> tuple[float, ...]:
    """What lanes have in common that read the same rows, encoder outputs and dropout noise in an epoch."""
    return lane.seed, lane.epoch, lane.configuration.adapter_dropout, lane.configuration.dropout


def cohorts(lanes: Sequence[Lane]) -> tuple[int, ...]:
    """How many lanes in a row are of one cohort; they sum to P. Fewest where lanes are sorted by `cohort`."""
    return tuple(len(list(same)) for _, same in groupby(lanes, cohort))


def _order(resident: Resident, search_seed: int, seed: int, epoch: int, *, whole: bool) -> tuple[Rows, Rows, Uniform]:
    """Rows in training order, the end of every unit, and a uniform number for every row and one for every dialogue."""
    order = stream(search_seed, seed, Place.ORDER, epoch)
    uniform = stream(search_seed, seed, Place.DRAW, epoch).random(len(resident.own) + len(resident.dialogues))
    if not whole:
        rows = order.permutation(resident.training)
        return rows, np.arange(1, 1 + len(rows)), uniform
    block = resident.dialogues[order.permutation(np.unique(resident.dialogue_of[resident.training]))]
    return block[block >= 0], (block >= 0).sum(1).cumsum(), uniform


def _drawn(resident: Resident, lane: Lane, order: Rows, uniform: Uniform, shape: Configuration) -> Rows:
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
    of_row = of_dialogue[resident.dialogue_of[order]]
    drawn = member[of_row] & resident.data.presence[order]
    return np.where(of_row >= 0, combination_index(drawn), -1)
