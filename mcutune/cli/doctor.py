"""`mcutune doctor`: is this installation, this home and what lies in it sound?"""

from __future__ import annotations

import os
import stat
import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Literal

import typer

from mcutune.cli.options import Json, print_json
from mcutune.inert import inert

Level = Literal["good", "note", "bad"]
_LEAST_ROOM = 1 << 30  # bytes under which a search is likely to stop


@dataclass(frozen=True)
class Finding:
    """`code`: what the command ends with because of it; 0 for what is only said."""

    level: Level
    subject: str
    message: str
    code: int = 0


def doctor(
    names: Annotated[
        list[str] | None, typer.Argument(help="Runs to verify; all of this home if none is named.")
    ] = None,
    repair: Annotated[
        str | None, typer.Option(help="Go back to the last good commit of this run's damaged ledger.")
    ] = None,
    json: Json = False,
) -> None:
    """Check the versions of dependencies, the home's permissions and room, the datasets, and the ledgers of runs."""
    if repair is not None:
        _repair(repair)
        return
    findings = [finding for check in (_python, _versions, _devices, _home, _secrets, _tables) for finding in check()]
    findings += _runs(names)
    if json:
        print_json([asdict(finding) for finding in findings])
    else:
        _print(findings)
    # A damaged state says more than a version that is too old.
    codes = {finding.code for finding in findings}
    raise typer.Exit(4 if 4 in codes else max(codes, default=0))


def _python() -> Iterator[Finding]:
    version = ".".join(map(str, sys.version_info[:3]))
    yield Finding("good", "python", version)


def _versions() -> Iterator[Finding]:
    """Every dependency that is always needed, against the floor in the installed metadata."""
    from importlib.metadata import PackageNotFoundError, requires, version

    from packaging.requirements import Requirement

    required = [Requirement(line) for line in requires("mcutune") or ()]
    for requirement in (one for one in required if one.marker is None or one.marker.evaluate({"extra": ""})):
        try:
            found = version(requirement.name)
        except PackageNotFoundError:
            yield Finding("bad", requirement.name, f"is missing; {requirement} is needed", 2)
            continue
        if requirement.specifier.contains(found, prereleases=True):
            yield Finding("good", requirement.name, found)
        else:
            yield Finding("bad", requirement.name, f"{found} is not {requirement.specifier}", 2)


def _devices() -> Iterator[Finding]:
    from mcutune.training.hardware import gpus

    found = gpus()
    for number, gpu in enumerate(found):
        yield Finding("good", f"gpu {number}", f"{gpu.name}, {gpu.memory / 2**30:.0f} GiB")
    if not found:
        yield Finding("note", "gpu", "none; packs run on CPUs")


def _home() -> Iterator[Finding]:
    from mcutune.files import home

    folder = home()
    if not folder.is_dir() or not os.access(folder, os.W_OK | os.X_OK):
        yield Finding("bad", "home", f"{folder} cannot be written; set MCUTUNE_HOME to a folder that can", 2)
        return
    mode = folder.stat().st_mode
    if mode & stat.S_IWOTH and not mode & stat.S_ISVTX:
        yield Finding("note", "home", f"every user may change files in {folder}; chmod o-w it")
    room = os.statvfs(folder)
    free = room.f_bavail * room.f_frsize
    level: Level = "good" if free >= _LEAST_ROOM else "note"
    yield Finding(level, "home", f"{folder}, {free / 2**30:.1f} GiB free")


def _secrets() -> Iterator[Finding]:
    """Ray's token files: whoever reads them may run code on the cluster."""
    named = os.environ.get("RAY_AUTH_TOKEN_PATH")
    for path in [Path(named)] if named else [Path.home() / ".ray" / "auth_token"]:
        if path.is_file() and path.stat().st_mode & (stat.S_IRGRP | stat.S_IROTH):
            yield Finding("note", "ray token", f"{path} can be read by others; chmod 600 it")


def _tables() -> Iterator[Finding]:
    from mcutune.data.catalog import list_tables
    from mcutune.data.table import open_table
    from mcutune.errors import UserError

    for entry in list_tables():
        subject = f"dataset {entry.name}"
        try:
            open_table(entry.name)
        except UserError as error:
            yield Finding("bad", subject, str(error), 4)
        else:
            yield Finding("good", subject, "every file is what was written")


def _runs(names: list[str] | None) -> Iterator[Finding]:
    """Every ledger, read from its first row: the chain of hashes, and its head."""
    from mcutune.cli.runs import run_folder, run_names
    from mcutune.errors import UserError
    from mcutune.search.ledger import read_ledger

    for name in names or run_names():
        folder = run_folder(name)
        try:
            records, last = read_ledger(folder)
        except UserError as error:
            remedy = "`mcutune doctor --repair` goes back to the last good row" if error.exit_code == 4 else ""
            yield Finding("bad", f"run {name}", f"{error.message}; {remedy}".rstrip("; "), error.exit_code)
        else:
            trials = sum(len(study.trials) for study in records.studies.values())
            yield Finding("good", f"run {name}", f"{trials:,} trials in {last.number:,} commits, chain whole")


def _repair(name: str) -> None:
    from mcutune.cli.runs import run_folder
    from mcutune.errors import UserError
    from mcutune.search.ledger import read_ledger
    from mcutune.search.lock import RunLock
    from mcutune.search.rewind import rewind

    folder = run_folder(name)
    lock = RunLock(folder)
    try:
        read_ledger(folder)
        print(f"{name} is sound; nothing was changed")
    except UserError as error:
        if error.exit_code != 4:
            raise
        kept, acknowledged = rewind(folder)
        print(f"{name}: kept {kept:,} of {acknowledged:,} commits; the damaged files stay beside the new ones.")
        print("The same search command repeats the rest.")
    finally:
        lock.release()


def _print(findings: list[Finding]) -> None:
    from mcutune.cli.screen import console, plain, say

    out = console()
    styles = {"good": "green", "note": "yellow", "bad": "red"}
    width = max(len(finding.subject) for finding in findings)
    for finding in findings:
        line = plain(f"{finding.level:<4}  ", styles[finding.level])
        line.append(f"{inert(finding.subject):<{width}}  {inert(finding.message)}")
        say(out, line)
