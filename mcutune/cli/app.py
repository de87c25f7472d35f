"""The `mcutune` command: one file a command beside this one. Heavy imports stand inside command bodies only."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import typer

from mcutune import __version__
from mcutune.cli import compare, data, diff, doctor, export, report, robustness, search, status, stop, study
from mcutune.cli.failures import guarded
from mcutune.cli.interruption import Ending, heeded

app = typer.Typer(
    name="mcutune",
    help="Find the settings with which a multimodal model keeps working while sensors fail, and measure how well.\n\n"
    "To begin: mcutune search --space quick, then mcutune robustness. No GPU and no data of yours are needed.",
    epilog="Everything is kept under MCUTUNE_HOME (else the working folder). Exit codes: 0 done, 1 no usable result, "
    "2 bad input, 3 busy, 4 damaged, 5 resources, 6 stopped and resumable, 7 check failed, 8 inconclusive.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,  # help by rich takes twice as long to come
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["--help", "-h"]},
)
app.command("search", short_help="Search settings; the same command continues or shows it.")(search.search)
app.command("status", short_help="How far searches are, and what they found.")(status.status)
app.command("stop", short_help="Stop a running search; it can be continued.")(stop.stop)
app.command("robustness", short_help="Measure the best models while modalities are missing.")(robustness.robustness)
app.command("compare", short_help="Train simpler models to compare the winners with.")(compare.compare)
app.command("report", short_help="Show a robustness report again; write its tables.")(report.report)
app.command("diff", short_help="Compare two reports, paired on the same rows.")(diff.diff)
app.command("export", short_help="Write a model into a folder for use elsewhere.")(export.export)
app.add_typer(data.app, name="data")
app.add_typer(study.app, name="study")
app.command("doctor", short_help="Check this installation, this home, its runs.")(doctor.doctor)


def _version(asked: bool) -> None:
    if asked:
        print(f"mcutune {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show tracebacks; may stand anywhere in the command.")] = False,
) -> None:
    """The options that stand before a command."""


def run(arguments: list[str], ending: Ending | None = None) -> int:
    """Run one command; return its exit code. `ending`: who heeds the signals already."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):  # a terminal that cannot show a character gets its escape
            stream.reconfigure(errors="backslashreplace")
    debug, arguments = "--debug" in arguments, [part for part in arguments if part != "--debug"]
    with heeded() if ending is None else contextlib.nullcontext(ending) as heeding, _private_files():
        return guarded(lambda: _invoke(arguments), debug=debug, crash_folder=_crash_folder, ending=heeding)


@contextlib.contextmanager
def _private_files() -> Iterator[None]:
    """What a command makes, and Ray for it, only this user may read: features and transcripts are often personal."""
    before = os.umask(0o077)
    try:
        yield
    finally:
        os.umask(before)


def _invoke(arguments: list[str]) -> int:
    command = typer.main.get_command(app)
    try:
        with command.make_context("mcutune", arguments) as context:
            command.invoke(context)
    except typer.Exit as end:
        return end.exit_code
    except typer.Abort:
        raise KeyboardInterrupt from None
    return 0


def _crash_folder() -> Path:
    from mcutune.files import home

    return home() / "logs"
