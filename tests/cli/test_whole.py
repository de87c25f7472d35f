"""The commands on one another's results, in this process and without Ray: search to report, changes, damage, stops."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import pytest

import mcutune
from mcutune.cli import app as cli
from mcutune.files import read_json
from mcutune.search.lock import COMMAND, RunLock

SPACE = """
question: Does a tiny search work?
parameters:
  rank: {role: scientific, values: [1, 2, 4]}
  beta: {role: scientific, low: 1e-4, high: 1e-1, log: true}
fixed: {epochs: 3, encoder_epochs: 2, encoder_width: 16, learning_rate: 1e-3}
trials: 4
seeds: 2
lag: 2
rungs: {first: 1, eta: 3}
"""
SEARCH = ["search", "--space", "tiny.yaml", "--data", "small", "--place", "process", "--plain"]


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A home with a small planted dataset, a space, and a finished search `tiny-small`."""
    folder = tmp_path_factory.mktemp("home")
    before, threads = {name: os.environ.get(name) for name in ("MCUTUNE_HOME", "COLUMNS")}, Path.cwd()
    os.environ.update(MCUTUNE_HOME=str(folder), COLUMNS="80")
    os.chdir(folder)
    (folder / "tiny.yaml").write_text(SPACE, encoding="utf-8")
    assert cli.run(["data", "make", "planted", "--name", "small", "--rows", "600", "--seed", "3"]) == 0
    assert cli.run(SEARCH) == 0
    yield folder
    os.chdir(threads)
    for name, value in before.items():
        os.environ.pop(name, None) if value is None else os.environ.update({name: value})


@pytest.fixture(autouse=True)
def fresh(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    capsys.readouterr()


def facts(capsys: pytest.CaptureFixture[str], *arguments: str) -> Any:
    assert cli.run([*arguments, "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def refused(capsys: pytest.CaptureFixture[str], code: int, *arguments: str) -> str:
    assert cli.run(list(arguments)) == code
    err = capsys.readouterr().err
    assert err.startswith("error: ")
    assert "Traceback" not in err
    return err


def test_status_matches_its_schema(capsys: pytest.CaptureFixture[str]) -> None:
    status = facts(capsys, "status", "tiny-small")
    schema = read_json(Path(mcutune.__file__).parent / "search" / "status.schema.json")
    jsonschema.validate(status, schema)
    assert status["state"] == "finished"
    assert sum(status["trials"].values()) == 4
    assert facts(capsys, "status") == [status]
    assert cli.run(["status", "tiny-small"]) == 0
    shown = capsys.readouterr().out
    assert "audio+text+video" in shown
    assert "trial 0" in shown
    assert cli.run(["status"]) == 0
    assert "finished" in capsys.readouterr().out


def test_the_same_command_prints_the_result_of_a_finished_run(capsys: pytest.CaptureFixture[str]) -> None:
    before = facts(capsys, "status", "tiny-small")
    assert cli.run(SEARCH) == 0
    shown = capsys.readouterr().out
    assert "has finished already" in shown
    assert "next: mcutune robustness --ckpt tiny-small" in shown
    assert cli.run([*SEARCH, "--json"]) == 0
    out, err = capsys.readouterr()
    assert json.loads(out) == before
    assert "has finished already" in err


def test_a_changed_space_is_refused_and_forked(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    changed = home / "changed" / "tiny.yaml"
    changed.parent.mkdir()
    changed.write_text(SPACE.replace("high: 1e-1", "high: 1.0"), encoding="utf-8")
    command = [*SEARCH[:2], str(changed), *SEARCH[3:]]
    err = refused(capsys, 2, *command)
    assert "parameters.beta.high: 0.1 -> 1.0" in err
    assert "--fork" in err
    assert cli.run([*command, "--fork", "wider", "--trials", "2"]) == 0
    capsys.readouterr()
    assert {run["name"] for run in facts(capsys, "status")} == {"tiny-small", "wider"}
    assert "exists already" in refused(capsys, 2, *command, "--fork", "wider")


def test_another_normalisation_is_another_run(capsys: pytest.CaptureFixture[str]) -> None:
    err = refused(capsys, 2, *SEARCH, "--normalisation", "group")
    assert "normalisation train, not group" in err


def test_a_held_run_is_busy(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = home / "runs" / "held"
    folder.mkdir()
    lock = RunLock(folder)
    try:
        err = refused(capsys, 3, *SEARCH, "--name", "held")
    finally:
        lock.release()
    assert str(os.getpid()) in err


def test_a_search_that_starts_can_be_stopped_and_a_second_one_is_busy(
    home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = home / "runs" / "starting"
    folder.mkdir()
    lock = RunLock(folder, name=COMMAND)
    try:
        assert str(os.getpid()) in refused(capsys, 3, *SEARCH, "--name", "starting")
        assert cli.run(["stop", "starting", "--no-wait"]) == 0
        assert "asked to stop" in capsys.readouterr().out and (folder / "stop").exists()
    finally:
        lock.release()
    assert cli.run(["stop", "starting"]) == 0
    assert "not running" in capsys.readouterr().out


def test_a_setting_that_no_trial_reads_is_named_once(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (home / "idle.yaml").write_text(
        "parameters:\n  heads: {role: nuisance, values: [1, 2]}\ntrials: 1\n"
        "fixed: {epochs: 1, encoder_epochs: 1, encoder_width: 16, width: 32}\n"
    )
    assert cli.run([*SEARCH, "--space", "idle.yaml", "--name", "idle"]) == 0
    (line,) = [line for line in capsys.readouterr().out.splitlines() if "warning" in line]
    assert "heads, width" in line and "frozen" in line


def test_robustness_report_and_export(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    report = facts(capsys, "robustness", "--ckpt", "tiny-small", "--protocol", "fixed", "--protocol", "random")
    schema = read_json(Path(mcutune.__file__).parent / "robustness" / "report.schema.json")
    jsonschema.validate(report, schema)
    assert report["search"]["space"]["name"] == "tiny"
    assert report["search"]["space"]["dimensions"][0]["range"] == "0.0001 to 0.1 (log)"
    assert report["openings"]["count"] == 1
    assert facts(capsys, "report", "tiny-small") == report
    assert cli.run(["report", "tiny-small"]) == 0
    out = capsys.readouterr().out
    assert f"report: {home / 'runs' / 'tiny-small' / 'robustness' / 'report.html'}" in out
    assert max(len(line) for line in out.splitlines() if "report:" not in line) <= 80
    exported = facts(capsys, "study", "export", "tiny-small", "--to", "out")
    assert all(Path(file).stat().st_size for file in exported["files"])


def test_a_damaged_report_is_4(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = home / "runs" / "tiny-small" / "robustness"
    folder.mkdir(exist_ok=True)
    path = folder / "report.json"
    before = path.read_bytes() if path.exists() else None
    for content in (b'{"title": 1}', b"[]", b"{", b""):
        path.write_bytes(content)
        assert "report.json" in refused(capsys, 4, "report", "tiny-small")
    path.unlink() if before is None else path.write_bytes(before)


def test_a_damaged_ledger_is_4_and_doctor_repairs_it(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    whole = facts(capsys, "status", "tiny-small")["ledger_hash"]
    command = [*SEARCH, "--name", "broken"]
    assert cli.run(command) == 0
    capsys.readouterr()
    (home / "runs" / "broken" / "best.json").unlink()
    path = home / "runs" / "broken" / "ledger.db"
    content = bytearray(path.read_bytes())
    content[content.rindex(b"rank") + 1] ^= 1
    path.write_bytes(content)
    assert "doctor" in refused(capsys, 4, *command)
    assert "broken" in refused(capsys, 4, "status", "broken")
    assert cli.run(["doctor", "broken"]) == 4
    assert "--repair" in capsys.readouterr().out
    assert cli.run(["doctor", "--repair", "broken"]) == 0
    assert cli.run(command) == 0
    capsys.readouterr()
    assert facts(capsys, "status", "broken")["ledger_hash"] == whole
    assert cli.run(["doctor", "--repair", "broken"]) == 0
    assert "sound" in capsys.readouterr().out


def started(name: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "mcutune", *SEARCH, "--name", name]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def wait_for(what: Path) -> None:
    deadline = time.monotonic() + 60
    while not what.exists():
        assert time.monotonic() < deadline, what
        time.sleep(0.02)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_a_stopped_search_goes_on_to_the_same_ledger(
    number: signal.Signals, home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    whole = facts(capsys, "status", "tiny-small")["ledger_hash"]
    name = f"ended-{number.name}"
    process = started(name)
    wait_for(home / "runs" / name / "manifest.json")
    time.sleep(0.05)  # the whole search takes less than a second
    process.send_signal(number)
    out, err = process.communicate(timeout=30)
    assert process.returncode == (-9 if number is signal.SIGKILL else 6), err
    if number is not signal.SIGKILL:
        assert err.count("\n") == 1
        assert "the same command continues" in err
    assert cli.run([*SEARCH, "--name", name]) == 0
    capsys.readouterr()
    assert facts(capsys, "status", name)["ledger_hash"] == whole


def test_stop_from_another_terminal(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    process = started("stopped")
    reader = threading.Thread(target=process.communicate, daemon=True)
    reader.start()
    wait_for(home / "runs" / "stopped" / "manifest.json")
    time.sleep(0.05)
    assert cli.run(["stop", "stopped"]) == 0
    assert "has stopped" in capsys.readouterr().out
    reader.join(30)
    assert process.returncode == 6
    assert facts(capsys, "status", "stopped")["state"] == "stopped"
    assert cli.run(["stop", "stopped"]) == 0
    assert "is not running" in capsys.readouterr().out
