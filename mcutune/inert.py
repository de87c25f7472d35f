"""Text from files and names that are shown: never obeyed by a terminal, a page or a log."""

from __future__ import annotations


def inert(text: object, *, limit: int = 2000) -> str:
    """The text with every control, format or surrogate character escaped; cut at `limit` characters."""
    cut = str(text)[: limit + 1]
    shown = "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in cut)
    return shown if len(shown) <= limit else shown[: limit - 1] + "…"
