"""Real searches on Ray end with the ledger of a search in one process: over two packs, a kill, a lost node of two."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
import pytest

from mcutune.errors import UserError
from mcutune.search.summary import status
from tests.ray.conftest import ROOT, eventually, patience, workers_of

TRIALS = 40  # enough to be interrupted in the middle, also where nothing else runs
pytestmark = [pytest.mark.ray, pytest.mark.long, pytest.mark.timeout(900)]


@dataclass
class Command:
    """`mcutune search` on planted data with the quick space, under a home of its own."""

    home: Path
    environment: dict[str, str] = field(default_factory=dict)
    processes: list[subprocess.Popen[str]] = field(default_factory=list)

    @property
    def run(self) -> Path:
        return self.home / "runs" / "quick-planted"

    def start(self, *options: str) -> subprocess.Popen[str]:
        self.home.mkdir(parents=True, exist_ok=True)
        given = ["--space", "quick", "--data", "planted", "--trials", str(TRIALS), "--plain", *options]
        command = [sys.executable, "-m", "mcutune", "search", *given]
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "RAY_ADDRESS": "", **self.environment}
        environment["MCUTUNE_HOME"] = str(self.home)
        process = subprocess.Popen(
            command, cwd=ROOT, env=environment, text=True, start_new_session=True,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        )  # fmt: skip
        self.processes.append(process)
        return process

    def complete(self, *options: str) -> dict[str, Any]:
        return self.end(self.start(*options))

    def end(self, process: subprocess.Popen[str]) -> dict[str, Any]:
        output, _ = process.communicate(timeout=patience(120))
        assert process.returncode == 0, output
        return status(self.run)

    def alive(self) -> None:
        """Fails, with what it printed, where the search has ended already."""
        process = self.processes[-1]
        if process.poll() is not None:
            pytest.fail(f"the search ended with {process.returncode}: {process.communicate()[0]}")

    def until_trials(self, count: int) -> None:
        """Wait until that many trials have ended."""

        def there() -> bool:
            self.alive()
            return self.ended_trials() >= count

        eventually(there, 120, f"the end of {count} trials")

    def ended_trials(self) -> int:
        """Trials that have ended, read from the ledger while the search writes it."""
        try:
            trials = status(self.run)["trials"]
        except UserError:
            return 0
        return sum(count for state, count in trials.items() if state != "running")


@pytest.fixture
def command(tmp_path: Path) -> Iterator[Command]:
    made = Command(tmp_path / "home")
    yield made
    for process in made.processes:
        process.kill()
        process.wait()


@pytest.fixture(scope="module")
def reference(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The status after a search in one process, without Ray."""
    found = Command(tmp_path_factory.mktemp("reference")).complete("--place", "process")
    assert found["trials"]["finished"] + found["trials"]["pruned"] == TRIALS
    return found


def test_two_packs_and_a_kill(reference: dict[str, Any], command: Command) -> None:
    process = command.start("--packs", "2")
    command.until_trials(3)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    assert command.ended_trials() < TRIALS
    assert command.complete("--packs", "1")["ledger_hash"] == reference["ledger_hash"]


@dataclass
class TwoNodes:
    address: str
    token: str
    homes: dict[str, Path]
    raylets: dict[str, int]
    metrics: dict[str, str]


@pytest.fixture
def two_nodes(tmp_path: Path) -> Iterator[TwoNodes]:
    """cluster/two_nodes.py, as a user runs it."""
    folder = tmp_path / "two"
    with (tmp_path / "two_nodes.log").open("w") as log:
        process = subprocess.Popen(
            [sys.executable, "cluster/two_nodes.py", str(folder)], cwd=ROOT, stdout=log, stderr=log
        )
    try:
        ready = folder / "cluster.json"
        eventually(lambda: ready.exists() or process.poll() is not None, 60, "the start of two nodes")
        assert process.poll() is None, (tmp_path / "two_nodes.log").read_text(encoding="utf-8")
        facts = json.loads((folder / "cluster.json").read_text(encoding="utf-8"))
        nodes = facts["nodes"]
        yield TwoNodes(
            facts["address"],
            facts["token_file"],
            {name: Path(node["home"]) for name, node in nodes.items()},
            {name: node["raylet"] for name, node in nodes.items()},
            {name: node["metrics"] for name, node in nodes.items()},
        )
    finally:
        process.terminate()
        process.wait(timeout=30)


def test_two_nodes_of_which_one_is_lost(reference: dict[str, Any], two_nodes: TwoNodes, command: Command) -> None:
    command.home = two_nodes.homes["head"]
    command.environment["RAY_AUTH_TOKEN_PATH"] = two_nodes.token
    process = command.start("--address", two_nodes.address, "--packs", "2")
    command.until_trials(3)
    metrics = eventually(lambda: exported(two_nodes), 30, "a look at the metrics")
    used = {name: len(workers_of("RayTrainWorker", raylet)) for name, raylet in two_nodes.raylets.items()}
    assert used == {"head": 1, "worker": 1}
    assert command.ended_trials() < TRIALS
    psutil.Process(two_nodes.raylets["worker"]).kill()
    assert command.end(process)["ledger_hash"] == reference["ledger_hash"]
    assert "ray_mcutune_score{" in metrics and 'combination="audio+text+video"' in metrics
    assert "ray_mcutune_dpft_probability{" in metrics
    # Nothing of the run lies in the worker's home, not even what a lost node would take with it.
    left = sorted(path.name for path in two_nodes.homes["worker"].iterdir() if not path.name.startswith("."))
    assert left == []
    assert (command.run / "best.json").exists()


def exported(two_nodes: TwoNodes) -> str:
    """What Prometheus would read at the head, once it knows of two packs and a winner."""
    with urllib.request.urlopen(two_nodes.metrics["head"], timeout=5) as answer:
        text = answer.read().decode()
    known = re.search(r"^ray_mcutune_packs\{[^}]*\} 2\.0$", text, re.M) and "ray_mcutune_score" in text
    return text if known else ""


def test_ctrl_c_in_a_real_search(reference: dict[str, Any], command: Command) -> None:
    process = command.start("--packs", "1")
    command.until_trials(3)
    start = time.monotonic()
    os.killpg(process.pid, signal.SIGINT)
    output, _ = process.communicate(timeout=patience(30))
    assert process.returncode == 6, output
    assert time.monotonic() - start < patience(10)
    assert "Traceback" not in output
    assert command.complete("--packs", "1")["ledger_hash"] == reference["ledger_hash"]


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGSTOP])
def test_the_forerunner_is_lost(reference: dict[str, Any], command: Command, how: signal.Signals) -> None:
    """Killed while it trains, its encoders are trained by the packs; stopped, the search still ends by Ctrl+C."""
    process = command.start("--packs", "2")

    def training() -> list[psutil.Process]:
        command.alive()
        return workers_of("quick-planted forerunner", process.pid) if list(command.home.glob("encoders/*")) else []

    (forerunner,) = eventually(training, 60, "the forerunner's first encoder")
    forerunner.send_signal(how)
    if how is signal.SIGKILL:
        assert command.end(process)["ledger_hash"] == reference["ledger_hash"]
        return
    os.killpg(process.pid, signal.SIGINT)
    output, _ = process.communicate(timeout=patience(30))
    assert process.returncode == 6, output
    assert not forerunner.is_running() or forerunner.status() == psutil.STATUS_ZOMBIE
    assert command.complete()["ledger_hash"] == reference["ledger_hash"]
