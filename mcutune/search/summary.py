"""What a search found, and how far it can be believed: winners, boundaries, noise, agreement. Pure, from the records.

All scores are of validation, on which the winner was chosen: they flatter it. `mcutune robustness` has the test rows.
"""

from __future__ import annotations

import itertools
import math
import statistics
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter

from mcutune.domain.trial import LaneId, State
from mcutune.files import read_sealed
from mcutune.search.artefacts import checkpoint_folder
from mcutune.search.canonical import ledger_hash
from mcutune.search.ledger import read_ledger
from mcutune.search.lock import holder_of
from mcutune.search.pack_sizes import sizes
from mcutune.search.progress import by_label
from mcutune.search.records import Records, StudyRecord, TrialRecord, floats
from mcutune.search.run_folder import MANIFEST
from mcutune.search.rungs import rank_correlation, scouted, widened
from mcutune.search.snapshot import read_snapshot
from mcutune.search.space import Parameter, Rungs

FINISHED = "finished"  # the kind of the event that ends a search
_FEWEST_SEEDS = 3  # below that, a difference between two trials is not told from noise
_FEWEST_SHARED = 5  # configurations that two folds share, for their ranks to be compared


@dataclass(frozen=True)
class Boundary:
    """A searched setting of a winner that lies on an end of its range: the best value may lie beyond."""

    parameter: str
    role: str
    end: str
    value: Any


@dataclass(frozen=True)
class Comparison:
    """A winner against trial 0, paired over seeds (the same seeds, the same random numbers). Objective, higher better.

    `verdict`: `better`, `cannot tell`, or `same` where trial 0 itself won. `low`, `high`: 95 % interval, t over seeds.
    """

    difference: float
    seeds: int
    deviation: float | None
    low: float | None
    high: float | None
    verdict: str


@dataclass(frozen=True)
class Winner:
    """The best trial of a fold. `scores` and `spread` (standard deviation over seeds): metric by combination label."""

    fold: str
    trial: int
    score: float
    seeds: tuple[float, ...]
    deviation: float | None
    scores: dict[str, float]
    spread: dict[str, float]
    settings: dict[str, Any]
    configuration: dict[str, Any]
    boundaries: tuple[Boundary, ...]
    default: Comparison | None


@dataclass(frozen=True)
class RungView:
    """A rung of a fold: how many trials reached it and how many ended there.

    correlation: rank correlation of the scores there with those at the end, over so many `scouts`; None of too few.
    eta: the best 1/eta go on, of the trials that know the correlation. widened: whether that is more than was named.
    """

    fold: str
    epoch: int
    reached: int
    pruned: int
    correlation: float | None
    scouts: int
    eta: int
    widened: bool


@dataclass(frozen=True)
class Summary:
    """A run. `agreement`: mean rank correlation between folds over configurations they share; None if too few.

    `trained`, `full`: epochs of all lanes, and what they would be had every trial been trained in full. `packs`: how
    many of which size there were last, in words.
    """

    run: str
    state: str
    metric: str
    counts: dict[str, int]
    repeats: int
    winners: tuple[Winner, ...]
    failures: tuple[tuple[str, int, str], ...]
    agreement: float | None
    rungs: tuple[RungView, ...]
    trained: int
    full: int
    not_reproducible: int
    ledger_hash: str
    packs: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """As JSON values."""
        return asdict(self)


_SUMMARY: TypeAdapter[Summary] = TypeAdapter(Summary)


def summarise(folder: Path) -> Summary:
    """The summary of a run's folder, as of now. Raises BadInput without a search, Damaged.

    Of a run at work its writer keeps one (snapshot.py); else, or where that is not of now, the whole ledger is read and
    verified.
    """
    held = holder_of(folder) is not None
    facts = read_snapshot(folder) if held else None
    if facts is not None:
        return _SUMMARY.validate_python(facts)
    return summary_of(folder, read_ledger(folder)[0], held)


def summary_of(folder: Path, records: Records, held: bool) -> Summary:
    """The summary of a run's records. `held`: a writer is at work on them."""
    manifest = read_sealed(folder / MANIFEST)
    parameters = [Parameter.from_json(name, facts) for name, facts in manifest["space"]["parameters"].items()]
    rungs = Rungs(**manifest["space"]["rungs"]) if manifest["space"]["rungs"] else None
    studies = list(records.studies.values())
    counts = Counter[str]()
    for study in studies:
        counts.update(study.counts)
    return Summary(
        run=folder.name,
        state=_state(records, manifest, held),
        metric=studies[0].row.metric if studies else "",
        counts={state.value: counts[state.value] for state in State},
        repeats=sum(trial.repeats is not None for study in studies for trial in study.trials),
        winners=tuple(_winner(study, parameters) for study in studies if study.best is not None),
        failures=_failures(studies),
        agreement=agreement(studies),
        rungs=tuple(view for study in studies for view in rung_views(study, rungs)) if rungs else (),
        trained=records.epochs,
        full=manifest["space"]["seeds"] * sum(_epochs(study, trial) for study in studies for trial in study.trials),
        not_reproducible=sum(event.kind == "not reproducible" for event in records.events),
        ledger_hash=ledger_hash(records),
        packs=tuple(sizes(records.events)),
    )


def status(folder: Path) -> dict[str, Any]:
    """What `mcutune status --json` prints (status.schema.json)."""
    summary = summarise(folder)
    keys = ("fold", "trial", "score", "scores", "configuration")
    return {
        "name": summary.run,
        "state": summary.state,
        "trials": summary.counts,
        "best": [
            {key: getattr(winner, key) for key in keys} | {"seeds": list(winner.seeds)} for winner in summary.winners
        ],
        "rungs": [asdict(rung) for rung in summary.rungs],
        "epochs": {"trained": summary.trained, "full": summary.full},
        "ledger_hash": summary.ledger_hash,
    }


def best_of(records: Records, run: Path) -> list[dict[str, Any]]:
    """The entries of best.json: every fold's winner with its checkpoints (folders inside the run)."""
    found = []
    for study in records.studies.values():
        best = study.best
        if best is None:
            continue
        checkpoints = []
        for lane in best.lanes:
            folder = checkpoint_folder(run, LaneId(study.row.fold, best.number, lane.seed)).relative_to(run)
            assert lane.end is not None
            checkpoints.append({"seed": lane.seed, "folder": str(folder), "sha256": lane.end.checkpoint})
        entry = {
            "fold": study.row.fold,
            "trial": best.number,
            "score": best.score,
            "scores": _scores(study, best),
            "configuration": study.configuration(best),
            "checkpoints": checkpoints,
        }
        found.append(entry)
    return found


def _state(records: Records, manifest: Mapping[str, Any], held: bool) -> str:
    """running, finished, or stopped: the same command would continue."""
    if held:
        return "running"
    studies = list(records.studies.values())
    over = bool(studies) and not any(study.running for study in studies)
    ended = bool(records.events) and records.events[-1].kind == FINISHED
    complete = all(len(study.trials) >= manifest["trials"] for study in studies)
    return "finished" if over and (ended or complete) else "stopped"


def _winner(study: StudyRecord, parameters: Sequence[Parameter]) -> Winner:
    best = study.best
    assert best is not None and best.score is not None
    configuration = study.configuration(best)
    seeds = lane_scores(best)
    vectors = [floats(lane.top.scores) for lane in best.lanes if lane.top]
    spread = {
        label: statistics.stdev(vector[i] for vector in vectors)
        for i, label in enumerate(study.combinations)
        if len(vectors) > 1
    }
    return Winner(
        fold=study.row.fold,
        trial=best.number,
        score=best.score,
        seeds=seeds,
        deviation=statistics.stdev(seeds) if len(seeds) > 1 else None,
        scores=_scores(study, best),
        spread=spread,
        settings=best.settings,
        configuration=configuration,
        boundaries=tuple(boundaries(parameters, configuration)) if best.number else (),
        default=against_default(study),
    )


def lane_scores(trial: TrialRecord) -> tuple[float, ...]:
    """The objective of every seed of a finished trial, by seed."""
    return tuple(lane.end.score for lane in trial.lanes if lane.end is not None and lane.end.score is not None)


def _scores(study: StudyRecord, trial: TrialRecord) -> dict[str, float]:
    return by_label(study, [floats(lane.top.scores) for lane in trial.lanes if lane.top])


def boundaries(parameters: Sequence[Parameter], configuration: Mapping[str, Any]) -> list[Boundary]:
    """The searched settings that lie on an end of their range."""
    found = []
    for parameter in parameters:
        value = configuration[parameter.name]
        if parameter.contains(value) and (end := parameter.boundary(value)) is not None:
            found.append(Boundary(parameter.name, parameter.role, end, value))
    return found


def against_default(study: StudyRecord) -> Comparison | None:
    """The winner against trial 0; None where trial 0 has no score."""
    best, default = study.best, study.trials[0] if study.trials else None
    if best is None or default is None or default.state is not State.FINISHED:
        return None
    if best is default:
        return Comparison(0.0, len(best.lanes), None, None, None, "same")
    return compare(lane_scores(best), lane_scores(default))


def compare(ours: Sequence[float], theirs: Sequence[float]) -> Comparison:
    """Two trials, paired over their seeds."""
    differences = [a - b for a, b in zip(ours, theirs, strict=True)]
    mean, count = math.fsum(differences) / len(differences), len(differences)
    if count < 2:
        return Comparison(mean, count, None, None, None, "cannot tell")
    from scipy.special import stdtrit  # the quantile of scipy.stats.t, which takes a second more to import

    deviation = statistics.stdev(differences)
    half = float(stdtrit(count - 1, 0.975)) * deviation / math.sqrt(count)
    clear = count >= _FEWEST_SEEDS and mean - half > 0
    return Comparison(mean, count, deviation, mean - half, mean + half, "better" if clear else "cannot tell")


def agreement(studies: Sequence[StudyRecord]) -> float | None:
    """Mean Spearman correlation of scores between folds, over the configurations that finished in both."""
    tables: list[dict[str, float | None]] = []
    if len(studies) < 2:
        return None
    for study in studies:
        finished = [trial for trial in study.trials if trial.state is State.FINISHED and trial.repeats is None]
        tables.append({trial.text: trial.score for trial in finished})
    found = []
    for one, other in itertools.combinations(tables, 2):
        shared = sorted(one.keys() & other.keys())
        columns = [[table[key] for key in shared] for table in (one, other)]
        if len(shared) >= _FEWEST_SHARED and all(len(set(column)) > 1 for column in columns):
            from scipy.stats import spearmanr

            found.append(float(spearmanr(*columns).statistic))
    return sum(found) / len(found) if found else None


def rung_views(study: StudyRecord, rungs: Rungs) -> list[RungView]:
    """The rungs of the study's default budget, and what was seen at them."""
    own = [trial for trial in study.trials if trial.repeats is None]
    found = []
    for epoch in rungs.below(study.default["epochs"]):
        pairs = scouted(study.trials, rungs.scouts, epoch)
        correlation = rank_correlation(pairs)
        ended = [trial for trial in own if trial.state is State.PRUNED and max(trial.reached, default=0) == epoch]
        reached = sum(epoch in trial.reached for trial in own)
        eta = widened(rungs.eta, correlation)
        view = RungView(study.row.fold, epoch, reached, len(ended), correlation, len(pairs), eta, eta < rungs.eta)
        found.append(view)
    return found


def _epochs(study: StudyRecord, trial: TrialRecord) -> int:
    """Of each lane of a trial trained in full."""
    if trial.repeats is not None:
        return 0
    settings = trial.settings if '"epochs"' in trial.text else study.default  # most searches do not vary it
    return int(settings["epochs"])


def _failures(studies: Sequence[StudyRecord]) -> tuple[tuple[str, int, str], ...]:
    """(cause, how many trials, an example), the most frequent first."""
    failed = [
        trial for study in studies for trial in study.trials if trial.state is State.FAILED and trial.repeats is None
    ]
    causes = Counter(trial.failure.value if trial.failure else "unknown" for trial in failed)
    examples: dict[str, str] = {}
    for trial in failed:
        cause = trial.failure.value if trial.failure else "unknown"
        examples.setdefault(cause, f"trial {trial.number}: {trial.message}")
    return tuple((cause, count, examples[cause]) for cause, count in causes.most_common())
