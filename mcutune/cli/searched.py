"""What was searched, as a robustness report tells it: read from a run's ledger, since robustness sees no search."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mcutune.cli.advisories import refuse_vulnerable
from mcutune.cli.text import value

if TYPE_CHECKING:
    from mcutune.robustness.selection import Selection
    from mcutune.search.records import StudyRecord
    from mcutune.search.space import Parameter


def selected(given: str, against: Iterable[str]) -> Selection:
    """What is to be measured. Raises what select does, and where the run of one of `against` has no winner, too."""
    from mcutune.cli.runs import refuse_without_winner
    from mcutune.files import home
    from mcutune.robustness.selection import select

    refuse_without_winner(given, *against)
    return select(given, home())


def refuse_untrusted(chosen: Selection, folder: Path | None) -> None:
    """Before anything is measured: libraries below their floors, and checkpoints that the run's ledger does not know.

    `folder`: of the run. Raises BadInput, Damaged.
    """
    from mcutune.search.ledger import DATABASE
    from mcutune.search.verify import refuse_wrong_checkpoints

    refuse_vulnerable()
    if folder is not None and (folder / DATABASE).exists():
        refuse_wrong_checkpoints(folder, {0, *(w.trial for w in chosen.winners if w.trial is not None)})


def searched(folder: Path) -> dict[str, Any]:
    """The `search` part of report.json. Raises BadInput or Damaged where the run has no sound ledger."""
    from mcutune.files import read_sealed
    from mcutune.search.ledger import read_ledger
    from mcutune.search.run_folder import MANIFEST
    from mcutune.search.space import Parameter

    records, _ = read_ledger(folder)
    manifest = read_sealed(folder / MANIFEST)
    parameters = manifest["space"]["parameters"].items()
    studies = [study for study in records.studies.values() if study.best is not None]
    objective = json.loads(studies[0].row.objective)
    return {
        "space": {
            "name": manifest["space_name"],
            "hash": manifest["space_hash"],
            "dimensions": [{"key": key, "range": _range(Parameter.from_json(key, facts))} for key, facts in parameters],
        },
        "metric": studies[0].row.metric,
        "objective": objective if isinstance(objective, str) else json.dumps(objective),
        "folds": [_fold(study) for study in studies],
    }


def _range(parameter: Parameter) -> str:
    if parameter.values:
        return ", ".join(value(one) for one in parameter.values)
    step = f" step {value(parameter.step)}" if parameter.step is not None else ""
    return f"{value(parameter.low)} to {value(parameter.high)}{step}{' (log)' if parameter.log else ''}"


def _fold(study: StudyRecord) -> dict[str, Any]:
    assert study.best is not None
    counts = {state: study.counts.get(state, 0) for state in ("finished", "pruned", "failed")}
    return {
        "fold": study.row.fold,
        "trials": counts,
        "winner": study.best.number,
        "winner_score": study.best.score,
        "trial0_score": study.trials[0].score,
    }
