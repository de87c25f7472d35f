"""Adam for P lanes: torch's own, over one flat vector a lane.

The fused kernel is used because it is several times faster than separate element-wise passes. It is also the one that
treats a vector's tail differently from its body, so lanes would differ by their place in one tensor; as a tensor of
its own with an aligned length (model/layout.py), each lane gets the same bits wherever it lies (tested).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from mcutune.training.config import Configuration


@dataclass
class Vectors:
    """Parameters and Adam's moments of one lane [size] each, and the steps taken."""

    parameters: Tensor
    first: Tensor
    second: Tensor
    steps: int = 0

    @classmethod
    def start(cls, parameters: Tensor) -> Vectors:
        return cls(parameters, torch.zeros_like(parameters), torch.zeros_like(parameters))

    def apart(self) -> Vectors:
        """A copy that keeps no stack of former neighbours alive."""
        parameters, first, second = (v.detach().clone() for v in (self.parameters, self.first, self.second))
        return Vectors(parameters, first, second, self.steps)


class LaneOptimizer:
    """Stacks lanes' vectors and steps them; the vectors become views of the stack, so nothing is copied back."""

    def __init__(self, vectors: Sequence[Vectors], configurations: Sequence[Configuration]) -> None:
        self.vectors = list(vectors)
        self.flat = torch.stack([v.parameters for v in vectors])
        self.gradient = torch.zeros_like(self.flat)
        first, second = torch.stack([v.first for v in vectors]), torch.stack([v.second for v in vectors])
        self._clips = [c.gradient_clip for c in configurations]
        groups: dict[tuple[float, float, bool], list[Tensor]] = {}
        leaves = []
        for p, (vector, c) in enumerate(zip(vectors, configurations, strict=True)):
            vector.parameters, vector.first, vector.second = self.flat[p], first[p], second[p]
            leaf = self.flat[p].requires_grad_()
            leaf.grad = self.gradient[p]
            leaves.append(leaf)
            groups.setdefault((c.learning_rate, c.weight_decay, c.optimizer == "adamw"), []).append(leaf)
        self._adam = torch.optim.Adam(
            [
                {"params": alike, "lr": rate, "weight_decay": decay, "decoupled_weight_decay": decoupled}
                for (rate, decay, decoupled), alike in groups.items()
            ],
            fused=True,
        )
        for leaf, vector in zip(leaves, vectors, strict=True):
            steps = torch.tensor(float(vector.steps), device=self.flat.device)
            self._adam.state[leaf] = {"step": steps, "exp_avg": vector.first, "exp_avg_sq": vector.second}

    def step(self) -> None:
        """One step of every lane, from `gradient`."""
        for p, clip in enumerate(self._clips):
            if clip is not None:
                norm = self.gradient[p].norm()
                # A norm beyond float32 would make zeros of the gradient: the lane would stand still, and say nothing.
                scale = torch.where(norm.isfinite(), (clip / (norm + 1e-6)).clamp(max=1.0), torch.nan)
                self.gradient[p] *= scale
        self._adam.step()
        for vector in self.vectors:
            vector.steps += 1
