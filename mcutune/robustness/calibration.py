"""How far a model's confidence can be believed, per combination: reliability, temperature, abstention.

What is fitted (one temperature a checkpoint, and a threshold of confidence a checkpoint and combination) is fitted on
the validation rows of its fold, stored in the evidence; what is reported is measured on the test rows.

ece: expected calibration error, Σ share · |accuracy − confidence| over 15 bins of equal mass (Nguyen, O’Connor 2015).
It is above 0 even for a calibrated model, since bins are finite; ece_debiased takes off a part of what chance adds, by
the spread between groups (after Kumar, Liang and Ma 2019, arXiv:1909.10155). Temperature: Guo et al. 2017,
arXiv:1706.04599.
risk: share of wrong answers among those given; coverage: share of rows that get one.

Axes: N rows, S seeds, C combinations, K classes, F folds, G groups, A components.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from scipy import optimize, special, stats

from mcutune.robustness.evidence import Array
from mcutune.robustness.paired import number
from mcutune.robustness.statistics import Interval, Resampling, Statistic, intervals

Entry = dict[str, Any]

BINS = 15
STAGES = ("before", "after")
_REACH = float(np.log(50.0))  # of the logarithm of a temperature
# Components: a stage's gaps by bin, Brier score and negative log-likelihood; then rows, answers, wrong answers.
_STAGE = BINS + 2
_ROWS, _ANSWERED, _WRONG = 2 * _STAGE, 2 * _STAGE + 1, 2 * _STAGE + 2


@dataclass(frozen=True, eq=False)
class Scored:
    """Logits [S, C, N, K] that count where `valid` [S, C, N]; truth, fold and group [N] (codes)."""

    logits: Array
    valid: Array
    truth: Array
    fold: Array
    group: Array


@dataclass(frozen=True, eq=False)
class Fitted:
    """Temperatures [S, F], thresholds of confidence [S, F, C] (infinite: no answer), validation rows used [S, F]."""

    temperature: Array
    threshold: Array
    rows: Array


def fit(validation: Scored, folds: int, risk: float) -> Fitted:
    """Temperatures by likelihood, and the lowest thresholds at which no more than `risk` of the answers are wrong."""
    seeds, cells = validation.logits.shape[:2]
    temperature, rows = np.ones((seeds, folds)), np.zeros((seeds, folds), dtype=np.int64)
    threshold = np.full((seeds, folds, cells), np.inf)
    for s in range(seeds):
        for f in range(folds):
            mine = validation.fold == f
            logits, valid = validation.logits[s][:, mine], validation.valid[s][:, mine]
            truth = np.broadcast_to(validation.truth[mine], valid.shape)
            rows[s, f] = int(valid.any(axis=0).sum())
            if not rows[s, f]:
                continue
            temperature[s, f] = _temperature(logits[valid], truth[valid])
            confident, right = _confidence(logits / temperature[s, f], truth)
            for c in range(cells):
                threshold[s, f, c] = _threshold(confident[c, valid[c]], right[c, valid[c]], risk)
    return Fitted(temperature, threshold, rows)


def _temperature(logits: Array, truth: Array) -> float:
    """The temperature of the highest likelihood, rounded so that the order of sums does not show."""

    def loss(log_temperature: float) -> float:
        scaled = logits * np.exp(-log_temperature)
        named = np.take_along_axis(scaled, truth[:, None].astype(np.int64), axis=1)[:, 0]
        return float((special.logsumexp(scaled, axis=1) - named).mean())

    found = optimize.minimize_scalar(loss, bounds=(-_REACH, _REACH), method="bounded", options={"xatol": 1e-4})
    return round(float(np.exp(found.x)), 4)


def _confidence(logits: Array, truth: Array) -> tuple[Array, Array]:
    """Highest probability, and whether its class is right, [..], from logits [.., K]."""
    highest = logits.max(axis=-1, keepdims=True)
    confident = 1 / np.exp(logits - highest).sum(axis=-1)
    return confident, logits.argmax(axis=-1) == truth


def _threshold(confident: Array, right: Array, risk: float) -> float:
    order = np.argsort(-confident, kind="stable")
    wrong = np.cumsum(~right[order]) / np.arange(1, len(order) + 1)
    last = confident[order]
    whole = np.append(last[1:] < last[:-1], True)  # answers of one confidence are all given, or none
    allowed = np.flatnonzero((wrong <= risk) & whole)
    return float(last[allowed[-1]]) if len(allowed) else float("inf")


@dataclass(frozen=True, eq=False)
class Calibrated:
    """Sums over groups [G, S, C, A], rows a group [G, C], and for each stage the bins' confidence, accuracy and share
    [2, 3, C, bins], mean over seeds."""

    sums: Array
    rows: Array
    bins: Array


def calibrated(test: Scored, fitted: Fitted) -> Calibrated:
    """What the test rows say of the fitted, and of the model as it is."""
    seeds, cells, count, _ = test.logits.shape
    groups = int(test.group.max()) + 1
    sums = np.zeros((groups, seeds, cells, _WRONG + 1))
    bins = np.zeros((2, 3, cells, BINS))
    for s in range(seeds):
        for stage in range(2):
            scale = fitted.temperature[s][test.fold] if stage else np.ones(count)
            logits = test.logits[s].astype(np.float64) / scale[:, None]
            truth = np.broadcast_to(test.truth, logits.shape[:2])
            confident, right = _confidence(logits, truth)
            brier, loss = _proper_scores(logits, truth)
            for c in range(cells):
                kept = np.flatnonzero(test.valid[s, c])
                bin_of = _bins(confident[c, kept])
                gap = right[c, kept] - confident[c, kept]
                start = stage * _STAGE
                places = test.group[kept] * BINS + bin_of
                sums[:, s, c, start : start + BINS] = np.bincount(places, gap, groups * BINS).reshape(groups, BINS)
                for column, values in ((BINS, brier), (BINS + 1, loss)):
                    sums[:, s, c, start + column] = np.bincount(test.group[kept], values[c, kept], groups)
                for place, values in enumerate((confident[c, kept], right[c, kept], np.ones(len(kept)))):
                    bins[stage, place, c] += np.bincount(bin_of, values, BINS) / len(kept) / seeds
                if stage:
                    given = confident[c, kept] >= fitted.threshold[s, test.fold[kept], c]
                    for column, which in ((_ROWS, None), (_ANSWERED, given), (_WRONG, given & ~right[c, kept])):
                        weights = None if which is None else which.astype(np.float64)
                        sums[:, s, c, column] = np.bincount(test.group[kept], weights, groups)
    bins[:, :2] /= np.maximum(bins[:, 2:], 1e-12)
    present = sums[..., _ROWS].sum(axis=(1, 2)) > 0
    return Calibrated(sums[present], sums[present][..., _ROWS].mean(axis=1), bins)


def _proper_scores(logits: Array, truth: Array) -> tuple[Array, Array]:
    """Brier score over classes and negative log-likelihood of every row, [..], from logits [.., K]."""
    log_p = special.log_softmax(logits, axis=-1)
    p = np.exp(log_p)
    named = np.take_along_axis(log_p, truth[..., None].astype(np.int64), axis=-1)[..., 0]
    return (p**2).sum(axis=-1) - 2 * np.exp(named) + 1, -named


def _bins(confident: Array) -> Array:
    """The bin of each row: as many rows in each as can be, in the order of confidence."""
    rank = np.empty(len(confident), dtype=np.int64)
    rank[np.argsort(confident, kind="stable")] = np.arange(len(confident))
    return rank * BINS // max(len(confident), 1)


def _stage_means(first: int, last: int, size: bool = False) -> Callable[[Array], Array]:
    """Of sums [.., S, C, A]: a stage's components summed (their sizes, where `size`) over rows, mean over seeds, for
    both stages side by side, [.., 2·C]."""

    def function(sums: Array) -> Array:
        parts = [sums[..., stage * _STAGE + first : stage * _STAGE + last] for stage in range(2)]
        rows = sums[..., _ROWS]
        found = [((np.abs(part) if size else part).sum(axis=-1) / rows).mean(axis=-2) for part in parts]
        return np.concatenate(found, axis=-1)

    return function


def _coverage(sums: Array) -> Array:
    result: Array = (sums[..., _ANSWERED] / sums[..., _ROWS]).mean(axis=-2)
    return result


def _risk(sums: Array) -> Array:
    with np.errstate(divide="ignore", invalid="ignore"):
        result: Array = sums[..., _WRONG].sum(axis=-2) / sums[..., _ANSWERED].sum(axis=-2)
    return result


MEASURES: dict[str, tuple[Statistic, tuple[str, ...]]] = {
    "ece": (Statistic(_stage_means(0, BINS, size=True), "positive"), STAGES),
    "brier": (Statistic(_stage_means(BINS, BINS + 1), "positive"), STAGES),
    "nll": (Statistic(_stage_means(BINS + 1, BINS + 2), "positive"), STAGES),
    "coverage": (Statistic(_coverage, "fraction"), STAGES[1:]),
    "risk": (Statistic(_risk, "fraction"), STAGES[1:]),
}


def measures(of: Calibrated, labels: Sequence[str], how: Resampling) -> Iterator[Entry]:
    """Entries of every combination, measure and stage."""
    own = np.eye(len(labels))
    statistics = [replace(one, cells=np.tile(own, (len(stages), 1))) for one, stages in MEASURES.values()]
    found = intervals(of.sums, of.rows, statistics, how)
    debiased = debiased_errors(of.sums)
    seen = of.sums[..., _ROWS].sum(axis=0).max(axis=0).astype(np.int64)
    for c, label in enumerate(labels):
        at = {"combination": label, "n": int(seen[c]), "groups": int((of.rows[:, c] > 0).sum())}
        for (name, (_, stages)), interval in zip(MEASURES.items(), found, strict=True):
            for n, stage in enumerate(stages):
                place = n * len(labels) + c
                yield {**at, "measure": name, "stage": stage, **_numbers(interval, place)}
        for n, stage in enumerate(STAGES):
            plain = {"value": number(debiased[n, c]), "low": None, "high": None, "interval": "none: an estimate alone"}
            yield {**at, "measure": "ece_debiased", "stage": stage, **plain}


def _numbers(interval: Interval, place: int) -> Entry:
    return {
        "value": number(interval.value[place]),
        "low": number(interval.low[place]),
        "high": number(interval.high[place]),
        "interval": interval.method[place],
    }


def debiased_errors(sums: Array) -> Array:
    """ECE less what chance adds, [2, C], from sums [G, S, C, A].

    A bin's gap is taken as normal with the variance between groups; |gap| then exceeds the true size by what the mean
    of a folded normal exceeds |gap|, which is taken off.
    """
    groups, rows = len(sums), sums[..., _ROWS].sum(axis=0)
    found = []
    for stage in range(2):
        part = sums[..., stage * _STAGE : stage * _STAGE + BINS]
        gap = part.sum(axis=0) / rows[..., None]
        spread = np.sqrt(groups * part.var(axis=0, ddof=1 if groups > 1 else 0)) / rows[..., None]
        ratio = gap / np.maximum(spread, 1e-300)
        folded = spread * np.sqrt(2 / np.pi) * np.exp(-(ratio**2) / 2) + gap * (1 - 2 * stats.norm.cdf(-ratio))
        plain = np.abs(gap).sum(axis=-1)
        found.append(np.maximum(0.0, 2 * plain - folded.sum(axis=-1)).mean(axis=0))
    return np.stack(found)


def reliability(of: Calibrated, labels: Sequence[str]) -> Iterator[Entry]:
    """The bins of every combination and stage: mean confidence, accuracy, and share of the rows; mean over seeds."""
    for c, label in enumerate(labels):
        for n, stage in enumerate(STAGES):
            filled = np.flatnonzero(of.bins[n, 2, c] > 0)
            columns = {
                key: [number(of.bins[n, place, c, b]) for b in filled]
                for place, key in enumerate(("confidence", "accuracy", "share"))
            }
            yield {"combination": label, "stage": stage, **columns}
