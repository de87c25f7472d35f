"""A search for other tools: an Optuna journal that optuna-dashboard opens, and Parquet.

`optuna.log` holds a study a fold, named RUN/FOLD. `trials.parquet` has a row a trial, `epochs.parquet` a row a lane and
epoch, both with page checksums.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.parquet as pq

from mcutune.domain.trial import State
from mcutune.files import read_sealed, replacing
from mcutune.search.ledger import read_ledger
from mcutune.search.progress import by_label
from mcutune.search.records import Records, StudyRecord, TrialRecord, floats
from mcutune.search.run_folder import MANIFEST
from mcutune.search.space import Parameter

if TYPE_CHECKING:
    import optuna

JOURNAL, TRIALS, EPOCHS = "optuna.log", "trials.parquet", "epochs.parquet"


def export_study(run: Path, target: Path) -> tuple[Path, ...]:
    """Write the three files of a run into a folder; files of these names are replaced.

    Raises BadInput without a search, Damaged.
    """
    records, _ = read_ledger(run, keep=True)
    listed = read_sealed(run / MANIFEST)["space"]["parameters"]
    parameters = [Parameter.from_json(name, facts) for name, facts in listed.items()]
    target.mkdir(parents=True, exist_ok=True)
    with replacing(target / TRIALS) as path:
        _write(path, list(_trial_rows(records)))
    with replacing(target / EPOCHS) as path:
        _write(path, list(_epoch_rows(records)))
    with replacing(target / JOURNAL) as path:
        for study in records.studies.values():
            _write_study(path, f"{run.name}/{study.row.fold}", study, parameters)
    return target / JOURNAL, target / TRIALS, target / EPOCHS


def _write(path: Path, rows: list[dict[str, Any]]) -> None:
    """A row need not have every column: a trial that failed has no scores."""
    names = dict.fromkeys(name for row in rows for name in row)
    table = pa.table({name: [row.get(name) for row in rows] for name in names})
    pq.write_table(table, path, compression="zstd", write_page_checksum=True)


def _trial_rows(records: Records) -> Iterator[dict[str, Any]]:
    for fold, study in records.studies.items():
        for trial in study.trials:
            yield {
                "fold": fold,
                "trial": trial.number,
                "state": trial.state.value,
                "score": trial.score,
                "repeats": trial.repeats,
                "failure": trial.failure.value if trial.failure else None,
                "message": trial.message,
                "seed_scores": [lane.end.score if lane.end else None for lane in trial.lanes],
                **{f"score.{label}": value for label, value in _scores(study, trial).items()},
                **study.configuration(trial),
            }


def _scores(study: StudyRecord, trial: TrialRecord) -> dict[str, float]:
    """The metric by combination at every lane's best epoch, mean over seeds, of a finished trial."""
    if trial.state is not State.FINISHED:
        return {}
    return by_label(study, [floats(best.scores) for lane in trial.lanes if (best := lane.best())])


def _epoch_rows(records: Records) -> Iterator[dict[str, Any]]:
    for fold, study in records.studies.items():
        for trial in study.trials:
            for lane in trial.lanes:
                for row in lane.epochs:
                    vectors = {"score": row.scores, "probability": row.probabilities, "divergence": row.divergences}
                    yield {
                        "fold": fold,
                        "trial": trial.number,
                        "seed": lane.seed,
                        "epoch": row.epoch,
                        "objective": row.value,
                        "loss": row.loss,
                        **{
                            f"{name}.{label}": value
                            for name, content in vectors.items()
                            for label, value in by_label(study, [floats(content)]).items()
                        },
                    }


def _write_study(path: Path, name: str, study: StudyRecord, parameters: list[Parameter]) -> None:
    import optuna
    from optuna.storages import JournalStorage
    from optuna.storages.journal import JournalFileBackend

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    storage = JournalStorage(JournalFileBackend(str(path)))
    written = optuna.create_study(storage=storage, study_name=name, direction="maximize")
    written.set_user_attr("metric", study.row.metric)
    distributions = _distributions(study, parameters)
    for trial in study.trials:
        if trial.state is not State.RUNNING:
            written.add_trial(_frozen(study, trial, distributions))


def _distributions(study: StudyRecord, parameters: list[Parameter]) -> dict[str, optuna.distributions.BaseDistribution]:
    """Of the searched settings; of a list of configurations, those that differ, as categories."""
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    found: dict[str, optuna.distributions.BaseDistribution] = {}
    for p in parameters:
        if p.values:
            found[p.name] = CategoricalDistribution([_plain(value) for value in p.values])
        elif isinstance(p.low, int) and isinstance(p.high, int):
            found[p.name] = IntDistribution(p.low, p.high, log=p.log, step=int(p.step or 1))
        else:
            found[p.name] = FloatDistribution(p.low, p.high, log=p.log, step=p.step)
    if not parameters:
        names = sorted({name for trial in study.trials for name in trial.settings})
        for name in names:
            values = dict.fromkeys(_plain(study.configuration(trial)[name]) for trial in study.trials)
            found[name] = CategoricalDistribution(list(values))
    return found


def _frozen(
    study: StudyRecord, trial: TrialRecord, distributions: Mapping[str, optuna.distributions.BaseDistribution]
) -> optuna.trial.FrozenTrial:
    """The trial with its learning curve (mean over seeds); settings outside the space (trial 0) as attributes only."""
    from optuna.trial import TrialState, create_trial

    states = {State.FINISHED: TrialState.COMPLETE, State.PRUNED: TrialState.PRUNED, State.FAILED: TrialState.FAIL}
    configuration = study.configuration(trial)
    values = {name: _plain(configuration[name]) for name in distributions}
    inside = {name: value for name, value in values.items() if _inside(distributions[name], value)}
    curves = list(zip(*([row.value for row in lane.epochs] for lane in trial.lanes), strict=False))
    return create_trial(
        state=states[trial.state],
        value=trial.score if trial.state is State.FINISHED else None,
        params=inside,
        distributions={name: distributions[name] for name in inside},
        intermediate_values={epoch: sum(curve) / len(curve) for epoch, curve in enumerate(curves, 1)},
        user_attrs={
            "trial": trial.number,
            "scores": _scores(study, trial),
            "seeds": [lane.end.score for lane in trial.lanes if lane.end is not None],
            **({"failure": f"{trial.failure.value}: {trial.message}"} if trial.failure else {}),
            **({"repeats": trial.repeats} if trial.repeats is not None else {}),
        },
    )


def _plain(value: Any) -> Any:
    """A value that Optuna takes as a category."""
    return value if value is None or isinstance(value, bool | int | float | str) else str(list(value))


def _inside(distribution: optuna.distributions.BaseDistribution, value: Any) -> bool:
    try:
        return bool(distribution._contains(distribution.to_internal_repr(value)))
    except (ValueError, TypeError):
        return False
