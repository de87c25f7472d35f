"""What `--gate` does in robustness and report: decide, write gate.json, show every condition, end with the outcome."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from mcutune.errors import CheckFailed, Inconclusive

if TYPE_CHECKING:
    from mcutune.robustness.gate import Loaded

HELP = "A YAML file of floors, or example: ends with 7 where one is missed, 8 where the data cannot say."


def decide_and_write(loaded: Loaded, report_json: Path) -> dict[str, Any]:
    """The verdict on a report, written beside it as gate.json. Raises Problems, BadInput or Damaged."""
    from mcutune.files import sealed, sha256_file, write_json
    from mcutune.robustness.gate import FILE, decide
    from mcutune.robustness.reports import evidence_of, read_report

    report = read_report(report_json)
    verdict = sealed(decide(loaded, report, evidence_of(report, report_json), sha256_file(report_json)))
    write_json(report_json.with_name(FILE), verdict)
    return verdict


def end_with(verdict: dict[str, Any]) -> None:
    """Raises CheckFailed or Inconclusive unless every condition passes."""
    from mcutune.robustness.gate import FAIL, INCONCLUSIVE, sentence

    if verdict["outcome"] == FAIL:
        raise CheckFailed(sentence(verdict))
    if verdict["outcome"] == INCONCLUSIVE:
        raise Inconclusive(sentence(verdict), hint="more groups make the interval narrower")
