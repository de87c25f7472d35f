"""Summary measures against brute force: orders of modalities, the search's own objective, a line by numpy."""

from __future__ import annotations

import io
import itertools
from pathlib import Path

import numpy as np
import pytest

from mcutune.domain.combination import combinations, membership
from mcutune.domain.objective import scalar
from mcutune.domain.task import Task
from mcutune.robustness.effective import deviation
from mcutune.robustness.overall import evenness, shapley_weights, tail_mean
from mcutune.robustness.run import certify
from tests.robustness.worlds import load_fake, make_run, make_table


@pytest.mark.parametrize("modalities", [2, 3, 4])
def test_contributions_are_the_mean_gain_over_all_orders(modalities: int) -> None:
    values = np.random.default_rng(0).random(2**modalities)
    place = {frozenset(one.modalities()): i for i, one in enumerate(combinations(modalities))}
    place[frozenset()] = len(values) - 1
    gains = np.zeros(modalities)
    orders = list(itertools.permutations(range(modalities)))
    for order in orders:
        for step, one in enumerate(order):
            gains[one] += values[place[frozenset(order[: step + 1])]] - values[place[frozenset(order[:step])]]
    found = shapley_weights(modalities) @ values
    assert found == pytest.approx(gains / len(orders), abs=1e-12)
    complete = int(membership(modalities).all(axis=1).argmax())
    assert found.sum() == pytest.approx(values[complete] - values[-1], abs=1e-12)


def test_evenness_is_one_where_all_contribute_alike_and_zero_where_one_does() -> None:
    shares = np.array([[0.1, 0.1, 0.1], [0.3, 0.0, 0.0], [0.3, -0.1, 0.0], [0.2, 0.2, 0.0]])
    assert evenness(shares) == pytest.approx([1, 0, 0, np.log(2) / np.log(3)])
    assert np.isnan(evenness(np.array([-0.1, -0.2])))


@pytest.mark.parametrize("alpha", [0.1, 0.25, 0.5, 1.0])
def test_the_tail_is_the_search_objective(alpha: float) -> None:
    scores = np.random.default_rng(1).random(7)
    expected = scalar(scores, range(7), ("a", "b", "c"), f"cvar({alpha})", "ua")
    assert tail_mean(scores, alpha) == pytest.approx(expected)


def test_effective_robustness_is_the_distance_from_the_line() -> None:
    x, y = np.array([0.6, 0.7, 0.8, 0.75]), np.array([0.5, 0.58, 0.66, 0.7])
    logit = lambda p: np.log(p / (1 - p))  # noqa: E731
    slope, start = np.polyfit(logit(x), logit(y), 1)
    expected = y - 1 / (1 + np.exp(-(start + slope * logit(x))))
    assert deviation(np.stack([x, y], axis=-1)) == pytest.approx(expected, abs=1e-9)
    assert deviation(np.stack([x, y], axis=-1)).argmax() == 3


@pytest.mark.parametrize("task", list(Task))
def test_a_report_names_them_all(tmp_path: Path, task: Task) -> None:
    table = make_table(tmp_path, task=task)
    make_run(tmp_path, table)
    make_run(tmp_path, table, "second", zero_noise=2.0, finished="2025-01-01T00:00:00Z", noise_seed=5)
    report = certify("run", ["fixed"], home=tmp_path, load=load_fake, against=["run:0", "second:0"])
    metric = "ua" if task is Task.CLASSIFICATION else "mae"
    mine = [one for one in report["contributions"] if (one["model"], one["metric"]) == ("run", metric)]
    assert [one["modality"] for one in mine] == ["audio", "text", "video"]
    assert all(one["low"] < one["value"] < one["high"] for one in mine)
    value = next(
        m["value"] for m in report["measurements"]
        if (m["model"], m["metric"], m["combination"]) == ("run", metric, "audio+text+video")
    )  # fmt: skip
    rows = np.flatnonzero(table.labelled)
    truth = table.labels(rows)
    nothing = 0.25 if task is Task.CLASSIFICATION else -np.abs(truth - np.median(truth.astype(float))).mean()
    gain = (value if task is Task.CLASSIFICATION else -value) - nothing
    assert sum(one["value"] for one in mine) == pytest.approx(gain, abs=1e-6)
    found = {one["name"]: one for one in report["indices"] if one["model"] == "run" and one["metric"] in (metric, None)}
    assert list(found) == ["relative", "relative_worst", "evenness", "learning", "effective"]
    assert found["relative"]["low"] < found["relative"]["value"] < found["relative"]["high"]
    assert 0 <= found["evenness"]["low"] <= found["evenness"]["high"] <= 1
    assert (found["relative"]["value"] < 1) is (task is Task.CLASSIFICATION)
    assert (found["learning"]["value"], bool(found["learning"]["reason"])) == (None, True)
    assert (found["effective"]["value"] is None) is (task is Task.REGRESSION)
    tail = next(s for s in report["summaries"] if (s["name"], s["metric"], s["model"]) == ("cvar", metric, "run"))
    worst = next(s for s in report["summaries"] if (s["name"], s["metric"], s["model"]) == ("worst", metric, "run"))
    assert abs(tail["value"] - worst["value"]) < 0.2
    assert tail["value"] != worst["value"]


def test_two_models_have_no_line(tmp_path: Path) -> None:
    make_run(tmp_path, make_table(tmp_path))
    report = certify("run", ["fixed"], home=tmp_path, load=load_fake)
    found = [one for one in report["indices"] if one["name"] == "effective"]
    assert {one["reason"] for one in found} == {"needs 3 measured models, 2 here"}
    assert {one["value"] for one in found} == {None}


def test_the_page_shows_them(tmp_path: Path) -> None:
    from rich.console import Console

    from mcutune.cli.render_report import report_view
    from mcutune.robustness.html import render

    make_run(tmp_path, make_table(tmp_path))
    report = certify("run", ["fixed"], home=tmp_path, load=load_fake)
    shown = render(report)
    first = next(one for one in report["contributions"] if one["metric"] == "ua")
    assert "What each modality brings" in shown
    assert f"<b>{first['value']:.3f}</b>" in shown
    assert "mean of the worst quarter of 7" in shown
    assert "Not measured: effective robustness" in shown
    console = Console(width=200, record=True, file=io.StringIO())
    console.print(report_view(report))
    assert f"audio {first['value']:+.3f}" in console.export_text()
