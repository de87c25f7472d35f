"""A pack on two workers: each computes half of every step, and the sum is the step of one."""

import socket

import pytest
import torch
from torch import distributed, multiprocessing

from tests.training.fold import fold, order, pack_of, trained

ORDERS = [
    dict(rank=2, dropout=0.0, adapter_dropout=0.0, learning_rate=1e-3),
    dict(rank=4, dropout=0.0, adapter_dropout=0.0, beta=0.5),
]


def _free_port() -> int:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return int(taken.getsockname()[1])


def _worker(rank: int, port: int, shape: dict, results) -> None:
    distributed.init_process_group("gloo", init_method=f"tcp://127.0.0.1:{port}", rank=rank, world_size=2)
    pack = pack_of(fold(), shape, group=distributed.group.WORLD)
    lanes, reports = trained(pack, [order(i, i, **shape, **one) for i, one in enumerate(ORDERS)])
    results[rank] = [(lane.vectors.parameters.numpy().copy(), lane.best_scores, lane.probabilities) for lane in lanes]
    results[rank + 2] = [report.loss for report in reports]
    distributed.destroy_process_group()


@pytest.mark.parametrize("shape", [{}, {"encoder": "trained"}], ids=["frozen", "trained"])
def test_two_workers_train_what_one_trains(shape):
    with multiprocessing.Manager() as manager:
        results = manager.dict()
        multiprocessing.spawn(_worker, (_free_port(), shape, results), nprocs=2)
        first, second, losses = results[0], results[1], results[2]
    alone, reports = trained(pack_of(fold(), shape), [order(i, i, **shape, **one) for i, one in enumerate(ORDERS)])
    for (mine, scores, q), (theirs, other, other_q), lane, loss, report in zip(
        first, second, alone, losses, reports, strict=True
    ):
        assert torch.equal(torch.from_numpy(mine), torch.from_numpy(theirs))  # the two workers hold the same weights
        assert scores == other and q == other_q
        torch.testing.assert_close(torch.from_numpy(mine), lane.vectors.parameters, rtol=1e-2, atol=3e-3)
        assert loss == pytest.approx(report.loss, rel=1e-3)
