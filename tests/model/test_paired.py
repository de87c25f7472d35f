"""The hand-written linear with adapters against the plain formula, in float64: values and every gradient."""

import numpy as np
import pytest
import torch

from mcutune.model.paired import Drawn, Paired


def plain(x, dropped, own, weight, bias, a, b, scale, slots):
    """Row by row, all in the order in which rows are given."""
    base = x @ weight + bias
    shared = base + scale * dropped @ a[:, 0] @ b[0]
    private = [row + scale * x_own @ a[:, s] @ b[s] for row, x_own, s in zip(base, own, slots, strict=True)]
    return shared, torch.stack(private) if private else base


@pytest.mark.parametrize("slots", [[3, 1, 3, 4, 1, 1, 3], [2, 2, 2, 2, 2, 2, 2], [1, 2, 3, 4, 3, 2, 1], []])
def test_values_and_gradients(slots):
    slots, (dim, width, pairs, rank) = np.array(slots, dtype=np.int64), (5, 6, 5, 2)
    rows, generator = len(slots), torch.Generator().manual_seed(0)
    shapes = [(rows, dim)] * 3 + [(dim, width), (width,), (dim, pairs, rank), (pairs, rank, width)]
    given = [torch.randn(s, generator=generator, dtype=torch.float64).requires_grad_() for s in shapes]
    x, dropped, own, *held = given
    drawn = Drawn.of(slots)
    shared, private = Paired.apply(x, dropped, own.index_select(0, drawn.order), *held, 0.7, drawn)
    found = shared, private.index_select(0, drawn.back)
    wanted = plain(x, dropped, own, *held, 0.7, slots.tolist())
    weights = [torch.sin(torch.arange(y.numel(), dtype=torch.float64)).view(y.shape) + k for k, y in enumerate(wanted)]
    for one, other in zip(found, wanted, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-12, atol=1e-12)
    gradients = [
        torch.autograd.grad(sum((y * w).sum() for y, w in zip(both, weights, strict=True)), given, allow_unused=True)
        for both in (found, wanted)
    ]
    for one, other in zip(*gradients, strict=True):
        expected = torch.zeros_like(one) if other is None else other
        torch.testing.assert_close(one, expected, rtol=1e-12, atol=1e-12)


def test_each_row_is_read_once_by_its_pair():
    slots = np.array([4, 1, 4, 2, 1])
    drawn = Drawn.of(slots)
    assert [(s, slots[drawn.order[rows].numpy()].tolist()) for s, rows in drawn.runs] == [
        (1, [1, 1]), (2, [2]), (4, [4, 4])
    ]  # fmt: skip
    assert torch.equal(drawn.order[drawn.back], torch.arange(5))
