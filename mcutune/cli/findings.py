"""What a check of `mcutune doctor` found."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Level = Literal["good", "note", "bad"]


@dataclass(frozen=True)
class Finding:
    """`code`: what the command ends with because of it; 0 for what is only said."""

    level: Level
    subject: str
    message: str
    code: int = 0
