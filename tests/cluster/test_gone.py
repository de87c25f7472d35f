"""A Ray that has died is left alone: an orderly end would crash on what other threads still use."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import ray
from ray._private import worker

from mcutune.cluster import connect, gone
from mcutune.cluster.place import Place
from mcutune.errors import Stopped
from mcutune.search import runner

LEAVING = """
import atexit, os, sys
import mcutune.__main__ as main
from mcutune.cluster import gone
atexit.register(lambda: os.write(1, b"orderly"))
print("said", end=" ")
if sys.argv[1] != "alive":
    gone.abandon(None)
if sys.argv[1] == "closed":
    sys.stdout = None
if sys.argv[1] == "unread":
    os.dup2(os.open("/dev/full", os.O_WRONLY), 1)
main._leave(6)
"""


@pytest.mark.parametrize(
    ("how", "said"), [("abandoned", {"said"}), ("alive", {"said", "orderly"}), ("closed", set()), ("unread", set())]
)
def test_only_where_ray_was_abandoned_a_process_ends_at_once(how: str, said: set[str]) -> None:
    done = subprocess.run(
        [sys.executable, "-c", LEAVING, how], capture_output=True, text=True, check=False,
        env={key: value for key, value in os.environ.items() if key != "PYTHONUNBUFFERED"},
    )  # fmt: skip
    assert done.returncode == 6 and done.stderr == ""
    assert {word for word in ("said", "orderly") if word in done.stdout} == said


@pytest.mark.parametrize("address", ["local", "127.0.0.1:1"])
@pytest.mark.parametrize(("error", "done"), [(gone.RayGone, "abandoned"), (Stopped, "shut down"), (None, "shut down")])
def test_a_dead_ray_is_not_shut_down(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, address: str, error: type[Stopped] | None, done: str
) -> None:
    calls: list[str] = []
    node: Any = SimpleNamespace(all_processes={})
    monkeypatch.setattr(gone, "_abandoned", False)
    monkeypatch.setattr(worker, "_global_node", node)
    monkeypatch.setattr(connect, "_begun", lambda folder, arguments: "context")
    monkeypatch.setattr(connect, "_read_environment_again", lambda: None)
    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    monkeypatch.setattr(ray, "shutdown", lambda: calls.append("shut down"))
    monkeypatch.setattr(
        connect, "without_goodbye", lambda its: setattr(its, "kill_all_processes", lambda: calls.append("killed"))
    )

    def search() -> None:
        with connect._ray(tmp_path, address=address):
            if error is not None:
                raise error("the end")

    if error is None:
        search()
    else:
        with pytest.raises(error):
            search()
    killed = ["killed"] if done == "abandoned" and address == "local" else []
    assert calls == (killed if done == "abandoned" else [done])
    assert gone._abandoned == (done == "abandoned")


def test_a_second_error_does_not_hide_that_ray_has_died() -> None:
    error = Stopped("stopped at once")
    assert not gone.is_gone(error) and not gone.is_gone(None)
    error.__context__ = ValueError()
    error.__context__.__context__ = gone.RayGone("Ray is gone")
    assert gone.is_gone(error)


@pytest.mark.parametrize("listens", [False, True])
def test_an_error_of_a_ray_that_no_longer_listens_is_its_end(monkeypatch: pytest.MonkeyPatch, listens: bool) -> None:
    def dead(*_: Any, **__: Any) -> Any:
        raise ray.exceptions.RayActorError

    monkeypatch.setattr(ray, "wait", dead)
    monkeypatch.setattr(runner, "unreachable", lambda address: "" if listens else "Connection refused")
    pulse = runner.Pulse(Place("local", Path(), address="a:1", raylet="b:2"))
    actor = SimpleNamespace(look=SimpleNamespace(remote=lambda: None))
    with pytest.raises(ray.exceptions.RayActorError if listens else gone.RayGone):
        runner._ask(actor, "look", pulse)
