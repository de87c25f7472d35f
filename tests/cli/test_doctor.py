"""`mcutune doctor`: what it looks at, what it says, and what it mends without losing anything."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from mcutune.cli import advisories, doctor_runs
from mcutune.search.lock import RunLock
from tests.faults.conftest import NAME, World, made, make, world

__all__ = ["made", "make", "world"]  # fixtures


def findings(world: World, *names: str) -> tuple[int, dict[str, list[dict[str, Any]]]]:
    """The exit code, and what was found by subject."""
    code, out, _ = world.command("doctor", *names, "--json")
    found: dict[str, list[dict[str, Any]]] = {}
    for one in json.loads(out):
        found.setdefault(one["subject"], []).append(one)
    return code, found


def test_a_sound_home(world: World) -> None:
    code, found = findings(world)
    assert code == 0 and {"ray", "torch", "pyarrow", "home", "dataset small", f"run {NAME}"} <= set(found)
    assert all(one["level"] != "bad" for several in found.values() for one in several)
    assert "chain whole" in found[f"run {NAME}"][-1]["message"]


def test_who_holds_a_run(world: World) -> None:
    lock = RunLock(world.run)
    try:
        assert f"at work in process {os.getpid()}" in findings(world, NAME)[1][f"run {NAME}"][0]["message"]
    finally:
        lock.release()


@pytest.mark.parametrize("name", ["checkpoint.json", "model.safetensors"])
def test_a_damaged_checkpoint_is_named_and_kept_aside(world: World, name: str) -> None:
    path = world.run / "checkpoints" / "1" / "0" / "0" / name
    content = bytearray(path.read_bytes())
    content[-3] ^= 1
    path.write_bytes(content)
    code, found = findings(world, NAME)
    assert code == 4 and name in found[f"run {NAME}"][-1]["message"]
    world.command("doctor", "--mend", NAME)
    kept = list(path.parent.parent.glob("0.damaged-1"))
    assert len(kept) == 1 and (kept[0] / name).read_bytes() == content


def test_a_damaged_encoder_is_named_and_kept_aside(world: World) -> None:
    folder = next(path for path in sorted((world.home / "encoders").iterdir()) if path.is_dir())
    path = next(path for path in folder.iterdir() if path.suffix == ".safetensors")
    path.write_bytes(path.read_bytes()[:-1])
    code, found = findings(world)
    assert code == 0 and found[f"encoder {folder.name[:12]}"][0]["level"] == "note"
    world.good("doctor", "--mend")
    assert not folder.exists() and folder.with_name(f"{folder.name}.damaged-1").is_dir()
    assert f"encoder {folder.name[:12]}" not in findings(world)[1]


@pytest.mark.parametrize("name", ["manifest.json", "ledger.db", "ledger.head"])
def test_a_damaged_run_is_4(world: World, name: str) -> None:
    path = world.run / name
    path.write_bytes(path.read_bytes()[:100])
    code, found = findings(world, NAME)
    assert code == 4 and found[f"run {NAME}"][-1]["level"] == "bad"


def test_a_version_below_its_floor_is_2(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    floors = (advisories.Floor("numpy", "99", "it is only a test"),)
    monkeypatch.setattr(advisories, "FLOORS", floors)
    code, found = findings(world)
    assert code == 2 and "below 99: it is only a test" in found["numpy"][-1]["message"]


@pytest.mark.skipif(not Path("/proc/net/tcp").exists(), reason="only where there is /proc")
@pytest.mark.parametrize(("address", "told"), [("127.0.0.1", False), ("0.0.0.0", True)])
def test_a_port_of_ray_that_is_open_to_others(address: str, told: bool) -> None:
    """A process that is called as one of Ray's is."""
    code = f"import socket; s = socket.create_server(({address!r}, 0)); print(s.getsockname()[1], flush=True); input()"
    command = [sys.executable, "-c", code, "raylet"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        port = process.stdout.readline().strip()
        messages = [one.message for one in doctor_runs.of_ports()]
        process.communicate("\n")
    assert any(f"port {port};" in message for message in messages) == told
