"""placeholder"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from mcutune.domain.trial import LaneId
from mcutune.search.artefacts import checkpoint_folder
from mcutune.search.progress import by_label
from mcutune.search.records import Records, floats


def best_of(records: Records, run: Path) -> list[dict[str, Any]]:
    """The entries of best.json: the winner of every fold that has one, with its checkpoints (folders inside the run)."""
    found = []
    for fold, study in records.studies.items():
        best = study.best
        if best is None:
            continue
        checkpoints = [
            {
                "seed": lane.seed,
                "folder": str(checkpoint_folder(run, LaneId(fold, best.number, lane.seed)).relative_to(run)),
                "sha256": lane.end.checkpoint,
            }
            for lane in best.lanes
            if lane.end is not None
        ]
        scores = by_label(study, [floats(lane.top.scores) for lane in best.lanes if lane.top])
        found.append(
            {
                "fold": fold,
                "trial": best.number,
                "score": best.score,
                "scores": scores,
                "configuration": study.configuration(best),
                "checkpoints": checkpoints,
            }
        )
    return found
