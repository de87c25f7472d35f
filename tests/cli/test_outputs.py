"""Options that name a file to be written are refused in a line that names the option, and make no folder."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from mcutune.cli import app as cli
from mcutune.cli.outputs import write, write_each

SAMPLE = Path(__file__).parents[1] / "robustness" / "sample_report.json"


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("MCUTUNE_HOME", str(tmp_path))
    folder = tmp_path / "runs" / "r" / "robustness"
    folder.mkdir(parents=True)
    shutil.copy(SAMPLE, folder / "report.json")
    return tmp_path


@pytest.mark.parametrize(
    "command", [("report", "r", "--latex"), ("report", "r", "--csv"), ("diff", "r", "r", "--html")]
)
def test_a_place_that_is_none_is_refused_before_anything_is_done(
    home: Path, capsys: pytest.CaptureFixture[str], command: tuple[str, ...]
) -> None:
    os.mkfifo(home / "pipe")
    before = sorted(home.rglob("*"))
    for given, word in (
        (home / "none" / "deep" / "t.x", f"there is no folder {home / 'none' / 'deep'}"),
        (home / "runs", "is a folder"),
        (home / "runs" / "r" / "robustness" / "report.json" / "t.x", "there is no folder"),
        (home / "pipe", "is not a regular file"),
        (home / ("n" * 300), "cannot be the name of a file"),
    ):
        if word == "is a folder" and command[0] == "report":  # its tables, one a file
            continue
        assert cli.run([*command, str(given)]) == 2
        out, err = capsys.readouterr()
        assert out == "" and err.count("\n") == 1, err
        assert f"{command[-1]}: " in err and word in err and ".part" not in err
        assert sorted(home.rglob("*")) == before


@pytest.mark.parametrize(
    ("latex", "csv", "said"),
    [
        ("paper", "paper", "--latex and --csv name the same file"),
        ("paper", "runs/../paper", "--latex and --csv name the same file"),
        ("paper", "linked", "--latex and --csv name the same file"),
        ("paper/", "paper/", "--latex: there is no folder"),
        ("paper/.", "t.csv", "--latex: there is no folder"),
        ("t.tex", "paper/", "--csv: there is no folder"),
        ("runs/r/robustness/report.json/", "t.csv", "--latex: there is no folder"),
    ],
)
def test_tables_never_overwrite_each_other(
    home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], latex: str, csv: str, said: str
) -> None:
    monkeypatch.chdir(home)
    (home / "linked").symlink_to("paper")
    before = sorted(home.rglob("*"))
    assert cli.run(["report", "r", "--latex", latex, "--csv", csv]) == 2
    out, err = capsys.readouterr()
    assert out == "" and err.count("\n") == 1 and said in err and "make the folder first" in err, err
    assert sorted(home.rglob("*")) == before


def test_a_folder_that_is_there_takes_both(home: Path) -> None:
    (home / "paper").mkdir()
    assert cli.run(["report", "r", "--latex", f"{home}/paper/", "--csv", f"{home}/paper"]) == 0
    assert {one.suffix for one in (home / "paper").iterdir()} == {".tex", ".csv"}


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_closed_folder_is_named_by_the_file_that_was_asked_for(
    home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    closed = home / "closed"
    closed.mkdir(mode=0o500)
    assert cli.run(["report", "r", "--csv", str(closed / "t.csv")]) == 2
    said = capsys.readouterr().err
    assert f"{closed / 't.csv'}: Permission denied" in said and ".part" not in said


def test_a_failed_write_names_the_file_that_was_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(path: Path, content: bytes) -> int:
        raise OSError(28, "No space left on device", str(path))

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(OSError, match="No space") as caught:
        write("--csv", tmp_path / "t.csv", "x")
    assert caught.value.filename == str(tmp_path / "t.csv") and list(tmp_path.iterdir()) == []


def test_names_of_tables_become_names_of_files(tmp_path: Path) -> None:
    names = ["a", "../../etc/x", "a", "..", "", "b/c", "b?c", "n" * 300]
    write_each("--csv", tmp_path, {f"{name}": name for name in names}, ".csv")
    assert sorted(one.name for one in tmp_path.iterdir()) == sorted(
        ["a.csv", "etc-x.csv", "table.csv", "table-2.csv", "b-c.csv", "b-c-2.csv", f"{'n' * 100}.csv"]
    )
