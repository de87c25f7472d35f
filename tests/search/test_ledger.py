"""The ledger: whole or nothing after any crash, and no flipped, cut or swapped byte goes unseen."""

from __future__ import annotations

import os
import random
import shutil
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mcutune.errors import BadInput, Damaged
from mcutune.search import ledger as ledger_module
from mcutune.search.head import HEAD, Head, read_head
from mcutune.search.ledger import DATABASE, NoSpace, open_ledger, read_ledger
from mcutune.search.records import (
    EpochRow,
    EventRow,
    LaneRow,
    Records,
    Row,
    RungRow,
    StudyRow,
    TrialRow,
    blob,
    floats,
    ledger_hash,
)  # fmt: skip
from mcutune.search.rewind import rewind

STUDY = StudyRow("1", "classification", "t", "s", '["a"]', '["a"]', "ua", '"mean"', '{"rank": 4}', "h")


def trial_rows(number: int) -> list[Row]:
    """A trial of one lane with three epochs, from its start to its end."""
    lane = ("1", number, 0)
    values = (0.1 + 0.2, 1e-300, -0.0)
    return [
        TrialRow("1", number, "running", '{"rank":2}'),
        LaneRow(*lane, 1, "running"),
        *(EpochRow(*lane, 1, e, 0.1 * e, 1 / 3, blob(values), blob(values), blob(values)) for e in (1, 2, 3)),
        RungRow("1", number, 3, 0.3),
        LaneRow(*lane, 1, "finished", "päck", 3, 0.3, "w" * 64, "c" * 64),
        TrialRow("1", number, "finished", score=0.3, digest=f"{number:064x}"),
    ]


def fill(folder: Path, trials: int = 3) -> None:
    """A ledger with a commit for the study and one a trial, closed."""
    ledger, _ = open_ledger(folder)
    for rows in ([STUDY], *(trial_rows(k) for k in range(trials))):
        for row in rows:
            ledger.put(row)
        ledger.commit(1.5)
    ledger.close()


def test_what_was_put_comes_back(tmp_path: Path) -> None:
    fill(tmp_path)
    records, last = read_ledger(tmp_path, keep=True)
    assert last.number == 4 and last.elapsed == 1.5
    lane = records.studies["1"].trials[2].lanes[0]
    assert lane.end is not None and lane.end.pack == "päck" and floats(lane.epochs[1].scores)[0] == 0.1 + 0.2
    assert records.studies["1"].best is records.studies["1"].trials[0]  # ties to the lower number


def test_opening_again_continues_the_chain(tmp_path: Path) -> None:
    fill(tmp_path, 2)
    ledger, records = open_ledger(tmp_path)
    for row in trial_rows(2):
        records.apply(row)
        ledger.put(row)
    ledger.commit(2.0)
    ledger.close()
    assert ledger_hash(read_ledger(tmp_path)[0]) == ledger_hash(records)


def test_rows_are_only_ever_inserted(tmp_path: Path) -> None:
    fill(tmp_path)
    connection = sqlite3.connect(tmp_path / DATABASE)
    for statement in ("UPDATE trials SET score = 1", "DELETE FROM epochs", "UPDATE commits SET elapsed = 0"):
        with pytest.raises(sqlite3.IntegrityError, match="append-only"):
            connection.execute(statement)


@pytest.mark.parametrize(
    "row",
    [
        TrialRow("1", 0, "failed", failure="nan"),
        TrialRow("1", 2, "finished", score=9.0),
        TrialRow("1", 5, "running", "{}"),
        LaneRow("1", 0, 0, 2, "running"),
        LaneRow("1", 3, 0, 1, "finished"),
        EpochRow("1", 0, 0, 1, 4, 0.0, 0.0, b"", b"", b""),
        RungRow("1", 0, 9, 0.5),
    ],
)
def test_terminal_states_never_change(tmp_path: Path, row: Row) -> None:
    fill(tmp_path)
    with pytest.raises((ValueError, IndexError)):
        read_ledger(tmp_path)[0].apply(row)


def test_the_database_refuses_a_second_end_too(tmp_path: Path) -> None:
    fill(tmp_path)
    ledger, _ = open_ledger(tmp_path)
    ledger.put(TrialRow("1", 0, "failed", failure="nan"))
    with pytest.raises(Damaged):
        ledger.commit(2.0)
    ledger.close()
    assert read_ledger(tmp_path)[1].number == 4


def test_every_flipped_bit_is_seen_or_harmless(tmp_path: Path) -> None:
    """A flip in free space or in an index that nothing reads may pass, if all that is read is what was written."""
    fill(tmp_path)
    good = ledger_hash(read_ledger(tmp_path)[0])
    content = (tmp_path / DATABASE).read_bytes()
    rng = random.Random(0)
    seen = 0
    for _ in range(150):
        place = rng.randrange(len(content) * 8)
        flipped = bytearray(content)
        flipped[place // 8] ^= 1 << place % 8
        (tmp_path / DATABASE).write_bytes(flipped)
        try:
            records, _ = read_ledger(tmp_path, keep=True)
        except Damaged:
            seen += 1
            continue
        assert ledger_hash(records) == good
        assert len(records.studies["1"].trials[1].lanes[0].epochs) == 3
    assert seen > 20


@pytest.mark.parametrize("table", ["studies", "trials", "lanes", "rungs", "epochs", "commits"])
def test_a_changed_value_anywhere_is_seen(tmp_path: Path, table: str) -> None:
    """Values changed through SQLite itself: the file is valid, the chain is not."""
    fill(tmp_path)
    connection = sqlite3.connect(tmp_path / DATABASE)
    for change in ("UPDATE", "DELETE"):
        connection.execute(f"DROP TRIGGER {table}_{change}")
    columns = [row[1] for row in connection.execute(f"PRAGMA table_info({table})")]
    column = {"trials": "score", "lanes": "best_epoch", "epochs": "loss"}.get(table, columns[-1])
    value = "X'00'" if table == "commits" else "'x'" if table == "studies" else 7
    key = "number" if table == "commits" else "sequence"
    connection.execute(f"UPDATE {table} SET {column} = {value} WHERE {key} = (SELECT MAX({key}) FROM {table})")
    connection.commit()
    connection.close()
    with pytest.raises(Damaged):
        read_ledger(tmp_path)


def test_a_row_taken_away_is_seen(tmp_path: Path) -> None:
    fill(tmp_path)
    connection = sqlite3.connect(tmp_path / DATABASE)
    connection.execute("DROP TRIGGER rungs_DELETE")
    connection.execute("DELETE FROM rungs WHERE trial = 1")
    connection.commit()
    connection.close()
    with pytest.raises(Damaged, match="commit 3"):
        read_ledger(tmp_path)


def test_a_row_that_nobody_committed_is_seen(tmp_path: Path) -> None:
    fill(tmp_path)
    connection = sqlite3.connect(tmp_path / DATABASE)
    connection.execute("INSERT INTO events VALUES (999, 'x', NULL, NULL, NULL, 'y')")
    connection.commit()
    connection.close()
    with pytest.raises(Damaged, match="after its last commit"):
        read_ledger(tmp_path)


def crash_image(folder: Path, target: Path, cut_wal: int = 0) -> Path:
    """The files as a kill leaves them while the writer is open, the WAL shortened by some bytes."""
    shutil.copytree(folder, target)
    (target / f"{DATABASE}-shm").unlink(missing_ok=True)
    wal = target / f"{DATABASE}-wal"
    if cut_wal:
        os.truncate(wal, wal.stat().st_size - cut_wal)
    return target


@pytest.fixture
def in_use(tmp_path: Path) -> Path:
    """A run folder whose last commits are only in the WAL."""
    folder = tmp_path / "run"
    folder.mkdir()
    ledger, _ = open_ledger(folder)
    for rows in ([STUDY], trial_rows(0), trial_rows(1)):
        for row in rows:
            ledger.put(row)
        ledger.commit(1.0)
    image = crash_image(folder, tmp_path / "image")
    ledger.close()
    return image


def test_a_killed_writer_loses_nothing(in_use: Path) -> None:
    ledger, records = open_ledger(in_use)
    assert ledger.last.number == 3 and len(records.studies["1"].trials) == 2
    ledger.close()


@pytest.mark.parametrize("cut", [1, 50, 200, 5000])
def test_a_cut_tail_of_the_wal_is_damage_and_nothing_is_written(in_use: Path, cut: int) -> None:
    """SQLite alone gives the commit before, without a word."""
    wal = in_use / f"{DATABASE}-wal"
    os.truncate(wal, wal.stat().st_size - cut)
    before = {path.name: path.read_bytes() for path in in_use.iterdir() if not path.name.endswith("-shm")}
    with pytest.raises(Damaged, match="acknowledged"):
        open_ledger(in_use)
    with pytest.raises(Damaged, match="acknowledged"):
        read_ledger(in_use)
    assert {path.name: path.read_bytes() for path in in_use.iterdir() if not path.name.endswith("-shm")} == before


def test_one_commit_ahead_of_the_head_is_a_crash_two_are_damage(tmp_path: Path) -> None:
    fill(tmp_path, 1)
    heads = [(tmp_path / HEAD).read_bytes()]
    for k in (1, 2):
        ledger, _ = open_ledger(tmp_path)
        for row in trial_rows(k):
            ledger.put(row)
        ledger.commit(1.0)
        ledger.close()
        heads.append((tmp_path / HEAD).read_bytes())
    (tmp_path / HEAD).write_bytes(heads[1])
    ledger, _ = open_ledger(tmp_path)
    ledger.close()
    assert read_head(tmp_path) == (4, ledger.hash)
    (tmp_path / HEAD).write_bytes(heads[0])
    with pytest.raises(Damaged, match="ends at commit 4, but 2 were acknowledged"):
        open_ledger(tmp_path)


@pytest.mark.parametrize("spoil", ["gone", "head gone", "head torn", "head other", "empty", "half", "other file"])
def test_spoilt_files_are_damage(tmp_path: Path, spoil: str) -> None:
    fill(tmp_path)
    database, head = tmp_path / DATABASE, tmp_path / HEAD
    content = database.read_bytes()
    if spoil == "gone":
        database.unlink()
    elif spoil == "head gone":
        head.unlink()
    elif spoil == "head torn":
        head.write_bytes(head.read_bytes()[:100])
    elif spoil == "head other":
        Head(tmp_path).write(4, b"0" * 32)
    else:
        database.write_bytes({"empty": b"", "half": content[: len(content) // 2], "other file": b"x" * 9000}[spoil])
    with pytest.raises(Damaged):
        open_ledger(tmp_path)


def test_a_head_torn_at_any_byte_is_one_commit_older_at_most(tmp_path: Path) -> None:
    head = Head(tmp_path)
    head.write(1, b"a" * 32)
    head.write(2, b"b" * 32)
    before = (tmp_path / HEAD).read_bytes()
    head.write(3, b"c" * 32)
    after = (tmp_path / HEAD).read_bytes()
    for torn in range(129):
        (tmp_path / HEAD).write_bytes(before[:128] + after[128 : 128 + torn] + before[128 + torn :])
        found = read_head(tmp_path)
        assert found in ((2, b"b" * 32), (3, b"c" * 32)) and (torn > 0 or found == (2, b"b" * 32))
    assert found == (3, b"c" * 32)


@pytest.mark.durable
def test_a_commit_syncs_the_database_and_then_the_head(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ledger, _ = open_ledger(tmp_path)
    assert ledger._connection.execute("PRAGMA synchronous").fetchone() == (2,)
    assert ledger._connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    synced: list[int] = []
    real = os.fdatasync

    def noted(file: int) -> None:
        assert read_ledger(tmp_path)[1].number == 1, "the head is synced after the commit"
        synced.append(file)
        real(file)

    monkeypatch.setattr(os, "fdatasync", noted)
    ledger.put(STUDY)
    ledger.commit(1.0)
    assert synced == [ledger._head._file]
    ledger.close()


def test_links_are_not_followed(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    fill(tmp_path / "a")
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / DATABASE).symlink_to(tmp_path / "a" / DATABASE)
    shutil.copy(tmp_path / "a" / HEAD, tmp_path / "b" / HEAD)
    with pytest.raises(Damaged, match="link"):
        open_ledger(tmp_path / "b")


def test_a_folder_moved_away_is_noticed_by_the_next_commit(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    ledger, _ = open_ledger(tmp_path / "run")
    (tmp_path / "run").rename(tmp_path / "moved")
    ledger.put(STUDY)
    with pytest.raises(Damaged, match="moved, deleted or replaced"):
        ledger.commit(1.0)
    assert not (tmp_path / "run").exists()


def test_no_search_is_bad_input(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="no search"):
        read_ledger(tmp_path)


def test_a_reader_works_beside_the_writer(tmp_path: Path) -> None:
    ledger, _ = open_ledger(tmp_path)
    ledger.put(STUDY)
    ledger.commit(1.0)
    for k in range(5):
        for row in trial_rows(k):
            ledger.put(row)
        assert len(read_ledger(tmp_path)[0].studies["1"].trials) == k
        ledger.commit(1.0)
    ledger.close()


def test_a_full_disk_keeps_the_rows_for_later(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ledger, _ = open_ledger(tmp_path)
    full = sqlite3.OperationalError("database or disk is full")
    full.sqlite_errorcode = sqlite3.SQLITE_FULL

    def refuse(*_: object) -> None:
        raise full

    ledger.put(STUDY)
    with monkeypatch.context() as patch:
        patch.setattr(ledger_module, "insert", refuse)
        with pytest.raises(NoSpace):
            ledger.commit(1.0)
    with monkeypatch.context() as patch:
        patch.setattr(Head, "write", lambda *_: (_ for _ in ()).throw(OSError(28, "No space left")))
        with pytest.raises(NoSpace):
            ledger.commit(1.0)
    assert ledger.pending
    ledger.commit(1.0)
    ledger.close()
    assert read_ledger(tmp_path)[1].number == 1


def test_a_full_file_system_for_real(tmp_path: Path) -> None:
    """A limit on the size of files stands in for the end of the disk: SQLite reports it the same way."""
    program = f"""
import resource, signal
from pathlib import Path
from tests.search.test_ledger import STUDY, trial_rows, open_ledger
from mcutune.errors import UserError
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
ledger, _ = open_ledger(Path({str(tmp_path)!r}))
ledger.put(STUDY); ledger.commit(1.0)
resource.setrlimit(resource.RLIMIT_FSIZE, (300_000, resource.RLIM_INFINITY))
done = 0
try:
    for k in range(500):
        [ledger.put(row) for row in trial_rows(k)]
        ledger.commit(1.0)
        done = k + 1
except UserError as error:
    print(done, type(error).__name__)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    count, name = done.stdout.split()
    records, _ = read_ledger(tmp_path)
    assert name in ("NoSpace", "Damaged")
    assert len(records.studies["1"].trials) in (int(count), int(count) + 1)


def test_rewinding_keeps_what_is_good_and_the_damaged_file(tmp_path: Path) -> None:
    fill(tmp_path, 4)
    connection = sqlite3.connect(tmp_path / DATABASE)
    connection.execute("DROP TRIGGER epochs_UPDATE")
    connection.execute("UPDATE epochs SET loss = 2 WHERE trial = 2")
    connection.commit()
    connection.close()
    assert rewind(tmp_path) == (3, 5)
    records, last = read_ledger(tmp_path)
    assert last.number == 3 and len(records.studies["1"].trials) == 2
    ledger, records = open_ledger(tmp_path)
    for row in trial_rows(2):
        ledger.put(row)
    ledger.commit(3.0)
    ledger.close()
    assert (tmp_path / f"{DATABASE}.damaged-1").exists()


@pytest.mark.parametrize("spoil", [b"", b"x" * 5000])
def test_rewinding_a_hopeless_file_starts_anew(tmp_path: Path, spoil: bytes) -> None:
    fill(tmp_path)
    (tmp_path / DATABASE).write_bytes(spoil)
    assert rewind(tmp_path) == (0, 4)
    assert read_ledger(tmp_path)[1].number == 0


@given(st.lists(st.sampled_from(["event", "trial", "commit", "reopen"]), max_size=25))
@settings(max_examples=25, deadline=None)
def test_any_series_of_commits_replays_to_the_same_sum(
    tmp_path_factory: pytest.TempPathFactory, words: list[str]
) -> None:
    folder = tmp_path_factory.mktemp("series")
    ledger, _ = open_ledger(folder)
    records = Records()
    rows: list[Row] = [STUDY]
    trials = 0
    for word in [*words, "commit"]:
        if word == "event":
            rows.append(EventRow("note", None, None, None, "ünïcode \x00 \ud800".encode("utf-8", "replace").decode()))
        elif word == "trial":
            rows += trial_rows(trials)
            trials += 1
        elif word == "commit":
            for row in rows:
                ledger.put(row)
                records.apply(row)
            rows = []
            ledger.commit(1.0)
        else:
            ledger.close()
            ledger, replayed = open_ledger(folder)
            assert ledger_hash(replayed) == ledger_hash(records) and replayed.events == records.events
    ledger.close()
