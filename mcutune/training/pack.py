"""The pack: one program that trains P lanes, an epoch at a time, and measures them under every combination.

A lane's numbers depend on its own configuration and seed only. Between epochs lanes come and go (refill, parking,
compaction): membership is just the list given to `epoch`. Lanes whose ranks are padded to one number run side by side
(training/stack.py); those of another number after them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mcutune.data.views import FoldData
from mcutune.domain.combination import Modalities
from mcutune.domain.objective import scalar
from mcutune.domain.pack import PackStart
from mcutune.domain.task import metric_named
from mcutune.domain.trial import Failure, LaneEpoch, LaneFailure, LaneOrder, padded_rank
from mcutune.errors import BadInput
from mcutune.model.dpft import DPFT
from mcutune.training.config import SHAPE_KEYS, configuration
from mcutune.training.lane import Lane
from mcutune.training.optim import Vectors
from mcutune.training.plan import cohort
from mcutune.training.programs import Outputs, Program, program_of
from mcutune.training.resident import resident
from mcutune.training.stack import Ground, Measured, Stack

Encoded = Callable[[int], list[Tensor]]
"""R^m [N, W] of every modality, for a seed."""


class Pack:
    """Lanes of one fold and one shape on one device. `group`: torch.distributed, for data-parallel packs.

    encoded: gives the frozen encoder outputs of a seed (never called for `encoder: trained`).
    """

    def __init__(
        self, data: FoldData, start: PackStart, encoded: Encoded, device: torch.device, group: Any = None
    ) -> None:
        if device.type == "cpu":
            # A product of one lane would be split over threads, of several lanes by lanes: other bits. More cores are
            # used by more packs instead, which costs nothing: lanes are independent.
            torch.set_num_threads(1)
        self.start, self.device = start, device
        self.shape = configuration(dict(zip(SHAPE_KEYS, start.shape, strict=True)))
        self.resident = resident(data, self.shape, device)
        self.metric = metric_named(start.metric, data.task)
        self.labels = Modalities(data.modalities).labels
        self.measured = start.combinations
        self._ground = Ground(self.resident, start, self.shape, self.metric, device, group)
        self._outputs = Outputs(encoded)
        self._stacks: dict[int, Stack] = {}
        self.stack_of(start.max_rank)  # what cannot be made is to be known before lanes come

    def stack_of(self, rank: int) -> Stack:
        """Where lanes of this rank run: on a CPU those that are padded alike, on a GPU all.

        A GPU is hardly slowed by padding, and by a second stack twice.
        """
        most = self.start.max_rank
        padded = padded_rank(rank, most) if self.device.type == "cpu" else most
        if padded not in self._stacks:
            program = program_of(self.shape, self.resident, padded, self._outputs)
            self._stacks[padded] = Stack(program, self._ground)
        return self._stacks[padded]

    def program_of(self, rank: int) -> Program:
        """The program of lanes of this rank."""
        return self.stack_of(rank).program

    def lane(self, order: LaneOrder) -> Lane:
        """A new lane at epoch 0. Raises BadInput or Problems if its configuration is not valid."""
        c = configuration(order.configuration)
        if c.static is not None and len(c.static) != len(self.labels):
            raise BadInput(f"static has {len(c.static)} numbers for {len(self.labels)} combinations")
        program = self.program_of(c.rank)
        vector = program.layout.initial(self.start.search_seed, order.lane.seed, c.rank)
        vectors = Vectors.start(torch.from_numpy(vector).to(self.device))
        return Lane(order, c, vectors, DPFT.start(len(program.member), c))

    def epoch(self, lanes: Sequence[Lane], most_steps: int | None = None) -> list[LaneEpoch | LaneFailure]:
        """Train every lane one epoch and measure it; one report a lane, in order.

        most_steps: end the training part after so many, to judge speed and memory (training/planning.py); never for
        lanes whose numbers count.
        """
        reports: dict[int, LaneEpoch | LaneFailure] = {}
        stacks = self._by_stack(lanes)
        for stack in set(self._stacks.values()) - {used for used, _ in stacks}:
            stack.forget()
        for stack, alike in stacks:
            measured = stack.epoch(alike, most_steps)
            for p, lane in enumerate(alike):
                lane.epoch += 1
                reports[id(lane)] = self._report(lane, measured, p)
        return [reports[id(lane)] for lane in lanes]

    def steps(self, lanes: Sequence[Lane]) -> int:
        """Gradient steps of these lanes' next epoch."""
        return max(stack.plan(alike).steps for stack, alike in self._by_stack(lanes))

    def forget(self) -> None:
        """Drop the stacked tensors, so that their memory can be used."""
        for stack in self._stacks.values():
            stack.forget()

    def _by_stack(self, lanes: Sequence[Lane]) -> list[tuple[Stack, list[Lane]]]:
        """The lanes of each stack, those of a cohort side by side."""
        stacks = {id(lane): self.stack_of(lane.configuration.rank) for lane in lanes}
        return [
            (stack, sorted((lane for lane in lanes if stacks[id(lane)] is stack), key=cohort))
            for stack in dict.fromkeys(stacks.values())
        ]

    def _report(self, lane: Lane, measured: Measured, p: int) -> LaneEpoch | LaneFailure:
        order, scores, jsd = lane.order, measured.scores[p], measured.divergences[p]
        if not measured.finite[p]:
            message = f"loss or weights are not finite in epoch {lane.epoch}"
            return LaneFailure(order.lane, order.attempt, lane.epoch, Failure.NAN, message)
        if not np.isfinite(scores).all():
            message = f"{self.metric.name} is not finite in epoch {lane.epoch}"
            return LaneFailure(order.lane, order.attempt, lane.epoch, Failure.METRIC, message)
        values = tuple(float(s) for s in scores)
        lane.record(jsd)
        start = self.start
        objective = lane.configuration.objective(start.objective, self.labels)
        value = scalar(values, start.combinations, start.modalities, objective, start.metric)
        lane.remember(value, values)
        return LaneEpoch(
            order.lane,
            order.attempt,
            lane.epoch,
            values,
            measured.losses[p],
            tuple(lane.probabilities[-1]),
            tuple(lane.divergences[-1]),
        )
