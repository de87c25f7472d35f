"""What a lane reports, before anything is concluded from it: packs are other processes, and NaN is a number to them."""

from __future__ import annotations

import math
from typing import Any

from mcutune.domain.trial import Failure, LaneEpoch


def why_not_recorded(said: LaneEpoch, combinations: int) -> tuple[Failure, str] | None:
    """Why an epoch with scores of so many combinations cannot be recorded; None if it can."""
    if not _are_numbers(said.scores, said.probabilities, said.divergences, (said.loss,)):
        return Failure.METRIC, f"what it measured in epoch {said.epoch} is not a list of numbers"
    if len(said.scores) != combinations:
        return Failure.METRIC, f"{len(said.scores)} scores for {combinations} combinations"
    if not math.isfinite(said.loss):
        return Failure.NAN, f"loss {said.loss} in epoch {said.epoch}"
    if not all(map(math.isfinite, (*said.scores, *said.probabilities, *said.divergences))):
        return Failure.METRIC, f"not finite in epoch {said.epoch}"
    return None


def _are_numbers(*vectors: Any) -> bool:
    return all(isinstance(v, tuple | list) and all(isinstance(number, int | float) for number in v) for v in vectors)
