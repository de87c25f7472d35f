"""What a lane keeps between epochs."""

import torch

from tests.training.fold import fold, order, pack_of


def test_the_best_epoch_is_kept_and_ties_go_to_the_earlier():
    lane = pack_of(fold()).lane(order(0, 0))
    for epoch, value in enumerate([0.5, 0.7, 0.7, 0.6], 1):
        lane.epoch = epoch
        lane.vectors.parameters += 1
        if epoch == 2:
            expected = lane.vectors.parameters.clone()
        lane.remember(value, (value,))
    assert lane.best_epoch == 2 and lane.best_scores == (0.7,)
    assert torch.equal(lane.best, expected)
