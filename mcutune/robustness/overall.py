"""What all combinations say together: tails, ratios to the complete input, and what each modality contributes.

Everything here is a function of the same group sums as the measurements, so it has intervals over groups too.
Axes: G groups, S replicates, C combinations in canonical order, A components, M modalities, Q quantities.

cvar: mean of the worst quarter of the combinations (as the search's objective cvar(0.25)).
relative: mean over the incomplete combinations / value with everything present; relative_worst: the worst of them /
that value. contribution: a modality's Shapley value, the mean gain that it brings over all orders in which modalities
arrive, from nothing (a constant answer: the most frequent class, or the median) to everything; positive helps, and the
values of all modalities sum to the gain of everything over nothing (Shapley 1953).
evenness: normalised entropy of the positive contributions, 1 where all modalities contribute alike, 0 where one does
all. It answers the question of MissBench's Modality Equity Index (arXiv:2603.09874); its formula is ours.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from mcutune.domain.combination import membership
from mcutune.domain.task import METRICS, Task
from mcutune.robustness.blocks import Block
from mcutune.robustness.evidence import Array
from mcutune.robustness.measure import interval_entry
from mcutune.robustness.paired import mean_over_replicates
from mcutune.robustness.statistics import Interval, Resampling, Statistic, intervals
from mcutune.robustness.sums import unit_sums

Entry = dict[str, Any]

ALPHA = 0.25  # share of the combinations in cvar
MOST_MODALITIES = 10  # modalities: 2^M combinations in M! orders


def has_all(block: Block) -> bool:
    """Whether a block measured every combination of two modalities or more."""
    count = len(block.data.names)
    return block.protocol.kind == "fixed" and 1 < count <= MOST_MODALITIES and len(block.places) == 2**count - 1


def overall(block: Block, metrics: Sequence[str], how: Resampling) -> tuple[list[Entry], list[Entry], list[Entry]]:
    """Summaries, indices and contributions of a block that measured every combination; empty of any other."""
    if not has_all(block):
        return [], [], []
    sums = with_nothing(block)
    rows = block.group_rows.mean(axis=1)
    summaries, indices, contributions = [], [], []
    parts = [part for metric in metrics for part in _statistics(metric, len(block.data.names))]
    found = iter(intervals(sums, rows, parts, how))
    for metric in metrics:
        tail, ratios, shares = next(found), next(found), next(found)
        cvar = {"scenario": "fixed", "name": "cvar", "over": len(block.places), "which": None}
        summaries.append({**_where(block), **cvar, **interval_entry(block, metric, tail, 0)})
        names = ("relative", "relative_worst")
        indices += [_index(block, metric, name, ratios, place) for place, name in enumerate(names)]
        shares.low[-1:], shares.high[-1:] = shares.low[-1:].clip(min=0), shares.high[-1:].clip(max=1)  # evenness
        indices.append(_index(block, metric, "evenness", shares, len(block.data.names)))
        contributions += list(_contributions(block, metric, shares))
    return summaries, indices, contributions


def with_nothing(block: Block) -> Array:
    """Sums [G, S, C + 1, A]: the last cell is a constant answer to every row, the most frequent class or the median."""
    rows, data = block.data.rows, block.data
    if data.task is Task.CLASSIFICATION:
        constant: Any = np.bincount(rows.truth, minlength=data.classes).argmax()
    else:
        constant = np.median(rows.truth.astype(np.float64))
    answer = np.full((1, 1, len(rows)), constant)
    sums = unit_sums(answer, rows.truth, rows.group, len(rows.groups), data.task, data.classes)
    present = np.bincount(rows.group, minlength=len(rows.groups)) > 0
    return np.concatenate([block.sums, np.repeat(sums[present], block.sums.shape[1], axis=1)], axis=2)


def _statistics(metric: str, modalities: int) -> list[Statistic]:
    """Tail [1], ratios [2], and contributions with their evenness [M + 1], from sums with nothing."""
    value = mean_over_replicates(metric)
    sign = METRICS[metric].signed(1.0)
    scale = {"mae": "positive", "pearson": "difference"}.get(metric, "fraction")
    return [
        Statistic(lambda sums: sign * tail_mean(sign * value(sums)[..., :-1], ALPHA)[..., None], scale),
        Statistic(_ratios(value, sign, modalities), "difference" if metric == "pearson" else "positive"),
        Statistic(_shares(value, sign, modalities)),
    ]


def tail_mean(signed: Array, alpha: float) -> Array:
    """Mean of the lowest share `alpha` of values [.., C]; the last of them may count in part."""
    count = signed.shape[-1]
    share = np.clip(alpha * count - np.arange(count), 0.0, 1.0)
    result: Array = np.sort(signed, axis=-1) @ (share / share.sum())
    return result


def _ratios(value: Callable[[Array], Array], sign: float, modalities: int) -> Callable[[Array], Array]:
    complete = int(membership(modalities).all(axis=1).argmax())

    def function(sums: Array) -> Array:
        cells = value(sums)[..., :-1]
        incomplete = np.delete(cells, complete, axis=-1)
        worst = sign * (sign * incomplete).min(axis=-1)
        with np.errstate(divide="ignore", invalid="ignore"):
            ratio: Array = np.stack([incomplete.mean(axis=-1), worst], axis=-1) / cells[..., complete, None]
        return ratio

    return function


def _shares(value: Callable[[Array], Array], sign: float, modalities: int) -> Callable[[Array], Array]:
    weights = shapley_weights(modalities).T

    def function(sums: Array) -> Array:
        shares = sign * value(sums) @ weights
        return np.concatenate([shares, evenness(shares)[..., None]], axis=-1)

    return function


def shapley_weights(modalities: int) -> Array:
    """Weights [M, C + 1] of the values of all combinations, then nothing, in each modality's Shapley value."""
    has = np.vstack([membership(modalities), np.zeros(modalities, dtype=bool)])
    orders = math.factorial(modalities)
    weights = np.zeros((modalities, len(has)))
    for place, present in enumerate(has):
        size = int(present.sum())
        joining = math.factorial(size - 1) * math.factorial(modalities - size) / orders if size else 0.0
        leaving = math.factorial(size) * math.factorial(modalities - size - 1) / orders if size < modalities else 0.0
        weights[:, place] = np.where(present, joining, -leaving)
    return weights


def evenness(shares: Array) -> Array:
    """Normalised entropy of the positive contributions [.., M]: [..], NaN where none is positive."""
    positive = np.clip(shares, 0, None)
    with np.errstate(divide="ignore", invalid="ignore"):
        part = positive / positive.sum(axis=-1, keepdims=True)
        entropy: Array = -np.where(part > 0, part * np.log(np.where(part > 0, part, 1)), 0.0 * part).sum(axis=-1)
    return entropy / np.log(shares.shape[-1])


def _where(block: Block) -> Entry:
    return {"protocol": block.protocol.id, "dataset": block.data.name, "split": block.data.split}


def _index(block: Block, metric: str, name: str, interval: Interval, place: int) -> Entry:
    found = {**_where(block), "name": name, **interval_entry(block, metric, interval, place), "reason": None}
    if found["value"] is None:
        found["reason"] = "no modality contributes" if name == "evenness" else "the value with everything present is 0"
    return found


def not_measured(block: Block, metric: str | None, name: str, reason: str) -> Entry:
    """An index that is named, with the reason why it has no value."""
    nothing = {"value": None, "low": None, "high": None, "interval": "none: not measured"}
    common = {"metric": metric, "model": block.model, "n": int(block.seen.max()), "groups": len(block.sums)}
    return {**_where(block), "name": name, **common, **nothing, "reason": reason}


def _contributions(block: Block, metric: str, interval: Interval) -> Iterator[Entry]:
    for place, modality in enumerate(block.data.names.names):
        yield {**_where(block), "modality": modality, **interval_entry(block, metric, interval, place)}
