"""The terminal: consoles that obey no markup, heat colours, sparklines, bars."""

from __future__ import annotations

from collections.abc import Sequence
from typing import IO

from rich.console import Console
from rich.text import Text

from mcutune.cli.split_table import SplitTable
from mcutune.inert import inert

_BLOCKS = "▁▂▃▄▅▆▇█"
# Dark blue over teal to light yellow: rising lightness, so it reads without colour vision and in grey.
_SCALE = ((56, 57, 117), (45, 98, 130), (50, 140, 125), (112, 180, 100), (205, 215, 90), (250, 240, 170))


class _Console(Console):
    def on_broken_pipe(self) -> None:
        raise BrokenPipeError  # rich would end the process here, in the middle of a search


def console(*, file: IO[str] | None = None, width: int | None = None) -> Console:
    """A console on which text is text: no markup, no emoji codes, no automatic highlighting."""
    return _Console(file=file, width=width, markup=False, emoji=False, highlight=False)


def plain(text: object, style: str = "", *, limit: int = 2000) -> Text:
    """Text from anywhere as a renderable: control characters escaped, markup not obeyed."""
    return Text(inert(text, limit=limit), style=style)


def say(out: Console, text: Text) -> None:
    """Print a line: wrapped between words in a terminal, left whole for whoever reads a pipe."""
    out.print(text, soft_wrap=not out.is_terminal)


def table(
    *columns: str, right: Sequence[int] = (), words: Sequence[int] = (0,), below: bool = True
) -> SplitTable:  # fmt: skip
    """A table with a rule under its head that cuts nothing (split_table.py)."""
    return SplitTable([plain(column) for column in columns], right=right, words=words, below=below)


def heat(share: float) -> str:
    """A style whose background goes from dark (0) to light (1), with text that stays legible on it."""
    place = min(max(share, 0.0), 1.0) * (len(_SCALE) - 1)
    lower = min(int(place), len(_SCALE) - 2)
    mix = [round(a + (b - a) * (place - lower)) for a, b in zip(_SCALE[lower], _SCALE[lower + 1], strict=True)]
    ink = "0,0,0" if 0.299 * mix[0] + 0.587 * mix[1] + 0.114 * mix[2] > 115 else "255,255,255"
    return f"rgb({ink}) on rgb({mix[0]},{mix[1]},{mix[2]})"


def shares(values: Sequence[float], *, higher_is_better: bool = True) -> list[float]:
    """Values mapped to 0 (worst) … 1 (best); all 0.5 where they are equal."""
    low, high = min(values), max(values)
    if high - low < 1e-9:
        return [0.5] * len(values)
    up = [(value - low) / (high - low) for value in values]
    return up if higher_is_better else [1 - share for share in up]


def sparkline(values: Sequence[float]) -> str:
    """One block a value, its height from the smallest to the largest of them."""
    return "".join(_BLOCKS[round(share * (len(_BLOCKS) - 1))] for share in shares(values))
