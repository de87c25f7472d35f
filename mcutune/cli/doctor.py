"""`mcutune doctor`: is this installation, this home and what lies in it sound?"""

from __future__ import annotations

import fcntl
import os
import stat
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from mcutune.cli.advisories import below
from mcutune.cli.doctor_runs import mend as mend_home
from mcutune.cli.doctor_runs import of_encoders, of_ports, of_rights, of_run
from mcutune.cli.findings import Finding, Level
from mcutune.cli.options import Json, print_json
from mcutune.inert import inert

_LEAST_ROOM = 1 << 30  # bytes under which a search is likely to stop


def doctor(
    names: Annotated[
        list[str] | None, typer.Argument(help="Runs to verify; all of this home if none is named.")
    ] = None,
    repair: Annotated[
        bool, typer.Option("--repair", help="Of the named runs, go back to the last good commit of a damaged ledger.")
    ] = False,
    mend: Annotated[
        bool,
        typer.Option("--mend", help="Close what others may read and keep what is damaged aside; deletes nothing."),
    ] = False,
    json: Json = False,
) -> None:
    """Check versions, permissions, locks, ports, room, and that datasets, encoders and runs are what was written."""
    if repair:
        _repair(names or [], json)
        return
    if mend:
        _mend(names)
    checks = (_python, _versions, _advisories, _devices, _home, _secrets, of_ports, _tables)
    findings = [finding for check in checks for finding in check()]
    findings += _runs_and_encoders(names)
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


def _advisories() -> Iterator[Finding]:
    for floor, found in below():
        yield Finding("bad", floor.library, f"{found} is below {floor.version}: {floor.why}", 2)


def _devices() -> Iterator[Finding]:
    from mcutune.training.hardware import bfloat16_is_slow, gpus

    found = gpus()
    for number, gpu in enumerate(found):
        yield Finding("good", f"gpu {number}", f"{gpu.name}, {gpu.memory / 2**30:.0f} GiB")
    if not found:
        yield Finding("note", "gpu", "none; packs run on CPUs")
    if bfloat16_is_slow():
        yield Finding("note", "cpu", "has no products in bfloat16: `precision: bfloat16` is no faster than float32")


def _home() -> Iterator[Finding]:
    from mcutune.files import home

    folder = home()
    if not folder.is_dir() or not os.access(folder, os.W_OK | os.X_OK):
        yield Finding("bad", "home", f"{folder} cannot be written; set MCUTUNE_HOME to a folder that can", 2)
        return
    mode = folder.stat().st_mode
    if mode & stat.S_IWOTH and not mode & stat.S_ISVTX:
        yield Finding("note", "home", f"every user may change files in {folder}; chmod o-w it")
    yield from _locks(folder)
    room = os.statvfs(folder)
    free = room.f_bavail * room.f_frsize
    level: Level = "good" if free >= _LEAST_ROOM else "note"
    yield Finding(level, "home", f"{folder}, {free / 2**30:.1f} GiB free")


def _locks(folder: Path) -> Iterator[Finding]:
    """Whether the home's file system can lock: a search does not start without."""
    with tempfile.TemporaryFile(dir=folder) as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            yield Finding("bad", "home", f"{folder} is on a file system that cannot lock: {error.strerror}", 2)


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


def _runs_and_encoders(names: list[str] | None) -> Iterator[Finding]:
    from mcutune.files import home

    for name, folder in _folders(names).items():
        yield from of_run(name, folder)
    if not names:
        yield from of_encoders(home())
        yield from of_rights(home())


def _folders(names: list[str] | None) -> dict[str, Path]:
    from mcutune.cli.runs import run_folder, run_names

    return {name: run_folder(name) for name in names or run_names()}


def _mend(names: list[str] | None) -> None:
    from mcutune.cli.screen import console, plain, say
    from mcutune.files import home

    for line in mend_home(home(), _folders(names)):
        say(console(file=sys.stderr), plain(f"mended: {inert(line)}"))


def _repair(names: list[str], json: bool) -> None:
    """Raises BadInput where no run is named, before anything is changed where one does not exist."""
    from mcutune.cli.doctor_repair import repair
    from mcutune.cli.runs import run_folder
    from mcutune.cli.screen import console, plain, say
    from mcutune.errors import BadInput

    if not names:
        raise BadInput("--repair needs the names of runs", hint="`mcutune doctor` says which are damaged")
    repaired = []
    for folder in [run_folder(name) for name in names]:
        repaired.append(repair(folder))
        if not json:
            say(console(), plain(repaired[-1].sentence()))
    if json:
        print_json([asdict(one) for one in repaired])


def _print(findings: list[Finding]) -> None:
    from mcutune.cli.screen import console, plain, say

    out = console()
    styles = {"good": "green", "note": "yellow", "bad": "red"}
    width = max(len(finding.subject) for finding in findings)
    for finding in findings:
        line = plain(f"{finding.level:<4}  ", styles[finding.level])
        line.append(f"{inert(finding.subject):<{width}}  {inert(finding.message)}")
        say(out, line)
