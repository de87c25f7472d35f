"""The log of test openings: counted, durable, never edited."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from mcutune.errors import Damaged
from mcutune.robustness.openings import FILE, read, record


def test_openings_are_counted(tmp_path: Path) -> None:
    assert read(tmp_path) == []
    assert [one["opening"] for one in record(tmp_path, "best", ["toy"], ["fixed"])] == [1]
    log = record(tmp_path, "run:0", ["toy", "other"], ["fixed", "random"])
    assert [one["opening"] for one in log] == [1, 2]
    assert (log[1]["selection"], log[1]["tables"]) == ("run:0", ["toy", "other"])
    assert read(tmp_path) == log
    assert len((tmp_path / FILE).read_text().splitlines()) == 2


def test_a_torn_last_line_was_never_acknowledged(tmp_path: Path) -> None:
    record(tmp_path, "best", ["toy"], ["fixed"])
    with (tmp_path / FILE).open("a") as file:
        file.write('{"opening": 2, "selection": "' + 500 * "x")  # longer than the line that replaces it
    assert len(read(tmp_path)) == 1
    assert [one["opening"] for one in record(tmp_path, "best", ["toy"], ["fixed"])] == [1, 2]
    assert len((tmp_path / FILE).read_text().splitlines()) == 2


def test_a_log_that_lost_openings_is_refused(tmp_path: Path) -> None:
    record(tmp_path, "best", ["toy"], ["fixed"])
    (tmp_path / FILE).write_bytes((tmp_path / FILE).read_bytes()[:40])
    with pytest.raises(Damaged, match="has 0 openings, the report beside it tells of 1"):
        record(tmp_path, "best", ["toy"], ["fixed"], told=1)


def test_no_flipped_bit_is_taken_for_a_torn_line(tmp_path: Path) -> None:
    """Nor for anything else: also not one in the last line's end."""
    record(tmp_path, "best", ["toy"], ["fixed"])
    log, path = record(tmp_path, "best", ["toy"], ["fixed"]), tmp_path / FILE
    content = path.read_bytes()
    for bit in range(8 * len(content)):
        flipped = bytearray(content)
        flipped[bit // 8] ^= 1 << bit % 8
        path.write_bytes(flipped)
        try:
            assert read(tmp_path) == log, bit
        except Damaged:
            continue


@pytest.mark.parametrize("how", ["removed", "changed", "garbage"])
def test_an_edited_log_is_refused(tmp_path: Path, how: str) -> None:
    for _ in range(3):
        record(tmp_path, "best", ["toy"], ["fixed"])
    lines = (tmp_path / FILE).read_text().splitlines()
    if how == "removed":
        lines.pop(1)
    elif how == "changed":
        lines[1] = json.dumps({**json.loads(lines[1]), "opening": 1})
    else:
        lines[0] = "opened once"
    (tmp_path / FILE).write_text("\n".join(lines) + "\n")
    for call in (lambda: read(tmp_path), lambda: record(tmp_path, "best", ["toy"], ["fixed"])):
        with pytest.raises(Damaged, match="not what was written"):
            call()
