"""What was searched, as a robustness report tells it: read from a run's ledger, since robustness sees no search."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mcutune.cli.text import value

if TYPE_CHECKING:
    from mcutune.search.records import StudyRecord
    from mcutune.search.space import Parameter


def searched(folder: Path) -> dict[str, Any]:
    """The `search` part of report.json. Raises BadInput or Damaged where the run has no sound ledger."""
    from mcutune.files import read_json
    from mcutune.search.ledger import read_ledger
    from mcutune.search.run_folder import MANIFEST
    from mcutune.search.space import Parameter

    records, _ = read_ledger(folder)
    manifest = read_json(folder / MANIFEST)
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
