"""Models made of several, against twins that go row by row."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mcutune.data.splits import split_of
from mcutune.domain.combination import combination_index, membership
from mcutune.domain.task import Task
from mcutune.errors import Damaged
from mcutune.robustness.batches import Batch, Model, batch_of
from mcutune.robustness.composed import Composed
from tests.robustness.worlds import FakeModel, checkpoint, make_table


def world(tmp_path: Path, *, attends: bool, task: Task = Task.CLASSIFICATION) -> tuple[Batch, dict[str, FakeModel]]:
    table = make_table(tmp_path, rows=120, gaps=0.3, task=task)
    rows = split_of(table, "0").test
    settings = {"noise": 0.4, "attends": attends}
    made = {
        label: FakeModel(checkpoint(table, "0", n + 1, 0, settings)) for n, label in enumerate(table.modalities.labels)
    }
    return batch_of(table, rows, table.labelled[rows]), made


def masks(batch: Batch) -> np.ndarray:
    return batch.presence & (np.random.default_rng(0).random(batch.presence.shape) < 0.6)


@pytest.mark.parametrize("attends", [False, True])
def test_a_specialists_cell_is_the_specialists_own(tmp_path: Path, attends: bool) -> None:
    batch, parts = world(tmp_path, attends=attends)
    model: Model = Composed("specialists", parts)
    every = batch.every(model)
    for c, part in enumerate(parts.values()):
        assert np.array_equal(every[c], batch.every(part)[c])
    under = batch.under(model, masks(batch))
    own = combination_index(masks(batch))
    for row, c in enumerate(own):
        part = list(parts.values())[c]
        assert np.array_equal(under[row], batch.under(part, masks(batch))[row])
    assert model.attends is attends


def fused_twin(batch: Batch, parts: dict[str, FakeModel], presence: np.ndarray, row: int) -> Any:
    """The mean of what the present modalities' models say, one row at a time."""
    said = []
    for m, name in enumerate(("audio", "text", "video")):
        if presence[row, m]:
            only = np.zeros_like(presence)
            only[:, m] = presence[:, m]
            values = batch.under(parts[name], only)[row].astype(float)
            if parts[name].task is Task.CLASSIFICATION:
                values = np.exp(values - values.max())
                values = values / values.sum()
            said.append(values)
    return np.mean(said, axis=0)


@pytest.mark.parametrize("task", list(Task))
@pytest.mark.parametrize("attends", [False, True])
def test_late_fusion_is_the_mean_of_what_is_present(tmp_path: Path, attends: bool, task: Task) -> None:
    batch, parts = world(tmp_path, attends=attends, task=task)
    model: Model = Composed("late_fusion", {name: parts[name] for name in ("audio", "text", "video")})
    presence = masks(batch)
    under = batch.under(model, presence)
    for row in np.flatnonzero(presence.any(axis=1)):
        found = np.exp(under[row]) if task is Task.CLASSIFICATION else under[row]
        assert found == pytest.approx(fused_twin(batch, parts, presence, row), rel=1e-4, abs=1e-5)
    assert np.isfinite(under).all()  # where nothing is left, too
    every = batch.every(model)
    for c, combination in enumerate(membership(3)):
        here = batch.presence & combination
        alone = batch.under(model, here)
        rows = (here == combination).all(axis=1)
        assert every[c][rows] == pytest.approx(alone[rows], rel=1e-4, abs=1e-4)


def test_a_part_that_is_lacking_is_damage(tmp_path: Path) -> None:
    _, parts = world(tmp_path, attends=False)
    with pytest.raises(Damaged, match="no part for video"):
        Composed("late_fusion", {name: parts[name] for name in ("audio", "text")})
