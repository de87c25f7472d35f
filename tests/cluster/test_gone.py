"""A Ray that has died is left alone: an orderly end would crash on what other threads still use."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import ray
from ray._private import worker

from mcutune.cluster import connect, gone
from mcutune.errors import Stopped

LEAVING = """
import atexit, os, sys
from mcutune.cluster import gone
atexit.register(lambda: os.write(1, b"orderly"))
print("said", end=" ")
if sys.argv[1] == "abandoned":
    gone.abandon(None)
gone.leave(6)
"""


@pytest.mark.parametrize(("how", "said"), [("abandoned", {"said"}), ("alive", {"said", "orderly"})])
def test_only_where_ray_was_abandoned_a_process_ends_at_once(how: str, said: set[str]) -> None:
    done = subprocess.run([sys.executable, "-c", LEAVING, how], capture_output=True, text=True, check=False)
    assert done.returncode == 6 and done.stderr == ""
    assert {word for word in ("said", "orderly") if word in done.stdout} == said


@pytest.mark.parametrize("address", ["local", "127.0.0.1:1"])
@pytest.mark.parametrize(("error", "done"), [(gone.RayGone, "abandoned"), (Stopped, "shut down"), (None, "shut down")])
def test_a_dead_ray_is_not_shut_down(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, address: str, error: type[Stopped] | None, done: str
) -> None:
    calls = []
    node: Any = SimpleNamespace(all_processes={})
    monkeypatch.setattr(gone, "_abandoned", False)
    monkeypatch.setattr(worker, "_global_node", node)
    monkeypatch.setattr(connect, "_begun", lambda folder, arguments: "context")
    monkeypatch.setattr(connect, "_read_environment_again", lambda: None)
    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    monkeypatch.setattr(ray, "shutdown", lambda: calls.append("shut down"))
    monkeypatch.setattr(connect, "without_goodbye", lambda its: setattr(its, "kill_all_processes", lambda: None))

    def search() -> None:
        with connect._ray(tmp_path, address=address):
            if error is not None:
                raise error("the end")

    if error is None:
        search()
    else:
        with pytest.raises(error):
            search()
    assert (calls or ["abandoned"]) == [done]
    assert gone._abandoned == (done == "abandoned")
