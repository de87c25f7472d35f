"""A home with a finished search and its report, made once; each test works on a copy."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from mcutune.cli import app as cli
from tests.search.conftest import _no_sync, make, pytest_configure

__all__ = ["_no_sync", "make", "pytest_configure"]  # fixtures and a hook, found here by their names

ROOT = Path(__file__).parents[2]
SPACE = """\
question: does a tiny search survive?
parameters:
  rank: {role: scientific, values: [1, 2, 4]}
  beta: {role: scientific, low: 1e-4, high: 1e-1, log: true}
fixed: {epochs: 3, encoder_epochs: 2, encoder_width: 16, learning_rate: 1e-3}
trials: 4
seeds: 2
lag: 2
rungs: {first: 1, eta: 3}
"""
SEARCH = ("search", "--space", "tiny.yaml", "--data", "small", "--place", "process", "--plain")
NAME = "tiny-small"


@dataclass
class World:
    """A home, and commands in it. The run's folder is that of `mcutune search` on the tiny space."""

    home: Path
    capsys: pytest.CaptureFixture[str]

    @property
    def run(self) -> Path:
        return self.home / "runs" / NAME

    def command(self, *arguments: str) -> tuple[int, str, str]:
        """Exit code, output and errors of a command in this process."""
        self.capsys.readouterr()
        code = cli.run(list(arguments))
        out, err = self.capsys.readouterr()
        return code, out, err

    def good(self, *arguments: str) -> str:
        code, out, err = self.command(*arguments)
        assert code == 0, err
        return out

    def refused(self, code: int, *arguments: str) -> str:
        """The error of a command that must end with `code`: one line, and a list of problems at most."""
        found, _, err = self.command(*arguments)
        assert found == code, err
        lines = err.splitlines()
        assert lines and lines[0].startswith("error: "), err
        assert all(line.startswith("  - ") for line in lines[1:]), err
        assert all(character.isprintable() or character == "\n" for character in err)
        return err

    def shell(self, *arguments: str, prefix: tuple[str, ...] = (), **environment: str) -> subprocess.Popen[str]:
        """The command as a process of its own, in a session of its own."""
        return subprocess.Popen(
            [*prefix, sys.executable, "-m", "mcutune", *arguments], cwd=self.home, text=True, start_new_session=True,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE,
            env={**os.environ, "PYTHONPATH": str(ROOT), **environment},
        )  # fmt: skip


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The home that all copies are made from: dataset `small`, a finished search on it, a report."""
    folder = tmp_path_factory.mktemp("made")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MCUTUNE_HOME", str(folder))
        patch.chdir(folder)
        (folder / "tiny.yaml").write_text(SPACE, encoding="utf-8")
        assert cli.run(["data", "make", "planted", "--name", "small", "--rows", "600", "--seed", "3"]) == 0
        assert cli.run(list(SEARCH)) == 0
        assert cli.run(["robustness", "--ckpt", NAME, "--protocol", "fixed"]) == 0
    yield folder


@pytest.fixture
def world(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> World:
    home = tmp_path / "home"
    shutil.copytree(made, home)
    monkeypatch.setenv("MCUTUNE_HOME", str(home))
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.chdir(home)
    return World(home, capsys)


@pytest.fixture
def fresh(world: World) -> World:
    """The home with its dataset, but no run yet."""
    shutil.rmtree(world.home / "runs")
    return world


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """A minute on a machine at rest may be ten on a busy one, and no test here ends by waiting for too long."""
    for item in items:
        if Path(__file__).parent in item.path.parents and item.get_closest_marker("timeout") is None:
            item.add_marker(pytest.mark.timeout(900))
