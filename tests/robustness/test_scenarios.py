"""Masks of the random protocol: the field's definition, exact, nested, the same for every model; fingerprints."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mcutune.domain.combination import Modalities, combination_index
from mcutune.errors import CheckFailed
from mcutune.robustness.protocol import Random, load_protocol
from mcutune.robustness.scenarios import Masks, Pattern, _check_rate, bits_of, fingerprint, random_masks
from tests.reference.masks_twin import published_masks

RANDOM = load_protocol("random")
assert isinstance(RANDOM, Random)


def drawn(rows: int, modalities: int = 3, protocol: Random = RANDOM) -> tuple[Masks, ...]:
    return random_masks(protocol, modalities, np.zeros(rows, dtype=np.int64))


@settings(max_examples=40, deadline=None)
@given(rows=st.integers(1, 60), modalities=st.integers(1, 6), seed=st.integers(0, 2**40))
def test_rates_are_exact_nested_and_leave_something(rows: int, modalities: int, seed: int) -> None:
    masks = drawn(rows, modalities, RANDOM.model_copy(update={"seed": seed, "masks": 2}))
    for one in masks:
        wanted = max(rows, round((1 - one.used) * rows * modalities))
        assert (one.presence.sum(axis=(1, 2)) == wanted).all()
        assert one.presence.any(axis=2).all()
    for low, high in zip(masks, masks[1:], strict=False):
        assert (high.presence <= low.presence).all()


def test_the_realised_rate_is_within_half_a_percent_and_the_cap_is_kept() -> None:
    for one in drawn(1000):
        assert np.abs(1 - one.presence.mean(axis=(1, 2)) - min(one.rate, 2 / 3)).max() < 0.005
    last = drawn(1000)[-1]
    assert (last.rate, last.used) == (0.7, 2 / 3)
    assert (last.presence.sum(axis=2) == 1).all()


@pytest.mark.parametrize("rate", [0.1, 0.3, 0.5, 0.7])
def test_combinations_are_distributed_as_in_the_published_generator(rate: float) -> None:
    ours = next(one for one in drawn(4000) if one.rate == rate).presence
    random = np.random.default_rng(1)
    theirs = np.stack([published_masks(4000, 3, min(rate, 2 / 3), random) for _ in range(5)])
    shares = [np.bincount(combination_index(one).ravel(), minlength=7) / one[..., 0].size for one in (ours, theirs)]
    assert np.abs(shares[0] - shares[1]).max() < 0.01


def test_a_fold_alone_has_the_masks_that_it_has_among_all() -> None:
    strata = np.repeat([0, 2, 3], [50, 80, 70])
    every = random_masks(RANDOM, 3, strata)
    alone = random_masks(RANDOM, 3, strata[strata == 2])
    for one, part in zip(every, alone, strict=True):
        assert (one.presence[:, strata == 2] == part.presence).all()


def test_masks_are_the_same_everywhere_and_differ_by_seed() -> None:
    """Pinned: raw bits of numpy's Philox, which numpy promises to keep."""
    first = drawn(6)[3].presence[0]
    assert bits_of(first).tolist() == PINNED
    assert (drawn(6)[3].presence[0] == first).all()
    other = drawn(300, protocol=RANDOM.model_copy(update={"seed": 1}))[3].presence
    assert (other != drawn(300)[3].presence).any()
    masks = drawn(300)[3].presence
    assert (masks[0] != masks[1]).any()


PINNED = [2, 7, 4, 3, 7, 7]


def test_a_wrong_rate_or_an_empty_row_is_noticed() -> None:
    one = drawn(1000)[3]
    broken = one.presence.copy()
    broken[0, :30, 0] = False
    with pytest.raises(CheckFailed, match="misses its rate"):
        _check_rate(dataclasses.replace(one, presence=broken), np.zeros(1000, dtype=np.int64))
    empty = one.presence.copy()
    empty[0, 0] = False
    with pytest.raises(CheckFailed, match="with nothing"):
        _check_rate(dataclasses.replace(one, presence=empty), np.zeros(1000, dtype=np.int64))


def test_bits() -> None:
    assert bits_of(np.array([[[True, False, True]], [[False, True, False]]])).tolist() == [[5], [2]]


def printed(protocol: Random, rows: int = 200, table_hash: str = "a" * 64) -> dict[str, object]:
    masks = random_masks(protocol, 3, np.zeros(rows, dtype=np.int64))
    patterns = [Pattern(one.scenario, one.rate, one.rate > 2 / 3, one.presence) for one in masks]
    return fingerprint(protocol, "toy", table_hash, Modalities(("a", "t", "v")), patterns)


def test_fingerprints_tell_masks_apart() -> None:
    same = printed(RANDOM)
    assert printed(RANDOM) == same
    others = [
        printed(RANDOM.model_copy(update={"seed": 5})),
        printed(RANDOM.model_copy(update={"masks": 4})),
        printed(RANDOM.model_copy(update={"rates": [0.0, 0.1]})),
        printed(RANDOM.model_copy(update={"version": 2})),
        printed(RANDOM, rows=201),
        printed(RANDOM, table_hash="b" * 64),
    ]
    assert len({str(one["hash"]) for one in [same, *others]}) == 7


def test_a_fingerprint_says_what_was_realised() -> None:
    entry = printed(RANDOM)["datasets"][0]  # type: ignore[index]
    for one in entry["scenarios"]:
        assert sum(one["histogram"].values()) == 200 * 5
        missing = sum(n * (3 - len(label.split("+"))) for label, n in one["histogram"].items())
        assert one["realised"] == pytest.approx(missing / 3000, abs=1e-6)
        assert one["capped"] == (one["rate"] == 0.7)
