"""How commands end: codes, one line, crash files without secrets, closed pipes."""

from __future__ import annotations

import errno
from collections.abc import Callable
from pathlib import Path

import pytest

from mcutune import errors
from mcutune.cli.failures import guarded


def ended(work: Callable[[], int], folder: Path, *, debug: bool = False) -> int:
    return guarded(work, debug=debug, crash_folder=lambda: folder / "logs")


def raising(error: BaseException) -> Callable[[], int]:
    def work() -> int:
        raise error

    return work


@pytest.mark.parametrize(
    ("kind", "code"),
    [
        (errors.NoResult, 1),
        (errors.BadInput, 2),
        (errors.Busy, 3),
        (errors.Damaged, 4),
        (errors.NoResources, 5),
        (errors.Stopped, 6),
        (errors.CheckFailed, 7),
        (errors.Inconclusive, 8),
    ],
)
def test_a_user_error_is_one_line_with_its_hint_and_code(
    kind: type[errors.UserError], code: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert ended(raising(kind("the file\nis odd", hint="mend it")), tmp_path) == code
    out, err = capsys.readouterr()
    assert (out, err) == ("", "error: the file is odd (mend it)\n")


def test_problems_are_listed_one_a_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    problems = errors.Problems("2 problems in x.yaml", hint="mend both", problems=("a: bad\x1b[2J", "b: worse"))
    assert ended(raising(problems), tmp_path) == 2
    expected = "error: 2 problems in x.yaml (mend both)\n  - a: bad\\x1b[2J\n  - b: worse\n"
    assert capsys.readouterr().err == expected


def test_interrupt_says_how_to_go_on(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert ended(raising(KeyboardInterrupt()), tmp_path) == 6
    assert "the same command continues" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (PermissionError(errno.EACCES, "Permission denied", "/x"), 2),
        (OSError(errno.EROFS, "Read-only file system", "/x"), 2),
        (OSError(errno.ENAMETOOLONG, "File name too long", "x" * 300), 2),
        (NotADirectoryError(errno.ENOTDIR, "Not a directory", "/x"), 2),
        (OSError(errno.ENOSPC, "No space left on device"), 5),
        (OSError(errno.EMFILE, "Too many open files"), 5),
        (MemoryError(), 5),
    ],
)
def test_errors_of_the_system_become_input_or_resources(
    error: Exception, code: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert ended(raising(error), tmp_path) == code
    assert capsys.readouterr().err.count("\n") == 1
    assert not (tmp_path / "logs").exists()


def test_the_unforeseen_is_one_line_and_a_private_crash_file_without_secrets(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAY_AUTH_TOKEN", "deadbeef-secret")
    assert ended(raising(RuntimeError("odd deadbeef-secret\nsecond")), tmp_path) == 1
    err = capsys.readouterr().err
    assert err.count("\n") == 1
    assert "Traceback" not in err
    assert "--debug" in err
    (crash,) = (tmp_path / "logs").iterdir()
    text = crash.read_text(encoding="utf-8")
    assert "Traceback" in text
    assert "deadbeef" not in text + err
    assert crash.stat().st_mode & 0o777 == 0o600


def test_a_crash_file_never_follows_a_link(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.getpid", lambda: 7)
    victim = tmp_path / "victim"
    victim.write_text("mine", encoding="utf-8")
    (tmp_path / "logs").mkdir()
    (tmp_path / "logs" / "crash-7.txt").symlink_to(victim)
    assert ended(raising(RuntimeError("odd")), tmp_path) == 1
    assert victim.read_text(encoding="utf-8") == "mine"


def test_debug_shows_the_traceback(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert ended(raising(RuntimeError("odd")), tmp_path, debug=True) == 1
    assert "Traceback" in capsys.readouterr().err
    assert ended(raising(errors.BadInput("odd")), tmp_path, debug=True) == 2
    assert "Traceback" in capsys.readouterr().err
