"""How likely each combination is at a rate, against the masks of the random protocol."""

from __future__ import annotations

import numpy as np
import pytest

from mcutune.domain.combination import combination_index
from mcutune.domain.missing import shares_at_rate
from mcutune.robustness.kinds import Random
from mcutune.robustness.protocol import load_protocol
from tests.robustness.test_scenarios import drawn


@pytest.mark.parametrize("modalities", [1, 2, 3, 5])
def test_masks_realise_these_shares(modalities: int) -> None:
    protocol = load_protocol("random")
    assert isinstance(protocol, Random)
    for masks, rate in zip(drawn(20_000, modalities, protocol), protocol.rates, strict=True):
        index = combination_index(masks.presence).ravel()
        seen = np.bincount(index, minlength=2**modalities - 1) / len(index)
        shares = shares_at_rate(rate, modalities)
        assert np.abs(seen - shares).max() < 0.005
        assert shares.sum() == pytest.approx(1)


def test_nothing_missing_is_the_complete_combination() -> None:
    assert shares_at_rate(0.0, 3).tolist() == [0, 0, 0, 0, 0, 0, 1]
    assert shares_at_rate(0.9, 3) == pytest.approx([1 / 3] * 3 + [0] * 4)
