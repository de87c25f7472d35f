"""`mcutune robustness`: measure the best models while modalities are missing."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mcutune.cli.gates import HELP
from mcutune.cli.options import Json, print_json

if TYPE_CHECKING:
    from rich.console import Console

    from mcutune.errors import CheckFailed
    from mcutune.robustness.gate import Loaded


def robustness(
    ckpt: Annotated[
        str, typer.Option(help="best (of the run finished last here), a run, RUN:TRIAL, or a checkpoint folder.")
    ] = "best",
    protocol: Annotated[
        list[str] | None,
        typer.Option(help="A YAML file, a shipped name, or `all` that fit; may be repeated. Else fixed and random."),
    ] = None,
    target: Annotated[str | None, typer.Option(help="Another dataset, for cross_dataset.")] = None,
    against: Annotated[
        list[str] | None, typer.Option(help="What to compare with, as for --ckpt; may be repeated. Else trial 0.")
    ] = None,
    margin: Annotated[
        float | None,
        typer.Option(help="Also say where the model is not worse than those by this much or more, such as 0.02."),
    ] = None,
    gate: Annotated[str | None, typer.Option(help=HELP)] = None,
    json: Json = False,
) -> None:
    """Measure a run's winners on the test part under protocols of missing modalities, and write the report.

    This opens the labels of the test rows; the report says how often that has happened for the run. With --gate the
    verdict is written beside the report as gate.json, and --json prints it instead of the report.
    """
    from mcutune.cli.failures import crashes_go_to
    from mcutune.cli.screen import console, plain, say
    from mcutune.cli.searched import refuse_untrusted, searched, selected
    from mcutune.errors import CheckFailed
    from mcutune.files import home
    from mcutune.robustness.equivalence import checked_margin
    from mcutune.robustness.gate import load_gate
    from mcutune.robustness.run import certify

    checked_margin(margin)
    loaded = load_gate(gate) if gate is not None else None
    out = console(file=sys.stderr if json else None)
    chosen = selected(ckpt, against or ())
    folder = home() / "runs" / chosen.run if chosen.run is not None else None
    say(out, plain(f"measuring {chosen.name}, trained on {chosen.table}"))
    refuse_untrusted(chosen, folder)
    failed: CheckFailed | None = None
    with crashes_go_to((folder or home()) / "logs"), _progress(out) as progress:
        try:
            certify(
                ckpt,
                tuple(protocol or ()),
                target=target,
                against=against,
                margin=margin,
                gate=loaded,
                search=searched(folder) if folder is not None else None,
                progress=progress,
                tell=lambda what: say(out, plain(what)),
            )
        except CheckFailed as error:
            if not (chosen.folder / "report.json").exists():
                raise
            failed = error  # the report is there and says so: show it first
    _tell(chosen.folder / "report.json", loaded, failed, out, json)


def _tell(path: Path, loaded: Loaded | None, failed: CheckFailed | None, out: Console, json: bool) -> None:
    """Write the page and the verdict, show them, and end as they say. Raises CheckFailed or Inconclusive."""
    from mcutune.cli.gates import decide_and_write, end_with
    from mcutune.cli.report import show
    from mcutune.files import read_json
    from mcutune.robustness import html

    html.write(path)  # first: where the gate does not fit, the report is there all the same
    verdict = None
    if loaded is not None:
        verdict = decide_and_write(loaded, path)
        html.write(path)
    report = read_json(path)
    if json:
        print_json(report if verdict is None else verdict)
    else:
        show(report, path.parent, out, verdict)
    if failed is not None:
        raise failed
    if verdict is not None:
        end_with(verdict)


@contextmanager
def _progress(out: Console) -> Iterator[Callable[[int, int, str], None]]:
    """A bar in a terminal, a line a step elsewhere."""
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    from mcutune.cli.screen import plain, say

    if not out.is_terminal:
        yield lambda done, total, what: say(out, plain(f"{done + 1}/{total} {what}"))
        return
    columns: tuple[Any, ...] = (TextColumn("{task.description}", markup=False), BarColumn(), TimeRemainingColumn())
    with Progress(*columns, console=out, transient=True) as bar:
        task = bar.add_task("", total=None)
        yield lambda done, total, what: bar.update(task, completed=done, total=total, description=plain(what).plain)
