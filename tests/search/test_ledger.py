"""The ledger: rows are only ever inserted, a commit is whole or absent, a full disk waits."""

from __future__ import annotations

import json
import os
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mcutune.errors import BadInput, Damaged
from mcutune.search import ledger as ledger_module
from mcutune.search.canonical import ledger_hash
from mcutune.search.commits import decoded, encoded
from mcutune.search.head import Head
from mcutune.search.ledger import DATABASE, NoSpace, open_ledger, read_ledger
from mcutune.search.records import EpochRow, EventRow, LaneRow, Records, Row, RungRow, TrialRow, floats
from tests.search.rows import STUDY, fill, trial_rows


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
    for statement in ("UPDATE commits SET elapsed = 0", "DELETE FROM commits"):
        with pytest.raises(sqlite3.IntegrityError, match="append-only"):
            connection.execute(statement)
    for statement in ("UPDATE trials SET score = 1", "DELETE FROM epochs"):
        with pytest.raises(sqlite3.OperationalError, match="view"):
            connection.execute(statement)


def test_the_tables_of_facts_can_be_asked_in_sql(tmp_path: Path) -> None:
    fill(tmp_path)
    connection = sqlite3.connect(tmp_path / DATABASE)
    ended = connection.execute("SELECT number, score FROM trials WHERE state = 'finished' ORDER BY number").fetchall()
    assert ended == [(0, 0.3), (1, 0.3), (2, 0.3)]
    for table, count in {"studies": 1, "trials": 6, "lanes": 6, "rungs": 3, "epochs": 9, "events": 0}.items():
        assert connection.execute(f"SELECT COUNT(*) FROM {table}").fetchone() == (count,)
    assert connection.execute("SELECT loss FROM epochs WHERE trial = 2 AND epoch = 3").fetchone() == (1 / 3,)


def test_a_ledger_of_an_older_version_says_so(tmp_path: Path) -> None:
    fill(tmp_path)
    connection = sqlite3.connect(tmp_path / DATABASE)
    connection.execute("PRAGMA user_version = 1")
    connection.close()
    for reader in (open_ledger, read_ledger):
        with pytest.raises(BadInput, match="older mcutune .version 1; this one reads 2.*manifest.json"):
            reader(tmp_path)


def test_a_row_from_before_its_last_fields_were_added_is_read() -> None:
    lane = LaneRow("1", 0, 0, 2, "running", failure="lost", message="gone")
    fields = json.loads(encoded([lane]))[0]
    assert len(fields) == 15 and decoded(json.dumps([fields[:13]]).encode()) == [lane]
    with pytest.raises(TypeError):
        decoded(json.dumps([[*fields, 1]]).encode())


def test_what_is_read_in_part_is_what_is_read_whole(tmp_path: Path) -> None:
    """Trials that ended in another order than they began, one that still runs, a best that is not the first."""
    ledger, _ = open_ledger(tmp_path)
    ledger.put(STUDY)
    rows = {number: trial_rows(number) for number in range(6)}
    rows[3][-1] = rows[3][-1]._replace(score=0.9)  # type: ignore[call-arg]
    for number in range(6):
        for row in rows[number][:4]:
            ledger.put(row)
        ledger.commit(number)
    for number in (4, 0, 3, 1, 5):
        for row in rows[number][4:]:
            ledger.put(row)
        ledger.commit(10.0 + number)
    ledger.close()
    (part, last), (whole, _) = read_ledger(tmp_path), read_ledger(tmp_path, keep=True)
    one, all_ = part.studies["1"], whole.studies["1"]
    assert last.since == 3 and list(one.running) == list(all_.running) == [2]
    assert ledger_hash(part) == ledger_hash(whole) and part.epochs == whole.epochs == 17
    assert one.counts == all_.counts and one.best is one.trials[3]
    for mine, theirs in zip(one.trials, all_.trials, strict=True):
        facts = ("number", "settings", "state", "score", "digest", "reached", "failure", "message")
        assert [getattr(mine, name) for name in facts] == [getattr(theirs, name) for name in facts]
    assert one.running[2].lanes == all_.running[2].lanes
    for number in (0, 3):
        assert [lane.top for lane in one.trials[number].lanes] == [lane.top for lane in all_.trials[number].lanes]
        assert one.trials[number].lanes[0].end == all_.trials[number].lanes[0].end
    assert not one.trials[1].lanes and all_.trials[1].lanes  # held only by those who ask for the whole


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


def test_a_finished_lane_of_a_running_trial_has_ended() -> None:
    records = Records()
    for row in (STUDY, *trial_rows(0)[:-1]):
        records.apply(row)
    for again in (LaneRow("1", 0, 0, 2, "running"), LaneRow("1", 0, 0, 1, "failed", failure="nan")):
        with pytest.raises(ValueError, match="has ended"):
            records.apply(again)


def test_the_ledger_refuses_a_second_end_too(tmp_path: Path) -> None:
    fill(tmp_path)
    ledger, _ = open_ledger(tmp_path)
    for number in (0, 3):  # ended, never begun
        with pytest.raises(ValueError, match="is not running"):
            ledger.put(TrialRow("1", number, "failed", failure="nan"))
    ledger.commit(2.0)
    ledger.close()
    assert read_ledger(tmp_path)[1].number == 4


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
