"""Files that an option names to be written: refused early where that cannot be, in words of the option."""

from __future__ import annotations

import itertools
import os
import re
from collections.abc import Mapping
from pathlib import Path

from mcutune.errors import BadInput
from mcutune.files import write_bytes
from mcutune.inert import inert

_LONGEST = 100  # characters of a file's name


def checked(option: str, path: Path | None, *, folders: bool = False) -> Path | None:
    """Raises BadInput where the path is no place for a file, before anything is done. No folder is made.

    `folders`: an existing folder is a place, too.
    """
    if path is None:
        return None
    shown = inert(path, limit=200)
    try:
        if path.is_dir():
            if folders:
                return path
            raise BadInput(f"{option}: {shown} is a folder", hint="name a file in it")
        if path.exists() and not path.is_file():
            raise BadInput(f"{option}: {shown} is not a regular file", hint="name another file")
        if not path.parent.is_dir():
            parent = inert(path.parent, limit=200)
            raise BadInput(f"{option}: there is no folder {parent}", hint="make it, or name another file")
    except (OSError, ValueError):  # a name that is too long, or holds a null byte
        raise BadInput(f"{option}: {shown} cannot be the name of a file") from None
    return path


def file_or_folder(option: str, given: str | None) -> Path | None:
    """As `checked`, of text as it was typed: what ends like a folder is one. A Path forgets how it ended."""
    if given is None:
        return None
    path = Path(given)
    checked(option, path, folders=True)
    if given.endswith(("/", "/.")) and not path.is_dir():
        raise BadInput(f"{option}: there is no folder {inert(given, limit=200)}", hint="make the folder first")
    return path


def apart(one: str, path: Path | None, other: str, beside: Path | None) -> None:
    """Raises BadInput where two options name one file, which would be written twice. A folder may be named twice."""
    if path is None or beside is None or path.is_dir() or os.path.realpath(path) != os.path.realpath(beside):
        return
    raise BadInput(
        f"{one} and {other} name the same file {inert(path, limit=200)}",
        hint="name two files, or make the folder first",
    )


def write(option: str, path: Path, text: str) -> None:
    """Write the file whole. Raises BadInput as `checked` does; OSError of that file where writing fails."""
    checked(option, path)
    try:
        write_bytes(path, text.encode())
    except OSError as error:  # the name of the temporary file beside it would tell nobody anything
        raise OSError(error.errno, error.strerror, str(path)) from None


def write_each(option: str, folder: Path, texts: Mapping[str, str], ending: str) -> None:
    """Write a file a text into a folder, by its name, in which only letters, digits and `._-` are kept."""
    taken: set[str] = set()
    for name, text in texts.items():
        kept = re.sub(r"[^A-Za-z0-9._-]+", "-", name)[:_LONGEST].lstrip(".-") or "table"
        free = next(one for n in itertools.count(1) if (one := kept if n == 1 else f"{kept}-{n}") not in taken)
        taken.add(free)
        write(option, folder / f"{free}{ending}", text)
