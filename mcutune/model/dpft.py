"""DPFT: how often each combination is trained. Pure: state in, state out, one lane.

Method: equations D3 to D6 (progress, ladder, clip), with the probabilities kept a distribution by projection.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

Vector = npt.NDArray[np.float64]


@dataclass(frozen=True)
class DPFT:
    """Settings and state of a lane. q: probabilities [C]; jsd: divergences [C] after the last epoch, None before one.

    sensitivity and range are relative to q0 = 1/C: a step of `sensitivity`·q0, bounds q0·(1 ± `range`).
    """

    q: Vector
    sensitivity: float
    range: float
    freeze_after: int | None = None
    static: bool = False
    jsd: Vector | None = None

    @classmethod
    def start(cls, count: int, configuration: Any) -> DPFT:
        """The state before the first epoch, for C = `count` combinations."""
        q = np.full(count, 1 / count)
        static = configuration.static is not None
        if static:
            q = np.asarray(configuration.static, dtype=np.float64)
            q = q / q.sum()
        return cls(q, configuration.sensitivity, configuration.range, configuration.freeze_after, static)

    def after(self, epoch: int, jsd: Vector) -> DPFT:
        """The state after an epoch (1-based) whose divergences [C] were measured. Non-finite ones change nothing."""
        moved = self.q
        frozen = self.static or self.sensitivity == 0 or (self.freeze_after is not None and epoch > self.freeze_after)
        if self.jsd is not None and not frozen and np.isfinite(jsd).all() and np.isfinite(self.jsd).all():
            q0 = 1 / len(self.q)
            moved = self.q + self.sensitivity * q0 * ladder(np.abs(jsd - self.jsd))
            moved = project(moved, q0 * (1 - self.range), q0 * (1 + self.range))
        return replace(self, q=moved, jsd=jsd)


def ladder(progress: Vector) -> Vector:
    """Signed steps [C]: +1, +1/2, … for the slowest first, −1, −1/2, … for the fastest; ties by index.

    With an odd number the middle gets 0 (equation D5).
    """
    count = len(progress)
    half = count // 2
    steps = np.zeros(count)
    powers = 0.5 ** np.arange(half)
    steps[:half] = powers
    steps[count - half :] = -powers[::-1]
    result = np.empty(count)
    result[np.argsort(progress, kind="stable")] = steps
    return result


def project(q: Vector, low: float, high: float) -> Vector:
    """The nearest point (Euclidean) to q [C] with sum 1 and every entry in [low, high].

    It is clip(q + t) for the one t that gives the sum 1, found by bisection. Requires C·low ≤ 1 ≤ C·high.
    """
    down, up = low - q.max(), high - q.min()
    while down < (middle := (down + up) / 2) < up:  # until no float lies between
        down, up = (middle, up) if np.clip(q + middle, low, high).sum() < 1 else (down, middle)
    return np.clip(q + middle, low, high)


def draws_by_dialogue(configuration: Any) -> bool:
    """Whether one combination is drawn for a whole dialogue rather than for each row."""
    if configuration.encoder == "trained":
        return True  # its attention reads the dialogue
    if configuration.draw == "auto":
        return bool(configuration.encoder_kind == "dialogue")
    return bool(configuration.draw == "dialogue")


def draw(q: Vector, uniform: Vector, presence: npt.NDArray[np.int64], inside: npt.NDArray[np.bool_]) -> Any:
    """Combination index [N] of each row: drawn from q [C] among those inside what the row has, −1 where all have q = 0.

    uniform [N] in [0, 1); presence [N]: the row's own combination index; inside [C, C]: inside[i, j] says whether
    combination j is contained in combination i.
    """
    result = np.empty(len(uniform), dtype=np.int64)
    for own in np.unique(presence):
        rows = presence == own
        mass = np.where(inside[own], q, 0.0)
        if not mass.any():
            result[rows] = -1
            continue
        edges = np.cumsum(mass) / mass.sum()
        # The last edge can be 1 − 1e-16: without the clip a draw could fall beyond the last allowed combination.
        last = np.flatnonzero(mass)[-1]
        result[rows] = np.minimum(np.searchsorted(edges, uniform[rows], side="right"), last)
    return result
