"""Places: what an --address names, the private folder, the environment, what travels to a cluster."""

from __future__ import annotations

import fcntl
import json
import os
import signal
import socket
import stat
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest

from mcutune.cluster import connect, private, quick, warden
from mcutune.cluster.interrupts import Interrupts
from mcutune.cluster.place import Place, kind_of
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
    monkeypatch.setattr(private, "_LONGEST", 4096)
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
    with private.environment({"A": "x", "C": "y"}, without=("B",)):
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


def test_who_has_a_token_means_to_use_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    assert connect.token_mode({}) == {}
    assert connect.token_mode({"RAY_AUTH_TOKEN_PATH": "x"}) == {"RAY_AUTH_MODE": "token"}
    assert connect.token_mode({"RAY_AUTH_TOKEN": "x", "RAY_AUTH_MODE": "disabled"}) == {}
    (tmp_path / ".ray").mkdir()
    (tmp_path / ".ray" / "auth_token").touch()
    assert connect.token_mode({}) == {"RAY_AUTH_MODE": "token"}


def test_why_there_is_no_ray() -> None:
    local = connect.no_ray("local", Exception("\n The current node timed out.\nmore"), "")
    assert (local.exit_code, str(local)) == (5, "a local Ray does not start: The current node timed out.")
    token = connect.no_ray("h:1", ConnectionError("Failed to connect"), "W gcs: Unauthenticated: RPC error")
    assert token.exit_code == 2 and "RAY_AUTH_TOKEN_PATH" in str(token)
    other = connect.no_ray("h:1", ConnectionError(""), "")
    assert "cannot be joined: ConnectionError" in str(other)


def test_unreachable() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"127.0.0.1:{server.getsockname()[1]}"
        assert connect.unreachable(address) == ""
    assert "refused" in connect.unreachable(address)


@pytest.mark.parametrize(
    ("types", "grows"),
    [(("node_1", "node_2"), False), (("head", "node_2"), True), (("", ""), False), ((), False)],
)
def test_whether_a_cluster_grows(types: tuple[str, ...], grows: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    import ray.autoscaler.v2.sdk as sdk

    nodes = [SimpleNamespace(ray_node_type_name=name, node_id=str(i + 1)) for i, name in enumerate(types)]
    status = SimpleNamespace(active_nodes=nodes[:1], idle_nodes=nodes[1:])
    monkeypatch.setattr(sdk, "get_cluster_status", lambda address: status)
    assert connect.autoscaled("h:1") is grows


def test_the_warden_ends_what_is_left(tmp_path: Path) -> None:
    """The process that started it is killed: it ends a process of the folder, of another session, and no other."""
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "log").touch()
    sleeper = "import sys, time; f = open(sys.argv[1]); print('open', flush=True); time.sleep(60)"
    left = start_sleeper(sleeper, folder / "log")
    other = start_sleeper(sleeper, Path(__file__))
    searching = subprocess.Popen(
        [
            sys.executable,
            "-c",
            "import sys, time, pathlib\nfrom mcutune.cluster.warden import watch\n"
            "own = open(sys.argv[1] + '/log')\nprocess = watch(pathlib.Path(sys.argv[1]))\n"
            "print('watched', flush=True); time.sleep(60)",
            str(folder),
        ],
        stdout=subprocess.PIPE,
    )
    try:
        assert searching.stdout is not None and searching.stdout.readline() == b"watched\n"
        searching.kill()
        searching.wait()
        assert left.wait(timeout=20) == -signal.SIGKILL
        assert other.poll() is None
        end = time.monotonic() + 20
        while folder.exists() and time.monotonic() < end:
            time.sleep(0.05)
        assert not folder.exists()
    finally:
        for process in (left, other, searching):
            process.kill()


def start_sleeper(code: str, path: Path) -> subprocess.Popen[bytes]:
    process = subprocess.Popen([sys.executable, "-c", code, str(path)], stdout=subprocess.PIPE, start_new_session=True)
    assert process.stdout is not None and process.stdout.readline() == b"open\n"
    return process


def test_the_warden_spares_who_closes_by_itself(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    with (tmp_path / "folder" / "lock").open("w"):
        process = warden.watch(tmp_path / "folder")
        process.communicate(timeout=20)
    assert not (tmp_path / "folder").exists()


def test_a_pulse_is_missed_after_a_while_only() -> None:
    from mcutune.search import runner

    servers = [socket.create_server(("127.0.0.1", 0)) for _ in range(2)]
    head, raylet = (f"127.0.0.1:{server.getsockname()[1]}" for server in servers)
    now = [0.0]
    place = Place("local", Path(), address=head, raylet=raylet)
    pulse = runner.Pulse(place, clock=lambda: now[0])
    for now[0] in (1.5, 3.0):
        pulse.check()
    servers[1].close()
    for now[0] in (100.0, 101.5):  # a long silence of ours counts for nothing, the first miss does
        pulse.check()
    now[0] = 103.5
    with pytest.raises(Stopped, match="raylet"):
        pulse.check()
    servers[0].close()


def test_processes_of_a_local_ray_are_killed_together() -> None:
    deaf = "import signal, sys, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print(flush=True); time.sleep(60)"
    processes = [subprocess.Popen([sys.executable, "-c", deaf], stdout=subprocess.PIPE) for _ in range(3)]
    for process in processes:
        assert process.stdout is not None and process.stdout.readline()
    kinds = {str(number): [SimpleNamespace(process=process)] for number, process in enumerate(processes)}
    node = SimpleNamespace(all_processes=kinds)
    quick.without_goodbye(node)
    start = time.monotonic()
    node.kill_all_processes(check_alive=False, allow_graceful=True, wait=False)
    assert [process.poll() for process in processes] == [-signal.SIGKILL] * 3
    assert time.monotonic() - start < 5


def test_what_is_begun_anew_is_not_answered_by_what_was_begun_before() -> None:
    """Ray that did not start in time is started again while its first dashboard is still on its way."""
    import threading

    from mcutune.cluster.quick import _Beside

    slow = threading.Event()

    def work(node: str) -> None:
        if node == "first":
            slow.wait()
            raise RuntimeError("the first came to nothing")

    beside = _Beside(work)
    beside.start("first", {})
    first = beside._latest
    beside.start("second", {})
    slow.set()
    assert isinstance(first.exception(timeout=5), RuntimeError)
    beside.wait()
    beside.over.set()
