"""`mcutune doctor`: what it looks at, what it says, and what it mends without losing anything."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from mcutune.cli import advisories, doctor_runs
from mcutune.cli.doctor_repair import Repaired
from mcutune.search.lock import RunLock
from tests.faults.conftest import NAME, SEARCH, World, made, make, world

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


def flip(path: Path, place: int) -> None:
    content = bytearray(path.read_bytes())
    content[place] ^= 255
    path.write_bytes(content)


def test_a_repair_says_what_was_kept_and_what_was_lost(world: World) -> None:
    assert "sound" in world.good("doctor", NAME, "--repair")
    flip(world.run / "ledger.db", (world.run / "ledger.db").read_bytes().rindex(b"rank") + 1)
    said = world.good("doctor", "--repair", NAME)
    commits = int(re.search(r" in (\d+) commits?, [1-9]\d* commits? lost", said)[1])  # type: ignore[index]
    assert commits >= 1 and "ended trial" in said and "repeats the rest" in said
    assert (world.run / "ledger.db.damaged-1").exists() and "ledger.db.damaged-1" in said


@pytest.mark.parametrize("gone", [False, True])
def test_a_repair_that_keeps_nothing_says_that_the_search_begins_anew(world: World, gone: bool) -> None:
    whole = json.loads(world.good("status", NAME, "--json"))["ledger_hash"]
    if gone:
        for path in world.run.glob("ledger.db*"):
            path.unlink()
    else:
        (world.run / "ledger.db").write_bytes(b"\xff" * 5000)
    assert "doctor" in world.refused(4, "status", NAME) or gone
    facts = json.loads(world.good("doctor", NAME, "--repair", "--json"))
    assert facts[0]["kept"] == facts[0]["ended"] == 0 and facts[0]["acknowledged"] > 0
    assert facts[0]["damaged"] == ("" if gone else "ledger.db.damaged-1")
    said = Repaired(**facts[0]).sentence()
    assert "begins anew" in said and f"{facts[0]['acknowledged']} commits lost" in said
    world.good(*SEARCH)
    assert json.loads(world.good("status", NAME, "--json"))["ledger_hash"] == whole


def test_a_repair_names_its_runs(world: World) -> None:
    assert "names" in world.refused(2, "doctor", "--repair")
    assert "nope" in world.refused(2, "doctor", "--repair", NAME, "nope")


def test_a_damaged_manifest_has_a_remedy(world: World) -> None:
    path = world.run / "manifest.json"
    path.write_bytes(path.read_bytes()[:100])
    assert "remove it" in findings(world, NAME)[1][f"run {NAME}"][-1]["message"]
    path.unlink()
    assert "anew" in findings(world, NAME)[1][f"run {NAME}"][-1]["message"]
    world.good(*SEARCH)
    assert findings(world, NAME)[0] == 0


def test_status_of_all_shows_the_others_beside_a_damaged_one(world: World) -> None:
    runs = world.run.parent
    for name in ("bad", "bare", "new"):
        shutil.copytree(world.run, runs / name)
    (runs / "bad" / "ledger.db").write_bytes(b"\xff" * 5000)
    (runs / "bare" / "manifest.json").unlink()
    for path in (runs / "new").glob("ledger*"):
        path.unlink()
    code, out, err = world.command("status")
    rows = {line.split()[0]: line.split()[1:] for line in out.splitlines() if line.split()}
    assert code == 4 and "bad" in err and "mcutune doctor" in err and len(err.splitlines()) == 1
    assert rows["bad"] == ["damaged"] and rows["bare"] == ["unreadable"] and rows["new"] == ["new"]
    assert rows[NAME][0] == "finished" and any(line.startswith("bad: ") for line in out.splitlines())
    code, out, _ = world.command("status", "--json")
    found = {one["name"]: one for one in json.loads(out)}
    assert code == 4 and {name: one["state"] for name, one in found.items()} == {
        "bad": "damaged", "bare": "unreadable", "new": "new", NAME: "finished",
    }  # fmt: skip
    assert "ledger.db" in found["bad"]["problem"] and found[NAME]["best"]
    shutil.rmtree(runs / "bad")
    shutil.rmtree(runs / "bare")
    assert world.command("status")[0] == 0
