"""How a command ends: exit codes, one line on stderr, a crash file for the unforeseen; no traceback but by --debug."""

from __future__ import annotations

import contextlib
import errno
import os
import sys
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path

from mcutune.cli.interruption import EXIT, HINT, STOPPED, Ending
from mcutune.errors import BadInput, Damaged, NoResources, Problems, Stopped, UserError
from mcutune.files import DISK_FULL, NO_LOCKS, PROCESS_LACKS
from mcutune.inert import inert

_UNFORESEEN = 1
_NO_RIGHTS = {errno.EACCES, errno.EPERM, errno.EROFS}
_NO_LOCKS = {errno.ENOLCK, errno.EOPNOTSUPP}
_NO_PATH = {errno.ENAMETOOLONG, errno.ELOOP, errno.ENOTDIR, errno.EISDIR}
_SECRET_WORDS = ("TOKEN", "SECRET", "PASSWORD", "API_KEY", "CREDENTIAL")


def guarded(
    work: Callable[[], int], *, debug: bool, crash_folder: Callable[[], Path], ending: Ending | None = None
) -> int:  # fmt: skip
    """Run a command; return its exit code, having said on stderr what went wrong, if anything did.

    `ending`: told the code before anything is said, so that no signal disturbs the last word.
    """

    def ends(code: int) -> int:
        if ending is not None:
            ending.code = code
        return code

    try:
        code = work()
        sys.stdout.flush()
        return ends(code)
    except BrokenPipeError:
        _discard_output()
        return ends(0)
    except KeyboardInterrupt:
        ends(EXIT)
        return told_stopped(debug)
    except Exception as error:
        if ending is not None and ending.asked and not isinstance(error, Stopped):  # made of the interrupt
            ends(EXIT)
            return told_stopped(debug)
        known = error if isinstance(error, UserError) else foreseen(error)
        if known is not None:
            ends(known.exit_code)
            return _told(known, debug)
        if type(error).__name__ == "NoArgsIsHelpError":  # of typer: its message is the help
            print(error.format_message())  # type: ignore[attr-defined]
            return ends(0)
        if hasattr(error, "format_message"):  # usage errors of typer, whose class has moved between its versions
            return ends(_usage(error))
        folder = getattr(error, "crash_folder", None)
        return ends(_unforeseen(error, debug, crash_folder if folder is None else lambda: folder))


def told_stopped(debug: bool = False) -> int:
    """Say that a signal has ended the command; its exit code."""
    return _told(Stopped(STOPPED, hint=HINT), debug)


@contextlib.contextmanager
def crashes_go_to(folder: Path) -> Iterator[None]:
    """What goes wrong inside unforeseen is written into this folder instead of the home's."""
    try:
        yield
    except Exception as error:
        error.crash_folder = folder  # type: ignore[attr-defined]
        raise


def foreseen(error: BaseException) -> UserError | None:
    """The user's form of an error of the operating system: rights are input (2), room is resources (5)."""
    if isinstance(error, MemoryError):
        return NoResources("out of memory", hint="a smaller request, or a machine with more memory")
    if isinstance(error, OSError):
        name = f"{error.filename}: " if error.filename else ""
        if error.errno in _NO_RIGHTS:
            return BadInput(
                f"{name}{error.strerror}", hint="check who owns it and its permissions, or set MCUTUNE_HOME"
            )
        if error.errno in _NO_LOCKS:
            return BadInput(f"{name}the file system cannot lock: {error.strerror}", hint=NO_LOCKS)
        if error.errno == errno.EIO:
            return Damaged(f"{name}{error.strerror}", hint="nothing more was written; check the disk")
        if error.errno in _NO_PATH:
            return BadInput(f"{inert(name, limit=120)}{error.strerror}", hint="check the path that was given")
        if error.errno in (*DISK_FULL, *PROCESS_LACKS):
            return NoResources(f"{name}{error.strerror}", hint="make room, then the same command continues")
    return None


def error_text(error: UserError) -> str:
    """`error: message (hint)`, and for Problems one line a problem; control characters shown escaped."""
    hint = f" ({inert(error.hint)})" if error.hint else ""
    lines = [f"error: {inert(error.message)}{hint}"]
    if isinstance(error, Problems):
        lines += [f"  - {inert(problem)}" for problem in error.problems]
    return "\n".join(lines)


def say(line: str) -> None:
    """A line on stderr; a closed stderr is no reason to fail."""
    with contextlib.suppress(OSError):
        print(line, file=sys.stderr, flush=True)


def _told(error: UserError, debug: bool) -> int:
    if debug:
        say(redacted("".join(traceback.format_exception(error))).rstrip())
    say(error_text(error))
    return error.exit_code


def _usage(error: Exception) -> int:
    message = inert(error.format_message())  # type: ignore[attr-defined]
    context = getattr(error, "ctx", None)
    path = context.command_path if context is not None else "mcutune"
    say(f"error: {message} ('{path} --help' lists what is valid)")
    return 2


def _unforeseen(error: Exception, debug: bool, crash_folder: Callable[[], Path]) -> int:
    text = redacted("".join(traceback.format_exception(error)))
    if debug:
        say(text.rstrip())
        return _UNFORESEEN
    kept = _write_crash(text, crash_folder)
    where = f"; details in {inert(kept)}" if kept else ""
    first = inert(redacted(str(error)), limit=300) or "no message"
    say(f"error: unforeseen {type(error).__name__}: {first}{where} (run again with --debug to see where)")
    return _UNFORESEEN


def _write_crash(text: str, crash_folder: Callable[[], Path]) -> Path | None:
    try:
        folder = crash_folder()
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / f"crash-{os.getpid()}.txt"
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, 0o600)
        with os.fdopen(descriptor, "w", encoding="utf-8", errors="backslashreplace") as file:
            file.write(text)
        return path
    except OSError:
        return None


def redacted(text: str) -> str:
    """The text without the values of environment variables that hold secrets, and without the user's home folder."""
    for name, secret in os.environ.items():
        if len(secret) >= 6 and any(word in name.upper() for word in _SECRET_WORDS):
            text = text.replace(secret, "[hidden]")
    user = os.path.expanduser("~")  # noqa: PTH111 - a string is replaced, no path is used
    return text.replace(user + os.sep, "~/") if len(user) > 1 else text


def _discard_output() -> None:
    """Point stdout at nothing, so that Python's flush at exit does not complain about the closed pipe."""
    with contextlib.suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
