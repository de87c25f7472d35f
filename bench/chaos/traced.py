"""Work in a child under strace: killed at a system call, or with one that fails, and what it called on the way."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import subprocess
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

# All that change what is on the disk or make it durable, and those that open: between two of them nothing changes.
CALLS = (
    "write", "pwrite64", "writev", "pwritev", "pwritev2", "fsync", "fdatasync", "rename", "renameat", "renameat2",
    "unlink", "unlinkat", "mkdir", "mkdirat", "rmdir", "ftruncate", "fallocate", "copy_file_range", "sendfile",
    "link", "symlink", "fchmod", "fchmodat", "chmod", "openat",
)  # fmt: skip
WRITES = ("write", "pwrite64", "writev", "pwritev", "pwritev2", "ftruncate", "mkdir", "fallocate")
SYNCS = ("fsync", "fdatasync")
_CALL = re.compile(r"^(\d+) +(\w+)\(")
_PATIENCE = 60.0  # seconds


@dataclass(frozen=True)
class Ended:
    """How traced work ended. `code`: 0 done, 3 refused in a line for people, 4 failed otherwise, -9 killed.

    `log`: what strace saw, a call a line.
    """

    code: int
    log: tuple[str, ...]
    said: str = ""

    def points(self) -> list[tuple[str, int]]:
        """Every (call, n) that was seen: the n-th of its kind."""
        most: Counter[str] = Counter()
        by_process: Counter[tuple[str, str]] = Counter()
        for line in self.log:
            if (found := _CALL.match(line)) is not None:
                by_process[found[1], found[2]] += 1
                most[found[2]] = max(most[found[2]], by_process[found[1], found[2]])
        return [(call, n) for call in CALLS for n in range(1, most[call] + 1)]


def available() -> bool:
    """Whether strace is here and may attach."""
    return shutil.which("strace") is not None


def traced(work: Callable[[], object], log: Path, inject: str = "", options: Sequence[str] = ()) -> Ended:
    """Do the work in a child under strace. `inject`: of strace's, such as `fsync:error=EIO:when=2`."""
    log.unlink(missing_ok=True)
    ready, go = os.pipe()
    heard, tell = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(go)
        os.close(heard)
        os.read(ready, 1)
        os._exit(_ended(work, tell))
    os.close(ready)
    os.close(tell)
    injected = ["-e", f"inject={inject}"] if inject else []
    tracing = ["-e", f"trace={','.join(CALLS)}", *injected, *options]
    command = ["strace", "-f", "-qq", "-s", "0", "-o", str(log), *tracing, "-p", str(pid)]
    tracer = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    try:
        _until_attached(pid, tracer)
        os.write(go, b"x")
        os.close(go)
        with os.fdopen(heard, "rb") as answers:
            said = answers.read().decode(errors="replace")
        status = os.waitpid(pid, 0)[1]
    finally:
        if tracer.poll() is None:
            tracer.terminate()
        tracer.wait()
    killed = os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL
    lines = tuple(log.read_text(errors="replace").splitlines()) if log.exists() else ()
    return Ended(-9 if killed else os.waitstatus_to_exitcode(status), lines, said)


def _ended(work: Callable[[], object], tell: int) -> int:
    """Do the work in the child; its exit code."""
    from mcutune.cli.failures import foreseen
    from mcutune.errors import UserError

    try:
        work()
        return 0
    except BaseException as error:
        known = error if isinstance(error, UserError) else foreseen(error)
        text = f"{type(error).__name__}: {error}"[:500]
        with contextlib.suppress(OSError):  # the fault may be that nothing can be written
            os.write(tell, text.encode(errors="replace"))
        return 4 if known is None and not isinstance(error, OSError) else 3


def _until_attached(pid: int, tracer: subprocess.Popen[str]) -> None:
    end = time.monotonic() + _PATIENCE
    status = Path(f"/proc/{pid}/status")
    while "TracerPid:\t0\n" in status.read_text():
        if tracer.poll() is not None or time.monotonic() > end:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
            assert tracer.stderr is not None
            raise RuntimeError(f"strace cannot attach: {tracer.stderr.read(300) if tracer.poll() is not None else ''}")
        time.sleep(0.0005)
