"""Masks and noise against their slow twins, and what each definition promises."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mcutune.domain.task import Task
from mcutune.robustness import masks
from mcutune.robustness.fingerprint import Classes, fingerprint
from mcutune.robustness.kinds import KINDS, Gaps, Imbalanced, LabelDependent, Noise, Random, RandomBatch
from mcutune.robustness.masks import UnderTest, apportioned, at_rates, classes_of, draw_masks, rates_by_strength, words
from mcutune.robustness.noise import NoiseSource, normal
from mcutune.robustness.protocol import load_protocol
from mcutune.robustness.scenarios import Pattern, TableFacts, curves_of, scenarios_of
from tests.reference import draws_twin

NAMES = ("audio", "text", "video")
CLASSES = ("a", "b", "c")


def table(modalities: int = 3) -> TableFacts:
    names = NAMES if modalities == 3 else tuple(f"m{i}" for i in range(modalities))
    return TableFacts("toy", dict.fromkeys(names, 2), Task.CLASSIFICATION, CLASSES)


def rows_of(seed: int = 0, dialogues: int = 30, folds: int = 2) -> UnderTest:
    """Dialogues of 1 to 12 rows, in the order of no dialogue; a tenth of the rows without a label."""
    random = np.random.default_rng(seed)
    dialogue = np.repeat(np.arange(dialogues), random.integers(1, 13, dialogues))
    order = np.concatenate([random.permutation(int(n)) for n in np.bincount(dialogue)])
    shuffled = random.permutation(len(dialogue))
    labelled = random.random(len(dialogue)) > 0.1
    truth = np.where(labelled, random.choice(3, len(dialogue), p=[0.5, 0.3, 0.2]), -1)
    return UnderTest(
        (dialogue % folds)[shuffled], dialogue[shuffled], order[shuffled], labelled, truth
    )  # fmt: skip


def shipped(name: str, **changes: Any) -> Any:
    return load_protocol(name).model_copy(update=changes)


def drawn(protocol: Any, tested: UnderTest, modalities: int = 3) -> np.ndarray:
    """[R, masks, n, M]."""
    return np.stack([one.presence for one in draw_masks(protocol, table(modalities), tested)])


def as_sets(mask: np.ndarray) -> list[set[int]]:
    return [set(np.flatnonzero(row).tolist()) for row in mask]


def fold_of(tested: UnderTest, fold: int) -> np.ndarray:
    return np.flatnonzero(tested.fold == fold)


@pytest.mark.parametrize("modalities", [1, 2, 3, 6])
def test_masks_a_dialogue_are_those_of_the_twin(modalities: int) -> None:
    protocol, tested = shipped("random_dialogue", masks=2), rows_of(1)
    made = drawn(protocol, tested, modalities)
    for fold in (0, 1):
        rows = fold_of(tested, fold)
        dialogue = [f"d{d:03d}" for d in tested.dialogue[rows]]
        for r, rate in enumerate(protocol.rates):
            expected = draws_twin.random_dialogues(
                dialogue, tested.labelled[rows].tolist(), modalities, min(rate, (modalities - 1) / modalities),
                protocol.seed, 1, fold,
            )  # fmt: skip
            assert as_sets(made[r, 1, rows]) == expected


def test_masks_a_dialogue_are_whole_nested_and_as_near_as_may_be() -> None:
    protocol, tested = shipped("random_dialogue"), rows_of(2, dialogues=200)
    made = drawn(protocol, tested)
    for d in np.unique(tested.dialogue):
        mine = made[:, :, tested.dialogue == d]
        assert (mine == mine[:, :, :1]).all()
    assert (made[1:] <= made[:-1]).all()
    assert made.any(axis=3).all()
    largest = np.bincount(tested.dialogue, tested.labelled).max()
    for fold in (0, 1):
        kept = (tested.fold == fold) & tested.labelled
        realised = 1 - made[:, :, kept].mean(axis=(2, 3))
        wanted = np.minimum(protocol.rates, 2 / 3)[:, None]
        assert np.abs(realised - wanted).max() <= (largest / 2 + 1) / (3 * kept.sum())


def test_batches_are_those_of_the_twin() -> None:
    protocol, tested = shipped("random_batch", masks=2, batch=7), rows_of(3)
    made = drawn(protocol, tested)
    for fold in (0, 1):
        for unlabelled in (0, 1):
            rows = np.flatnonzero((tested.fold == fold) & (tested.labelled == (not unlabelled)))
            for r, step in enumerate(protocol.schedule):
                expected = draws_twin.batches(
                    len(rows), 3, 7, step.one, step.two, protocol.seed, 1, 2 * fold + unlabelled
                )
                assert as_sets(made[r, 1, rows]) == expected


def test_the_schedule_has_its_shares_and_is_nested() -> None:
    protocol, rows = shipped("random_batch"), 16_000
    every = np.zeros(rows, dtype=np.int64)
    made = drawn(protocol, UnderTest(every, np.arange(rows), every, np.ones(rows, dtype=bool)))
    for r, step in enumerate(protocol.schedule):
        left = made[r].sum(axis=2)
        assert ((left == 1).mean(axis=1) == step.two).all()
        assert ((left == 2).mean(axis=1) == step.one).all()
    assert (made[1:] <= made[:-1]).all()
    lost_alone = made[3][made[3].sum(axis=2) == 2]
    assert np.abs((~lost_alone).mean(axis=0) - 1 / 3).max() < 0.04


@settings(max_examples=60, deadline=None)
@given(data=st.data(), rows=st.integers(1, 80), modalities=st.integers(1, 6), seed=st.integers(0, 2**40))
def test_rates_of_each_modality_are_met_and_no_row_is_empty(
    data: st.DataObject, rows: int, modalities: int, seed: int
) -> None:
    rates = np.array(data.draw(st.lists(st.floats(0, 1), min_size=modalities, max_size=modalities)))
    rates *= min(1.0, (modalities - 1) / max(rates.sum(), 1e-9))
    made = at_rates(words(seed, count=rows * (modalities + 1)), rates)
    assert made.any(axis=1).all()
    assert np.abs((~made).sum(axis=0) - rates * rows).max() <= 0.5 + modalities  # rounding, and what rounding undid
    assert as_sets(made) == draws_twin.at_rates(rows, rates.tolist(), (seed,))


def test_imbalanced_rates_are_those_asked_for_in_every_fold() -> None:
    protocol, tested = shipped("imbalanced"), rows_of(4, dialogues=100)
    made = drawn(protocol, tested)
    assert made.any(axis=3).all()
    for fold in (0, 1):
        kept = (tested.fold == fold) & tested.labelled
        for r, setting in enumerate(protocol.settings):
            lost = (~made[r][:, kept]).sum(axis=1)
            assert (lost == [round(setting[name] * int(kept.sum())) for name in NAMES]).all()
    scenarios = [one.name for one in scenarios_of(protocol, table())]
    assert scenarios[0] == "audio=0.3 text=0.5 video=0.7"


def test_whole_numbers_are_shared_out() -> None:
    assert apportioned(np.array([1, 1, 1]), 10).tolist() == [4, 3, 3]
    assert apportioned(np.array([5, 0, 3]), 8).tolist() == [5, 0, 3]
    assert apportioned(np.array([7, 5, 3]), 10).sum() == 10


def test_gaps_are_those_of_the_twin() -> None:
    protocol, tested = shipped("gaps"), rows_of(5)
    scenarios, made = scenarios_of(protocol, table()), drawn(protocol, tested)
    for fold in (0, 1):
        rows = fold_of(tested, fold)
        dialogue = [f"d{d:03d}" for d in tested.dialogue[rows]]
        for scenario, mask in zip(scenarios, made[:, 2, rows], strict=True):
            share = float(scenario.level or 0)
            inside = draws_twin.block(dialogue, tested.order[rows].tolist(), share, protocol.seed, 2, fold)
            lost = set(scenario.touched or ())
            expected = [set(range(3)) - lost if hit else set(range(3)) for hit in inside]
            assert as_sets(mask) == expected


def test_gaps_are_nested_leave_the_ends_and_start_anywhere() -> None:
    protocol = shipped("gaps", shares=[0.25, 0.5, 1.0], modalities=["all"], masks=40)
    dialogue = np.repeat(np.arange(50), 10)
    order = np.tile(np.arange(10), 50)
    made = drawn(protocol, UnderTest(np.zeros(500, dtype=np.int64), dialogue, order, np.ones(500, dtype=bool)))
    assert (made[1:] <= made[:-1]).all()
    assert made[:, :, (order == 0) | (order == 9)].all()
    lost = ~made[..., 0].reshape(3, 40, 50, 10)
    assert (lost.sum(axis=3) == np.array([2, 4, 8])[:, None, None]).all()
    first = lost[0].argmax(axis=2)
    assert sorted(np.unique(first)) == list(range(1, 8))
    assert np.abs(np.bincount(first.ravel(), minlength=8)[1:] / first.size - 1 / 7).max() < 0.03


@settings(max_examples=60, deadline=None)
@given(
    counts=st.lists(st.integers(1, 500), min_size=1, max_size=8), overall=st.floats(0, 1),
    strength=st.floats(0.1, 10), modalities=st.integers(2, 6),
)  # fmt: skip
def test_rates_by_strength_make_the_overall_rate(
    counts: list[int], overall: float, strength: float, modalities: int
) -> None:
    most = (modalities - 1) / modalities
    overall *= most
    made = rates_by_strength(np.array(counts), overall, strength, most)
    assert made @ counts == pytest.approx(overall * sum(counts), abs=1e-6 * sum(counts))
    assert made.max() <= most
    assert made == pytest.approx(draws_twin.class_rates(counts, overall, strength, modalities), abs=1e-6)


def test_missing_that_depends_on_the_label_does_so() -> None:
    protocol, tested = shipped("label_dependent"), rows_of(6, dialogues=400)
    made, scenarios = drawn(protocol, tested), scenarios_of(protocol, table())
    assert made.any(axis=3).all()
    assert tested.truth is not None
    for scenario, mask in zip(scenarios, made, strict=True):
        overall, strength = (float(part.split("=")[1]) for part in scenario.name.split(", "))
        kept = tested.labelled
        assert 1 - mask[:, kept].mean() == pytest.approx(overall, abs=0.01)
        rates = [1 - mask[:, tested.truth == k].mean() for k in range(3)]
        expected = draws_twin.class_rates(np.bincount(tested.truth[kept]).tolist(), overall, strength, 3)
        assert rates == pytest.approx(expected, abs=0.01)
        if strength == 1:
            assert np.ptp(rates) < 0.01
    for fold in (0, 1):
        for k in range(3):
            mine = np.flatnonzero((tested.fold == fold) & (tested.truth == k))
            counts = np.bincount(tested.truth[(tested.fold == fold) & tested.labelled], minlength=3)
            rate = float(rates_by_strength(counts, 0.4, 4, 2 / 3)[k])
            expected_sets = draws_twin.at_rates(len(mine), [rate] * 3, (protocol.seed, 3, 2 * fold, k + 1))
            assert as_sets(made[-1, 3, mine]) == expected_sets


def test_a_table_of_classes_is_followed_and_values_are_cut_at_quantiles() -> None:
    of = {"night": {"b": {"video": 0.8}, "c": {"video": 0.5, "audio": 1.0}}}
    protocol, tested = shipped("label_dependent", overall=[], strengths=[], settings=of), rows_of(7, dialogues=300)
    assert tested.truth is not None
    made = drawn(protocol, tested)[0]
    assert made[:, tested.truth == 0].all()
    missing = 1 - made[:, tested.truth == 2].mean(axis=(0, 1))
    assert missing.tolist() == pytest.approx([1.0, 0.0, 0.5], abs=0.02)
    values = np.random.default_rng(0).standard_normal(1000).astype(np.float32)
    codes = classes_of(shipped("label_dependent"), values)
    assert np.bincount(codes).tolist() == [250] * 4
    assert [values[codes == k].max() < values[codes == k + 1].min() for k in range(3)] == [True] * 3


def test_the_fingerprint_says_what_depends_on_the_label() -> None:
    protocol, tested = shipped("label_dependent"), rows_of(6, dialogues=300)
    assert tested.truth is not None
    kept = tested.labelled
    made = [one[:, kept] for one in drawn(protocol, tested)]
    patterns = [Pattern(*pair) for pair in zip(scenarios_of(protocol, table()), made, strict=True)]
    classes = Classes(CLASSES, tested.truth[kept])
    shown = fingerprint(protocol, "toy", "a" * 64, table().modalities, patterns, classes)["datasets"][0]["scenarios"]
    for one in shown:
        rates = list(one["classes"].values())
        assert list(one["classes"]) == list(CLASSES)
        assert one["information"] < 0.002 if one["scenario"].endswith("=1") else rates == sorted(rates)
    by_strength = [one["information"] for one in shown[3:]]
    assert by_strength == sorted(by_strength)
    from sklearn.metrics import mutual_info_score

    from mcutune.domain.combination import combination_index

    index = combination_index(made[-1])
    expected = mutual_info_score(np.broadcast_to(classes.of_row, index.shape).ravel(), index.ravel())
    assert by_strength[-1] == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("name", ["random_dialogue", "random_batch", "imbalanced", "gaps", "label_dependent"])
def test_a_fold_alone_has_the_masks_that_it_has_among_all(name: str) -> None:
    protocol, tested = shipped(name), rows_of(8)
    rows = fold_of(tested, 1)
    assert tested.truth is not None
    alone = UnderTest(
        *(part[rows] for part in (tested.fold, tested.dialogue, tested.order, tested.labelled)), tested.truth[rows]
    )
    assert (drawn(protocol, tested)[:, :, rows] == drawn(protocol, alone)).all()
    again = drawn(protocol.model_copy(update={"seed": 5}), tested)
    assert (again != drawn(protocol, tested)).any()


def noise_of(protocol: Noise, modalities: int = 3) -> NoiseSource:
    facts = table(modalities)
    return NoiseSource(protocol, scenarios_of(protocol, facts), tuple(facts.dims.items()))


def test_noise_is_normal_the_same_everywhere_and_grows_with_sigma() -> None:
    source = noise_of(shipped("noise"))
    scenarios = {one.name: one for one in source.scenarios}
    one = source.of(scenarios["sigma=1, text"], 0, 3, 5000)
    assert set(one) == {"text"}
    assert one["text"].dtype == np.float32
    assert one["text"].mean() == pytest.approx(0, abs=0.03)
    assert one["text"].std() == pytest.approx(1, abs=0.02)
    every = source.of(scenarios["sigma=2, all"], 0, 3, 5000)
    assert set(every) == set(NAMES)
    assert (every["text"] == 2 * one["text"]).all()
    assert (every["text"] != every["audio"]).any()
    assert source.of(scenarios["sigma=0"], 0, 3, 5000) == {}
    for other in (source.of(scenarios["sigma=1, text"], 1, 3, 5000), source.of(scenarios["sigma=1, text"], 0, 2, 5000)):
        assert (other["text"] != one["text"]).mean() > 0.99
    expected = draws_twin.normal((source.protocol.seed, 0, 6, 1), 10000)
    assert one["text"].ravel() == pytest.approx(expected, abs=1e-5)
    assert np.isfinite(normal(np.array([0, 2**64 - 1], dtype=np.uint64))).all()


def test_noise_has_a_hash_a_draw() -> None:
    source = noise_of(shipped("noise"))
    first = source.digests({0: 40, 1: 30})
    assert len(set(first)) == 3
    assert source.digests({1: 30, 0: 40}) == first
    assert source.digests({0: 40, 1: 31}) != first
    assert noise_of(shipped("noise", seed=1)).digests({0: 40, 1: 30}) != first


def test_curves_are_one_a_series_and_their_area_is_the_trapezoid() -> None:
    protocol, tested = shipped("gaps"), rows_of(9)
    patterns = [Pattern(*pair) for pair in zip(scenarios_of(protocol, table()), drawn(protocol, tested), strict=True)]
    curves = curves_of(protocol, patterns)
    assert [one.series for one in curves] == [*NAMES, "all"]
    assert all(one.asked == (0.0, 0.2, 0.4, 0.6, 0.8, 1.0) for one in curves)
    assert len({one.realised for one in curves}) == 1  # the same rows lose one modality, or all
    assert curves[1].cells == (0, 6, 7, 8, 9, 10)
    values = np.random.default_rng(0).random(len(patterns))
    mine = values[list(curves[1].cells)]
    expected = np.trapezoid(mine, curves[1].realised) / np.ptp(curves[1].realised)
    assert curves[1].weights(len(values)) @ values == pytest.approx(expected)
    assert curves_of(shipped("imbalanced"), patterns) == ()


def test_every_kind_that_takes_modalities_away_has_its_draw() -> None:
    masked = (Random, RandomBatch, Imbalanced, Gaps, LabelDependent)
    assert {name for name, kind in KINDS.items() if issubclass(kind, masked)} == set(masks._OF_KIND)
