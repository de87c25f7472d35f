"""Section B: what is on the disk is whole, or is named; what is damaged is kept and never obeyed."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import random
import resource
import shutil
import subprocess
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from mcutune.cluster.private import private_folder
from mcutune.errors import BadInput, Damaged
from mcutune.files import read_sealed
from mcutune.robustness import evidence
from mcutune.robustness.rebuild import rebuild
from mcutune.robustness.selection import select
from mcutune.search import coordinator as coordinator_module
from mcutune.search import ledger as ledger_module
from mcutune.search import winners as winners_module
from mcutune.search.lock import RunLock
from tests.faults.conftest import NAME, SEARCH, World
from tests.search import test_coordinator, test_ledger, test_ledger_damage
from tests.search.kill import forked
from tests.search.simulate import Play, plan_of

ROOT_ONLY = pytest.mark.skipif(os.geteuid() != 0, reason="needs root: mount, setpriv")


def hash_of(world: World) -> str:
    return str(json.loads(world.good("status", NAME, "--json"))["ledger_hash"])


def test_13_disk_full_in_a_commit(tmp_path: Path, make: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    test_ledger.test_a_full_file_system_for_real(tmp_path)
    test_coordinator.test_a_full_disk_pauses_and_nothing_is_lost(make, monkeypatch)


@ROOT_ONLY
def test_13_a_real_disk_that_fills_up(tmp_path: Path) -> None:
    """A file system of 2 MiB, filled: the search pauses, says what it needs, and goes on when there is room."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2M", "tmpfs", str(disk)], check=False)
    if mounted.returncode:
        pytest.skip("mount is not allowed here")
    try:
        plan = plan_of(disk / "run")
        expected = Play(plan_of(tmp_path / "reference")).run()
        (disk / "filler").write_bytes(b"")
        client = coordinator_module.Coordinator(plan)
        _fill(disk / "filler")
        pack = _pack()
        for _ in range(30):
            pack.step(client)
        client.close()
        assert "full" in client.progress().paused and "bytes" in client.progress().paused
        (disk / "filler").unlink()
        assert Play(plan).run() == expected
    finally:
        subprocess.run(["umount", "--lazy", str(disk)], check=True)


def _fill(path: Path) -> None:
    with path.open("wb", buffering=0) as file:
        try:
            while True:
                file.write(b"x" * 4096)
        except OSError as error:
            assert error.errno == errno.ENOSPC


def _pack() -> Any:
    from tests.search.simulate import FakePack

    return FakePack("a", 3)


def test_14_disk_full_in_a_checkpoint(make: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from tests.search import test_artefacts

    test_coordinator.test_a_trial_that_fails_while_the_disk_is_full_needs_no_result(make, monkeypatch)
    for fault in ("fsync", "rename"):
        (tmp_path / fault).mkdir()
        test_artefacts.test_a_failure_leaves_what_was_there(tmp_path / fault, monkeypatch, fault)


def test_15_eio_on_fsync(make: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    test_coordinator.test_after_an_io_error_nothing_more_is_written(make, monkeypatch)


def test_15_eio_in_a_whole_search(fresh: World, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = [0]

    def fails(file: int) -> None:
        calls[0] += 1
        if calls[0] > 4:
            raise OSError(errno.EIO, "Input/output error")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fdatasync", fails)
        assert "Input/output" in fresh.refused(4, *SEARCH)
        assert calls[0] == 5, "it was tried again"
    fresh.good(*SEARCH)


@pytest.mark.parametrize("cut", [1, 50, 200])
def test_16_a_torn_tail(tmp_path: Path, cut: int) -> None:
    """Of the write-ahead log: an acknowledged commit that is cut away is damage; the good part is saved."""
    from mcutune.search.rewind import rewind
    from tests.search.rows import STUDY, trial_rows

    folder = tmp_path / "run"
    folder.mkdir()
    ledger, _ = ledger_module.open_ledger(folder)
    for rows in ([STUDY], trial_rows(0), trial_rows(1)):
        for row in rows:
            ledger.put(row)
        ledger.commit(1.0)
    image = test_ledger_damage.crash_image(folder, tmp_path / "image", cut_wal=cut)
    ledger.close()
    with pytest.raises(Damaged, match="3 were acknowledged"):
        ledger_module.open_ledger(image)
    kept, acknowledged = rewind(image)
    assert (kept, acknowledged) == (2, 3) and list(image.glob("ledger.db.damaged-1*"))


FILES = ("ledger.db", "ledger.head", "manifest.json", "best.json")


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("cut", ["empty", "half", "one byte"])
def test_17_torn_files_of_a_run(world: World, name: str, cut: str) -> None:
    whole = hash_of(world)
    path = world.run / name
    content = path.read_bytes()
    torn = content[: {"empty": 0, "half": len(content) // 2, "one byte": len(content) - 2}[cut]]
    path.write_bytes(torn)
    before = {one: one.read_bytes() for one in world.run.iterdir() if one.is_file() and one.name in FILES}
    if name == "best.json":  # derived: made anew, the damaged one is kept
        world.good(*SEARCH)
        assert hash_of(world) == whole and len(list(world.run.glob("best.json.damaged-*"))) == 1
        return
    code, _, err = world.command(*SEARCH)
    if code == 0:  # one of the head's two slots is left, which is enough
        assert name == "ledger.head" and cut != "empty" and hash_of(world) == whole
        return
    assert code == 4 and name in err, err
    assert {one: one.read_bytes() for one in before} == before, "something was written"
    if name != "manifest.json":
        world.good("doctor", "--repair", NAME)
        assert list(world.run.glob("ledger.db.damaged-*"))
        world.good(*SEARCH)
        assert hash_of(world) == whole


_ANEW = ("ledger.db-shm", "summary.json")  # SQLite's own index of the log; the writer's snapshot (tests/search)


def test_19_a_flipped_bit_in_any_file_that_is_read_back(world: World) -> None:
    """A bit of every file of a home, one after another; thousands of bits are the campaign's."""
    rng = random.Random(19)
    opens = {
        "datasets": ("data", "check", "small"),
        "checkpoints": ("robustness", "--ckpt", NAME, "--protocol", "fixed"),
        "robustness": ("report", NAME),
        "": ("status", NAME),
    }
    unseen = []
    for path in sorted(path for path in world.home.rglob("*") if path.is_file()):
        relative = path.relative_to(world.home)
        place = relative.parts[2] if relative.parts[0] == "runs" and len(relative.parts) > 3 else ""
        place = "datasets" if relative.parts[0] == "datasets" else place
        if (
            path.suffix in (".html", ".yaml", ".jsonl", ".log", ".sha256")
            or path.name == ".lock"
            or not path.stat().st_size
        ):
            continue  # not read back, or appended to under a rule of its own (openings)
        if relative.parts[0] in ("encoders", "timings") or place == "logs" or path.name in _ANEW:
            continue  # made anew where they are not what was written (tests/search)
        if path.name.startswith("nothing-"):
            continue  # read back under protocols that this report has none of
        content = path.read_bytes()
        changed = bytearray(content)
        changed[rng.randrange(len(content))] ^= 1 << rng.randrange(8)
        path.write_bytes(changed)
        checkpoint = f"{NAME}:{relative.parts[4]}" if place == "checkpoints" else ""
        command = [checkpoint if word == NAME and checkpoint else word for word in opens.get(place, opens[""])]
        codes = {_rebuilt(path.parent) if path.parent.name.startswith("evidence-") else world.command(*command)[0]}
        if path.name in ("best.json", "ledger.head") or place == "robustness":
            continue_ = ("robustness", "--ckpt", NAME) if path.name == "best.json" else ("doctor", NAME)
            codes.add(world.command(*continue_)[0])
        if not codes & {4} and path.name not in ("ledger.db", "ledger.head"):
            unseen.append(str(relative))
        path.write_bytes(content)
    assert unseen == []


def _rebuilt(evidence_folder: Path) -> int:
    try:
        rebuild(evidence_folder)
    except Damaged as error:
        return error.exit_code
    return 0


def test_19_a_flipped_bit_in_a_ledger(tmp_path: Path) -> None:
    test_ledger_damage.test_every_flipped_bit_is_seen_or_harmless(tmp_path)


@pytest.mark.parametrize("how", ["moved", "deleted"])
def test_21_the_folder_goes_while_it_is_used(make: Any, tmp_path: Path, how: str) -> None:
    from tests.search.words import orders_of, said

    client = make()
    one, _ = orders_of(client)
    if how == "moved":
        (tmp_path / "run").rename(tmp_path / "elsewhere")
    else:
        shutil.rmtree(tmp_path / "run")
    left = sorted(path.name for path in tmp_path.iterdir())
    with pytest.raises(Damaged, match="moved, deleted or replaced"):
        client.advance("a", [said(one, 1)], [], [], 0)
    assert sorted(path.name for path in tmp_path.iterdir()) == left


class _Jumping(datetime):
    """A clock that goes back an hour, ahead a day, and stands still."""

    count = 0

    @classmethod
    def now(cls, tz: Any = None) -> Any:
        cls.count += 1
        jumps = (timedelta(hours=-1), timedelta(days=1), timedelta(), timedelta(days=-400))
        return datetime(2026, 3, 29, 1, 59, 59, tzinfo=UTC) + jumps[cls.count % 4]


def test_22_the_clock_jumps(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = Play(plan_of(tmp_path / "reference")).run()
    for module in (ledger_module, winners_module):
        monkeypatch.setattr(module, "datetime", _Jumping)
    monkeypatch.setattr(time, "time", lambda: 0.0)
    assert Play(plan_of(tmp_path / "run"), packs=2, seed=5, kill=0.05).run() == expected
    assert _Jumping.count > 20


def test_22_which_run_finished_last(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """By number, whatever the clock says; also where a run goes on and has the same winner."""
    first = read_sealed(world.run / "best.json")

    class Frozen(datetime):
        @classmethod
        def now(cls, tz: Any = None) -> Any:
            return datetime.fromisoformat(first["finished"]) - timedelta(days=400)

    monkeypatch.setattr(winners_module, "datetime", Frozen)
    world.good(*SEARCH, "--trials", "2", "--name", "another")
    assert select("best", world.home).name == "another"
    world.good(*SEARCH, "--trials", "5")
    again = read_sealed(world.run / "best.json")
    assert select("best", world.home).name == NAME and again["order"] == 3
    world.good(*SEARCH, "--trials", "2", "--name", "another")  # only shown
    assert select("best", world.home).name == NAME


LINKED = ("ledger.db", "ledger.db-wal", "ledger.head", "manifest.json", "best.json", ".lock", "stop", "checkpoints",
          "checkpoints/1", "logs")  # fmt: skip


@pytest.mark.parametrize("name", LINKED)
def test_23_links_planted_in_a_run(world: World, name: str) -> None:
    target = world.home / "victim"
    path = world.run / name
    if path.is_dir():
        path.rename(target)
    else:
        target.write_bytes(path.read_bytes() if path.exists() else b"not to be touched")
        path.unlink(missing_ok=True)
    before = _content(target)
    path.symlink_to(target)
    code, _, err = world.command(*SEARCH, "--trials", "6")
    assert code in (2, 4) and "Traceback" not in err and "link" in err.lower(), (code, err)
    assert _content(target) == before


def _content(path: Path) -> dict[str, bytes]:
    files = [path] if path.is_file() else [one for one in path.rglob("*") if one.is_file()]
    return {str(one.relative_to(path)): one.read_bytes() for one in files}


@pytest.mark.parametrize("name", ["robustness", "robustness/openings.jsonl", "checkpoints/1/0/0/checkpoint.json"])
def test_23_links_where_a_report_is_made(world: World, name: str) -> None:
    path, target = world.run / name, world.home / "victim"
    path.rename(target)
    path.symlink_to(target)
    before = _content(target)
    code, _, err = world.command("robustness", "--ckpt", f"{NAME}:0", "--protocol", "fixed")
    assert code in (2, 4) and err.startswith("error: "), (code, err)
    assert _content(target) == before


def test_23_a_whole_run_that_is_a_link(world: World) -> None:
    world.run.rename(world.home / "elsewhere")
    world.run.symlink_to(world.home / "elsewhere")
    assert "link" in world.refused(4, *SEARCH)


def test_24_a_file_system_without_locks(fresh: World, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuses(file: Any, how: int) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", refuses)
    (fresh.home / "runs" / "x").mkdir(parents=True)
    with pytest.raises(BadInput, match="cannot lock"):
        RunLock(fresh.home / "runs" / "x")
    with pytest.raises(BadInput, match="cannot lock"), evidence.locked(fresh.home / "runs" / "x"):
        pass
    assert "lock" in fresh.refused(2, *SEARCH).lower()
    code, out, _ = fresh.command("doctor")
    assert code == 2 and "cannot lock" in out
    assert private_folder


@pytest.mark.parametrize("left", [0, 1, 2, 3, 4, 6, 8, 12, 24])
def test_25_no_more_descriptors(fresh: World, left: int) -> None:
    def few() -> None:
        used = {int(path.name) for path in Path("/proc/self/fd").iterdir()}
        limit = [number for number in range(4096) if number not in used][left]  # what is free below it can be opened
        resource.setrlimit(resource.RLIMIT_NOFILE, (limit, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))
        os._exit(fresh.command(*SEARCH)[0])

    _, status = os.waitpid(forked(few), 0)
    assert os.WIFEXITED(status) and os.WEXITSTATUS(status) in (0, 5), os.WEXITSTATUS(status)
    fresh.good(*SEARCH)
