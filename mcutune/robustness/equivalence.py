"""Is a model worse than another by more than a margin? Non-inferiority, from the same paired sums as every comparison.

Shown is "not worse" only where the data exclude a loss above the margin, "worse" only where they exclude a smaller one
(one-sided tests of Schuirmann's kind at half of 1 − confidence, Student's t over groups, Holm over the family).
What is neither is undecided: no difference found is not the same as no difference.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from scipy import stats

from mcutune.domain.task import METRICS
from mcutune.errors import BadInput
from mcutune.robustness.evidence import Array
from mcutune.robustness.paired import Difference, number
from mcutune.robustness.statistics import INTERVAL_FROM, Resampling, holm

NOT_WORSE, WORSE, UNDECIDED = "not worse", "worse", "undecided"
_FOUND = ("difference", "error", "freedom")


@dataclass(frozen=True)
class Equivalence:
    """The answer for one cell. p values are adjusted by Holm; None where there are too few groups to say."""

    margin: float
    answer: str
    p_not_worse: float | None
    p_worse: float | None


def checked_margin(margin: float | None) -> float | None:
    """None where there is none. Raises BadInput unless 0 < margin, in the metric's own unit, and finite."""
    if margin is not None and not (math.isfinite(margin) and margin > 0):
        raise BadInput(f"a margin of {margin} says nothing", hint="a number above 0, such as 0.02")
    return margin


def answers(
    metric: str, family: Sequence[Difference], groups: int, margin: float | None, how: Resampling
) -> list[dict[str, Any] | None]:
    """The answer for each difference of a family, as reports have it; None for each where there is no margin.

    `margin`: the loss that would still be accepted, in the metric's own unit. Raises BadInput unless it is above 0.
    """
    if margin is None:
        return [None] * len(family)
    gain, error, freedom = (np.array([getattr(one, key) for one in family]) for key in _FOUND)
    found = judged(METRICS[metric].signed(1.0) * gain, error, freedom, groups, margin, how.confidence)
    return [asdict(one) for one in found]


def in_words(answer: dict[str, Any]) -> str:
    """An answer of a report, to follow the name of what was compared."""
    said = {NOT_WORSE: "shown not to be", WORSE: "shown to be", UNDECIDED: "not shown whether it is"}[answer["answer"]]
    return f"{said} worse by {answer['margin']:g} or more"


def judged(
    gain: Array, error: Array, freedom: float | Array, groups: int, margin: float, confidence: float = 0.95
) -> list[Equivalence]:
    """Answers of a family of differences `gain` [C], more being better, with standard errors [C] over groups and
    their degrees of freedom.

    Raises BadInput unless the margin is above 0.
    """
    checked_margin(margin)
    if groups < INTERVAL_FROM:
        return [Equivalence(margin, UNDECIDED, None, None) for _ in gain]
    with np.errstate(divide="ignore", invalid="ignore"):
        t = np.where(error > 0, (gain + margin) / error, np.copysign(np.inf, gain + margin))
    above = holm(stats.t.sf(t, freedom).tolist())
    below = holm(stats.t.cdf(t, freedom).tolist())
    level = (1 - confidence) / 2
    return [
        Equivalence(margin, _answer(up, down, level), number(up), number(down))
        for up, down in zip(above, below, strict=True)
    ]


def _answer(p_not_worse: float, p_worse: float, level: float) -> str:
    if p_not_worse <= level:
        return NOT_WORSE
    return WORSE if p_worse <= level else UNDECIDED
