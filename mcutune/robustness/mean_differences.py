"""Is the subject better than each reference on the whole? Paired differences of means over cells, in one family.

The cells themselves are compared by measure.comparisons. A mean is one number a model, so the question has one test a
reference, adjusted by Holm over all references of a question under the same protocol and metric.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

from mcutune.robustness.blocks import Block
from mcutune.robustness.compared import COMPARATORS
from mcutune.robustness.evidence import Array
from mcutune.robustness.measure import weighted_means
from mcutune.robustness.paired import compare_values, number, weighted
from mcutune.robustness.statistics import Resampling, holm

Entry = dict[str, Any]
MAIN = ("mean_all", "area")  # the mean that speaks for a protocol, where it has one


def families(models: Sequence[Entry], blocks: Sequence[Block]) -> list[list[Block]]:
    """The blocks of references by question: trials and comparators share one, the models of other words have theirs."""
    words = [one["comparator"]["word"] if one["comparator"] else COMPARATORS for one in models]
    return [[b for w, b in zip(words, blocks, strict=True) if w == word] for word in dict.fromkeys(words)]


def mean_differences(block: Block, references: Sequence[Block], metrics: Sequence[str], how: Resampling) -> list[Entry]:
    """The subject less each reference, in the mean over a protocol's cells; nothing where it has no such mean."""
    means = [one for one in weighted_means(block) if one.name in MAIN]
    found: list[Entry] = []
    for mean in means[:1]:
        told = {"name": mean.name, "over": mean.over}
        family = [mean_difference(block, reference, told, mean.weights, metrics, how) for reference in references]
        for of_metric in zip(*family, strict=True):
            adjusted = holm([one["p"] for one in of_metric])
            found += [
                {**one, "p_holm": number(p), "family": len(references)}
                for one, p in zip(of_metric, adjusted, strict=True)
            ]
    return found


def mean_difference(
    block: Block, reference: Block, told: Entry, weights: Array, metrics: Sequence[str], how: Resampling
) -> list[Entry]:  # fmt: skip
    """The difference of two models in the mean over cells by `weights` [C], an entry a metric; p is not adjusted."""
    means = {f"mean {metric}": weighted(metric, weights) for metric in metrics}
    compared = compare_values(block.sums, reference.sums, block.data.task, means, how)
    return [
        {
            "protocol": block.protocol.id,
            "dataset": block.data.name,
            "split": block.data.split,
            **told,
            "metric": metric,
            "model": block.model,
            "reference": reference.model,
            **dataclasses.asdict(compared[f"mean {metric}"][0]),
            "groups": len(block.sums),
        }
        for metric in metrics
    ]
