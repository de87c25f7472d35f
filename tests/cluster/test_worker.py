"""A pack's worker: one voice of several ranks, the heartbeat, the memory bound."""

from __future__ import annotations

import subprocess
import sys
import threading
from typing import Any

import pytest

from mcutune.domain.pack import Timing
from mcutune.training import worker
from tests.cluster.fake_search import FakeCoordinator, fake_run_pack


class Sharing:
    """torch.distributed.broadcast_object_list from rank 0, among threads."""

    def __init__(self, ranks: int) -> None:
        self._barrier = threading.Barrier(ranks, timeout=10)
        self._value: Any = None

    def of(self, rank: int) -> Any:
        def share(value: Any) -> Any:
            if rank == 0:
                self._value = value
            self._barrier.wait()
            shared = self._value
            self._barrier.wait()
            return shared

        return share


def test_ranks_speak_with_one_voice() -> None:
    coordinator, sharing = FakeCoordinator(), Sharing(2)

    def rank(number: int) -> None:
        client = worker.GroupClient(coordinator, number, sharing.of(number))  # type: ignore[arg-type]
        fake_run_pack(client, pack="p", capacity=2, node="n", device="cpu", seconds=0)
        assert client.encoder("k", "p") == "train"
        client.put_encoder("k", {})
        client.put_timings({}, (Timing(1, 0.5, 0, 0.1),))
        assert len(client.timings({})) == 1
        client.sized("p", 2, "measured")

    ranks = [threading.Thread(target=rank, args=(number,)) for number in range(2)]
    for thread in ranks:
        thread.start()
    for thread in ranks:
        thread.join(20)
    assert coordinator.done and set(coordinator.finished.values()) == {1}
    assert coordinator.sizes == [("p", 2, "measured")]
    assert coordinator.counted == 8 * 3  # epochs were reported once, not once a rank


def test_the_heartbeat_is_slow_and_silent_among_several(monkeypatch: pytest.MonkeyPatch) -> None:
    sent: list[Any] = []
    monkeypatch.setattr(worker.ray.train, "report", sent.append)
    now = [0.0]
    alone = worker._Heartbeat(alone=True, clock=lambda: now[0])
    among = worker._Heartbeat(alone=False, clock=lambda: now[0])
    for second in range(0, 70, 10):
        now[0] = float(second)
        alone({"t": second})
        among({"t": second})
    assert sent == [{"t": 30}, {"t": 60}]
    assert alone.latest == among.latest == {"t": 60}


def test_an_allocation_beyond_the_bound_fails_in_the_process() -> None:
    code = (
        "from mcutune.training.device import bound_memory\nimport numpy\n"
        "bound_memory(200_000_000)\nnumpy.ones(10_000_000)\n"
        "try:\n    numpy.ones(50_000_000)\nexcept MemoryError:\n    print('refused')"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "refused\n"), done.stderr
