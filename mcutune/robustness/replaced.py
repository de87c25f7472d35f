"""What the report that stands there has and the next one will not: said before it is replaced."""

from __future__ import annotations

import contextlib

from mcutune.data.hints import listed
from mcutune.errors import UserError
from mcutune.inert import inert
from mcutune.robustness.job import Job
from mcutune.robustness.reports import REPORT, read_report

_SHOWN = 6  # names of a kind


def lost(job: Job) -> str | None:
    """A sentence where a wider report of the same checkpoints is replaced; None where there is none to be read."""
    with contextlib.suppress(UserError, LookupError, TypeError, AttributeError):
        old = read_report(job.selection.folder / REPORT)
        measured = [c["sha256"] for winner in old["models"][0]["winners"] for c in winner["checkpoints"]]
        if measured != [seed.sha256 for winner in job.selection.winners for seed in winner.seeds]:
            return None
        target = {job.target.manifest.name} if job.target is not None else set()
        parts = (
            ("protocol", [one["id"] for one in old["protocols"]], {one.id for one in job.protocols}),
            ("model", [one["name"] for one in old["models"]], {one.name for one in job.models}),
            ("target", [one["table"] for one in old["targets"]], target),
        )
        missing = [_named(word, [name for name in have if name not in kept]) for word, have, kept in parts]
        shown = "; ".join(one for one in missing if one)
        if shown:
            where = inert(old["provenance"]["evidence"]["folder"])
            return f"this replaces a report that also has {shown}; its evidence stays in {where}"
    return None


def _named(word: str, names: list[str]) -> str:
    return f"{word}{'' if len(names) == 1 else 's'} {listed(names, _SHOWN)}" if names else ""
