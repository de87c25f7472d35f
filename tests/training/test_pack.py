"""What a pack measures and what moves it."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch

from mcutune.domain.combination import combinations
from mcutune.domain.trial import LaneEpoch
from mcutune.errors import BadInput
from mcutune.files import sealed
from mcutune.model.predictor import load_predictor
from mcutune.training.config import configuration
from mcutune.training.plan import epoch_plan
from mcutune.training.resident import containment, effective, probe_rows
from mcutune.training.result import lane_files
from tests.training.fold import DIMS, fold, order, pack_of, trained

KINDS = [{}, {"encoder_kind": "dialogue"}, {"encoder": "trained"}]


@pytest.mark.parametrize("shape", KINDS, ids=["frozen", "dialogue", "trained"])
@pytest.mark.parametrize("regression", [False, True])
def test_a_checkpoint_predicts_what_the_pack_measured(tmp_path, shape, regression):
    data = fold(gaps=True, regression=regression)
    pack = pack_of(data, shape)
    lanes, _ = trained(pack, [order(0, 0, rank=2, **shape), order(1, 1, rank=3, **shape)], epochs=3)
    lane = lanes[1]
    files = lane_files(lane, pack, [] if shape.get("encoder") == "trained" else pack.encoder_files(1))
    for name, content in files.items():
        (tmp_path / name).write_bytes(content)
    predictor = load_predictor(tmp_path)
    logits = predictor.all_combinations(data.features, data.dialogue, data.order, data.group, presence=data.presence)
    rows = pack.resident.validation
    left = effective(pack.resident.own[rows], 3)
    for c in range(7):
        kept = left[c] >= 0
        mine = logits[left[c][kept], rows[kept]]
        predicted = mine[:, 0] if regression else mine.argmax(1)
        value = float(pack.metric(predicted, pack.resident.truth[rows][kept], pack.resident.outputs))
        assert value == pytest.approx(lane.best_scores[c], abs=1e-6)


@pytest.mark.parametrize("shape", KINDS, ids=["frozen", "dialogue", "trained"])
def test_the_content_of_absent_modalities_has_no_influence(tmp_path, shape):
    data = fold()
    pack = pack_of(data, shape)
    lanes, _ = trained(pack, [order(0, 0, **shape)])
    files = lane_files(lanes[0], pack, [] if shape.get("encoder") == "trained" else pack.encoder_files(0))
    for name, content in files.items():
        (tmp_path / name).write_bytes(content)
    predictor = load_predictor(tmp_path)
    clean = predictor.all_combinations(data.features, data.dialogue, data.order, data.group)
    for m, name in enumerate(data.modalities):
        scrambled = {**data.features, name: np.random.default_rng(1).normal(size=data.features[name].shape) * 1e3}
        scrambled[name] = scrambled[name].astype(np.float32)
        other = predictor.all_combinations(scrambled, data.dialogue, data.order, data.group)
        for c, combination in enumerate(combinations(3)):
            if m in combination:
                assert not np.array_equal(clean[c], other[c])
            else:
                assert np.array_equal(clean[c], other[c])


@pytest.mark.parametrize("shape", [{}, {"encoder": "trained"}], ids=["frozen", "trained"])
def test_absent_modalities_get_no_gradient(shape):
    """With every row drawn as `a` alone, the parameters that read t and v alone do not move."""
    data = fold()
    pack = pack_of(data, shape)
    static = tuple([1.0] + [0.0] * 6)
    lane = pack.lane(order(0, 0, weight_decay=0.0, static=list(static), **shape))
    before = pack.program_of(lane.configuration.rank).layout.views(lane.vectors.parameters[None].clone())
    pack.epoch([lane])
    after = pack.program_of(lane.configuration.rank).layout.views(lane.vectors.parameters[None])
    for name in before:
        part = name.split(".")
        changed = (before[name] != after[name])[0]
        if name in ("shared.B", "private.B"):  # [M, R, W], [M, J, R, W]: `a` alone, not a+t, a+v, a+t+v
            moved = changed.any(-1).any(-1)
            assert moved.sum() == 1 and moved.flatten()[0], name
            continue
        reads = int(part[1]) if part[0] in ("adapter", "enter", "block") else None
        if reads in (1, 2):
            assert not changed.any(), name
        elif reads == 0 and name.endswith(".B"):
            moved = changed.any(-1).any(-1)
            assert moved[:2].all() and not moved[2:].any(), name


@pytest.mark.parametrize("key", ["beta", "dropout", "adapter_dropout", "weight_decay", "rank", "alpha", "fusion"])
def test_every_setting_moves_the_weights(key):
    other = {
        "beta": 5.0,
        "dropout": 0.7,
        "adapter_dropout": 0.6,
        "weight_decay": 0.5,
        "rank": 2,
        "alpha": 9.0,
        "fusion": "sum",
    }
    lanes, _ = trained(pack_of(fold()), [order(0, 0), order(1, 0, **{key: other[key]})])
    assert not torch.equal(lanes[0].vectors.parameters, lanes[1].vectors.parameters)


@pytest.mark.parametrize("divergence", ["js", "kl_symmetric", "hellinger", "wasserstein", "mmd"])
@pytest.mark.parametrize("shape", [{}, {"encoder": "trained"}], ids=["frozen", "trained"])
def test_dpft_moves_and_is_recorded(shape, divergence):
    pack = pack_of(fold(), {**shape, "divergence": divergence})
    lanes, reports = trained(pack, [order(0, 0, sensitivity=0.3, divergence=divergence, **shape)], epochs=3)
    q = np.array(lanes[0].probabilities)
    assert q.shape == (3, 7) and np.allclose(q.sum(1), 1)
    assert np.allclose(q[0], 1 / 7) and not np.allclose(q[2], 1 / 7)
    assert np.isfinite(lanes[0].divergences).all() and np.min(lanes[0].divergences) >= 0
    assert isinstance(reports[0], LaneEpoch) and reports[0].probabilities == tuple(lanes[0].probabilities[-1])


def test_uniform_sampling_with_sensitivity_zero():
    lanes, _ = trained(pack_of(fold()), [order(0, 0, sensitivity=0.0)], epochs=3)
    assert np.allclose(lanes[0].probabilities, 1 / 7)


def test_rows_are_trained_only_inside_what_they_have():
    data = fold(gaps=True)
    pack = pack_of(data)
    lane = pack.lane(order(0, 0))
    plan = epoch_plan(pack.resident, [lane], 7, pack.shape)
    inside = containment(3)
    rows, drawn = plan.rows[0], plan.drawn[0]
    assert inside[pack.resident.own[rows], drawn].all()
    assert set(rows.tolist()) == set(pack.resident.training.tolist())
    assert not set(rows.tolist()) & set(pack.resident.probe.tolist()) | set(rows.tolist()) & set(
        pack.resident.validation.tolist()
    )


def test_dialogue_draws_are_one_a_dialogue():
    data = fold()
    shape = {"encoder_kind": "dialogue"}
    pack = pack_of(data, shape)
    plan = epoch_plan(pack.resident, [pack.lane(order(0, 0, **shape))], 7, pack.shape)
    for dialogue in np.unique(pack.resident.dialogue_of[plan.rows[0]]):
        assert len(set(plan.drawn[0][pack.resident.dialogue_of[plan.rows[0]] == dialogue].tolist())) == 1


def test_order_and_draws_follow_seed_and_epoch_only():
    pack = pack_of(fold())
    lanes = [pack.lane(order(0, 0)), pack.lane(order(3, 0)), pack.lane(order(0, 1))]
    plan = epoch_plan(pack.resident, lanes, 7, pack.shape)
    assert np.array_equal(plan.rows[0], plan.rows[1]) and np.array_equal(plan.drawn[0], plan.drawn[1])
    assert not np.array_equal(plan.rows[0], plan.rows[2])
    lanes[0].epoch = 1
    assert not np.array_equal(epoch_plan(pack.resident, lanes[:1], 7, pack.shape).rows[0], plan.rows[0])


@pytest.mark.parametrize("dims", [(5,), (5, 4), DIMS, (3, 3, 3, 3)])
def test_any_number_of_modalities(dims):
    data = fold(dims=dims) if len(dims) <= 3 else _four()
    lanes, reports = trained(pack_of(data), [order(0, 0), order(1, 1, rank=2)], epochs=1)
    assert len(reports[0].scores) == 2 ** len(dims) - 1


def _four():
    import dataclasses

    data = fold()
    features = {**data.features, "w": data.features["a"].copy()}
    presence = np.ones((len(data.labels), 4), dtype=bool)
    return dataclasses.replace(data, modalities=("a", "t", "v", "w"), features=features, presence=presence)


def test_bfloat16_trains_near_float32():
    data = fold()
    low, _ = trained(
        pack_of(data, {"precision": "bfloat16"}), [order(0, 0, precision="bfloat16", dropout=0.0)], epochs=3
    )
    full, _ = trained(pack_of(data), [order(0, 0, dropout=0.0)], epochs=3)
    assert abs(np.mean(low[0].best_scores) - np.mean(full[0].best_scores)) < 0.1
    assert not torch.equal(low[0].vectors.parameters, full[0].vectors.parameters)


def test_shape_is_part_of_the_configuration():
    assert configuration({"rank": 2}).shape() == configuration({"rank": 9, "beta": 1.0}).shape()
    assert configuration({"encoder_width": 64}).shape() != configuration({}).shape()


@pytest.mark.parametrize("shape", KINDS, ids=["frozen", "dialogue", "trained"])
def test_combinations_with_probability_zero_leave_rows_out_and_train_the_others(shape):
    static = [0.0] * 6 + [1.0]
    _, reports = trained(pack_of(fold(gaps=True), shape), [order(0, 0, static=static, **shape)])
    assert isinstance(reports[0], LaneEpoch) and np.isfinite(reports[0].loss)


@pytest.mark.parametrize("static", [[1.0, 1.0], [0.0] * 7, [-1.0] + [1.0] * 6])
def test_fixed_probabilities_that_are_none_are_refused(static):
    with pytest.raises(BadInput, match="static"):
        pack_of(fold()).lane(order(0, 0, static=static))


def test_the_probe_takes_at_most_a_tenth_also_of_few_long_dialogues():
    dialogue_of, training = np.repeat([0, 1], 80), np.arange(160)
    for whole in (False, True):
        probe = probe_rows(training, np.zeros(160, dtype=np.int64), dialogue_of, configuration({}), whole)
        assert 0 < len(probe) <= 16
    many = probe_rows(training, np.zeros(160, dtype=np.int64), np.arange(160) // 4, configuration({}), True)
    assert len(many) == 16 and all((many // 4 == d).sum() == 4 for d in np.unique(many // 4))


def test_a_checkpoint_of_an_earlier_version_is_named_as_such(tmp_path):
    data = fold()
    pack = pack_of(data)
    lane = pack.lane(order(0, 0))
    pack.epoch([lane])
    for name, content in lane_files(lane, pack, pack.encoder_files(0)).items():
        if name == "checkpoint.json":
            content = json.dumps(sealed({**json.loads(content), "schema": 1})).encode()
        (tmp_path / name).write_bytes(content)
    with pytest.raises(BadInput, match="schema 1, this version reads schema 2"):
        load_predictor(tmp_path)


def test_a_fold_that_the_probe_would_empty_is_refused():
    data = fold()
    labels = data.labels.copy()
    training = np.flatnonzero(~data.validation & (labels >= 0))
    labels[training[1:]] = -1
    with pytest.raises(BadInput, match="1 labelled training row"):
        pack_of(replace(data, labels=labels))
