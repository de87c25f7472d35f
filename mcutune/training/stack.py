"""A stack: the lanes of a pack whose ranks are padded to one number, as one batched program, optimizer and all.

A lane's numbers depend on its own configuration and seed only. Between epochs lanes come and go: membership is just
the list given to `epoch`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, distributed

from mcutune.domain.pack import PackStart
from mcutune.domain.task import Metric, Task
from mcutune.model.lanes import Lanes
from mcutune.model.losses import orthogonality, task_loss
from mcutune.model.noise import Key, Place
from mcutune.training.config import Configuration
from mcutune.training.lane import Lane
from mcutune.training.optim import LaneOptimizer
from mcutune.training.plan import Plan, epoch_plan
from mcutune.training.programs import Program
from mcutune.training.resident import Resident, effective


@dataclass(frozen=True)
class Ground:
    """What all stacks of a pack stand on. `group`: torch.distributed, for data-parallel packs."""

    resident: Resident
    start: PackStart
    shape: Configuration
    metric: Metric
    device: torch.device
    group: Any = None

    @property
    def share(self) -> tuple[int, int]:
        """Which part of every batch is this process's, of how many."""
        if self.group is None:
            return 0, 1
        return distributed.get_rank(self.group), distributed.get_world_size(self.group)


@dataclass(frozen=True)
class Measured:
    """An epoch of P lanes: mean loss [P], whether loss and weights are finite [P], metric and divergences [P, C]."""

    losses: list[float]
    finite: list[bool]
    scores: Any
    divergences: Any


class Stack:
    """Lanes that go through one program side by side."""

    def __init__(self, program: Program, ground: Ground) -> None:
        self.program, self.ground = program, ground
        resident = ground.resident
        self.measured = np.asarray(ground.start.combinations)
        self._effective = effective(resident.own[resident.validation], len(resident.data.modalities))
        self._truth = resident.truth[resident.validation]
        self._held: tuple[list[Lane], LaneOptimizer, Lanes] | None = None

    def epoch(self, lanes: Sequence[Lane], most_steps: int | None = None) -> Measured:
        """Train every lane one epoch and measure it. Lanes of a cohort are neighbours (training/plan.py).

        most_steps: end the training part after so many (Pack.epoch).
        """
        optimizer, settings = self._stacked(lanes)
        plan = self.plan(lanes)
        losses = torch.zeros(len(lanes), device=self.ground.device)
        for step in range(plan.steps if most_steps is None else min(most_steps, plan.steps)):
            losses += self._step(lanes, optimizer, settings, plan, step)
        if self.ground.group is not None:
            distributed.all_reduce(losses, group=self.ground.group)
        finite = (torch.isfinite(losses) & torch.isfinite(optimizer.flat.detach()).all(1)).tolist()
        scores, jsd = self._measured(optimizer.flat.detach(), settings, lanes)
        return Measured((losses / plan.steps).tolist(), finite, scores, jsd)

    def plan(self, lanes: Sequence[Lane]) -> Plan:
        """The next epoch of these lanes."""
        ground = self.ground
        return epoch_plan(ground.resident, lanes, ground.start.search_seed, ground.shape, *ground.share)

    def forget(self) -> None:
        """Drop the stacked tensors, so that their memory can be used."""
        self._held = None

    def _stacked(self, lanes: Sequence[Lane]) -> tuple[LaneOptimizer, Lanes]:
        """The optimizer and settings of these lanes; rebuilt only where membership changed."""
        if self._held is None or [id(a) for a in self._held[0]] != [id(b) for b in lanes]:
            configurations = [lane.configuration for lane in lanes]
            optimizer = LaneOptimizer([lane.vectors for lane in lanes], configurations)
            self._held = (list(lanes), optimizer, Lanes.of(configurations, self.ground.device))
        return self._held[1], self._held[2]

    def _step(self, lanes: Sequence[Lane], optimizer: LaneOptimizer, settings: Lanes, plan: Plan, step: int) -> Tensor:
        """One gradient step of every lane; returns the loss [P] (of this rank's rows, where data-parallel)."""
        seed = self.ground.start.search_seed
        keys = [(seed, lane.seed, int(Place.DROPOUT), lane.epoch, step, plan.rank) for lane in lanes]
        parts = self._parts(len(lanes))
        losses = [
            self._gradients(
                optimizer, settings.part(part), plan if len(parts) == 1 else plan.of(part), keys[part], step, part
            )
            for part in parts
        ]
        if self.ground.group is not None:
            distributed.all_reduce(optimizer.gradient, group=self.ground.group)
        optimizer.step()
        return torch.cat(losses)

    def _gradients(
        self, optimizer: LaneOptimizer, settings: Lanes, plan: Plan, keys: Sequence[Key], step: int, part: slice
    ) -> Tensor:
        """Put the gradients of some lanes where the optimizer reads them; returns their losses."""
        views = self.program.layout.views(optimizer.flat[part].detach())
        for view in views.values():
            view.requires_grad_()
        batch = plan.batch(step, self.ground.device)
        output = self.program.forward(views, batch, settings, keys)
        loss = task_loss(output.logits, batch.target, batch.weight)
        total = loss + settings.beta * orthogonality(output.cos2, batch.share, settings.absolute)
        gradients = torch.autograd.grad(total.sum(), list(views.values()))
        for place, gradient in zip(
            self.program.layout.views(optimizer.gradient[part]).values(), gradients, strict=True
        ):
            place.copy_(gradient)
        return total.detach()

    def _parts(self, count: int) -> list[slice]:
        """The lanes that go through the program together."""
        size = self.program.lanes_at_once or count
        return [slice(p, min(p + size, count)) for p in range(0, count, size)]

    def _measured(self, flat: Tensor, settings: Lanes, lanes: Sequence[Lane]) -> tuple[Any, Any]:
        """The metric on validation under every measured combination, and DPFT's divergences, both [P, C]."""
        scores, apart = [], []
        for part in self._parts(len(lanes)):
            params, some = self.program.layout.views(flat[part]), settings.part(part)
            logits = self.program.validation_logits(params, some, [lane.seed for lane in lanes[part]])
            scores.append(self._scores(logits))
            apart.append(self.program.divergences(params, some, self.ground.shape.divergence).double().cpu().numpy())
        return np.concatenate(scores), np.concatenate(apart)

    def _scores(self, logits: Tensor) -> Any:
        """The metric [P, C] of logits [P, C, n, K] on validation under every measured combination."""
        ground = self.ground
        if ground.resident.data.task is Task.CLASSIFICATION:
            predicted = logits.argmax(-1).cpu().numpy()
        else:
            predicted = logits[..., 0].cpu().numpy()
        result = np.empty((len(logits), len(self.measured)))
        for j, c in enumerate(self.measured):
            left = self._effective[c]
            rows = np.flatnonzero(left >= 0)
            # Contiguous: what an index picks lies otherwise for one lane than for several, and a mean sums as it lies.
            picked = np.ascontiguousarray(predicted[:, left[rows], rows])
            result[:, j] = ground.metric(picked, self._truth[rows], ground.resident.outputs)
        return result
