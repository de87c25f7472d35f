"""What a pack and the coordinator say to each other; the coordinator implements Client, in process or as an actor."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, Protocol

from mcutune.domain.trial import LaneEpoch, LaneFailure, LaneResult, Orders


@dataclass(frozen=True)
class PackStart:
    """What a pack works on until its orders say `done`: lanes of one fold and one shape.

    `combinations`: canonical indices of the combinations that validation measures, C of them.
    `max_rank`: the largest rank of the space; lanes are zero-padded (domain.trial.padded_rank), alone too.
    `objective` and `modalities`: what `domain.objective.scalar` needs to choose a lane's best epoch as the search does.
    """

    fold: str
    shape: tuple[Any, ...]
    max_rank: int
    search_seed: int
    metric: str
    combinations: tuple[int, ...]
    objective: dict[str, Any] | str
    modalities: tuple[str, ...]


@dataclass(frozen=True)
class Timing:
    """How a pack of so many lanes ran on a device.

    `seconds`: an epoch of all its lanes together. `memory`: bytes, above those of a pack without lanes. `spent`:
    seconds that finding this out took. On a CPU both are of its time, not of the clock on the wall.
    """

    lanes: int
    seconds: float
    memory: int
    spent: float


class Client(Protocol):
    """The coordinator as a pack sees it."""

    def join(self, pack: str, capacity: int, node: str, device: str) -> PackStart | None:
        """Work for a pack of this capacity (lanes); None when nothing is left."""

    def advance(
        self,
        pack: str,
        epochs: list[LaneEpoch],
        failures: list[LaneFailure],
        results: list[LaneResult],
        places: int,
    ) -> Orders:
        """Report what happened since the last call; also the heartbeat.

        places: lanes that the pack can train at once now. What the answer tells it to train, new lanes included, fills
        no more of them, but for parked lanes that come back: those wait in the pack for a place.
        """

    def fold_data(self, fold: str) -> Any:
        """The data.views.FoldData of a fold."""

    def encoder(self, key: str, pack: str) -> dict[str, bytes] | Literal["train", "wait"]:
        """A cached encoder's files, a lease to train it, or word that another pack is training it."""

    def put_encoder(self, key: str, files: dict[str, bytes]) -> None:
        """Store a trained encoder under its content key."""

    def timings(self, facts: dict[str, Any]) -> tuple[Timing, ...]:
        """What is known of packs of various sizes under these facts (device, shape, versions), smallest first."""

    def put_timings(self, facts: dict[str, Any], timings: tuple[Timing, ...]) -> None:
        """Store what was found out, for later packs and runs."""

    def sized(self, pack: str, capacity: int, how: str) -> None:
        """Tell that a pack has so many places for lanes from now on, and how that was decided."""

    def refuse(self, pack: str, problem: str, remedy: str) -> bool:
        """Tell that not even one lane fits. True: the pack is to leave; False: it fails the lanes that it gets.

        Raises NoResources where no other pack could go on either.
        """
