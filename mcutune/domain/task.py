"""What is predicted, and how well: the task of a dataset and the metrics for it, vectorised over predictions.

Every metric is a pure function of predictions [.., N] and truth [N]. Rows without a label must be removed before.
Sources: WA, UA and weighted F1 as in the IEMOCAP literature; ACC2 and F1 over non-zero labels, MAE and Pearson r as
in the CMU-MOSI and CMU-MOSEI literature (GCNet, TPAMI 2023). Checked against scikit-learn in the tests.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from typing import Any

import numpy as np
import numpy.typing as npt

from mcutune.errors import BadInput

Array = npt.NDArray[Any]


class Task(str, Enum):
    CLASSIFICATION = "classification"
    REGRESSION = "regression"


def confusion(predicted: Array, truth: Array, classes: int) -> Array:
    """Counts [.., K, K] (truth, predicted) of integer predictions [.., N] against truth [N]."""
    flat = predicted.reshape(-1, predicted.shape[-1]).astype(np.int64)
    cells = flat + truth.astype(np.int64) * classes + np.arange(len(flat))[:, None] * classes**2
    counts = np.bincount(cells.ravel(), minlength=len(flat) * classes**2)
    return counts.reshape(*predicted.shape[:-1], classes, classes).astype(np.float64)


def accuracy_of(counts: Array) -> Array:
    """WA [..]: plain accuracy from counts [.., K, K]."""
    return np.trace(counts, axis1=-2, axis2=-1) / counts.sum(axis=(-2, -1))


def recall_mean_of(counts: Array) -> Array:
    """UA [..]: mean recall over the classes that occur in the truth, from counts [.., K, K]."""
    support = counts.sum(axis=-1)
    hits = np.diagonal(counts, axis1=-2, axis2=-1)
    recall = np.divide(hits, support, out=np.zeros_like(hits), where=support > 0)
    return recall.sum(axis=-1) / np.maximum((support > 0).sum(axis=-1), 1)


def f1_weighted_of(counts: Array) -> Array:
    """F1 [..] weighted by class support, from counts [.., K, K]."""
    hits = np.diagonal(counts, axis1=-2, axis2=-1)
    support, named = counts.sum(axis=-1), counts.sum(axis=-2)
    total = support + named
    f1 = np.divide(2 * hits, total, out=np.zeros_like(hits), where=total > 0)
    return (f1 * support).sum(axis=-1) / support.sum(axis=-1)


def mae(predicted: Array, truth: Array) -> Array:
    """Mean absolute error [..] of values [.., N]."""
    return np.abs(predicted - truth).mean(axis=-1)


def pearson(predicted: Array, truth: Array) -> Array:
    """Pearson's r [..] of values [.., N]; 0 where either side is constant."""
    x = predicted - predicted.mean(axis=-1, keepdims=True)
    y = truth - truth.mean()
    scale = np.sqrt((x**2).sum(axis=-1) * (y**2).sum())
    return np.divide((x * y).sum(axis=-1), scale, out=np.zeros_like(scale), where=scale > 0)


def _signs(predicted: Array, truth: Array) -> Array:
    kept = truth != 0
    return confusion((predicted[..., kept] > 0).astype(np.int64), (truth[kept] > 0).astype(np.int64), 2)


def acc2(predicted: Array, truth: Array) -> Array:
    """ACC2 [..]: sign agreement over rows with a non-zero label."""
    return accuracy_of(_signs(predicted, truth))


def f1_nonzero(predicted: Array, truth: Array) -> Array:
    """Weighted F1 [..] of the sign over rows with a non-zero label."""
    return f1_weighted_of(_signs(predicted, truth))


@dataclass(frozen=True)
class Metric:
    """A named metric. `from_counts` is set where it is a function of the confusion counts (classification)."""

    name: str
    title: str
    task: Task
    higher_is_better: bool
    from_counts: Callable[[Array], Array] | None = None
    from_values: Callable[[Array, Array], Array] | None = None

    def __call__(self, predicted: Array, truth: Array, classes: int = 0) -> Array:
        """Value [..] for class indices or regression values [.., N] against truth [N]."""
        if self.from_counts is not None:
            return self.from_counts(confusion(predicted, truth, classes))
        assert self.from_values is not None
        return self.from_values(predicted, truth)

    def signed(self, value: float) -> float:
        """The value with the sign that makes higher better."""
        return value if self.higher_is_better else -value


METRICS: dict[str, Metric] = {
    metric.name: metric
    for metric in (
        Metric("wa", "accuracy (WA)", Task.CLASSIFICATION, True, from_counts=accuracy_of),
        Metric("ua", "mean recall (UA)", Task.CLASSIFICATION, True, from_counts=recall_mean_of),
        Metric("f1", "weighted F1", Task.CLASSIFICATION, True, from_counts=f1_weighted_of),
        Metric("acc2", "ACC2, non-zero", Task.REGRESSION, True, from_values=acc2),
        Metric("f1_nonzero", "weighted F1, non-zero", Task.REGRESSION, True, from_values=f1_nonzero),
        Metric("mae", "mean absolute error", Task.REGRESSION, False, from_values=mae),
        Metric("pearson", "Pearson's r", Task.REGRESSION, True, from_values=pearson),
    )
}


def metrics_for(task: Task) -> tuple[Metric, ...]:
    """The metrics of a task, in the order in which they are shown."""
    return tuple(metric for metric in METRICS.values() if metric.task is task)


def metric_named(name: str, task: Task) -> Metric:
    """The metric of that name, or BadInput naming the valid ones of the task."""
    metric = METRICS.get(name)
    if metric is None or metric.task is not task:
        valid = ", ".join(m.name for m in metrics_for(task))
        raise BadInput(f"metric {name!r} does not fit a {task.value} task", hint=f"valid: {valid}")
    return metric


def default_metric(task: Task) -> Metric:
    """ua for classes, mae for values."""
    return METRICS["ua"] if task is Task.CLASSIFICATION else METRICS["mae"]
