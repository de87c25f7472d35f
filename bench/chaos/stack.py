"""SIGKILLs through the whole Ray stack while real models train: the driver's process group, a worker, a node's raylet.

A search on two nodes of one machine (cluster/two_nodes.py) is hit again and again, by these in turn, until it has
ended; then the next one is. Its ledger's hash, and the best checkpoint byte for byte, are those of the search in one
process that nobody disturbs. About a minute a kill: a driver takes Ray's connection and a pack's start to come back.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

from bench.rows import Row
from mcutune.errors import UserError
from mcutune.files import read_sealed, sha256_file
from mcutune.search.summary import status

ROOT = Path(__file__).parents[2]
RUN = "quick-planted"
TRIALS = 40
PATIENCE = 300.0  # seconds without a trial more, after which a search counts as hanging
VICTIMS = ("driver", "worker", "raylet")


@dataclass
class Outcome:
    """What was killed, of how many searches, and what went wrong, in words."""

    kills: Counter[str] = field(default_factory=Counter)
    searches: int = 0
    problems: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Nodes:
    """Two nodes: where they listen, their home, and the pid of each raylet."""

    address: str
    token: str
    home: Path
    raylets: dict[str, int]


@contextlib.contextmanager
def two_nodes(folder: Path) -> Iterator[Nodes]:
    """cluster/two_nodes.py, as a person runs it."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    with folder.with_suffix(".log").open("w") as log:
        process = subprocess.Popen(
            [sys.executable, "cluster/two_nodes.py", str(folder)], cwd=ROOT, stdout=log, stderr=log
        )
    try:
        _until(lambda: (folder / "cluster.json").exists() or process.poll() is not None, 120)
        facts = json.loads((folder / "cluster.json").read_text())
        raylets = {name: node["raylet"] for name, node in facts["nodes"].items()}
        yield Nodes(facts["address"], facts["token_file"], Path(facts["nodes"]["head"]["home"]), raylets)
    finally:
        process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(timeout=30)


def _until(there: Any, seconds: float) -> bool:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if there():
            return True
        time.sleep(0.1)
    return False


def _start(home: Path, *options: str, token: str = "") -> subprocess.Popen[bytes]:
    home.mkdir(parents=True, exist_ok=True)
    environment = {**os.environ, "MCUTUNE_HOME": str(home), "OMP_NUM_THREADS": "1", "RAY_ADDRESS": ""}
    if token:
        environment["RAY_AUTH_TOKEN_PATH"] = token
    given = ["--space", "quick", "--data", "planted", "--trials", str(TRIALS), "--plain", *options]
    with (home / "search.log").open("ab") as log:
        return subprocess.Popen([sys.executable, "-m", "mcutune", "search", *given], cwd=ROOT, env=environment,
                                start_new_session=True, stdout=log, stderr=log)  # fmt: skip


def _ended(home: Path) -> int:
    try:
        trials = status(home / "runs" / RUN)["trials"]
    except UserError:
        return 0
    return sum(count for state, count in trials.items() if state != "running")


def _outcome_of(home: Path) -> tuple[str, list[str]]:
    """The ledger's hash, and the SHA-256 of all files of the best trial's checkpoints."""
    run = home / "runs" / RUN
    folders = [run / one["folder"] for best in read_sealed(run / "best.json")["best"] for one in best["checkpoints"]]
    return status(run)["ledger_hash"], [sha256_file(path) for folder in folders for path in sorted(folder.iterdir())]


def _victim(kind: str, search: subprocess.Popen[bytes], nodes: Nodes) -> int | None:
    """The pid to be killed, if there is one now."""
    if kind == "driver":
        return search.pid
    if kind == "raylet":
        pid = nodes.raylets["worker"]
        return pid if psutil.pid_exists(pid) else None
    for raylet in nodes.raylets.values():
        with contextlib.suppress(psutil.Error):
            for process in psutil.Process(raylet).children(recursive=True):
                if " ".join(process.cmdline()).startswith("ray::RayTrainWorker"):
                    return process.pid
    return None


def _kill(kind: str, pid: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        (os.killpg if kind == "driver" else os.kill)(pid, signal.SIGKILL)


def _hunt(place: Path, rng: random.Random, kills: int, found: Outcome) -> tuple[str, list[str]] | None:
    """One search on two nodes, killed until it ends or there were enough kills; what it has found."""
    with two_nodes(place / "two") as nodes:
        options = ("--address", nodes.address, "--packs", "2")
        search = _start(nodes.home, *options, token=nodes.token)
        raylet_lives = True
        while True:
            before, wanted = _ended(nodes.home), rng.randint(1, 3)
            over = lambda search=search, least=before + wanted: search.poll() is not None or _ended(nodes.home) >= least  # noqa: E731
            if not _until(over, PATIENCE):
                found.problems.append(f"{place.name} hangs: no trial ended in {PATIENCE:.0f} s")
                _kill("driver", search.pid)
                return None
            if search.poll() is not None:
                break
            if found.kills.total() >= kills:
                _until(lambda search=search: search.poll() is not None, PATIENCE)
                break
            kind = min(VICTIMS if raylet_lives else VICTIMS[:2], key=lambda one: found.kills[one])
            pid = _victim(kind, search, nodes)
            if pid is None:
                time.sleep(0.5)
                continue
            time.sleep(rng.uniform(0, 0.5))
            _kill(kind, pid)
            found.kills[kind] += 1
            raylet_lives = raylet_lives and kind != "raylet"
            if kind == "driver":
                search.wait()
                search = _start(nodes.home, *options, token=nodes.token)
        if search.returncode != 0:
            found.problems.append(f"{place.name} ended with {search.returncode}: see search.log")
            return None
        return _outcome_of(nodes.home)


def campaign(folder: Path, seed: int, kills: int) -> Outcome:
    """So many kills, in whole searches."""
    rng, found = random.Random(seed), Outcome()
    reference = _start(folder / "reference", "--place", "process")
    reference.wait()
    expected = _outcome_of(folder / "reference")
    while found.kills.total() < kills and found.searches < kills + 3:
        here = _hunt(folder / f"hunt{found.searches}", rng, kills, found)
        found.searches += 1
        print(f"  {found.searches} searches, {found.kills.total()} kills, {len(found.problems)} problems", flush=True)
        if here is not None and here[0] != expected[0]:
            found.problems.append(f"search {found.searches}: another ledger")
        if here is not None and here[1] != expected[1]:
            found.problems.append(f"search {found.searches}: another best checkpoint")
    return found


def rows(folder: Path, seed: int, count: int | None, quick: bool) -> list[Row]:
    """The campaign's figures."""
    begun = time.monotonic()
    found = campaign(folder, seed, count or (3 if quick else 100))
    kinds = ", ".join(f"{count} {kind}" for kind, count in found.kills.items())
    seconds = time.monotonic() - begun
    note = (
        f"{kinds}; {found.searches} searches of {TRIALS} trials on two nodes, ledger and best checkpoint against one "
        f"that nobody disturbed; {seconds:.0f} s, {seconds / max(found.kills.total(), 1):.0f} s a kill"
    )
    return [
        Row("chaos", f"stack: problems after {found.kills.total()} SIGKILLs", len(found.problems), "", goal="0",
            met=not found.problems, note="; ".join([note, *found.problems[:5]]))
    ]  # fmt: skip
