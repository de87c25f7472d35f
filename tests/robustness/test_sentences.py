"""The three sentences say what the numbers say."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest

from mcutune.files import read_json
from mcutune.robustness.cautions import warnings
from mcutune.robustness.summary import _widest, sentences


@pytest.fixture
def report() -> dict[str, Any]:
    return copy.deepcopy(read_json(Path(__file__).parent / "sample_report.json"))


def only(report: dict[str, Any], kind: str) -> dict[str, Any]:
    report["protocols"] = [one for one in report["protocols"] if one["kind"] == kind]
    kept = {one["id"] for one in report["protocols"]}
    for part in ("measurements", "summaries", "comparisons"):
        report[part] = [one for one in report[part] if one["protocol"] in kept]
    if kind != "cross_dataset":
        report["cross_dataset"] = []
    return report


def test_all_protocols(report: dict[str, Any]) -> None:
    fares, breaks, avoid = sentences(report)
    full = next(m for m in report["measurements"] if (m["combination"], m["metric"]) == ("audio+text+context", "ua"))
    assert f"UA {full['value']:.3f} [{full['low']:.3f}, {full['high']:.3f}] on 5,531 test rows of 10 speakers" in fares
    assert "on average over the 7 combinations" in fares
    assert fares.endswith("(UA is the mean of the classes' recalls; brackets hold the 95% interval.)")
    assert "than ranks-iemocap:0" in fares
    assert breaks.startswith("It is weakest with only audio: UA ")
    assert "below audio+text+context" in breaks
    assert avoid.startswith("Do not rely on it where no more is left than audio")
    assert "on msp_improv it reaches UA" in avoid


@pytest.mark.parametrize(
    ("kind", "starts"),
    [
        ("fixed", ("With every modality present", "It is weakest with only audio", "Do not rely on it where")),
        ("random", ("With every modality present", "From rate=0 to rate=0.7 it goes", "Only what is listed")),
        (
            "cross_dataset",
            ("On msp_improv, another corpus, with audio+text", "Where it breaks was not", "Do not rely on it on"),
        ),
    ],
)
def test_one_protocol(report: dict[str, Any], kind: str, starts: tuple[str, ...]) -> None:
    for sentence, start in zip(sentences(only(report, kind)), starts, strict=True):
        assert sentence.startswith(start)


def test_guessing_is_called_guessing(report: dict[str, Any]) -> None:
    for one in report["measurements"]:
        if one["combination"] == "audio":
            one.update(value=0.26, low=0.24, high=0.28)
    assert "not shown to be better than guessing (0.250)" in sentences(report)[1]


def test_a_clear_difference_is_called_so(report: dict[str, Any]) -> None:
    for one in report["comparisons"]:
        one.update(difference=0.05, p_holm=0.01)
    assert "0.050 better than ranks-iemocap:0 (the paper's default) (adjusted p = 0.010)" in sentences(report)[0]
    for one in report["comparisons"]:
        one.update(difference=-0.004, p_holm=0.4, detectable=0.012)
    said = sentences(report)[0]
    assert "0.004 worse than ranks-iemocap:0 (the paper's default), not more than chance explains" in said
    assert "(adjusted p = 0.40; 0.012 would have" in said


def test_the_widest_combinations_stand_for_those_inside() -> None:
    assert _widest(["video", "audio", "audio+video", "text"]) == ["audio+video", "text"]


def test_warnings_follow_the_report(report: dict[str, Any]) -> None:
    found = warnings(report, ["more", "more"])
    assert any("opened 2 times" in one for one in found)
    assert any("iemocap has 10 speakers: intervals are by a small-sample method" in one for one in found)
    assert found.count("more") == 1
    report["openings"]["count"] = 1
    report["data"]["groups"] = 6
    report["data"]["test_features_normalise"] = True
    report["measurements"][0]["seeds"] = 1
    found = warnings(report, [])
    assert not any("opened" in one for one in found)
    assert any("too few for an interval" in one for one in found)
    assert any("Features of test rows were read" in one for one in found)
    assert any("One seed" in one for one in found)
