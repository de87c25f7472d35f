"""Not worse, worse, undecided: against the interval, against statsmodels, and how often a lie is believed."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats
from statsmodels.stats.weightstats import DescrStatsW

from mcutune.domain.task import Task
from mcutune.errors import BadInput
from mcutune.robustness.equivalence import NOT_WORSE, UNDECIDED, WORSE, Equivalence, answers, judged
from mcutune.robustness.paired import compare_sums
from mcutune.robustness.statistics import Resampling
from mcutune.robustness.sums import unit_sums


def models(gain: float, groups: int = 20, rows: int = 40, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Sums of two models, the first right more often by `gain`."""
    random = np.random.default_rng(seed)
    group = np.repeat(np.arange(groups), rows)
    truth = random.integers(3, size=len(group))
    both = []
    for right in (0.7 + gain, 0.7):
        hit = random.random((1, 1, len(group))) < right
        both.append(unit_sums(np.where(hit, truth, (truth + 1) % 3), truth, group, groups, Task.CLASSIFICATION, 3))
    return both[0], both[1]


def not_worse(
    a: np.ndarray, b: np.ndarray, task: Task, metrics: list[str], margin: float
) -> dict[str, list[Equivalence]]:
    """As comparisons ask: from the sums of both models."""
    how, made = Resampling(), {}
    for metric, found in compare_sums(a, b, task, metrics, how).items():
        made[metric] = [Equivalence(**one) for one in answers(metric, found, len(a), margin, how) if one is not None]
    return made


@pytest.mark.parametrize(("gain", "answer"), [(0.1, NOT_WORSE), (-0.25, WORSE), (-0.1, UNDECIDED)])
def test_the_three_answers(gain: float, answer: str) -> None:
    a, b = models(gain)
    for one in not_worse(a, b, Task.CLASSIFICATION, ["wa", "ua"], 0.1).values():
        assert [of.answer for of in one] == [answer]


def test_one_cell_agrees_with_its_interval() -> None:
    """Of one cell and few groups, not worse says exactly that the lower bound lies above minus the margin."""
    a, b = models(-0.03)
    found = compare_sums(a, b, Task.CLASSIFICATION, ["wa"], Resampling())["wa"][0]
    assert found.low is not None and found.high is not None
    for margin in (-found.low + 1e-6, -found.low - 1e-6):
        answer = not_worse(a, b, Task.CLASSIFICATION, ["wa"], margin)["wa"][0].answer
        assert (answer == NOT_WORSE) is (found.low > -margin)


def test_p_is_that_of_statsmodels_for_groups_of_one_size() -> None:
    a, b = models(0.0)
    accuracy = [np.trace(one[:, 0, 0].reshape(-1, 3, 3), axis1=1, axis2=2) / 40 for one in (a, b)]
    expected = DescrStatsW(accuracy[0] - accuracy[1]).ttest_mean(-0.05, alternative="larger")[1]
    found = not_worse(a, b, Task.CLASSIFICATION, ["wa"], 0.05)["wa"][0]
    assert found.p_not_worse == pytest.approx(expected, abs=1e-9)
    assert found.p_worse == pytest.approx(1 - expected, abs=1e-9)


def test_an_error_that_grew_is_worse_though_its_number_is_higher() -> None:
    random = np.random.default_rng(0)
    truth = random.normal(size=600)
    group = np.repeat(np.arange(12), 50)
    close, far = (truth + random.normal(0, s, 600) for s in (0.2, 1.0))
    sums = [unit_sums(one[None, None], truth, group, 12, Task.REGRESSION, 1) for one in (far, close)]
    assert not_worse(*sums, Task.REGRESSION, ["mae"], 0.1)["mae"][0].answer == WORSE
    assert not_worse(sums[1], sums[0], Task.REGRESSION, ["mae"], 0.1)["mae"][0].answer == NOT_WORSE


def test_a_family_is_adjusted_and_a_true_loss_is_seldom_believed_harmless() -> None:
    """Where every true loss is the margin itself, at most 2.5 % of families say not worse anywhere."""
    random, believed = np.random.default_rng(3), 0
    for _ in range(2000):
        gain = -0.05 + random.standard_normal((12, 7)) * 0.1
        error = gain.std(axis=0, ddof=1) / np.sqrt(12)
        believed += any(one.answer == NOT_WORSE for one in judged(gain.mean(axis=0), error, 11, 12, 0.05))
    assert believed <= stats.binom.ppf(0.999, 2000, 0.025)
    assert believed >= 10  # and the test is no wall


def test_few_groups_decide_nothing_and_no_spread_is_no_doubt() -> None:
    assert judged(np.array([0.5]), np.array([0.01]), 6, 7, 0.1)[0].answer == UNDECIDED
    still = judged(np.array([0.0, -0.2]), np.zeros(2), 9, 10, 0.1)
    assert [one.answer for one in still] == [NOT_WORSE, WORSE]


@pytest.mark.parametrize("margin", [0.0, -0.1, float("nan"), float("inf")])
def test_a_margin_that_says_nothing_is_refused(margin: float) -> None:
    with pytest.raises(BadInput, match="says nothing"):
        judged(np.array([0.0]), np.array([0.1]), 9, 10, margin)
