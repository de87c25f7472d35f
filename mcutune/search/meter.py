"""Seconds searched, of this process and those before it, and of GPUs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field


@dataclass
class Meter:
    """`elapsed`, `gpu`: seconds searched before this process, by the clock and of GPUs."""

    clock: Callable[[], float]
    elapsed: float
    gpu: float
    opened: float = field(init=False)

    def __post_init__(self) -> None:
        self.opened = self.clock() - self.elapsed

    @property
    def now(self) -> float:
        return self.clock() - self.opened
