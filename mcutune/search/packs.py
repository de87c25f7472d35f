"""Which packs are at work, which lanes each holds, and who has been silent too long. Nothing here decides a result."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

from mcutune.domain.trial import LaneId

_COMING = 60.0  # seconds that a pack may take to start, or to start again
ENCODER_LEASE = 3600.0  # seconds that training an encoder may take: a pack says nothing meanwhile


@dataclass
class Held:
    """A lane in a pack: its attempt, and how many epochs of it were reported."""

    attempt: int
    seen: int = 0


@dataclass
class PackState:
    """A pack as last heard of. `pause`: seconds between its last two words; `longest`: of all so far."""

    name: str
    capacity: int
    node: str
    device: str
    fold: str
    shape: tuple[Any, ...]
    heard: float = 0.0
    pause: float = 0.0
    longest: float = 0.0
    held: dict[LaneId, Held] = field(default_factory=dict)
    refused: set[tuple[LaneId, int]] = field(default_factory=set)


class Packs:
    """All packs that have joined and not left."""

    def __init__(self, clock: Callable[[], float], lease: float) -> None:
        self._clock = clock
        self._lease = lease
        self._packs: dict[str, PackState] = {}
        self._holders: dict[LaneId, str] = {}
        self._changed = clock()
        self._due = math.inf  # before then no lease runs out: what is heard of a pack only moves its end on
        self._unheld: defaultdict[str, set[LaneId]] = defaultdict(set)

    def __len__(self) -> int:
        return len(self._packs)

    def __iter__(self) -> Iterator[PackState]:
        return iter(self._packs.values())

    def enter(self, state: PackState) -> None:
        state.heard = self._changed = self._clock()
        self._packs[state.name] = state
        self._due = min(self._due, state.heard + self._lease)

    def leave(self, pack: str) -> PackState | None:
        """Forget a pack; its lanes are still in `held`, for `release`."""
        self._changed = self._clock()
        return self._packs.pop(pack, None)

    @property
    def settled(self) -> bool:
        """Whether none has come or gone for so long that no more are waited for."""
        return self._clock() - self._changed > _COMING

    def hear(self, pack: str) -> PackState | None:
        """Note a word of a pack; None if it is not known."""
        state = self._packs.get(pack)
        if state is not None:
            now = self._clock()
            state.pause = now - state.heard
            state.longest = max(state.longest, state.pause)
            state.heard = now
        return state

    def resize(self, pack: str, capacity: int) -> bool:
        """Note a pack's capacity; False if the pack is not known."""
        state = self._packs.get(pack)
        if state is not None:
            state.capacity = capacity
        return state is not None

    def alive(self, pack: str) -> bool:
        return pack in self._packs

    def silent(self, training: Callable[[str], bool]) -> list[PackState]:
        """The packs whose lease has run out, which are forgotten. `training`: whether a pack trains an encoder."""
        now, gone = self._clock(), []
        if now < self._due:
            return []
        for state in list(self._packs.values()):
            lease = max(self._lease_of(state), ENCODER_LEASE if training(state.name) else 0.0)
            if now - state.heard > lease:
                gone.append(self._packs.pop(state.name))
        self._due = min((state.heard + self._lease_of(state) for state in self), default=math.inf)
        return gone

    def _lease_of(self, state: PackState) -> float:
        return max(self._lease, 10 * state.longest)

    def hold(self, state: PackState, lane: LaneId, attempt: int) -> None:
        state.held[lane] = Held(attempt)
        self._holders[lane] = state.name
        self._unheld[lane.fold].discard(lane)

    def release(self, state: PackState | None, lane: LaneId) -> None:
        if state is not None:
            state.held.pop(lane, None)
            if self._holders.get(lane) == state.name:
                del self._holders[lane]
                self.offer(lane)

    def offer(self, lane: LaneId) -> None:
        """Nobody holds this lane, which is to be trained."""
        if lane not in self._holders:
            self._unheld[lane.fold].add(lane)

    def forget(self, lane: LaneId) -> None:
        """An unheld lane has ended."""
        self._unheld[lane.fold].discard(lane)

    def unheld(self, fold: str) -> list[LaneId]:
        """The lanes of a fold that nobody holds, lowest trial first, then seeds; some may have ended meanwhile."""
        return sorted(self._unheld[fold])

    def serving(self, fold: str, shape: tuple[Any, ...]) -> int:
        """How many packs work on this fold and shape."""
        return sum(1 for _ in self.at(fold, shape))

    def at(self, fold: str, shape: tuple[Any, ...]) -> Iterator[PackState]:
        """The packs that work on this fold and shape."""
        return (state for state in self._packs.values() if state.fold == fold and state.shape == shape)
