"""Places: what an --address names, the private folder, the environment, what travels to a cluster."""

from __future__ import annotations

import fcntl
import json
import os
import signal
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from mcutune.cluster import connect
from mcutune.cluster.interrupts import Interrupts
from mcutune.cluster.place import kind_of
from mcutune.errors import BadInput, Stopped


def test_kinds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    assert kind_of(None) == ("local", "local")
    assert kind_of("process") == ("process", "")
    assert kind_of("auto") == ("cluster", "auto")
    assert kind_of("10.0.0.1:6379") == ("cluster", "10.0.0.1:6379")
    monkeypatch.setenv("RAY_ADDRESS", "10.0.0.1:6379")
    assert kind_of(None) == ("cluster", "10.0.0.1:6379")
    assert kind_of("local") == ("local", "local")


@pytest.mark.parametrize("address", ["ray://h:10001", "http://h:8265", "h", "h:x", "h:0", "h:70000", ":1", "a b:1"])
def test_what_is_no_address(address: str) -> None:
    with pytest.raises(BadInput):
        kind_of(address)


def test_this_process_needs_no_ray() -> None:
    code = (
        "import sys\nfrom mcutune.cluster.connect import connect\n"
        "with connect('process') as place: assert place.kind == 'process' and place.folder.is_dir()\n"
        "assert not place.folder.exists() and 'ray' not in sys.modules"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_the_folder_is_private_and_goes() -> None:
    with connect.connect("process") as place:
        assert stat.S_IMODE(place.folder.stat().st_mode) == 0o700
        (place.folder / "r").mkdir()
    assert not place.folder.exists()


def test_folders_of_killed_searches_go(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connect, "_LONGEST", 4096)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    for name in ("mcutune-ray-dead", "mcutune-ray-alive", "other"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "lock").touch()
    (tmp_path / "mcutune-ray-link").symlink_to(tmp_path / "other")
    with (tmp_path / "mcutune-ray-alive" / "lock").open() as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with connect.connect("process"):
            pass
    left = sorted(path.name for path in tmp_path.iterdir())
    assert left == ["mcutune-ray-alive", "mcutune-ray-link", "other"]


def test_sockets_fit_below_the_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / ("long" * 20)))
    with connect.connect("process") as place:
        session = place.folder / "r" / "session_2026-01-01_00-00-00_000000_1234567" / "sockets" / "plasma_store"
        assert len(str(session)) < 107


def test_the_environment_returns(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("A", "1")
    monkeypatch.setenv("B", "2")
    monkeypatch.delenv("C", raising=False)
    with connect.environment({"A": "x", "C": "y"}, without=("B",)):
        assert (os.environ["A"], os.environ.get("B"), os.environ["C"]) == ("x", None, "y")
    assert (os.environ["A"], os.environ["B"], os.environ.get("C")) == ("1", "2", None)


def test_the_package_travels_but_not_against_a_job() -> None:
    alone = connect.travelling({"X": "1"}, {})
    assert alone["env_vars"] == {"X": "1"}
    (module,) = alone["py_modules"]
    assert Path(module).name == "mcutune"
    job = {"runtime_env": {"env_vars": {"X": "0"}, "py_modules": ["gcs://a.zip"]}}
    assert connect.travelling({"X": "1"}, {"RAY_JOB_CONFIG_JSON_ENV_VAR": json.dumps(job)}) == {}


def test_the_first_signal_asks_the_second_ends() -> None:
    before = signal.getsignal(signal.SIGINT)
    with Interrupts() as interrupts:
        assert not interrupts.asked
        os.kill(os.getpid(), signal.SIGINT)
        assert interrupts.asked
        with pytest.raises(Stopped) as stopped:
            os.kill(os.getpid(), signal.SIGTERM)
    assert stopped.value.exit_code == 6
    assert signal.getsignal(signal.SIGINT) is before


def test_usable_cpus() -> None:
    assert 1 <= connect.usable_cpus() <= (os.cpu_count() or 1)
