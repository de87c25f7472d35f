"""A local Ray that starts and ends sooner. All of it is private to Ray 2.60."""

from __future__ import annotations

import contextlib
import subprocess
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from typing import Any


@contextlib.contextmanager
def quick_start() -> Iterator[None]:
    """While open, a node of Ray starts its dashboard beside all else, no log monitor and no autoscaler's monitor.

    Ray would wait for the first before it starts its raylet. The second brings workers' lines to a driver; nobody here
    reads them: they are in files, where the dashboard finds them. The third would start nodes; there is this one.
    """
    from ray._private.node import Node

    node: Any = Node
    names = ("start_api_server", "start_ray_processes", "start_log_monitor", "start_monitor")
    before = {name: getattr(node, name) for name in names}
    beside = _Beside(before["start_api_server"])

    def rest(self: Any) -> None:
        before["start_ray_processes"](self)
        beside.wait()

    node.start_api_server, node.start_ray_processes = lambda self, **given: beside.start(self, given), rest
    node.start_log_monitor = node.start_monitor = lambda self: None
    try:
        yield
    finally:
        for name, method in before.items():
            setattr(node, name, method)
        beside.over.set()


class _Beside:
    """Something that is done in a thread, which stays: the kernel ends the processes that a thread started with it."""

    def __init__(self, work: Callable[..., None]) -> None:
        self._work = work
        self._latest: Future[None] = Future()
        self.over = threading.Event()

    def start(self, node: Any, given: dict[str, Any]) -> None:
        """Begin it, also anew: what an earlier thread has to say still is not heard any more."""
        self._latest = Future()
        threading.Thread(
            target=self._run, args=(node, given, self._latest), name="mcutune-dashboard", daemon=True
        ).start()

    def wait(self) -> None:
        """Until it is done. Raises what it raised."""
        self._latest.result()

    def _run(self, node: Any, given: dict[str, Any], done: Future[None]) -> None:
        try:
            self._work(node, **given)
        except BaseException as error:  # the thread that waits raises it
            done.set_exception(error)
        else:
            done.set_result(None)
        self.over.wait()


def without_goodbye(node: Any) -> None:
    """Have Ray kill the processes of a node of its own at once. It would ask one after another, a second each.

    They hold nothing that outlives a search; their workers are the warden's.
    """

    def kill(**_: Any) -> None:
        processes = [one.process for several in node.all_processes.values() for one in several]
        for process in processes:
            process.kill()
        for process in processes:
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(5.0)

    node.kill_all_processes = kill
