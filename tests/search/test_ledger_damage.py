"""No flipped, cut, swapped or missing byte of a ledger goes unseen, and the good part can be saved."""

from __future__ import annotations

import os
import random
import shutil
import sqlite3
from pathlib import Path

import pytest

from mcutune.errors import Damaged
from mcutune.search.canonical import ledger_hash
from mcutune.search.head import HEAD, Head, read_head
from mcutune.search.ledger import DATABASE, open_ledger, read_ledger
from mcutune.search.rewind import rewind
from tests.search.rows import STUDY, fill, trial_rows


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


def changed(folder: Path, statement: str) -> None:
    """Change rows through SQLite itself: the file is valid, the chain is not."""
    connection = sqlite3.connect(folder / DATABASE)
    for change in ("UPDATE", "DELETE"):
        connection.execute(f"DROP TRIGGER commits_{change}")
    connection.execute(statement)
    connection.commit()
    connection.close()


@pytest.mark.parametrize("number", [1, 2, 4])
@pytest.mark.parametrize("column", ["at", "elapsed", "gpu", "epochs", "since", "kept", "steps", "hash"])
def test_a_changed_value_anywhere_is_seen(tmp_path: Path, column: str, number: int) -> None:
    fill(tmp_path)
    value = {"at": "'x'", "kept": "kept || ' '", "steps": "steps || ' '", "hash": "X'00'"}.get(column, "7")
    changed(tmp_path, f"UPDATE commits SET {column} = {value} WHERE number = {number}")
    with pytest.raises(Damaged, match=f"commit {number}"):
        read_ledger(tmp_path)


def test_a_changed_fact_is_seen(tmp_path: Path) -> None:
    fill(tmp_path)
    changed(tmp_path, "UPDATE commits SET kept = replace(kept, '0.3', '0.4') WHERE number = 3")
    with pytest.raises(Damaged, match="commit 3"):
        read_ledger(tmp_path)


@pytest.mark.parametrize("number", [1, 3])
def test_a_commit_taken_away_is_seen(tmp_path: Path, number: int) -> None:
    fill(tmp_path)
    changed(tmp_path, f"DELETE FROM commits WHERE number = {number}")
    with pytest.raises(Damaged, match=f"commit {number}"):
        read_ledger(tmp_path)


@pytest.mark.parametrize("number", [0, 5, 999])
def test_a_commit_that_nobody_made_is_seen(tmp_path: Path, number: int) -> None:
    fill(tmp_path)
    values = f"SELECT {number}, at, elapsed, gpu, epochs, since, kept, steps, hash FROM commits WHERE number = 4"
    changed(tmp_path, f"INSERT INTO commits {values}")
    with pytest.raises(Damaged):
        open_ledger(tmp_path)


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


def test_links_are_not_followed(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    fill(tmp_path / "a")
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / DATABASE).symlink_to(tmp_path / "a" / DATABASE)
    shutil.copy(tmp_path / "a" / HEAD, tmp_path / "b" / HEAD)
    with pytest.raises(Damaged, match="link"):
        open_ledger(tmp_path / "b")


def test_rewinding_keeps_what_is_good_and_the_damaged_file(tmp_path: Path) -> None:
    fill(tmp_path, 4)
    changed(tmp_path, "UPDATE commits SET steps = replace(steps, '0.3', '2.3') WHERE number = 4")
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
