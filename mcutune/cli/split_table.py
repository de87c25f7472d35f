"""A table that cuts nothing: what names a row wraps, and columns that do not fit go on in a table below."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from rich.box import SIMPLE_HEAD
from rich.console import Console, ConsoleOptions, RenderableType
from rich.table import Table
from rich.text import Text

_BETWEEN = 2  # cells from a column to the next
_LEAST = 16  # to which a column of words may shrink before another one goes below


class SplitTable:
    """Filled like a rich Table. Its first column names the rows and stands in every part.

    right: columns that are right-aligned. words: those that may wrap; the others hold numbers and stay whole. below:
    whether columns without room go on below; else they are left out. A terminal too narrow for one column wraps all.
    """

    def __init__(
        self, heads: Sequence[Text], *, right: Sequence[int] = (), words: Sequence[int] = (0,), below: bool = True
    ) -> None:
        self._heads = list(heads)
        self._right, self._words, self._below = set(right), set(words), below
        self._rows: list[list[Text]] = []
        self._sections: set[int] = set()

    def add_row(self, *cells: Text | str) -> None:
        """A row; cells that are not given are empty."""
        texts = [cell if isinstance(cell, Text) else Text(cell) for cell in cells]
        self._rows.append(texts + [Text()] * (len(self._heads) - len(texts)))

    def add_section(self) -> None:
        """A gap before the next row."""
        self._sections.add(len(self._rows))

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> Iterator[RenderableType]:
        natural = [max(row[n].cell_len for row in [self._heads, *self._rows]) for n in range(len(self._heads))]
        least = [min(width, _LEAST) if n in self._words else width for n, width in enumerate(natural)]
        parts = split(least, options.max_width)
        for part in parts if self._below else parts[:1]:
            whole = sum(least[n] for n in part) + _BETWEEN * (len(part) - 1) <= options.max_width
            yield self._part(part, whole)

    def _part(self, columns: Sequence[int], whole: bool) -> Table:
        made = Table(box=SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0), show_edge=False, header_style="bold")
        for n in columns:
            made.add_column(
                self._heads[n],
                justify="right" if n in self._right else "left",
                no_wrap=whole and n not in self._words,
                overflow="fold",
            )
        for number, row in enumerate(self._rows):
            if number in self._sections:
                made.add_section()
            made.add_row(*(row[n] for n in columns))
        return made


def split(widths: Sequence[int], room: int) -> list[list[int]]:
    """The columns of every part: the first, and as many others, in order, as fit beside it; at least one."""
    parts = [[0]]
    used = widths[0]
    for n, width in enumerate(widths[1:], 1):
        if len(parts[-1]) > 1 and used + _BETWEEN + width > room:
            parts.append([0])
            used = widths[0]
        parts[-1].append(n)
        used += _BETWEEN + width
    return parts
