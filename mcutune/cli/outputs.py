"""Files that an option names to be written: refused early where that cannot be, in words of the option."""

from __future__ import annotations

from pathlib import Path

from mcutune.errors import BadInput
from mcutune.files import write_bytes
from mcutune.inert import inert


def checked(option: str, path: Path | None) -> Path | None:
    """Raises BadInput where the path is no place for a file, before anything is done. No folder is made."""
    if path is None:
        return None
    shown = inert(path, limit=200)
    try:
        if path.is_dir():
            raise BadInput(f"{option}: {shown} is a folder", hint="name a file in it")
        if path.exists() and not path.is_file():
            raise BadInput(f"{option}: {shown} is not a regular file", hint="name another file")
        if not path.parent.is_dir():
            parent = inert(path.parent, limit=200)
            raise BadInput(f"{option}: there is no folder {parent}", hint="make it, or name another file")
    except (OSError, ValueError):  # a name that is too long, or holds a null byte
        raise BadInput(f"{option}: {shown} cannot be the name of a file") from None
    return path


def write(option: str, path: Path, text: str) -> None:
    """Write the file whole. Raises BadInput as `checked` does; OSError of that file where writing fails."""
    checked(option, path)
    try:
        write_bytes(path, text.encode())
    except OSError as error:  # the name of the temporary file beside it would tell nobody anything
        raise OSError(error.errno, error.strerror, str(path)) from None
