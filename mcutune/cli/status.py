"""`mcutune status`: the runs of this home, or one of them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypeVar

import typer

from mcutune.cli.options import Json, print_json
from mcutune.cli.text import count

if TYPE_CHECKING:
    from mcutune.errors import UserError
    from mcutune.search.summary import Summary

Read = TypeVar("Read")


def status(
    name: Annotated[str | None, typer.Argument(help="The run; all of this home if none is named.")] = None,
    json: Json = False,
) -> None:
    """Show how far searches are and what they have found; never disturbs a running one.

    Of all runs, one that cannot be read has its line too; the command then ends with 4.
    """
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
        read, wrong = _of_all(folders, status_of)
        print_json([read.get(folder.name) or _unread(folder.name, wrong) for folder in folders])
    else:
        summaries, wrong = _of_all(folders, summarise)
        if folders:
            _print_runs(folders, summaries, wrong)
        else:
            print(f"no runs in {home()}; `mcutune search --space quick` makes one")
    _refuse(wrong, len(folders))


def _of_all(folders: list[Path], read: Callable[[Path], Read]) -> tuple[dict[str, Read], dict[str, UserError]]:
    """What is read of every run by name, and of those that cannot be read why; neither of new ones."""
    from mcutune.cli.failures import foreseen
    from mcutune.errors import UserError

    found, wrong = {}, {}
    for folder in folders:
        try:
            found[folder.name] = read(folder)
        except UserError as error:
            if not _is_new(folder):
                wrong[folder.name] = error
        except OSError as error:
            known = foreseen(error)
            if known is None:
                raise
            wrong[folder.name] = known
    return found, wrong


def _is_new(folder: Path) -> bool:
    """Whether a search was killed before it had a ledger."""
    from mcutune.search.head import HEAD
    from mcutune.search.ledger import DATABASE

    return not (folder / DATABASE).exists() and not (folder / HEAD).exists()


def _unread(run: str, wrong: dict[str, UserError]) -> dict[str, str]:
    """What is known of a run of which nothing was read."""
    if run not in wrong:
        return {"name": run, "state": "new"}
    state = "damaged" if wrong[run].exit_code == 4 else "unreadable"
    return {"name": run, "state": state, "problem": str(wrong[run])}


def _refuse(wrong: dict[str, UserError], runs: int) -> None:
    """Raises Damaged, or BadInput where what is wrong is no damage, naming the runs that could not be read."""
    from mcutune.errors import BadInput, Damaged

    if not wrong:
        return
    damaged = any(error.exit_code == 4 for error in wrong.values())
    what = f"{len(wrong)} of {count(runs, 'run')} cannot be read: {', '.join(wrong)}"
    hint = f"`mcutune doctor {next(iter(wrong))}` says what can be saved"
    raise Damaged(what, hint=hint) if damaged else BadInput(what, hint=hint)


def _print_runs(folders: list[Path], summaries: dict[str, Summary], wrong: dict[str, UserError]) -> None:
    from mcutune.cli.screen import console, plain, say, table

    made = table("run", "state", "ended", "running", "failed", "best", right=(2, 3, 4, 5))
    for folder in folders:
        if folder.name in summaries:
            made.add_row(plain(folder.name), *_cells(summaries[folder.name]))
        else:
            made.add_row(plain(folder.name), plain(_unread(folder.name, wrong)["state"], "red"))
    out = console()
    out.print(made)
    for run, error in wrong.items():
        say(out, plain(f"{run}: {error.message}", "red"))


def _cells(summary: Summary) -> list[str]:
    from mcutune.cli.text import score

    counts = summary.counts
    best = [winner.score for winner in summary.winners]
    mean = score(sum(best) / len(best)) if best else "–"
    folds = f" ({len(best)} folds)" if len(best) > 1 else ""
    ended = str(counts["finished"] + counts["pruned"])
    return [summary.state, ended, str(counts["running"]), str(counts["failed"]), mean + folds]
