"""Numbers and values as text for terminals. Imports nothing heavy."""

from __future__ import annotations

from mcutune.inert import inert


def duration(seconds: float) -> str:
    """`42 s`, `3 min 05 s`, `2 h 07 min`, `3 d 04 h`."""
    whole = max(round(seconds), 0)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    if whole < 86400:
        return f"{whole // 3600} h {whole % 3600 // 60:02d} min"
    return f"{whole // 86400} d {whole % 86400 // 3600:02d} h"


def count(number: int, one: str, many: str | None = None) -> str:
    """`1 trial`, `3 trials`, `12,000 rows`."""
    return f"{number:,} {one if number == 1 else many or one + 's'}"


def score(number: float | None) -> str:
    """A score in the fraction that the files have: `.662`, `1.204`, `-.031`; `–` where there is none."""
    if number is None:
        return "–"
    return f"{number:.3f}".replace("0.", ".", 1) if abs(number) < 0.9995 else f"{number:.3f}"


def value(given: object) -> str:
    """A configuration value in few characters: `0.001`, `1e-06`, `frozen`, `none`."""
    if given is None:
        return "none"
    if isinstance(given, bool):
        return "yes" if given else "no"
    if isinstance(given, float):
        return f"{given:.3g}"
    if isinstance(given, (list, tuple)):
        return ", ".join(value(part) for part in given)
    return inert(given, limit=200)
