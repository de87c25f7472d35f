"""A small fold in memory, and packs over it, for the tests of the engine."""

from __future__ import annotations

import numpy as np
import torch

from mcutune.data.views import FoldData
from mcutune.domain.pack import PackStart
from mcutune.domain.task import Task, default_metric
from mcutune.domain.trial import LaneId, LaneOrder
from mcutune.training.config import configuration
from mcutune.training.encoder_stage import encoder_outputs, train_encoder
from mcutune.training.pack import Pack

DIMS = (6, 5, 4)
NAMES = ("a", "t", "v")


def fold(rows=240, *, regression=False, gaps=False, dims=DIMS, seed=0):
    """Rows in dialogues of 6; class means are apart in every modality."""
    random = np.random.default_rng(seed)
    names = (*NAMES, "g")[: len(dims)]
    labels = random.integers(0, 3, rows)
    features = {
        name: (random.normal(size=(rows, d)) + np.eye(3, d)[labels] * 2).astype(np.float32)
        for name, d in zip(names, dims, strict=True)
    }
    presence = np.ones((rows, len(dims)), dtype=bool)
    if gaps:
        presence = random.random((rows, len(dims))) < 0.7
        for m, name in enumerate(names):
            features[name][~presence[:, m]] = 0
    dialogue = np.arange(rows) // 6
    values = (labels - 1 + 0.1 * random.normal(size=rows)).astype(np.float32)
    values[::17] = np.nan
    classes = labels.astype(np.int64)
    classes[::17] = -1
    return FoldData(
        names, features, presence, values if regression else classes, dialogue, np.arange(rows) % 6,
        dialogue % 5, dialogue % 4 == 0, Task.REGRESSION if regression else Task.CLASSIFICATION,
        () if regression else ("x", "y", "z"), "table", "split", "0", "train",
    )  # fmt: skip


SMALL = {
    "encoder_width": 16, "encoder_epochs": 2, "encoder_batch": 32, "batch": 32, "probe_rows": 12, "width": 16,
    "depth": 1, "heads": 2, "learning_rate": 1e-2, "dropout": 0.2, "epochs": 3,
}  # fmt: skip

_encoders: dict = {}


def pack_of(data, overrides=None, max_rank=4, device="cpu", group=None):
    shape = configuration({**SMALL, **(overrides or {})})
    metric = default_metric(data.task).name
    every = tuple(range(2 ** len(data.modalities) - 1))
    start = PackStart(data.fold, shape.shape(), max_rank, 7, metric, every, "mean", data.modalities)
    made = []

    def encoded(seed):
        resident = made[0].resident
        key = (id(data), shape.shape(), seed)
        if key not in _encoders:
            entries = [train_encoder(resident, shape, 7, seed, m) for m in range(len(data.modalities))]
            _encoders[key] = (data, entries)
        return encoder_outputs(_encoders[key][1], torch.device(device))

    pack = Pack.__new__(Pack)
    made.append(pack)
    pack.__init__(data, start, encoded, torch.device(device), group)
    pack.encoder_files = lambda seed: _encoders[(id(data), shape.shape(), seed)][1]
    return pack


def order(trial, seed, **overrides):
    return LaneOrder(LaneId("0", trial, seed), 1, {**SMALL, **overrides}, 3)


def trained(pack, orders, epochs=2):
    """Lanes after some epochs side by side, and their last reports."""
    lanes = [pack.lane(o) for o in orders]
    reports = []
    for _ in range(epochs):
        reports = pack.epoch(lanes)
    return lanes, reports
