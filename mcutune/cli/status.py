"""`mcutune status`: the runs of this home, or one of them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mcutune.cli.options import Json, print_json

if TYPE_CHECKING:
    from mcutune.search.summary import Summary


def status(
    name: Annotated[str | None, typer.Argument(help="The run; all of this home if none is named.")] = None,
    json: Json = False,
) -> None:
    """Show how far searches are and what they have found; never disturbs a running one."""
    from mcutune.cli.runs import run_folder, run_names
    from mcutune.files import home
    from mcutune.search.summary import status as status_of
    from mcutune.search.summary import summarise

    if name is not None:
        folder = run_folder(name)
        if json:
            print_json(status_of(folder))
        else:
            from mcutune.cli.render_summary import summary_view
            from mcutune.cli.screen import console

            console().print(summary_view(summarise(folder)))
        return
    folders = [home() / "runs" / run for run in run_names()]
    if json:
        print_json([status_of(folder) for folder in folders])
    elif folders:
        _print_runs(folders)
    else:
        print(f"no runs in {home()}; `mcutune search --space quick` makes one")


def _print_runs(folders: list[Path]) -> None:
    from mcutune.cli.screen import console, plain, table
    from mcutune.errors import UserError
    from mcutune.search.summary import summarise

    made = table("run", "state", "done", "run.", "failed", "best", right=(2, 3, 4, 5))
    for folder in folders:
        try:
            made.add_row(plain(folder.name), *_cells(summarise(folder)))
        except UserError as error:
            made.add_row(plain(folder.name), plain(error.message, "red"))
    console().print(made)


def _cells(summary: Summary) -> list[str]:
    from mcutune.cli.text import score

    counts = summary.counts
    best = [winner.score for winner in summary.winners]
    mean = score(sum(best) / len(best)) if best else "–"
    folds = f" ({len(best)} folds)" if len(best) > 1 else ""
    ended = str(counts["finished"] + counts["pruned"])
    return [summary.state, ended, str(counts["running"]), str(counts["failed"]), mean + folds]
