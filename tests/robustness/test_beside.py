"""What is measured beside a cell changes neither its bounds nor its p: they follow from its sums, groups and seed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mcutune.robustness.paired import mean_over_replicates
from mcutune.robustness.run import certify
from mcutune.robustness.statistics import Resampling, Statistic, intervals, permutation_test
from tests.robustness.test_group_statistics import sums_of
from tests.robustness.worlds import load_fake, make_run, make_table

MANY = 500  # cells: more numbers than one piece of resamples has room for


def one_and_many(metric: str, groups: int) -> tuple[np.ndarray, np.ndarray]:
    """A cell's sums [G, S, 1, A], and the same with others beside it."""
    sums, _ = sums_of(metric, groups=groups, rows=60 * groups)
    return sums[:, :, :1], np.concatenate([sums[:, :, :1], np.repeat(sums[:, :, 1:], MANY // 2, axis=2)], axis=2)


@pytest.mark.parametrize("metric", ["wa", "ua", "f1", "mae", "pearson"])
def test_bounds_are_those_of_the_cell_alone(metric: str) -> None:
    alone, beside = one_and_many(metric, 31)
    rows = np.full(len(alone), 60)
    how, statistic = Resampling(resamples=2000), Statistic(mean_over_replicates(metric))
    (one,), (many,) = (intervals(sums, rows, [statistic], how) for sums in (alone, beside))
    for found, expected in ((many.low, one.low), (many.high, one.high), (many.error, one.error)):
        assert found[0] == pytest.approx(expected[0], abs=0 if metric in ("wa", "ua", "f1") else 1e-13)


@pytest.mark.parametrize("metric", ["ua", "mae"])
def test_p_is_that_of_the_cell_alone(metric: str) -> None:
    statistic = Statistic(mean_over_replicates(metric))
    (alone,), (beside,) = (
        permutation_test(sums[:, :1], sums[:, 1:], [statistic])[0] for sums in one_and_many(metric, 18)
    )
    assert 0.01 < alone[0] == beside[0] < 0.99


@pytest.mark.parametrize("groups", [12, 32])
def test_a_narrow_protocol_has_the_numbers_of_a_wide_one(tmp_path: Path, groups: int) -> None:
    """Rows lack modalities by themselves, so that each combination has its own rows, and some groups lack one."""
    make_run(tmp_path, make_table(tmp_path, rows=4 * 5 * groups, groups=groups, gaps=0.5), folds=("0", "1"))
    narrow = tmp_path / "narrow.yaml"
    narrow.write_text(
        "id: narrow\nversion: 1\nkind: fixed\ntitle: Two\ncitation: none\ncombinations: [text, audio+video]\n"
    )
    report = certify("run", ("fixed", str(narrow)), home=tmp_path, load=load_fake)
    apart = {"protocol", "p_holm", "family"}  # a family is what is measured beside
    for part in ("measurements", "comparisons"):
        wide, few = ({_key(one): _rest(one, apart) for one in report[part] if one["protocol"] == name}
                     for name in ("fixed", "narrow"))  # fmt: skip
        assert len(few) == 2 * 3 * (2 if part == "measurements" else 1)
        assert few == {key: wide[key] for key in few}


def _key(one: dict[str, Any]) -> tuple[str, ...]:
    return one["combination"], one["metric"], one["model"]


def _rest(one: dict[str, Any], apart: set[str]) -> dict[str, Any]:
    return {key: value for key, value in one.items() if key not in apart}
