"""Ends what a local Ray leaves behind, however the process that started it ends.

    python -I -S warden.py FOLDER

Started beside a local Ray, with a pipe as standard input. When the pipe closes, because the searching process closed
it or was killed, every process that has a file of FOLDER open is killed and FOLDER is removed. Without it, Ray's agents
live on for a minute after a kill. Standard library only; where there is no /proc it only removes the folder.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path


def watch(folder: Path) -> subprocess.Popen[bytes]:
    """Start a warden for FOLDER. Closing the process's standard input makes it act."""
    # A session of its own: neither Ctrl+C in the terminal nor a kill of the whole process group reaches it.
    return subprocess.Popen(
        [sys.executable, "-I", "-S", __file__, str(folder)],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )


def those_of(folder: str) -> list[int]:
    """The processes that have a file below the folder open, but this one and the one that started it.

    Each of Ray's has its logs there. Their titles and environments say nothing: Ray writes over them. Who has the
    folder's lock open is a search: its own, or the next one, which clears away what a killed one has left.
    """
    found = []
    spared = (os.getpid(), os.getppid())
    for entry in Path("/proc").glob("[0-9]*"):
        targets = _open_files(entry)
        below = any(target.startswith(f"{folder}/") for target in targets)
        searching = any(target.startswith(f"{folder}/lock") for target in targets)
        if below and not searching and int(entry.name) not in spared:
            found.append(int(entry.name))
    return found


def _open_files(process: Path) -> list[str]:
    """What the descriptors of /proc/PID stand for; those that go meanwhile are left out."""
    found: list[str] = []
    with contextlib.suppress(OSError):
        for descriptor in (process / "fd").iterdir():
            with contextlib.suppress(OSError):
                found.append(str(descriptor.readlink()))
    return found


def end_all(folder: str, seconds: float = 5.0) -> None:
    """Kill until none is left: one that is being started while the others die is seen the next time."""
    end = time.monotonic() + seconds
    while (left := those_of(folder)) and time.monotonic() < end:
        for number in left:
            with contextlib.suppress(OSError):
                os.kill(number, signal.SIGKILL)
        time.sleep(0.05)


if __name__ == "__main__":
    sys.stdin.buffer.read()
    end_all(sys.argv[1])
    shutil.rmtree(sys.argv[1], ignore_errors=True)
