"""Effective robustness (Taori et al., NeurIPS 2020, arXiv:2007.00644): better with gaps than the complete value says.

Over the models of one report: a line is fitted by least squares to logit(mean over the incomplete combinations) against
logit(value with everything present), and a model's effective robustness is its mean over the incomplete combinations
less what the line says for its complete value. The line is that of the measured models themselves, the model included,
so three models are the fewest that can deviate, and the values sum to about 0; above 0: loses less than its like.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from scipy import special

from mcutune.domain.combination import membership
from mcutune.domain.task import METRICS
from mcutune.robustness.blocks import Block
from mcutune.robustness.evidence import Array
from mcutune.robustness.overall import has_all, not_measured
from mcutune.robustness.paired import mean_over_replicates, number
from mcutune.robustness.statistics import Resampling, Statistic, intervals

LEAST_MODELS = 3
_LEAST_APART = 1e-3  # logits between the complete values: below, a line through them says nothing
_NOT_FRACTIONS = ("mae", "pearson")


def effective(blocks: Sequence[Block], metrics: Sequence[str], how: Resampling) -> list[dict[str, Any]]:
    """Entries of indices, one a model and metric, from the blocks of one protocol; with a reason where not measured."""
    if not has_all(blocks[0]):
        return []
    found = []
    for metric in metrics:
        reason = _why_not(blocks, metric)
        found += (
            [not_measured(one, metric, "effective", reason) for one in blocks] if reason else _of(blocks, metric, how)
        )
    return found


def no_line(models: int, metric: str) -> str | None:
    """Why there is none of so many models, whatever is measured, if so."""
    if metric in _NOT_FRACTIONS:
        return f"is defined for fractions, not for {METRICS[metric].name}"
    return f"needs {LEAST_MODELS} measured models, {models} here" if models < LEAST_MODELS else None


def _why_not(blocks: Sequence[Block], metric: str) -> str | None:
    if (reason := no_line(len(blocks), metric)) is not None:
        return reason
    complete = [_pair(one.total, metric)[..., 0] for one in blocks]
    if np.ptp(special.logit(np.clip(complete, 1e-6, 1 - 1e-6))) < _LEAST_APART:
        return "the measured models do not differ in their complete values"
    return None


def _of(blocks: Sequence[Block], metric: str, how: Resampling) -> list[dict[str, Any]]:
    """All models at once, so that a resample is the same groups for each."""
    bounds = np.cumsum([0, *(one.sums.shape[1] for one in blocks)])
    spans = [slice(a, b) for a, b in zip(bounds, bounds[1:], strict=False)]

    def function(sums: Array) -> Array:
        return deviation(np.stack([_pair(sums[..., span, :, :], metric) for span in spans], axis=-2))

    stacked = np.concatenate([one.sums for one in blocks], axis=1)
    interval = intervals(stacked, blocks[0].group_rows.mean(axis=1), [Statistic(function)], how)[0]
    return [
        {
            **not_measured(one, metric, "effective", ""),
            "value": number(interval.value[m]),
            "low": number(interval.low[m]),
            "high": number(interval.high[m]),
            "interval": interval.method[m],
            "reason": None,
        }
        for m, one in enumerate(blocks)
    ]


def _pair(sums: Array, metric: str) -> Array:
    """Value with everything present, and mean over the incomplete combinations, [.., 2], from sums [.., S, C, A]."""
    value: Callable[[Array], Array] = mean_over_replicates(metric)
    cells = value(sums)
    complete = int(np.argmax(membership(int(np.log2(cells.shape[-1] + 1))).sum(axis=1)))
    return np.stack([cells[..., complete], np.delete(cells, complete, axis=-1).mean(axis=-1)], axis=-1)


def deviation(pairs: Array) -> Array:
    """Incomplete value less what the fitted line says, [.., models], from (complete, incomplete) [.., models, 2]."""
    x, y = np.moveaxis(special.logit(np.clip(pairs, 1e-6, 1 - 1e-6)), -1, 0)
    apart = x - x.mean(axis=-1, keepdims=True)
    spread = (apart**2).sum(axis=-1, keepdims=True)
    slope = (apart * y).sum(axis=-1, keepdims=True) / np.where(spread > 0, spread, np.nan)
    line = y.mean(axis=-1, keepdims=True) + slope * apart
    result: Array = pairs[..., 1] - special.expit(line)
    return result
