"""Masks of the random protocol: the field's definition, exact, nested, the same for every model; fingerprints."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mcutune.domain.combination import Modalities, combination_index
from mcutune.domain.task import Task
from mcutune.errors import CheckFailed
from mcutune.robustness import masks
from mcutune.robustness.fingerprint import bits_of, fingerprint
from mcutune.robustness.kinds import Random
from mcutune.robustness.masks import Masks, UnderTest, _check_rates, draw_masks
from mcutune.robustness.protocol import load_protocol
from mcutune.robustness.scenarios import Pattern, TableFacts, scenarios_of
from tests.reference.masks_twin import published_masks

RANDOM = load_protocol("random")
assert isinstance(RANDOM, Random)


def table(modalities: int) -> TableFacts:
    return TableFacts("toy", {f"m{i}": 2 for i in range(modalities)}, Task.CLASSIFICATION)


def under_test(fold: np.ndarray, labelled: np.ndarray) -> UnderTest:
    return UnderTest(fold, np.arange(len(fold)), np.zeros(len(fold), dtype=np.int64), labelled)


def drawn(rows: int, modalities: int = 3, protocol: Random = RANDOM) -> tuple[Masks, ...]:
    every = np.zeros(rows, dtype=np.int64)
    return draw_masks(protocol, table(modalities), under_test(every, np.ones(rows, dtype=bool)))


def used(rate: float, modalities: int = 3) -> float:
    return min(rate, (modalities - 1) / modalities)


@settings(max_examples=40, deadline=None)
@given(rows=st.integers(1, 60), modalities=st.integers(1, 6), seed=st.integers(0, 2**40))
def test_rates_are_exact_nested_and_leave_something(rows: int, modalities: int, seed: int) -> None:
    made = drawn(rows, modalities, RANDOM.model_copy(update={"seed": seed, "masks": 2}))
    for one, rate in zip(made, RANDOM.rates, strict=True):
        wanted = max(rows, round((1 - used(rate, modalities)) * rows * modalities))
        assert (one.presence.sum(axis=(1, 2)) == wanted).all()
        assert one.presence.any(axis=2).all()
    for low, high in zip(made, made[1:], strict=False):
        assert (high.presence <= low.presence).all()


def test_the_realised_rate_is_within_half_a_percent_and_the_cap_is_kept() -> None:
    for one, rate in zip(drawn(1000), RANDOM.rates, strict=True):
        assert np.abs(1 - one.presence.mean(axis=(1, 2)) - used(rate)).max() < 0.005
    last = scenarios_of(RANDOM, table(3))[-1]
    assert (last.level, last.used, last.capped) == (0.7, 2 / 3, True)
    assert (drawn(1000)[-1].presence.sum(axis=2) == 1).all()


@pytest.mark.parametrize("rate", [0.1, 0.3, 0.5, 0.7])
def test_combinations_are_distributed_as_in_the_published_generator(rate: float) -> None:
    ours = next(one for one in drawn(4000) if one.scenario == f"rate={rate:g}").presence
    random = np.random.default_rng(1)
    theirs = np.stack([published_masks(4000, 3, min(rate, 2 / 3), random) for _ in range(5)])
    shares = [np.bincount(combination_index(one).ravel(), minlength=7) / one[..., 0].size for one in (ours, theirs)]
    assert np.abs(shares[0] - shares[1]).max() < 0.01


def test_a_fold_alone_has_the_masks_that_it_has_among_all() -> None:
    fold, labelled = np.repeat([0, 1, 1], [50, 80, 70]), np.repeat([True, True, False], [50, 80, 70])
    every = draw_masks(RANDOM, table(3), under_test(fold, labelled))
    alone = draw_masks(RANDOM, table(3), under_test(fold[fold == 1], labelled[fold == 1]))
    for one, part in zip(every, alone, strict=True):
        assert (one.presence[:, fold == 1] == part.presence).all()


def test_masks_are_the_same_everywhere_and_differ_by_seed() -> None:
    """Pinned: raw bits of numpy's Philox, which numpy promises to keep."""
    first = drawn(6)[3].presence[0]
    assert bits_of(first).tolist() == PINNED
    assert (drawn(6)[3].presence[0] == first).all()
    other = drawn(300, protocol=RANDOM.model_copy(update={"seed": 1}))[3].presence
    assert (other != drawn(300)[3].presence).any()
    several = drawn(300)[3].presence
    assert (several[0] != several[1]).any()


PINNED = [2, 7, 4, 3, 7, 7]


def test_a_wrong_rate_or_an_empty_row_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    presence = np.stack([one.presence for one in drawn(1000)])
    one = under_test(np.zeros(1000, dtype=np.int64), np.ones(1000, dtype=bool))
    broken = presence.copy()
    broken[3, 0, :30, 0] = False
    with pytest.raises(CheckFailed, match="misses its rate"):
        _check_rates(RANDOM, scenarios_of(RANDOM, table(3)), broken, one)
    broken = presence.copy()
    broken[3, 0, 0] = False
    monkeypatch.setitem(masks._OF_KIND, "random", lambda *_: broken)
    with pytest.raises(CheckFailed, match="with nothing"):
        draw_masks(RANDOM, table(3), one)


def test_bits() -> None:
    assert bits_of(np.array([[[True, False, True]], [[False, True, False]]])).tolist() == [[5], [2]]


def printed(protocol: Random, rows: int = 200, table_hash: str = "a" * 64) -> dict[str, object]:
    made = zip(scenarios_of(protocol, table(3)), drawn(rows, protocol=protocol), strict=True)
    patterns = [Pattern(scenario, one.presence) for scenario, one in made]
    return fingerprint(protocol, "toy", table_hash, Modalities(("a", "t", "v")), patterns)


def test_fingerprints_tell_masks_apart() -> None:
    same = printed(RANDOM)
    assert printed(RANDOM) == same
    others = [
        printed(RANDOM.model_copy(update={"seed": 5})),
        printed(RANDOM.model_copy(update={"masks": 4})),
        printed(RANDOM.model_copy(update={"rates": [0.0, 0.1]})),
        printed(RANDOM.model_copy(update={"version": 2})),
        printed(RANDOM.model_copy(update={"per": "dialogue"})),
        printed(RANDOM, rows=201),
        printed(RANDOM, table_hash="b" * 64),
    ]
    assert len({str(one["hash"]) for one in [same, *others]}) == 8


def test_a_fingerprint_says_what_was_realised() -> None:
    entry = printed(RANDOM)["datasets"][0]  # type: ignore[index]
    for one in entry["scenarios"]:
        assert sum(one["histogram"].values()) == 200 * 5
        missing = sum(n * (3 - len(label.split("+"))) for label, n in one["histogram"].items())
        assert one["realised"] == pytest.approx(missing / 3000, abs=1e-6)
        assert one["capped"] == (one["rate"] == 0.7)
        assert one["realised"] == pytest.approx(np.mean(list(one["missing"].values())), abs=2e-6)
        assert one["nothing"] == 0
