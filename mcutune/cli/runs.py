"""Runs of this home by name."""

from __future__ import annotations

from pathlib import Path

from mcutune.errors import BadInput
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
