"""The evaluator suspects itself: what must hold before a number is believed. Findings are stored in the report."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from mcutune.data.splits import Split
from mcutune.data.table import Table
from mcutune.domain.combination import membership
from mcutune.robustness.batches import Batch, Model, own_combinations

Array = npt.NDArray[Any]

_SAMPLE = 256  # rows of a fold that are predicted again and again
_TOLERANCE = 1e-5  # of logits, relative to the largest; a leak is far larger, rounding far smaller


@dataclass(frozen=True)
class Check:
    """A finding of the evaluator about itself."""

    name: str
    passed: bool
    detail: str

    def to_json(self) -> dict[str, Any]:
        return {"name": self.name, "passed": self.passed, "detail": self.detail}


@dataclass(frozen=True)
class Probe:
    """What one model did on a sample of its fold: largest relative change of a logit.

    `influence`: when the content of absent modalities is scrambled. `repeat`: when the same input is given twice.
    `apart`: between all combinations in one pass and each row under its own presence.
    """

    where: str
    rows: int
    influence: float
    repeat: float
    apart: float


def probe(model: Model, batch: Batch, where: str) -> Probe:
    """Predict a sample of the rows several times over, with content changed that must not matter."""
    sample = batch.take(_sample(batch, model.attends))
    random = np.random.default_rng(0)
    every = sample.every(model)
    scale = max(1.0, float(np.abs(every).max()))
    count = len(model.modalities)
    influence = max(_influence_of(model, sample, every, m, random) for m in range(count))
    presence = random.random(sample.presence.shape) < 0.5
    kept = np.flatnonzero((presence & sample.presence).any(axis=1))
    own = sample.under(model, presence)
    hidden = _scrambled(sample, ~presence, random)
    influence = max(influence, _change(own[kept], hidden.under(model, presence)[kept]))
    apart = _apart(model, sample, every)
    return Probe(where, len(sample), influence / scale, _change(every, sample.every(model)) / scale, apart / scale)


def _sample(batch: Batch, attends: bool) -> Array:
    """Row numbers: some rows, or whole dialogues where rows depend on each other."""
    random = np.random.default_rng(0)
    if not attends:
        return np.sort(random.permutation(len(batch))[:_SAMPLE])
    dialogues, sizes = np.unique(batch.dialogue, return_counts=True)
    order = random.permutation(len(dialogues))
    enough = int(np.searchsorted(np.cumsum(sizes[order]), _SAMPLE)) + 1
    return np.flatnonzero(np.isin(batch.dialogue, dialogues[order[:enough]]))


def _influence_of(model: Model, sample: Batch, every: Array, modality: int, random: np.random.Generator) -> float:
    """Largest change in combinations without a modality when its content is scrambled, wherever a row has it."""
    without = ~membership(len(model.modalities))[:, modality]
    if not without.any():
        return 0.0
    where = np.zeros_like(sample.presence)
    where[:, modality] = True
    scrambled = _scrambled(sample, where, random).every(model)
    asked = membership(len(model.modalities))[without]
    before, valid = own_combinations(every, sample.presence, asked)
    after, _ = own_combinations(scrambled, sample.presence, asked)
    return _change(before[valid], after[valid])


def _scrambled(sample: Batch, where: Array, random: np.random.Generator) -> Batch:
    """The batch with other content where `where` [N, M] is set: noise as large as the features."""
    features = {}
    for m, (name, values) in enumerate(sample.features.items()):
        noise = random.standard_normal(values.shape) * (3 * values.std() + 1) + values.mean()
        features[name] = np.where(where[:, m, None], noise, values).astype(np.float32)
    plain = (sample.presence, sample.dialogue, sample.order, sample.group, sample.measured)
    return Batch(sample.ids, features, *plain)


def _apart(model: Model, sample: Batch, every: Array) -> float:
    """Largest difference between one pass over all combinations and a combination by itself: complete, and singles."""
    modalities = sample.presence.shape[1]
    largest = 0.0
    for asked in (np.ones(modalities, dtype=bool), *np.eye(modalities, dtype=bool)):
        before, valid = own_combinations(every, sample.presence, asked[None])
        after = sample.under(model, np.broadcast_to(asked, sample.presence.shape))
        largest = max(largest, _change(before[0][valid[0]], after[valid[0]]))
    return largest


def _change(before: Array, after: Array) -> float:
    """Largest absolute difference; infinite where either side is not finite."""
    if not before.size:
        return 0.0
    gap = np.abs(before.astype(np.float64) - after).max()
    return float(gap) if np.isfinite(gap) else float("inf")


def probe_checks(probes: Sequence[Probe]) -> list[Check]:
    """The findings of all probes."""
    rows = sum(one.rows for one in probes)
    titles = (
        ("absent modalities have no influence", "influence", "their content scrambled"),
        ("same input, same output", "repeat", "predicted twice"),
        ("one pass equals one by one", "apart", "singles and complete input each by itself"),
    )
    checks = []
    for name, key, what in titles:
        worst = max(probes, key=lambda one: getattr(one, key))
        value = getattr(worst, key)
        detail = f"{rows:,} rows, {what}: largest relative change {value:.1e}" + (f", {worst.where}" if value else "")
        checks.append(Check(name, value <= (0.0 if key == "repeat" else _TOLERANCE), detail))
    return checks


def split_check(table: Table, splits: Iterable[Split]) -> Check:
    """No row and no dialogue is in two parts of a fold; no row is tested in two folds."""
    problems, tested, folds = [], np.zeros(len(table), dtype=np.int64), 0
    for split in splits:
        folds += 1
        tested[split.test] += 1
        parts = {"training": split.train, "validation": split.validation, "test": split.test}
        for what, values in (("rows", np.arange(len(table))), ("dialogues", table.dialogue)):
            several = np.zeros(int(values.max()) + 1, dtype=np.int64)
            for rows in parts.values():
                several[np.unique(values[rows])] += 1
            if (several > 1).any():
                problems.append(f"fold {split.fold}: {(several > 1).sum():,} {what} in two parts")
    if (tested > 1).any():
        problems.append(f"{(tested > 1).sum():,} rows are tested in two folds")
    sound = f"{folds} {'fold' if folds == 1 else 'folds'}: no row or dialogue in two parts, no row tested twice"
    return Check("no row in two parts", not problems, "; ".join(problems) or sound)


def shared_groups(table: Table, splits: Iterable[Split]) -> int:
    """Groups that are in training and test of the same fold: allowed, but a warning."""
    return max(len(np.intersect1d(table.group[s.train], table.group[s.test])) for s in splits)
