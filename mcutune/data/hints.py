"""Help for the person who typed a name that is not there, and text that is safe to show."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

from mcutune.inert import inert


def shown(text: object, limit: int = 60) -> str:
    """The text with control characters and direction marks escaped and its length limited."""
    return inert(text, limit=limit)


def listed(values: Iterable[object], most: int = 5) -> str:
    """The first values, comma-separated, with the number of those left out."""
    every = [shown(value) for value in values]
    rest = f" and {len(every) - most} more" if len(every) > most else ""
    return ", ".join(every[:most]) + rest


def did_you_mean(name: str, valid: Iterable[str]) -> str:
    """`did you mean 'audio'? valid: audio, text`."""
    names = list(valid)
    close = difflib.get_close_matches(name, names, n=1)
    guess = f"did you mean {shown(close[0])!r}? " if close else ""
    return f"{guess}valid: {listed(names, 30) or 'none'}"
