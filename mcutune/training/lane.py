"""A lane: all that one (trial, seed) is between two epochs; can be parked and taken up again."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from torch import Tensor

from mcutune.domain.trial import LaneOrder
from mcutune.model.dpft import DPFT
from mcutune.training.config import Configuration
from mcutune.training.optim import Vectors


@dataclass
class Lane:
    """State of a lane after `epoch` epochs. `best`: the parameters [size] of the best validation epoch so far.

    every: those of each epoch, where the configuration asks for them (`kept: every`).
    """

    order: LaneOrder
    configuration: Configuration
    vectors: Vectors
    dpft: DPFT
    epoch: int = 0
    best: Tensor | None = None
    best_epoch: int = 0
    best_value: float = -np.inf
    best_scores: tuple[float, ...] = ()
    probabilities: list[list[float]] = field(default_factory=list)
    divergences: list[list[float]] = field(default_factory=list)
    every: list[Tensor] = field(default_factory=list)

    @property
    def seed(self) -> int:
        return self.order.lane.seed

    def remember(self, value: float, scores: tuple[float, ...]) -> None:
        """Keep this epoch's parameters if its objective value is the best yet; ties go to the earlier epoch."""
        if self.configuration.kept == "every":
            self.every.append(self.vectors.parameters.detach().cpu().clone())
        if value > self.best_value:
            self.best, self.best_epoch = self.vectors.parameters.detach().clone(), self.epoch
            self.best_value, self.best_scores = value, scores

    def record(self, jsd: Any) -> None:
        """DPFT's step at the end of an epoch, and its trace."""
        self.dpft = self.dpft.after(self.epoch, jsd)
        self.probabilities.append([float(q) for q in self.dpft.q])
        self.divergences.append([float(d) for d in jsd])
