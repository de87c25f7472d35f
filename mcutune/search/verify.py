"""Whether the checkpoints of a run are those that its ledger acknowledged."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from pathlib import Path

from mcutune.domain.trial import LaneId, State
from mcutune.errors import Damaged
from mcutune.files import sha256_file
from mcutune.search.artefacts import checkpoint_folder
from mcutune.search.ledger import read_ledger


def wrong_checkpoints(run: Path, trials: Collection[int] | None = None, *, weights: bool = True) -> Iterator[str]:
    """One line for each file of a kept checkpoint that is not what the ledger says.

    `trials`: of these only. `weights`: whether those are hashed, too; whoever loads a checkpoint does that itself.
    Checkpoints that were not kept are no finding. Raises what read_ledger raises.
    """
    for fold, study in read_ledger(run, keep=True)[0].studies.items():
        for trial in study.trials:
            if trial.state is not State.FINISHED or (trials is not None and trial.number not in trials):
                continue
            for lane in trial.lanes:
                folder = checkpoint_folder(run, LaneId(fold, trial.number, lane.seed))
                if lane.end is None or not folder.parent.exists():
                    continue
                named = {"checkpoint.json": lane.end.checkpoint}
                if weights:
                    named["model.safetensors"] = lane.end.weights
                for name, hash_ in named.items():
                    path = folder / name
                    if path.is_symlink() or not path.is_file():
                        yield f"{path} is missing or not a regular file"
                    elif hash_ is not None and sha256_file(path) != hash_:
                        yield f"{path} is not what the ledger acknowledged: its SHA-256 differs"


def refuse_wrong_checkpoints(run: Path, trials: Collection[int]) -> None:
    """Raises Damaged at the first of these trials' checkpoint.json that is not what the ledger says."""
    for problem in wrong_checkpoints(run, trials, weights=False):
        raise Damaged(problem, hint="restore it, or search again under another --name")
