"""Reports that may not be compared are refused, each reason by itself."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mcutune.errors import BadInput
from mcutune.files import read_json
from mcutune.robustness.comparable import comparable


@pytest.fixture
def report() -> dict[str, Any]:
    found: dict[str, Any] = read_json(Path(__file__).parent / "sample_report.json")
    return found


def test_the_same_question_is_comparable(report: dict[str, Any]) -> None:
    fewer = copy.deepcopy(report)
    fewer["protocols"] = fewer["protocols"][:1]
    assert comparable(report, report) == tuple(one["id"] for one in report["protocols"])
    assert comparable(report, fewer) == comparable(fewer, report) == (report["protocols"][0]["id"],)


def _fingerprint(report: dict[str, Any]) -> None:
    report["protocols"][0]["fingerprint"]["hash"] = "0" * 64


def _table(report: dict[str, Any]) -> None:
    report["data"]["hash"] = "0" * 64


def _fold(report: dict[str, Any]) -> None:
    report["models"][0]["winners"] = report["models"][0]["winners"][:-1]


def _class(report: dict[str, Any]) -> None:
    report["data"]["classes"][0]["rows"] += 1


def _protocol(report: dict[str, Any]) -> None:
    for one in report["protocols"]:
        one["id"] = f"own_{one['id']}"


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (_fingerprint, "fingerprints differ"),
        (_table, "different tables"),
        (_fold, "different measured rows"),
        (_class, "different measured rows"),
        (_protocol, "no protocol in common"),
    ],
)
def test_another_question_is_refused(
    report: dict[str, Any], change: Callable[[dict[str, Any]], None], said: str
) -> None:
    other = copy.deepcopy(report)
    change(other)
    with pytest.raises(BadInput, match=said):
        comparable(report, other)
