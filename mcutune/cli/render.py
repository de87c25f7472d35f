"""The live view of a search: drawn in place in a terminal, plain lines elsewhere; a closed output never ends it."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from types import TracebackType
from typing import TYPE_CHECKING, Any

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from mcutune.cli.progress import Estimate, View, shown_trials
from mcutune.cli.screen import console, plain, say, table
from mcutune.cli.text import count, duration, score, value
from mcutune.inert import inert

if TYPE_CHECKING:
    from mcutune.search.progress import TrialView

_STATES = {"finished": "green", "pruned": "yellow", "failed": "red", "running": "cyan"}
_ROWS = 10
_KEY_WIDTH = 11
_VALUE = 40
_MOST_KEYS = 4
_PLAIN_EVERY = 15.0  # seconds between lines of progress where nothing else happens


class SearchView:
    """Draws a search while it runs; call it with every new View. A context manager."""

    def __init__(self, *, plain_lines: bool = False, out: Console | None = None) -> None:
        self._console = out or console()
        drawn = self._console.is_terminal and not plain_lines
        self._draw: _Drawn | _Lines = _Drawn(self._console) if drawn else _Lines(self._console)
        self._silent = False

    def __enter__(self) -> SearchView:
        self._quietly(self._draw.open)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        self._quietly(self._draw.close)

    def __call__(self, view: View) -> None:
        self._quietly(lambda: self._draw.show(view))

    def _quietly(self, work: Callable[[], None]) -> None:
        if self._silent:
            return
        try:
            work()
        except (BrokenPipeError, OSError):
            self._silent = True  # whoever read the output is gone; the search goes on


class _Drawn:
    def __init__(self, out: Console) -> None:
        self._live = Live(console=out, auto_refresh=False, transient=True, redirect_stdout=False, redirect_stderr=False)
        self._estimate = Estimate()

    def open(self) -> None:
        self._live.start()

    def close(self) -> None:
        self._live.stop()

    def show(self, view: View) -> None:
        now = time.monotonic()
        left = self._estimate.left(view.share, now)
        self._live.update(drawing(view, self._estimate.elapsed(now), left), refresh=True)


class _Lines:
    """Plain lines: each trial as it ends, and now and then how far the search is."""

    def __init__(self, out: Console) -> None:
        self._out = out
        self._estimate = Estimate()
        self._told: set[tuple[str, int]] | None = None
        self._next = 0.0

    def open(self) -> None:
        pass

    def close(self) -> None:
        pass

    def show(self, view: View) -> None:
        now = time.monotonic()
        left = self._estimate.left(view.share, now)
        ended = [row for row in view.trials if row.state != "running"]
        if self._told is None:
            self._told = {(row.fold, row.number) for row in ended}
            if view.dashboard:
                self._say(f"dashboard {view.dashboard}")
        best = {(row.fold, row.number) for row in view.best}
        for row in ended:
            if (row.fold, row.number) not in self._told:
                self._told.add((row.fold, row.number))
                self._say(_ended_line(row, view, (row.fold, row.number) in best))
                self._next = max(self._next, now + _PLAIN_EVERY / 3)
        if now >= self._next:
            self._next = now + _PLAIN_EVERY
            self._say(_progress_line(view, left))

    def _say(self, line: str) -> None:
        say(self._out, plain(line))


def _ended_line(row: TrialView, view: View, best: bool) -> str:
    what = f" {score(row.score)}" if row.score is not None else ""
    values = " ".join(f"{key}={value(row.settings.get(key))}" for key in view.keys)
    return f"fold {row.fold} trial {row.number} {row.state}{what}{' (best so far)' if best else ''}  {values}".rstrip()


def _progress_line(view: View, left: float | None) -> str:
    done = sum(number for state, number in view.counts.items() if state != "running")
    of = f" of {view.wanted}" if view.wanted is not None else ""
    states = ", ".join(f"{number} {state}" for state, number in view.counts.items() if number)
    time_left = f"; about {duration(left)} left" if left is not None else ""
    return f"{done}{of} trials ended ({states or 'none yet'}); {_work(view)}{time_left}"


def _work(view: View) -> str:
    if not view.packs:
        return "packs are starting" if view.share < 1 else "packs have left"
    return f"{count(view.packs, 'pack')}, {view.lanes}/{view.places} lanes"


def drawing(view: View, elapsed: float, left: float | None) -> RenderableType:
    """The view for a terminal of 80 columns or more and some 20 lines."""
    return Group(*_parts(view, elapsed, left))


def _parts(view: View, elapsed: float, left: float | None) -> Iterator[RenderableType]:
    yield _head(view, elapsed, left)
    yield _counts(view)
    for row in list(view.best)[:5]:
        yield _best_line(row, view)
    rows = shown_trials(view, _ROWS)
    if rows:
        yield Text()
        yield trial_table(rows, view.keys)
    if view.note:
        yield plain(view.note, "yellow")
    speed = f"{view.epochs_per_second:,.0f} epochs/s" if view.epochs_per_second else ""
    dashboard = f"Ray dashboard: {view.dashboard}" if view.dashboard else ""
    if speed or dashboard:
        yield plain("   ".join(part for part in (speed, dashboard) if part), "dim")


def _head(view: View, elapsed: float, left: float | None) -> RenderableType:
    grid = Table.grid(padding=(0, 1), expand=True)
    grid.add_column(overflow="fold")
    grid.add_column(ratio=1)
    grid.add_column(justify="right")
    time_left = f"{duration(elapsed)}, about {duration(left)} left" if left is not None else duration(elapsed)
    bar = ProgressBar(total=1.0, completed=view.share, pulse=view.wanted is None)
    grid.add_row(plain(view.run, "bold", limit=64), bar, plain(f"{view.share:4.0%}  {time_left}"))
    return grid


def _counts(view: View) -> Text:
    done = sum(number for state, number in view.counts.items() if state != "running")
    made = plain(f"{done}/{view.wanted} trials" if view.wanted is not None else f"{done} trials ended")
    for state, style in _STATES.items():
        if view.counts.get(state):
            made.append(f"  {view.counts[state]} {state}", style=style)
    made.append(f"   {_work(view)}", style="dim")
    return made


def _best_line(row: TrialView, view: View) -> Text:
    made = plain(f"best  fold {row.fold}  ", limit=40)
    made.append(score(row.score), style="bold green")
    made.append(f"  trial {row.number}")
    base = view.baseline.get(row.fold)
    if base is not None and row.number != 0:
        made.append(f" (trial 0 {score(base)})", style="dim")
    made.append("  " + " ".join(f"{inert(key)} {value(row.settings.get(key))}" for key in view.keys))
    return made


def trial_table(rows: list[TrialView], keys: Any) -> RenderableType:
    """Trials as a table: fold, number, state, epoch, score, and the first searched keys that there is room for."""
    shown = list(keys)[:_MOST_KEYS]
    heads = ("fold", "trial", "state", "epoch", "score", *(key[:_KEY_WIDTH] for key in shown))
    made = table(*heads, right=(1, 3, 4), below=False)
    for row in rows:
        made.add_row(
            plain(row.fold, limit=40),
            str(row.number),
            plain(row.state, _STATES.get(row.state, "")),
            f"{row.epoch}/{row.epochs}",
            score(row.score),
            *(plain(value(row.settings.get(key)), limit=_VALUE) for key in shown),
        )
    return made


@contextlib.contextmanager
def waiting(message: str, out: Console | None = None) -> Iterator[None]:
    """A spinner beside a message while something without progress happens; one plain line outside a terminal."""
    shown = out or console()
    if shown.is_terminal:
        with shown.status(plain(message)):
            yield
    else:
        shown.print(plain(message))
        yield
