"""From blocks of sums to the numbers of a report: measurements, summaries, comparisons, curves, matrices."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from mcutune.domain.task import METRICS
from mcutune.robustness.blocks import Block
from mcutune.robustness.equivalence import answers
from mcutune.robustness.evidence import Array
from mcutune.robustness.kinds import CrossDataset, Fixed
from mcutune.robustness.paired import compare_sums, mean_over_replicates, number
from mcutune.robustness.protocol import Cell
from mcutune.robustness.scenarios import AXES
from mcutune.robustness.statistics import Interval, Resampling, Statistic, intervals
from mcutune.robustness.sums import FROM_SUMS, rows_in

Entry = dict[str, Any]

_SCALES = {"mae": "positive", "pearson": "correlation"}  # all others are fractions


def metrics_of(block: Block, cells: Sequence[Cell]) -> list[str]:
    """The metrics planned for a block, in order."""
    mine = (cell.metric for cell in cells if cell.protocol == block.protocol.id)
    return list(dict.fromkeys(mine))


def measured(block: Block, metrics: Sequence[str], how: Resampling) -> tuple[list[Entry], list[Entry]]:
    """Measurements of every cell and metric, and their summaries, from the same resamples."""
    extras = weighted_means(block)
    mixing = np.stack([one.weights for one in extras]) if extras else np.zeros((0, len(block.places)))
    weights = np.concatenate([np.eye(len(block.places)), mixing])
    statistics = [
        Statistic(_with_means(metric, mixing), _SCALES.get(metric, "fraction"), weights) for metric in metrics
    ]
    found = _intervals(block, statistics, metrics, how)
    cells, summaries = [], []
    for metric, interval in zip(metrics, found, strict=True):
        cells.append([_measurement(block, c, metric, interval) for c in range(len(block.places))])
        summaries += list(_summaries(block, metric, interval, extras))
    return [one for by_place in zip(*cells, strict=True) for one in by_place], summaries


def _with_means(metric: str, mixing: Array) -> Callable[[Array], Array]:
    """Totals [.., S, C, A] to the metric of every cell and its weighted means, [.., C + extras]."""
    value = mean_over_replicates(metric)

    def function(sums: Array) -> Array:
        cells = value(sums)
        return np.concatenate([cells, cells @ mixing.T], axis=-1)

    return function


@dataclass(frozen=True, eq=False)
class WeightedMean:
    """A named mean: weights [C] over the cells, of a scenario, over how many of them."""

    name: str
    weights: Array
    scenario: str
    over: int


def weighted_means(block: Block) -> list[WeightedMean]:
    """Means over combinations, or the area under each curve."""
    count = len(block.places)
    if isinstance(block.protocol, Fixed) and block.protocol.combinations == "all" and count > 1:
        complete = max(block.data.names.labels, key=lambda label: label.count("+"))
        incomplete = np.array([label != complete for label, _ in block.places])
        return [
            WeightedMean("mean_all", np.full(count, 1 / count), "fixed", count),
            WeightedMean("mean_incomplete", incomplete / incomplete.sum(), "fixed", count - 1),
        ]
    return [
        WeightedMean("area", weights, curve.series or "all rates", len(curve.cells))
        for curve in block.curves
        if (weights := curve.weights(count)).any()
    ]


def _intervals(
    block: Block, statistics: Sequence[Statistic], metrics: Sequence[str], how: Resampling
) -> list[Interval]:
    """Intervals of all quantities; a cell in which some groups have no rows gets its own from those that have."""
    rows = block.group_rows
    found = intervals(block.sums, rows, statistics, how)
    own = [Statistic(mean_over_replicates(metric), one.scale) for metric, one in zip(metrics, statistics, strict=True)]
    for c in np.flatnonzero((rows == 0).any(axis=0)):
        alive = rows[:, c] > 0
        again = intervals(block.sums[alive][:, :, [c]], rows[alive, c], own, how)
        for old, new in zip(found, again, strict=True):
            old.low[c], old.high[c], old.error[c] = new.low[0], new.high[0], new.error[0]
            old.method[c] = new.method[0]
    return found


def _measurement(block: Block, c: int, metric: str, interval: Interval) -> Entry:
    combination, scenario = block.places[c]
    seeds, folds = _spread_of_seeds(block, c, metric), _spread_of_folds(block, c, metric)
    return {
        "protocol": block.protocol.id,
        "dataset": block.data.name,
        "split": block.data.split,
        "combination": combination,
        "scenario": scenario,
        "metric": metric,
        "value": number(interval.value[c]),
        "low": number(interval.low[c]),
        "high": number(interval.high[c]),
        "n": int(block.seen[c]),
        "model": block.model,
        "groups": int((block.group_rows[:, c] > 0).sum()),
        "interval": interval.method[c],
        "seeds": len(set(block.replicates.seed)),
        "seeds_sd": seeds,
        "folds": folds[0],
        "folds_sd": folds[1],
    }


def replicate_values(block: Block, c: int, metric: str) -> Array:
    """The pooled metric of every replicate, [S]."""
    return FROM_SUMS[metric](block.total[:, c])


def _spread_of_seeds(block: Block, c: int, metric: str) -> float | None:
    """Standard deviation between seeds, each the mean over its masks or winners; None with one seed."""
    return _spread(replicate_values(block, c, metric), block.replicates.seed)


def _spread_of_folds(block: Block, c: int, metric: str) -> tuple[int, float | None]:
    """How many folds, and the standard deviation between them: each on its own rows, or each fold's winner on all."""
    if isinstance(block.protocol, CrossDataset):
        folds = block.replicates.fold
        return len(set(folds)), _spread(replicate_values(block, c, metric), folds)
    sums = block.fold_sums[:, :, c]
    sums = sums[rows_in(sums, block.data.task).sum(axis=1) > 0]
    values = FROM_SUMS[metric](sums).mean(axis=1)
    return len(values), number(float(np.std(values, ddof=1))) if len(values) > 1 else None


def _spread(values: Array, of: Sequence[Any]) -> float | None:
    names = list(dict.fromkeys(of))
    means = [values[[name == one for one in of]].mean() for name in names]
    return number(float(np.std(means, ddof=1))) if len(means) > 1 else None


def _summaries(block: Block, metric: str, interval: Interval, extras: Sequence[WeightedMean]) -> Iterator[Entry]:
    count = len(block.places)
    common = {
        "protocol": block.protocol.id,
        "dataset": block.data.name,
        "split": block.data.split,
    }
    for place, one in enumerate(extras, start=count):
        named = {"scenario": one.scenario, "name": one.name, "over": one.over, "which": None}
        yield {**common, **named, **interval_entry(block, metric, interval, place)}
    if isinstance(block.protocol, Fixed) and count > 1:
        signed = [METRICS[metric].signed(float(value)) for value in interval.value[:count]]
        worst = int(np.argmin(signed))
        which = block.places[worst][0]
        named = {"scenario": "fixed", "name": "worst", "over": count, "which": which}
        yield {**common, **named, **interval_entry(block, metric, interval, worst)}


def interval_entry(block: Block, metric: str | None, interval: Interval, place: int) -> Entry:
    """Value and bounds of one quantity of a block, as a report has them."""
    return {
        "metric": metric,
        "model": block.model,
        "value": number(interval.value[place]),
        "low": number(interval.low[place]),
        "high": number(interval.high[place]),
        "interval": interval.method[place],
        "n": int(block.seen.max()),
        "groups": len(block.sums),
    }


def comparisons(
    block: Block, reference: Block, metrics: Sequence[str], how: Resampling, margin: float | None = None
) -> list[Entry]:
    """Paired differences between two models in every cell; a family is one protocol and metric.

    `margin`: also say where the model is not worse by that much or more.
    """
    found = []
    for metric, ones in compare_sums(block.sums, reference.sums, block.data.task, metrics, how).items():
        kept = answers(metric, ones, len(block.sums), margin, how)
        for c, one in enumerate(ones):
            combination, scenario = block.places[c]
            found.append(
                {
                    "protocol": block.protocol.id,
                    "dataset": block.data.name,
                    "split": block.data.split,
                    "combination": combination,
                    "scenario": scenario,
                    "metric": metric,
                    "model": block.model,
                    "reference": reference.model,
                    **one.entry(),
                    "family": len(block.places),
                    "n": int(block.seen[c]),
                    "groups": len(block.sums),
                    "margin": kept[c],
                }
            )
    return found


def curves(block: Block, cells: Sequence[Entry], metrics: Sequence[str]) -> list[Entry]:
    """Value along the axis of a protocol, one curve a series and metric; none where it has no axis."""
    found = []
    for curve in block.curves:
        names = [block.places[c][1] for c in curve.cells]
        for metric in metrics:
            values = {one["scenario"]: one for one in cells if one["metric"] == metric}
            points = [
                {
                    "scenario": name,
                    "rate": asked,
                    "realised": number(realised),
                    "capped": capped,
                    **{key: values[name][key] for key in ("value", "low", "high")},
                }
                for name, asked, realised, capped in zip(names, curve.asked, curve.realised, curve.capped, strict=True)
            ]
            common = {"protocol": block.protocol.id, "dataset": block.data.name, "metric": metric, "model": block.model}
            axis = {"axis": AXES[block.protocol.kind], "series": curve.series}
            found.append({**common, **axis, "points": points})
    return found


def transfers(block: Block, cells: Sequence[Entry], source: str, within: dict[tuple[str, str], float]) -> list[Entry]:
    """Source to target, one entry a cell. `within`: value of (combination, metric) on the source's own test rows."""
    places = {place: c for c, place in enumerate(block.places)}
    found = []
    for one in cells:
        combination, metric = one["combination"], one["metric"]
        values = replicate_values(block, places[combination, one["scenario"]], metric)
        found.append(
            {
                "source": source,
                "target": block.data.name,
                "combination": combination,
                "normalisation": one["scenario"].removeprefix("normalisation="),
                "metric": metric,
                "model": block.model,
                **{key: one[key] for key in ("value", "low", "high", "n")},
                "winners": len(values),
                "winners_sd": number(float(np.std(values, ddof=1))) if len(values) > 1 else None,
                "winners_low": number(values.min()),
                "winners_high": number(values.max()),
                "within": within.get((combination, metric)),
            }
        )
    return found
