"""The report's part on calibration, from stored predictions: who was fitted on what, and what the test rows say."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from mcutune.domain.task import Task
from mcutune.robustness.blocks import Dataset
from mcutune.robustness.calibration import BINS, Fitted, calibrated, fit, measures, reliability
from mcutune.robustness.paired import number
from mcutune.robustness.statistics import Resampling
from mcutune.robustness.stored import Store, predictions_file
from mcutune.robustness.validation import Seeds, read_test, read_validation

Entry = dict[str, Any]

RISK = 0.2  # wrong answers among those given
MOST = 63  # combinations, all of six modalities


@dataclass
class _Parts:
    temperatures: list[Entry] = field(default_factory=list)
    measures: list[Entry] = field(default_factory=list)
    reliability: list[Entry] = field(default_factory=list)


def calibration(
    store: Store, data: Dataset, models: Sequence[tuple[str, Seeds]], labels: Sequence[str], how: Resampling
) -> Entry:
    """Of every model (its name and its seeds) under the combinations `labels`; a reason where it is not measured."""
    parts, reason = _Parts(), _why_not(data, labels)
    for n, (model, seeds) in enumerate(models if reason is None else ()):
        validation = read_validation(store, n, data.name, data.rows.folds, data.names, labels, seeds)
        if validation is None:
            reason = "predictions of the validation rows were not stored"
            break
        fitted = fit(validation, len(data.rows.folds), RISK)
        test = read_test(store, predictions_file(n, data.name), data.rows, labels, seeds)
        found = calibrated(test, fitted)
        at = {"dataset": data.name, "model": model}
        parts.temperatures += [{**at, **one} for one in _temperatures(fitted, data.rows.folds, seeds)]
        parts.measures += [{**at, **one} for one in measures(found, labels, how)]
        parts.reliability += [{**at, **one} for one in reliability(found, labels)]
    return {
        "reason": reason,
        "bins": BINS,
        "risk": RISK,
        "temperatures": parts.temperatures,
        "measures": parts.measures,
        "reliability": parts.reliability,
    }


def _why_not(data: Dataset, labels: Sequence[str]) -> str | None:
    if data.task is not Task.CLASSIFICATION:
        return "a model of values states no confidence"
    if not labels:
        return "no fixed protocol was measured"
    if len(labels) > MOST:
        return f"more than {MOST} combinations"
    return None


def _temperatures(fitted: Fitted, folds: Sequence[str], seeds: Seeds) -> Iterator[Entry]:
    for f, fold in enumerate(folds):
        for s, seed in enumerate(seeds[fold]):
            rows = int(fitted.rows[s, f])
            yield {"fold": fold, "seed": seed, "temperature": number(fitted.temperature[s, f]), "rows": rows}
