"""Which report a person means: a run, a trial of a run that was measured by itself, a folder, or a report.json."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mcutune.data.hints import did_you_mean
from mcutune.errors import BadInput, Damaged
from mcutune.files import checked_name, read_json, refuse_other_hash
from mcutune.inert import inert
from mcutune.robustness.evidence import MANIFEST

REPORT = "report.json"
_RUN = re.compile(r"[^:]+(:[0-9]{1,9})?")
_EVIDENCE = re.compile(r"evidence-[0-9a-f]{12}")


@dataclass(frozen=True)
class Found:
    """An evidence folder, and the report that was made from it; None where the evidence itself was given."""

    given: str
    evidence: Path
    report: dict[str, Any] | None


def find_report(given: str, home: Path) -> Found:
    """The report that `given` names: NAME, NAME:TRIAL, a report.json, or a folder with a report or with evidence.

    Raises BadInput where there is none, Damaged where a report is not one.
    """
    place = _place(given, home)
    if place.name != REPORT:
        return Found(given, place, None)
    report = read_report(place)
    return Found(given, evidence_of(report, place), report)


def read_report(path: Path) -> dict[str, Any]:
    """A report.json. Raises BadInput where it does not exist, Damaged where that is no report."""
    refuse_other_hash(path)
    report = read_json(path)
    if not isinstance(report, dict) or not {"schema", "provenance", "models", "measurements"} <= set(report):
        raise Damaged(f"{path} is not a report", hint="mcutune robustness makes it anew")
    return report


def evidence_of(report: dict[str, Any], path: Path) -> Path:
    """The evidence folder of the report at `path`. Raises Damaged where the report names no such folder."""
    try:
        name = str(report["provenance"]["evidence"]["folder"])
    except (LookupError, TypeError):
        name = ""
    if not _EVIDENCE.fullmatch(name):
        raise Damaged(f"{path} names no evidence folder", hint="mcutune robustness makes it anew")
    return path.parent / name


def find_run_report(given: str, home: Path) -> Path:
    """The report.json of NAME or NAME:TRIAL. Raises BadInput where there is no such run, or no report of it."""
    name, _, trial = given.partition(":")
    runs = home / "runs"
    known = sorted(path.name for path in runs.glob("[!.]*") if path.is_dir())
    if name not in known:
        raise BadInput(f"there is no run {checked_name(name, 'run')} in {home}", hint=did_you_mean(name, known))
    path = runs / name / "robustness" / (f"trial-{trial}" if trial else "") / REPORT
    if not _RUN.fullmatch(given) or not path.is_file():
        raise BadInput(
            f"run {inert(given)} has no robustness report yet",
            hint=f"mcutune robustness --ckpt {inert(given)} makes one",
        )
    return path


def _place(given: str, home: Path) -> Path:
    """A report.json, or an evidence folder."""
    name = given.partition(":")[0]
    runs = home / "runs"
    if any(path.name == name for path in runs.glob("[!.]*")):
        return find_run_report(given, home)
    for path in _candidates(given):
        if path.is_file():
            return path.parent if path.name == MANIFEST else path
    known = sorted(path.parents[1].name for path in runs.glob(f"[!.]*/robustness/{REPORT}"))
    hint = did_you_mean(name, known)
    raise BadInput(f"no run, folder or file with a report is '{inert(given, limit=120)}'", hint=hint)


def _candidates(given: str) -> list[Path]:
    """Where a report, or the manifest of evidence, may lie at a path."""
    if "\0" in given or not given.strip() or len(given) > 4000:
        return []
    path = Path(given).expanduser()
    evidence = [path / MANIFEST] if _EVIDENCE.fullmatch(path.resolve().name) else []
    own = [path] if path.name == REPORT else []
    return [*own, *evidence, path / REPORT, path / "robustness" / REPORT]
