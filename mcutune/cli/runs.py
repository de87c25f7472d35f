"""Runs of this home by name."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from mcutune.errors import BadInput, Busy, NoResult
from mcutune.files import checked_name, home

_FILES = ("manifest.json", "ledger.db")


def run_names() -> tuple[str, ...]:
    """The names of the runs of this home, sorted; also of those that have lost one of their files."""
    found = {path.parent.name for name in _FILES for path in (home() / "runs").glob(f"[!.]*/{name}")}
    return tuple(sorted(found))


def run_folder(name: str) -> Path:
    """The folder of a run. Raises BadInput, with the nearest names, where there is none."""
    from mcutune.data.hints import did_you_mean

    folder = home() / "runs" / checked_name(name, "run")
    if not folder.is_dir():
        raise BadInput(f"there is no run {name} in {home()}", hint=did_you_mean(name, run_names()))
    return folder


@contextmanager
def or_why_not(*given: str) -> Iterator[None]:
    """Where no report is found of these: that a run has no winner, if that is why."""
    try:
        yield
    except BadInput:
        refuse_without_winner(*given)
        raise


def refuse_without_winner(*given: str) -> None:
    """One rule for all that need winners, of runs (NAME or NAME:TRIAL) of this home; anything else passes.

    Raises Busy where one is being searched, BadInput where it has not ended, NoResult where it has, without a winner.
    """
    for one in given:
        _refuse_without_winner(one)


def _refuse_without_winner(given: str) -> None:
    from mcutune.search.run_folder import BEST
    from mcutune.search.summary import summarise

    name = given.partition(":")[0]
    if name not in run_names() or (home() / "runs" / name / BEST).exists():
        return
    found = summarise(home() / "runs" / name)
    state = found.state
    if state == "running":
        raise Busy(f"run {name} is being searched", hint="wait until it has finished, or `mcutune stop` it")
    if state != "finished":
        raise BadInput(f"run {name} has not finished", hint="the same `mcutune search` command continues it")
    if found.winners:
        raise BadInput(f"{BEST} of run {name} is gone", hint="the same `mcutune search` command writes it again")
    raise NoResult(f"run {name} ended without a winner", hint=f"`mcutune status {name}` says why its trials failed")
