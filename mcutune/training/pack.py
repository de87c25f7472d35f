"""The pack: one program that trains P lanes, an epoch at a time, and measures them under every combination.

A lane's numbers depend on its own configuration and seed only. Between epochs lanes come and go (refill, parking,
compaction): membership is just the list given to `epoch`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, distributed

from mcutune.data.views import FoldData
from mcutune.domain.combination import Modalities
from mcutune.domain.objective import scalar
from mcutune.domain.pack import PackStart
from mcutune.domain.task import Task, metric_named
from mcutune.domain.trial import Failure, LaneEpoch, LaneFailure, LaneOrder
from mcutune.errors import BadInput
from mcutune.model.dpft import DPFT
from mcutune.model.lanes import Lanes
from mcutune.model.losses import orthogonality, task_loss
from mcutune.model.noise import Key, Place
from mcutune.training.config import SHAPE_KEYS, configuration
from mcutune.training.lane import Lane
from mcutune.training.optim import LaneOptimizer, Vectors
from mcutune.training.plan import Plan, cohort, epoch_plan
from mcutune.training.programs import Program, program_of
from mcutune.training.resident import effective, resident

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
        self.start, self.device, self.group = start, device, group
        self.shape = configuration(dict(zip(SHAPE_KEYS, start.shape, strict=True)))
        self.resident = resident(data, self.shape, device)
        self.program: Program = program_of(self.shape, self.resident, start.max_rank, encoded)
        self.measured = np.asarray(start.combinations)
        self.metric = metric_named(start.metric, data.task)
        self.labels = Modalities(data.modalities).labels
        self._effective = effective(self.resident.own[self.resident.validation], len(data.modalities))
        self._truth = self.resident.truth[self.resident.validation]
        self._share = (
            (0, 1) if group is None else (torch.distributed.get_rank(group), torch.distributed.get_world_size(group))
        )
        self._stack: tuple[list[Lane], LaneOptimizer, Lanes] | None = None

    def lane(self, order: LaneOrder) -> Lane:
        """A new lane at epoch 0. Raises BadInput or Problems if its configuration is not valid."""
        c = configuration(order.configuration)
        if c.static is not None and len(c.static) != len(self.labels):
            raise BadInput(f"static has {len(c.static)} numbers for {len(self.labels)} combinations")
        vector = self.program.layout.initial(self.start.search_seed, order.lane.seed, c.rank)
        vectors = Vectors.start(torch.from_numpy(vector).to(self.device))
        return Lane(order, c, vectors, DPFT.start(len(self.program.member), c))

    def epoch(self, lanes: Sequence[Lane], most_steps: int | None = None) -> list[LaneEpoch | LaneFailure]:
        """Train every lane one epoch and measure it; one report a lane, in order.

        most_steps: end the training part after so many, to judge speed and memory (training/planning.py); never for
        lanes whose numbers count.
        """
        given, lanes = lanes, sorted(lanes, key=cohort)
        optimizer, settings = self._stacked(lanes)
        plan = self._plan(lanes)
        losses = torch.zeros(len(lanes), device=self.device)
        for step in range(plan.steps if most_steps is None else min(most_steps, plan.steps)):
            losses += self._step(lanes, optimizer, settings, plan, step)
        if self.group is not None:
            distributed.all_reduce(losses, group=self.group)
        finite = (torch.isfinite(losses) & torch.isfinite(optimizer.flat.detach()).all(1)).tolist()
        scores, jsd = self._measured(optimizer.flat.detach(), settings, lanes)
        means = (losses / plan.steps).tolist()
        reports: dict[int, LaneEpoch | LaneFailure] = {}
        for p, lane in enumerate(lanes):
            lane.epoch += 1
            reports[id(lane)] = self._report(lane, scores[p], jsd[p], means[p], finite[p])
        return [reports[id(lane)] for lane in given]

    def steps(self, lanes: Sequence[Lane]) -> int:
        """Gradient steps of these lanes' next epoch."""
        return self._plan(lanes).steps

    def _plan(self, lanes: Sequence[Lane]) -> Plan:
        return epoch_plan(self.resident, lanes, self.start.search_seed, self.shape, *self._share)

    def forget(self) -> None:
        """Drop the stacked tensors, so that their memory can be used."""
        self._stack = None

    def _stacked(self, lanes: Sequence[Lane]) -> tuple[LaneOptimizer, Lanes]:
        """The optimizer and settings of these lanes; rebuilt only where membership changed."""
        if self._stack is None or [id(a) for a in self._stack[0]] != [id(b) for b in lanes]:
            configurations = [lane.configuration for lane in lanes]
            optimizer = LaneOptimizer([lane.vectors for lane in lanes], configurations)
            self._stack = (list(lanes), optimizer, Lanes.of(configurations, self.device))
        return self._stack[1], self._stack[2]

    def _step(self, lanes: Sequence[Lane], optimizer: LaneOptimizer, settings: Lanes, plan: Plan, step: int) -> Tensor:
        """One gradient step of every lane; returns the loss [P] (of this rank's rows, where data-parallel)."""
        keys = [(self.start.search_seed, lane.seed, int(Place.DROPOUT), lane.epoch, step, plan.rank) for lane in lanes]
        parts = self._parts(len(lanes))
        losses = [
            self._gradients(
                optimizer, settings.part(part), plan if len(parts) == 1 else plan.of(part), keys[part], step, part
            )
            for part in parts
        ]
        if self.group is not None:
            distributed.all_reduce(optimizer.gradient, group=self.group)
        optimizer.step()
        return torch.cat(losses)

    def _gradients(
        self, optimizer: LaneOptimizer, settings: Lanes, plan: Plan, keys: Sequence[Key], step: int, part: slice
    ) -> Tensor:
        """Put the gradients of some lanes where the optimizer reads them; returns their losses."""
        views = self.program.layout.views(optimizer.flat[part].detach())
        for view in views.values():
            view.requires_grad_()
        batch = plan.batch(step, self.device)
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
            apart.append(self.program.divergences(params, some, self.shape.divergence).double().cpu().numpy())
        return np.concatenate(scores), np.concatenate(apart)

    def _scores(self, logits: Tensor) -> Any:
        """The metric [P, C] of logits [P, C, n, K] on validation under every measured combination."""
        if self.resident.data.task is Task.CLASSIFICATION:
            predicted = logits.argmax(-1).cpu().numpy()
        else:
            predicted = logits[..., 0].cpu().numpy()
        result = np.empty((len(logits), len(self.measured)))
        for j, c in enumerate(self.measured):
            left = self._effective[c]
            rows = np.flatnonzero(left >= 0)
            result[:, j] = self.metric(predicted[:, left[rows], rows], self._truth[rows], self.resident.outputs)
        return result

    def _report(self, lane: Lane, scores: Any, jsd: Any, loss: float, finite: bool) -> LaneEpoch | LaneFailure:
        order = lane.order
        if not finite:
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
            loss,
            tuple(lane.probabilities[-1]),
            tuple(lane.divergences[-1]),
        )
