"""Section B with faults from outside: strace makes system calls fail or kills at them, libfaketime moves the clock."""

from __future__ import annotations

import contextlib
import json
import os
import random
import re
import shutil
import signal
import sqlite3
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from bench.chaos import traced
from mcutune.files import read_sealed
from mcutune.search.ledger import DATABASE
from mcutune.search.summary import status
from tests.faults.conftest import NAME, SEARCH, World
from tests.search.kill import forked

needs_strace = pytest.mark.skipif(not traced.available(), reason="strace is not here")
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root: mount, chattr")

CLOCK = next(iter(sorted(Path("/usr/lib").glob("*/faketime/libfaketimeMT.so.1"))), None)
LOCKS = (".lock", ".command")
_SYNC = re.compile(r"^(\d+) +(fsync|fdatasync)\(\d+<([^>]*)>")
_CHANGES = re.compile(
    r"^\d+ +(write|pwrite64|writev|pwritev2?|ftruncate|fallocate|rename\w*|unlink\w*|mkdir\w*|rmdir|link)\("
)


def hash_of(run: Path) -> str:
    return str(status(run)["ledger_hash"])


def emptied(world: World) -> None:
    for name in ("runs", "encoders", "timings"):
        shutil.rmtree(world.home / name, ignore_errors=True)


# A file of each kind that a search syncs, as the part of its name that tells it.
SYNCED = (
    "/.manifest.json.",
    "/ledger.db-wal",
    "/ledger.head",
    "/outputs.safetensors",
    "/timings/.",
    "/checkpoints",
    "/.best.json.",
)


@needs_strace
@pytest.mark.durable
def test_15_eio_at_the_syncs_of_a_search(world: World) -> None:
    """One sync of each kind fails; it is never tried again, and no file of the home is changed after it."""
    whole = hash_of(world.run)

    def work() -> None:
        os._exit(world.command(*SEARCH)[0])

    emptied(world)
    log = world.home.parent / "strace"
    undisturbed = traced.traced(work, log, options=["-y"])
    assert undisturbed.code == 0
    points = _syncs(undisturbed.log)
    for part in SYNCED:
        call, n = next((call, n) for path, call, n in points if part in path)
        emptied(world)
        ended = traced.traced(work, log, f"{call}:error=EIO:when={n}", ["-y"])
        at = next(number for number, line in enumerate(ended.log) if "INJECTED" in line)
        assert part in ended.log[at]
        assert ended.code == 4, part
        assert [line for line in ended.log[at + 1 :] if _changes(line, world.home)] == [], part
        if "ledger" in part:
            world.good(*SEARCH)
            assert hash_of(world.run) == whole, part


def _syncs(log: tuple[str, ...]) -> list[tuple[str, str, int]]:
    """Every sync of the main thread, which strace counts for itself: the path, the call, and which of its kind."""
    found, counts, main = [], {"fsync": 0, "fdatasync": 0}, log[0].split()[0]
    for line in log:
        if (match := _SYNC.match(line)) is not None and match[1] == main:
            counts[match[2]] += 1
            found.append((match[3], match[2], counts[match[2]]))
    return found


def _changes(line: str, home: Path) -> bool:
    """Whether a call changed what lies in the home; half-written files may be cleared away, and locks given back."""
    spared = any(part in line for part in (".part", "/.lock", "/.command", " = -1 "))
    return _CHANGES.match(line) is not None and str(home) in line and not spared


@needs_strace
@pytest.mark.durable
def test_18_a_report_killed_at_system_calls(world: World) -> None:
    """The command with a real model, at calls from its first to its last: a report is whole, or is not there."""
    place, command = world.run / "robustness", ("robustness", "--ckpt", NAME, "--protocol", "fixed")
    path = place / "report.json"
    whole = json.loads(path.read_text())["measurements"]
    log = world.home.parent / "strace"

    def work() -> None:
        world.good(*command)

    shutil.rmtree(place)
    undisturbed = traced.traced(work, log)
    assert undisturbed.code == 0 and json.loads(path.read_text())["measurements"] == whole
    rng, points = random.Random(18), [point for point in undisturbed.points() if point[0] != "openat"]
    writes = [point for point in points if point[0] == "write"]
    absent = 0
    for call, n in [*rng.sample([one for one in points if one not in writes], 7), *rng.sample(writes[-10:], 4)]:
        shutil.rmtree(place, ignore_errors=True)
        assert traced.traced(work, log, f"{call}:signal=SIGKILL:when={n}").code == -9, (call, n)
        absent += not path.exists()
        if path.exists():
            assert json.loads(path.read_text())["measurements"] == whole, (call, n)
    assert absent > 0
    world.good(*command)
    assert json.loads(path.read_text())["measurements"] == whole
    assert not list(world.run.rglob("*.part"))


@pytest.mark.parametrize("sign", ["robustness/.evidence-*/*", "robustness/evidence-*"])
def test_18_a_report_of_a_process_killed_in_between(world: World, sign: str) -> None:
    """The real command, killed from outside as soon as it writes, and as soon as it has its evidence."""
    path = world.run / "robustness" / "report.json"
    whole = json.loads(path.read_text())["measurements"]
    shutil.rmtree(path.parent)
    process = world.shell("robustness", "--ckpt", NAME, "--protocol", "fixed")
    while not list(world.run.glob(sign)) and process.poll() is None:
        time.sleep(0.0005)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    assert process.returncode in (0, -9)
    assert not path.exists() or json.loads(path.read_text())["measurements"] == whole
    world.good("robustness", "--ckpt", NAME, "--protocol", "fixed")
    assert json.loads(path.read_text())["measurements"] == whole and not list(world.run.rglob("*.part"))


@contextlib.contextmanager
def _mounted_read_only(folder: Path) -> Iterator[tuple[str, ...]]:
    script = 'mount --bind "$0" "$0" && mount -o remount,ro,bind "$0" && cd "$0" && exec "$@"'
    yield ("unshare", "--mount", "sh", "-c", script, str(folder))


@contextlib.contextmanager
def _immutable(folder: Path) -> Iterator[tuple[str, ...]]:
    if subprocess.run(["chattr", "+i", str(folder)], capture_output=True, check=False).returncode:
        pytest.skip("this file system knows no immutable folders")
    try:
        yield ()
    finally:
        subprocess.run(["chattr", "-i", str(folder)], check=True)


@contextlib.contextmanager
def _of_another_user(folder: Path) -> Iterator[tuple[str, ...]]:
    """Who may read everything, since the interpreter may lie in a closed folder, but owns nothing."""
    folder.chmod(0o555)
    may_read = ("--inh-caps=+dac_read_search", "--ambient-caps=+dac_read_search")
    yield ("setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", *may_read)
    folder.chmod(0o755)


@needs_root
@pytest.mark.parametrize("closed", [_of_another_user, _mounted_read_only, _immutable])
def test_20_a_folder_that_cannot_be_written(fresh: World, closed: object) -> None:
    before = sorted(fresh.home.rglob("*"))
    with closed(fresh.home) as prefix:  # type: ignore[operator]
        process = fresh.shell(*SEARCH, prefix=prefix, HOME="/nonexistent")
        out, err = process.communicate()
    assert process.returncode == 2 and err.startswith("error: ") and err.count("\n") == 1, err
    assert str(fresh.home) in err
    assert "4 trials" not in out, "it began"
    assert sorted(fresh.home.rglob("*")) == before


def test_20_a_folder_of_ones_own_without_the_right_to_write(fresh: World) -> None:
    fresh.home.chmod(0o555)
    prefix = ("setpriv", "--bounding-set=-dac_override") if os.geteuid() == 0 else ()
    process = fresh.shell(*SEARCH, prefix=prefix)
    _, err = process.communicate()
    fresh.home.chmod(0o755)
    assert process.returncode == 2 and "ermission" in err and err.count("\n") == 1, err


@pytest.mark.skipif(CLOCK is None, reason="libfaketime is not here")
@pytest.mark.durable
def test_22_the_clock_of_a_real_search_jumps(fresh: World) -> None:
    """Back an hour, ahead a day, over the end of summer time, frozen; killed at one time, continued at an earlier."""
    many = (*SEARCH, "--trials", "12")
    fresh.good(*many)
    expected = hash_of(fresh.run)
    emptied(fresh)
    clock = fresh.home.parent / "clock"
    jumps = ("+1d", "-1h", "@2026-10-25 02:59:58", "2026-10-25 02:00:00", "+0 x20", "-400d")
    clock.write_text(jumps[0])
    assert CLOCK is not None
    around = {
        "LD_PRELOAD": str(CLOCK), "FAKETIME_TIMESTAMP_FILE": str(clock), "FAKETIME_NO_CACHE": "1",
        "FAKETIME_DONT_FAKE_MONOTONIC": "1", "TZ": "Europe/Berlin",
    }  # fmt: skip
    process = fresh.shell(*many, **around)
    while not (fresh.run / "checkpoints").exists() and process.poll() is None:
        time.sleep(0.01)
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    clock.write_text(jumps[1])
    process, turn = fresh.shell(*many, **around), 1
    while process.poll() is None:
        time.sleep(0.05)
        turn += 1
        beside = clock.with_name("next")
        beside.write_text(jumps[turn % len(jumps)])
        beside.rename(clock)
    out, err = process.communicate()
    assert process.returncode == 0, err
    assert hash_of(fresh.run) == expected
    with contextlib.closing(sqlite3.connect(fresh.run / DATABASE)) as ledger:
        told = [at for (at,) in ledger.execute("SELECT at FROM commits ORDER BY number")]
    assert told != sorted(told), "the clock did not jump"
    assert read_sealed(fresh.run / "best.json")["best"]


@needs_strace
@pytest.mark.parametrize("command", [SEARCH, ("robustness", "--ckpt", NAME), ("doctor",)], ids=lambda words: words[0])
def test_24_a_file_system_without_locks(world: World, command: tuple[str, ...]) -> None:
    """No lock of the home can be had: refused, and nothing is trained, measured or changed without one."""
    if command is SEARCH:
        shutil.rmtree(world.home / "runs")
    before = _files(world.home)
    _, out, err, log = _without_locks(world, command, _locked_by(world, command))
    assert "INJECTED" in log
    assert ("cannot lock: No locks available" in err and err.count("\n") == 1) or "cannot lock" in out, (out, err)
    assert {path: content for path, content in _files(world.home).items() if path.name not in LOCKS} == before


def _locked_by(world: World, command: tuple[str, ...]) -> Path | None:
    """The file that is locked, where its name is known."""
    return {"search": world.run / ".lock", "robustness": world.run / "robustness" / ".lock"}.get(command[0])


@needs_strace
def test_24_no_locks_anywhere(fresh: World) -> None:
    code, _, err, _ = _without_locks(fresh, SEARCH, None)
    assert code == 2 and "cannot lock" in err and err.count("\n") == 1
    assert not (fresh.run / DATABASE).exists()


def _without_locks(world: World, command: tuple[str, ...], only: Path | None) -> tuple[int, str, str, str]:
    """Exit code, output, errors, and what strace saw. `only`: the one file that cannot be locked; else none can."""
    log = world.home.parent / "strace"
    chosen = ("-P", str(only)) if only is not None else ()
    inject = ("-e", "trace=flock", "-e", "inject=flock:error=ENOLCK")
    prefix = ("strace", "-f", "--seccomp-bpf", "-qq", "-o", str(log), *inject, *chosen)
    process = world.shell(*command, prefix=prefix)
    out, err = process.communicate()
    assert process.returncode == 2, err
    return process.returncode, out, err, log.read_text()


def _files(home: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in home.rglob("*") if path.is_file() and path.name not in LOCKS}


def test_58_best_while_a_search_drops_checkpoints(world: World) -> None:
    """A search goes on again and again, keeping the best alone; meanwhile `best` is measured: always a whole one."""
    text = (world.home / "tiny.yaml").read_text().replace("learning_rate: 1e-3}", "encoder_learning_rate: 1e-3}")
    rate = "parameters:\n  learning_rate: {role: scientific, low: 1e-4, high: 1e-1, log: true}\n"
    (world.home / "tiny.yaml").write_text(text.replace("parameters:\n", rate))
    search = (*SEARCH, "--keep-checkpoints", "best", "--name", "going")
    world.good(*search, "--trials", "2")
    run = world.home / "runs" / "going"

    def go_on() -> None:
        for trials in range(3, 13):
            world.good(*search, "--trials", str(trials))

    pid = forked(go_on)
    measured, names = 0, {_best(run)}
    while os.waitpid(pid, os.WNOHANG)[0] == 0:
        world.good("robustness", "--ckpt", "best", "--protocol", "fixed")
        measured += 1
        names.add(_best(run))
        (model, *_) = json.loads((run / "robustness" / "report.json").read_text())["models"]
        assert model
    assert measured >= 3 and len(names) >= 2, (measured, names)


def _best(run: Path) -> int:
    return int(read_sealed(run / "best.json")["best"][0]["trial"])
