"""Commands as a shell sees them: instant help, exit codes, one-line errors for bad input, inert names."""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from mcutune import __version__
from mcutune.cli import app as cli

SPACE = "parameters:\n  rank: {role: scientific, values: [1, 2]}\ntrials: 2\n"


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("MCUTUNE_HOME", str(tmp_path))
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def shell(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "mcutune", *arguments],
        capture_output=True, text=True, check=False, env={**os.environ, **environment}, timeout=60,
    )  # fmt: skip


def refused(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str]:
    """Exit code and stderr of a command that must say one `error:` line, then only `  - ` lines, and print nothing."""
    code = cli.run(list(arguments))
    out, err = capsys.readouterr()
    lines = err.splitlines()
    assert out == ""
    assert lines and lines[0].startswith("error: "), err
    assert all(line.startswith("  - ") for line in lines[1:]), err
    assert "Traceback" not in err
    assert all(character.isprintable() or character == "\n" for character in err)
    return code, err


def test_help_is_instant_and_loads_nothing_heavy() -> None:
    code = (
        "import sys; from mcutune.cli import app\n"
        "assert app.run(['--help']) == 0\n"
        "heavy = {'torch', 'ray', 'optuna', 'pandas', 'pyarrow', 'scipy', 'numpy', 'pydantic'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    best, bare = float("inf"), float("inf")
    for _ in range(3):
        seconds, done = _processor_time(code)
        best = min(best, seconds)
        assert done.returncode == 0, done.stderr
        assert "robustness" in done.stdout
        bare = min(bare, _processor_time("import rich.console, typer")[0])
    # Against the two libraries without which there is no help: about 1.6 times, whatever the machine.
    assert best < 2.5 * bare, (best, bare)


def _processor_time(code: str) -> tuple[float, subprocess.CompletedProcess[str]]:
    """The seconds of a Python process that runs `code`: what the wall shows on a quiet machine."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime, done


def test_version_and_help_of_every_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run(["--version"]) == 0
    assert capsys.readouterr().out == f"mcutune {__version__}\n"
    for command in (["search"], ["data", "import", "npz"], ["status"], ["robustness"], ["study", "export"], ["doctor"]):
        assert cli.run([*command, "--help"]) == 0
        assert max(map(len, capsys.readouterr().out.splitlines())) <= 80


@pytest.mark.parametrize("group", [[], ["data"], ["data", "import"], ["data", "make"]])
def test_a_command_without_a_name_shows_what_there_is(group: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run(group) == 0
    alone = capsys.readouterr()
    assert alone.err == "" and "\\n" not in alone.out and alone.out.startswith("Usage: mcutune")
    assert cli.run([*group, "--help"]) == 0
    assert capsys.readouterr().out == alone.out


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        (["serach"], "serach"),
        (["search", "--nope"], "--nope"),
        (["search", "--trials", "many"], "--trials"),
        (["stop"], "NAME"),
        (["data", "import", "npz"], "FILE"),
        (["status", "a", "b"], "b"),
    ],
)
def test_wrong_usage_is_one_line_and_2(arguments: list[str], word: str, capsys: pytest.CaptureFixture[str]) -> None:
    code, err = refused(capsys, *arguments)
    assert code == 2
    assert word.lower() in err.lower()
    assert "--help" in err


NAMES = ["../../x", "a/b", "x" * 300, "a\nb", "a\x1b[2Jb", "", ".hidden", "-x"]


@pytest.mark.parametrize("name", NAMES)
def test_names_that_would_leave_the_home_are_refused_everywhere(
    name: str, home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = sorted(home.parent.iterdir())
    (home / "s.yaml").write_text(SPACE, encoding="utf-8")
    for command in (
        ["search", "--space", "s.yaml", f"--name={name}"],
        ["search", "--space", "s.yaml", f"--data={name}"],
        ["status", "--", name],
        ["stop", "--", name],
        ["report", "--", name],
        ["study", "export", "--", name],
        ["robustness", f"--ckpt={name}"],
        ["data", "make", "planted", f"--name={name}", "--rows=200"],
        ["data", "make", "digits", f"--name={name}"],
    ):
        assert refused(capsys, *command)[0] == 2, command
    assert sorted(home.parent.iterdir()) == before
    assert not (home / "runs").exists()


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("parameters:\n  rnak: {role: scientific, values: [1]}\ntrials: 2\n", ["rnak", "did you mean", "rank", ":2"]),
        ("trials: 2\ntrials: 3\n", ["trials", "line 1"]),
        ("parameters: [\n", ["s.yaml"]),
        ("parameters:\n  rank: {role: scientific, low: 8, high: 2}\ntrials: 2\n", ["rank", "low"]),
        ("parameters:\n  beta: {role: scientific, low: 0, high: 1, log: true}\ntrials: 2\n", ["beta", "above 0"]),
        ("parameters:\n  beta: {role: scientific, low: .nan, high: 1}\ntrials: 2\n", [".nan", ":2"]),
        ("parameters:\n  rank: {role: scientific, values: []}\ntrials: 2\n", ["rank", "empty"]),
        ("parameters:\n  rank: {role: scientific, values: [no]}\ntrials: 2\n", ["rank"]),
        ("a: &a [x]\nb: *a\n", ["s.yaml"]),
        ("parameters: !!python/object/apply:os.system ['touch owned']\n", ["s.yaml"]),
        ("[" * 3000, ["s.yaml"]),
        ("\x00\xff", ["s.yaml"]),
        ("", ["s.yaml"]),
    ],
)
def test_bad_spaces_are_refused_with_what_and_where(
    text: str, words: list[str], home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (home / "s.yaml").write_text(text, encoding="latin-1")
    code, err = refused(capsys, "search", "--space", "s.yaml")
    assert code == 2
    assert [word for word in words if word not in err] == []
    assert not (home / "owned").exists()
    assert not (home / "runs").exists()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["search", "--space", "quikc"], ["quikc", "did you mean quick", "ranks"]),
        (["search", "--space", "quick", "--data", "palnted"], ["palnted"]),
        (["search", "--space", "quick", "--fold", "9"], ["9", "valid: 1, 2, 3, 4, 5; --folds all"]),
        (["search", "--space", "quick", "--fold", "1", "--folds", "all"], ["--fold", "--folds"]),
        (["search", "--space", "quick", "--objective", "meen"], ["meen", "mean"]),
        (["search", "--space", "quick", "--budget", "soon"], ["soon", "2h"]),
        (["search", "--space", "quick", "--objective", "best"], ["--objective"]),
        (["search", "--space", "quick", "--trials", "0", "--seeds", "0"], ["error: --trials", "; --seeds"]),
        (["search", "--space", "full", "--trials", "4"], ["error: --trials", "12 scouts"]),
        (["search", "--space", "quick", "--workers-per-pack", "0"], ["--workers-per-pack"]),
        (["search", "--space", "quick", "--gpus-per-pack", "-1"], ["--gpus-per-pack"]),
        (["search", "--space", "quick", "--place", "moon"], ["moon", "process, local, cluster"]),
        (["search", "--space", "quick", "--address", "ray://x:1"], ["ray://x:1", "--address auto"]),
        (["search", "--space", "quick", "--lanes", "0"], ["lanes"]),
        (["status", "nothing"], ["nothing"]),
        (["stop", "nothing"], ["nothing"]),
        (["report", "nothing"], ["nothing"]),
        (["study", "export", "nothing"], ["nothing"]),
        (["robustness"], ["mcutune search"]),
        (["robustness", "--ckpt", "nothing"], ["nothing"]),
        (["robustness", "--ckpt", "nothing:x"], ["'x'", "NAME:TRIAL"]),
        (["data", "check", "nothing"], ["nothing"]),
        (["data", "import", "npz", "no.npz", "--name", "a", "--modality", "a", "--label", "l"], ["no.npz"]),
        (["data", "import", "npz", "no.zip", "--name", "a", "--modality", "a", "--label", "l"], ["archive"]),
        (["data", "make", "planted", "--informativeness", "much"], ["much"]),
        (["data", "make", "planted", "--classes", "1"], ["classes"]),
    ],
    ids=" ".join,
)
def test_what_is_not_there_is_named_with_what_is_valid(
    arguments: list[str], words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    code, err = refused(capsys, *arguments)
    assert code == 2
    assert [word for word in words if word not in err] == []


def npz(path: Path) -> Path:
    random = np.random.default_rng(0)
    rows = 60
    np.savez(
        path, audio=random.normal(size=(rows, 4)).astype("f4"), text=random.normal(size=(rows, 3)).astype("f4"),
        label=np.arange(rows) % 3, names=np.array(["a", "\x1b[31mred", "c"]), session=np.arange(rows) % 5,
        speaker=np.arange(rows) % 10, evil=np.array(["\x1b]0;owned\x07"] * rows),
    )  # fmt: skip
    return path


IMPORT = ["data", "import", "npz", "x.npz", "--name", "mine", "--modality", "audio", "--modality", "words=text"]


def test_an_import_is_listed_and_checked(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    npz(home / "x.npz")
    columns = ["--label", "label", "--label-names", "names", "--fold", "session", "--speaker", "speaker"]
    assert cli.run([*IMPORT, *columns]) == 0
    assert "mine: 60 rows, audio 4 + words 3, 3 classes" in capsys.readouterr().out
    assert cli.run(["data", "list", "--json"]) == 0
    (facts,) = json.loads(capsys.readouterr().out)
    assert (facts["name"], facts["rows"], facts["modalities"]) == ("mine", 60, {"audio": 4, "words": 3})
    assert cli.run(["data", "check", "mine", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)[0]["label_names"][1] == "\x1b[31mred"
    for command in (["data", "list"], ["data", "check"]):
        assert cli.run(command) == 0
        assert "\x1b" not in capsys.readouterr().out


def test_all_problems_of_an_import_are_named_at_once(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    npz(home / "x.npz")
    code, err = refused(capsys, *IMPORT, "--modality", "vdieo", "--label", "lable", "--fold", "sesion")
    assert code == 2
    assert err.count("\n") == 4
    assert [word for word in ("vdieo", "'label'", "'session'") if word not in err] == []
    assert not (home / "datasets").exists()


def test_a_damaged_table_is_4(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    npz(home / "x.npz")
    assert cli.run([*IMPORT, "--label", "label"]) == 0
    capsys.readouterr()
    file = home / "datasets" / "mine" / "features.audio.arrow"
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)
    code, err = refused(capsys, "data", "check", "mine")
    assert code == 4
    assert "features.audio.arrow" in err
    assert cli.run(["doctor"]) == 4
    assert "features.audio.arrow" in capsys.readouterr().out


def test_a_home_that_cannot_be_written_is_2(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (home / "datasets").write_text("in the way", encoding="utf-8")
    assert cli.run(["data", "make", "digits"]) != 0
    assert "Traceback" not in capsys.readouterr().err


def test_a_closed_pipe_is_quiet() -> None:
    done = subprocess.run(
        ["bash", "-c", f"set -o pipefail; {sys.executable} -m mcutune --help | true"],
        capture_output=True, text=True, check=False, timeout=60,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")


def test_a_terminal_without_unicode_is_no_reason_to_fail() -> None:
    done = shell("data", "make", "digits", PYTHONIOENCODING="ascii", PYTHONUTF8="0", LC_ALL="C")
    assert done.returncode == 0, done.stderr
    done = shell("data", "list", PYTHONIOENCODING="ascii")
    assert done.returncode == 0, done.stderr
