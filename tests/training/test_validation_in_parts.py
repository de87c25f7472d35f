"""The trained form measures some dialogues at a time: each validation row gets what it gets when all go together."""

import torch

from mcutune.training import programs
from tests.training.fold import fold, order, pack_of


def test_logits_do_not_depend_on_the_parts(monkeypatch):
    shape = {"encoder": "trained"}
    pack = pack_of(fold(gaps=True), shape)
    lane = pack.lane(order(0, 0, **shape))
    program, found = pack.program_of(lane.configuration.rank), []
    flat = lane.vectors.parameters + 0.1 * torch.sin(torch.arange(program.layout.size))  # B is zero at the start
    _, lanes = pack.stack_of(lane.configuration.rank)._stacked([lane])
    for size in (1, 4, 1000):
        monkeypatch.setattr(programs, "_DIALOGUES_AT_ONCE", size)
        found.append(program.validation_logits(program.layout.views(flat[None]), lanes, [0]))
    assert found[0].shape[2] == len(pack.resident.validation) > 4
    for one in found[:2]:
        torch.testing.assert_close(one, found[2], rtol=1e-4, atol=1e-5)
