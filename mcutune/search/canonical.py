"""The form of a ledger that is the same after any kill, and its hash.

The canonical form of a trial holds what must not depend on who ran it, where, when, in how many attempts or packs.
Of a failed trial it holds no lanes: how far its other lanes had come depends on timing. The rungs that it reached do
not, since no lane passes a rung before all lanes of its trial have reached it.
"""

from __future__ import annotations

from collections.abc import Iterator
from hashlib import sha256 as sha256_of
from typing import Any

from mcutune.domain.trial import State
from mcutune.files import canonical_json, sha256
from mcutune.search.records import LaneRecord, Records, TrialRecord


def canonical_trial(trial: TrialRecord, state: State, score: float | None) -> dict[str, Any]:
    """What of a trial that ends so must be the same after any kill, with any packs. Its epochs must still be there."""
    lanes = [] if state is State.FAILED else [_canonical_lane(lane) for lane in trial.lanes]
    return {
        "number": trial.number,
        "settings": trial.settings,
        "repeats": trial.repeats,
        "state": state.value,
        "score": score,
        "rungs": sorted(trial.reached.items()),
        "lanes": lanes,
    }


def _canonical_lane(lane: LaneRecord) -> dict[str, Any]:
    assert lane.end is not None
    digest = sha256_of()
    for row in lane.epochs:
        digest.update(ascii(row.measured()).encode())
    return {
        "seed": lane.seed,
        "state": lane.state.value,
        "best_epoch": lane.end.best_epoch,
        "score": lane.end.score,
        "weights": lane.end.weights,
        "epochs": digest.hexdigest(),
    }


def trial_digest(trial: TrialRecord, state: State, score: float | None) -> str:
    """SHA-256 of the canonical form; stored with the trial's last row."""
    return sha256(canonical_json(canonical_trial(trial, state, score)))


def ledger_hash(records: Records) -> str:
    """SHA-256 over all studies and the digests of their ended trials, by fold and number."""
    digest = sha256_of()
    for line in canonical_lines(records):
        digest.update(line)
    return digest.hexdigest()


def canonical_lines(records: Records) -> Iterator[bytes]:
    """What `ledger_hash` covers: a line a study, a line an ended trial."""
    for fold in sorted(records.studies):
        study = records.studies[fold]
        yield canonical_json(study.row._asdict()) + b"\n"
        for trial in study.trials:
            if trial.state is not State.RUNNING:
                yield f"{trial.number} {trial.digest}\n".encode()
