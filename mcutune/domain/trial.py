"""Trials and lanes: their identities and states. A value is added to an enum, never removed."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import Any


class State(str, Enum):
    """Of a trial or a lane. The last three are terminal: they never change."""

    RUNNING = "running"
    FINISHED = "finished"
    PRUNED = "pruned"
    FAILED = "failed"

    @property
    def terminal(self) -> bool:
        return self is not State.RUNNING


class Failure(str, Enum):
    """Why a lane failed, and so what is done about it."""

    CRASH = "crash"  # retried
    OOM = "oom"  # pack halved once, then final
    NAN = "nan"  # final
    DIVERGED = "diverged"  # final
    METRIC = "metric"  # final
    STORAGE = "storage"  # the search pauses
    LOST = "lost"  # retried as attempt + 1

    @property
    def final(self) -> bool:
        return self in (Failure.NAN, Failure.DIVERGED, Failure.METRIC)


_LEAST_PADDED = 8


def padded_rank(rank: int, most: int) -> int:
    """What a lane's rank is padded to on a CPU: a power of two, from 8 on where the space has larger ranks than 4.

    A function of its rank and the largest of the space alone: were it one of a lane's neighbours, its bits would be,
    too. Powers of two, because slices of other sizes lie at other alignments in a pack than alone, and a product may
    choose its path by that. Were all padded to the largest, lanes of rank 1 would cost what those of rank 16 do.
    """
    return min(_power(most), max(_LEAST_PADDED, _power(rank)))


def _power(rank: int) -> int:
    """The next power of two."""
    return 1 << (rank - 1).bit_length()


@dataclass(frozen=True, order=True)
class LaneId:
    """One (trial, seed) of a study: fold name, trial number (0 is the paper's default), seed number."""

    fold: str
    trial: int
    seed: int


@dataclass(frozen=True)
class LaneOrder:
    """What a pack is told to train: the lane, its attempt (fences late results), configuration and budget."""

    lane: LaneId
    attempt: int
    configuration: dict[str, Any]
    epochs: int


@dataclass(frozen=True)
class LaneEpoch:
    """What a lane measured at the end of an epoch (1-based).

    `scores`: the metric (unsigned, as named) on validation for every measured combination, in the canonical order of
    the study's combinations, C values. `loss`: mean training loss. `probabilities`, `divergences`: DPFT's q and JSD
    of every combination after this epoch, C values each.
    """

    lane: LaneId
    attempt: int
    epoch: int
    scores: tuple[float, ...]
    loss: float
    probabilities: tuple[float, ...]
    divergences: tuple[float, ...]


@dataclass(frozen=True)
class LaneFailure:
    """A lane that ended by a failure in the epoch given (1-based; 0 before its first)."""

    lane: LaneId
    attempt: int
    epoch: int
    failure: Failure
    message: str


@dataclass(frozen=True)
class LaneResult:
    """A lane that trained its whole budget: its best epoch and the checkpoint of it.

    `files`: relative name to bytes (model.safetensors, checkpoint.json); written by the ledger's side only.
    """

    lane: LaneId
    attempt: int
    best_epoch: int
    files: dict[str, bytes]


class Verdict(str, Enum):
    """What a pack does with a lane after an epoch was reported."""

    CONTINUE = "continue"
    PARK = "park"  # keep its state aside, free its place; ask again later
    END = "end"  # pruned, failed elsewhere, or fenced: drop it
    FINISH = "finish"  # the budget is used: send a LaneResult


@dataclass(frozen=True)
class Orders:
    """The coordinator's answer to a pack: verdicts for its lanes, lanes to start, and whether it is done.

    Verdicts come first: a lane may be ended and started anew by one answer. `wait`: nothing to do now, ask again after
    this many seconds. `done`: the pack may end.
    """

    verdicts: dict[LaneId, Verdict]
    start: tuple[LaneOrder, ...] = ()
    wait: float = 0.0
    done: bool = False
