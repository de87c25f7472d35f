"""A search through Ray, killed with all its processes and started again by the same command.

    python -m bench.restarted

Prints one JSON object: when (seconds, epoch) the command was started again (`again`), and when a lane had trained its
first epoch after that (`trained`): Ray's start, the ledger's verification and the data are in between.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from mcutune.search.ledger import DATABASE

_COMMAND = ("search", "--space", "quick", "--data", "planted", "--trials", "2000", "--packs", "1", "--plain")
_FIRST = 20  # epochs that are trained before the kill


def epochs(run: Path) -> int:
    """How many epochs of lanes the ledger has acknowledged; 0 where there is none yet."""
    with (
        contextlib.suppress(sqlite3.Error),
        contextlib.closing(sqlite3.connect(f"{(run / DATABASE).as_uri()}?mode=ro", uri=True)) as ledger,
    ):
        return int(ledger.execute("SELECT max(epochs) FROM commits").fetchone()[0] or 0)
    return 0


def begun(home: Path) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-m", "mcutune", *_COMMAND], start_new_session=True, stdout=subprocess.DEVNULL,
        env={**os.environ, "MCUTUNE_HOME": str(home), "RAY_ADDRESS": ""},
    )  # fmt: skip


def until(search: subprocess.Popen[bytes], run: Path, least: int) -> float:
    """When the ledger had so many epochs, seconds (epoch). Raises RuntimeError where the search ends before."""
    while epochs(run) < least:
        if search.poll() is not None:
            raise RuntimeError(f"the search ended with {search.returncode}")
        time.sleep(0.02)
    return time.time()


def killed(search: subprocess.Popen[bytes]) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(search.pid, signal.SIGKILL)
    search.wait()


def main() -> None:
    with tempfile.TemporaryDirectory(prefix="mcutune-restarted-", ignore_cleanup_errors=True) as folder:
        run = Path(folder) / "runs" / "quick-planted"
        search = begun(Path(folder))
        try:
            until(search, run, _FIRST)
            killed(search)
            before, again = epochs(run), time.time()
            search = begun(Path(folder))
            trained = until(search, run, before + 1)
        finally:
            killed(search)
    print(json.dumps({"again": again, "trained": trained}))


if __name__ == "__main__":
    main()
