"""Lanes stepped together are lanes stepped by an optimizer of their own."""

import pytest
import torch

from mcutune.training.config import configuration
from mcutune.training.optim import LaneOptimizer, Vectors
from tests.training.fold import SMALL

SETTINGS = [
    {"learning_rate": 1e-2, "weight_decay": 0.1},
    {"learning_rate": 1e-2, "weight_decay": 0.1, "optimizer": "adamw"},
    {"learning_rate": 1e-2, "weight_decay": 0.0},
    {"learning_rate": 1e-3, "weight_decay": 0.1},
    {"learning_rate": 1e-2, "weight_decay": 0.1},
    {"learning_rate": 1e-2, "weight_decay": 0.1, "gradient_clip": 0.5},
]


def test_each_lane_moves_as_under_an_optimizer_of_its_own():
    random = torch.Generator().manual_seed(0)
    start = torch.randn(len(SETTINGS), 64, generator=random)
    lanes = [configuration({**SMALL, **one}) for one in SETTINGS]
    optimizer = LaneOptimizer([Vectors.start(row.clone()) for row in start], lanes)
    leaves = [torch.nn.Parameter(row.clone()) for row in start]
    alone = [
        (torch.optim.AdamW if c.optimizer == "adamw" else torch.optim.Adam)(
            [leaf], lr=c.learning_rate, weight_decay=c.weight_decay
        )
        for leaf, c in zip(leaves, lanes, strict=True)
    ]
    for _ in range(5):
        gradient = torch.randn(len(lanes), 64, generator=random)
        optimizer.gradient.copy_(gradient)
        optimizer.step()
        for leaf, c, one, row in zip(leaves, lanes, alone, gradient, strict=True):
            leaf.grad = row.clone()
            if c.gradient_clip is not None:
                torch.nn.utils.clip_grad_norm_([leaf], c.gradient_clip)
            one.step()
    for moved, leaf in zip(optimizer.flat.detach(), leaves, strict=True):
        torch.testing.assert_close(moved, leaf.detach(), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("steps", [0, 3])
def test_moments_go_on_where_they_stopped(steps):
    c = configuration({**SMALL, "learning_rate": 1e-2})
    vectors = Vectors.start(torch.ones(64))
    whole = LaneOptimizer([Vectors.start(torch.ones(64))], [c])
    for step in range(6):
        if step == steps:
            optimizer = LaneOptimizer([vectors], [c])  # as after membership has changed
        elif step == 0:
            optimizer = LaneOptimizer([vectors], [c])
        for one in (optimizer, whole):
            one.gradient.fill_(1.0 + step)
            one.step()
    assert torch.equal(vectors.parameters, whole.flat[0])
    assert vectors.steps == 6
