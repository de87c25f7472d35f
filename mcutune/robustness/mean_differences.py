"""Is the subject better than each reference on the whole? Paired differences of means over cells, in one family.

The cells themselves are compared by measure.comparisons. A mean is one number a model, so the question has one test a
reference, adjusted by Holm over all references of a question under the same protocol and metric.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from mcutune.robustness.blocks import Block
from mcutune.robustness.compared import word_of
from mcutune.robustness.equivalence import answers
from mcutune.robustness.evidence import Array
from mcutune.robustness.measure import weighted_means
from mcutune.robustness.paired import Difference, compare_values, number, weighted
from mcutune.robustness.statistics import Resampling, holm

Entry = dict[str, Any]
MAIN = ("mean_all", "area")  # the mean that speaks for a protocol, where it has one


def families(models: Sequence[Entry], blocks: Sequence[Block]) -> list[list[Block]]:
    """The blocks of references by question: trials and comparators share one, the models of other words have theirs."""
    words = [word_of(one) for one in models]
    return [[b for w, b in zip(words, blocks, strict=True) if w == word] for word in dict.fromkeys(words)]


def mean_differences(
    block: Block, references: Sequence[Block], metrics: Sequence[str], how: Resampling, margin: float | None = None
) -> list[Entry]:
    """The subject less each reference, in the mean over a protocol's cells; nothing where it has no such mean.

    `margin`: also say where the subject is not worse by that much or more.
    """
    mean = next((one for one in weighted_means(block) if one.name in MAIN), None)
    if mean is None:
        return []
    compared = [_compared(block, reference, mean.weights, metrics, how) for reference in references]
    found: list[Entry] = []
    for n, metric in enumerate(metrics):
        family = [of[n] for of in compared]
        adjusted = holm([one.p for one in family])
        kept = answers(metric, family, len(block.sums), margin, how)
        found += [
            {
                "protocol": block.protocol.id,
                "dataset": block.data.name,
                "split": block.data.split,
                "name": mean.name,
                "over": mean.over,
                "metric": metric,
                "model": block.model,
                "reference": reference.model,
                **one.entry(),
                "groups": len(block.sums),
                "p_holm": number(p),
                "family": len(references),
                "margin": answer,
            }
            for reference, one, p, answer in zip(references, family, adjusted, kept, strict=True)
        ]
    return found


def _compared(
    block: Block, reference: Block, weights: Array, metrics: Sequence[str], how: Resampling
) -> list[Difference]:
    """The difference of two models in the mean over cells by `weights` [C], a metric each; p is not adjusted."""
    means = {f"mean {metric}": weighted(metric, weights) for metric in metrics}
    found = compare_values(block.sums, reference.sums, block.data.task, means, how)
    return [found[name][0] for name in means]
