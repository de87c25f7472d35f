"""Training rows that are incomplete themselves: what is hidden, from whom, and that nothing else moves."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from mcutune.model.checkpoint import read, read_epochs
from mcutune.model.predictor import load_predictor
from mcutune.training.config import configuration
from mcutune.training.encoder_stage import encoder_key
from mcutune.training.incomplete import incomplete
from mcutune.training.resident import resident
from mcutune.training.result import lane_files
from tests.training.fold import SMALL, fold, order, pack_of, trained


@pytest.mark.parametrize("gaps", [False, True])
@pytest.mark.parametrize("rate", [0.1, 0.4])
def test_training_rows_lose_their_share_and_keep_one(gaps, rate):
    data = fold(gaps=gaps)
    left = incomplete(data, rate)
    training = ~data.validation
    lost = data.presence & ~left.presence
    assert not lost[data.validation].any()
    assert lost.sum() == round(rate * data.presence[training].sum())
    assert (left.presence.any(axis=1) == data.presence.any(axis=1)).all()
    assert not (left.presence & ~data.presence).any()
    for m, name in enumerate(data.modalities):
        assert (left.features[name][~left.presence[:, m]] == 0).all()
        assert (left.features[name][left.presence[:, m]] == data.features[name][left.presence[:, m]]).all()


def test_what_is_hidden_is_nested_and_the_same_again():
    data = fold()
    some, more = incomplete(data, 0.2), incomplete(data, 0.5)
    assert not (more.presence & ~some.presence).any()
    assert (incomplete(data, 0.2).presence == some.presence).all()
    assert incomplete(data, 0.0) is data
    kept = incomplete(data, 0.99).presence[~data.validation]  # more than can be had: one modality a row
    assert (kept.sum(axis=1) == 1).all()
    assert (kept.mean(axis=0) > 0.2).all()


def test_encoders_are_trained_on_what_is_left_and_cached_apart():
    data = fold()
    plain, hidden = configuration(SMALL), configuration({**SMALL, "training_missing": 0.4})
    assert plain.shape() != hidden.shape()
    made = resident(data, hidden, torch.device("cpu"))
    assert (~made.data.presence[made.training]).any()
    assert made.data.presence[made.validation].all()
    assert encoder_key(made, hidden, 7, 0, 0) != encoder_key(resident(data, plain, torch.device("cpu")), plain, 7, 0, 0)


def test_keys_that_came_later_leave_older_searches_the_same():
    assert "training_missing" not in configuration({}).canonical()
    assert configuration({"training_missing": 0.3}).canonical()["training_missing"] == 0.3


def test_every_epoch_is_kept_where_asked_and_the_best_is_among_them(tmp_path):
    data = fold()
    pack = pack_of(data)
    lanes, _ = trained(pack, [order(0, 0, kept="every"), order(1, 0)], epochs=3)
    for lane in lanes:
        place = tmp_path / str(lane.order.lane.trial)
        place.mkdir()
        for name, content in lane_files(lane, pack, pack.encoder_files(0)).items():
            (place / name).write_bytes(content)
    tensors, facts = read(tmp_path / "0")
    epochs = read_epochs(tmp_path / "0", facts)
    assert len(epochs) == 3
    best = epochs[lanes[0].best_epoch - 1]
    assert best and all(torch.equal(best[name], tensors[name]) for name in best)
    assert set(tensors) - set(best) == {name for name in tensors if name.startswith("encoder.")}
    assert not (tmp_path / "1" / "epochs.safetensors").exists()
    model = load_predictor(tmp_path / "0")
    batch = data.features, data.dialogue, data.order, data.group
    every = [one.all_combinations(*batch) for one in model.epochs()]
    assert np.array_equal(every[lanes[0].best_epoch - 1], model.all_combinations(*batch))
    assert not np.array_equal(every[0], every[2])


def test_an_epoch_may_be_chosen_by_what_is_trained():
    only = [0, 1, 0, 0, 0, 0, 0]
    pack = pack_of(fold())
    lanes = [pack.lane(order(0, 0, static=only, chosen_by="static")), pack.lane(order(1, 0, static=only))]
    values = []
    for _ in range(3):
        reports = pack.epoch(lanes)
        assert reports[0].scores == reports[1].scores
        values.append(reports[0].scores[1])
    assert lanes[0].best_value == max(values)
    assert lanes[0].best_epoch == 1 + values.index(max(values))
    assert lanes[1].best_value != max(values)
