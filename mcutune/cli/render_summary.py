"""What a search found, in the terminal: the winners' scores by combination as heat, and how far to believe them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from rich.console import Group, RenderableType
from rich.text import Text

from mcutune.cli.screen import heat, plain, shares, table
from mcutune.cli.text import count, score, value
from mcutune.inert import inert

if TYPE_CHECKING:
    from mcutune.search.summary import Summary, Winner

_MOST_ROWS = 31


def summary_view(summary: Summary) -> RenderableType:
    """The view of a run's summary."""
    return Group(*_parts(summary))


def _parts(summary: Summary) -> Iterator[RenderableType]:
    from mcutune.search.sentences import sentences

    states = ", ".join(f"{number} {state}" for state, number in summary.counts.items() if number)
    head = plain(summary.run, "bold")
    head.append(f"  {summary.state}: {states or 'no trial yet'}", style="default not bold")
    head.append_text(plain("".join(f"; {packs}" for packs in summary.packs), "dim not bold"))
    yield head
    if summary.winners:
        yield Text()
        yield _scores(summary)
        yield Text()
        for winner in summary.winners:
            yield _settings(winner)
    for sentence in sentences(summary):
        yield plain(sentence)


def _scores(summary: Summary) -> RenderableType:
    """Combinations × folds, on validation; with one fold also the spread between seeds."""
    winners = summary.winners
    higher = summary.metric != "mae"
    one = len(winners) == 1
    names = [f"{summary.metric} ± seeds"] if one else [f"fold {inert(winner.fold, limit=40)}" for winner in winners]
    made = table("validation", *names, right=range(1, len(names) + 1))
    labels = sorted(winners[0].scores, key=lambda label: winners[0].scores[label], reverse=not higher)[:_MOST_ROWS]
    shown = [label for label in winners[0].scores if label in labels]
    every = [winner.scores.get(label) for winner in winners for label in shown]
    known = [number for number in every if number is not None]
    colour = dict(zip(known, shares(known, higher_is_better=higher), strict=True)) if known else {}
    for label in shown:
        cells = []
        for winner in winners:
            number = winner.scores.get(label)
            cell = Text(f" {score(number)} ", style=heat(colour[number]) if number is not None else "")
            if one and label in winner.spread:
                cell.append(f" ± {score(winner.spread[label])}", style="default on default dim")
            cells.append(cell)
        made.add_row(plain(label, limit=120), *cells)
    return made


def _settings(winner: Winner) -> Text:
    made = plain(f"fold {winner.fold}: trial {winner.trial}  ", "bold", limit=60)
    settings = winner.settings or {"the paper's default": None}
    text = ", ".join(f"{key} {value(one)}" if one is not None else key for key, one in settings.items())
    made.append_text(plain(f"{text}  ({count(len(winner.seeds), 'seed')})", "default not bold"))
    return made
