"""`mcutune report` leaves a page beside the report that is as new as it."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from mcutune.cli import app as cli

SAMPLE = Path(__file__).parents[1] / "robustness" / "sample_report.json"


def test_the_page_is_made_where_it_is_absent_or_old(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("MCUTUNE_HOME", str(tmp_path))
    folder = tmp_path / "runs" / "ranks-iemocap" / "robustness"
    folder.mkdir(parents=True)
    shutil.copy(SAMPLE, folder / "report.json")
    page = folder / "report.html"
    assert cli.run(["report", "ranks-iemocap"]) == 0
    assert str(page) in capsys.readouterr().out.replace("\n", "")
    made = page.read_bytes()
    page.write_text("old")
    os.utime(page, (1, 1))
    assert cli.run(["report", "ranks-iemocap"]) == 0
    assert page.read_bytes() == made
    page.write_text("new")
    assert cli.run(["report", "ranks-iemocap"]) == 0
    assert page.read_text() == "new"
