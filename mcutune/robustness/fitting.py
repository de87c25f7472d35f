"""Whether a gate fits what is going to be measured: known before anything runs and before a label is read."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from mcutune.domain.task import Task
from mcutune.robustness.calibration import MEASURES
from mcutune.robustness.confidence import MOST
from mcutune.robustness.contrasts import Contrasts, NotThere
from mcutune.robustness.effective import no_line
from mcutune.robustness.gate import Condition, Loaded
from mcutune.robustness.job import Job, facts_of
from mcutune.robustness.kinds import Fixed, Protocol
from mcutune.robustness.measure import Entry
from mcutune.robustness.overall import MOST_MODALITIES
from mcutune.robustness.protocol import Cell
from mcutune.robustness.scenarios import AXES, Scenario, scenarios_of
from mcutune.strict_yaml import Findings

_OF_ALL = ("relative", "relative_worst", "evenness")  # indices of a protocol with every combination


def refuse_unfit(loaded: Loaded, job: Job) -> None:
    """Raises Problems for every condition on what will not be measured, naming what will be."""
    contrasts, findings = Contrasts(planned(job), Path()), Findings(loaded.document)
    for n, condition in enumerate(loaded.gate.conditions):
        found = contrasts.find(condition.looked_up)
        problem = found if isinstance(found, tuple) else _unanswerable(condition, contrasts, found)
        if problem is not None:
            findings.add(("conditions", n), *problem)
    findings.close()


def _unanswerable(condition: Condition, contrasts: Contrasts, found: Entry) -> NotThere | None:
    """Why a condition on what will be measured cannot be decided whatever comes of it, if so."""
    if condition.not_worse_than is not None:
        return contrasts.no_model(found, condition.not_worse_than.model)
    if condition.drop_at_most is not None:
        return contrasts.no_drop(found)
    return (f"index {found['name']!r} {found['reason']}", []) if found.get("reason") else None


def planned(job: Job) -> Entry:
    """The places of the report to come, as conditions look them up, without a value."""
    measurements = [_at(job, cell, combination=cell.combination, scenario=cell.scenario) for cell in job.cells]
    summaries, indices, degradation = [], [], []
    for protocol in job.protocols:
        mine = [cell for cell in job.cells if cell.protocol == protocol.id]
        models = job.models_of(protocol)
        measurements += [{"protocol": protocol.id, "metric": "", "model": one.name} for one in models[1:]]
        for cell in {cell.metric: cell for cell in mine}.values():
            for series, scenarios in _curves(job, protocol):
                points = [{"scenario": one.name, "rate": one.level} for one in scenarios]
                degradation.append(_at(job, cell, series=series, points=points))
            named = list(_summaries(job, protocol, mine))
            summaries += [_at(job, cell, name=name, scenario=scenario) for name, scenario in named]
            if _has_all(job, protocol, mine):
                indices += [_at(job, cell, name=name) for name in _OF_ALL]
                indices.append(_at(job, cell, name="effective", reason=no_line(len(models), cell.metric)))
    return {
        "models": [{"name": model.name} for model in job.models],
        "data": {"table": job.table.manifest.name, "modalities": [{"name": n} for n in job.table.modalities.names]},
        "measurements": measurements,
        "summaries": summaries,
        "indices": indices,
        "degradation": degradation,
        "calibration": _calibration(job),
    }


def _at(job: Job, cell: Cell, **place: object) -> Entry:
    where = {"protocol": cell.protocol, "dataset": cell.dataset, "metric": cell.metric}
    return {**where, "model": job.selection.name, **place}


def _labels(cells: Sequence[Cell]) -> list[str]:
    return list(dict.fromkeys(str(cell.combination) for cell in cells))


def _has_all(job: Job, protocol: Protocol, cells: Sequence[Cell]) -> bool:
    count = len(job.table.modalities)
    return protocol.kind == "fixed" and 1 < count <= MOST_MODALITIES and len(_labels(cells)) == 2**count - 1


def _summaries(job: Job, protocol: Protocol, cells: Sequence[Cell]) -> Iterator[tuple[str, str]]:
    """Name and scenario of each; the area under a curve of one point has no value."""
    if isinstance(protocol, Fixed) and len(_labels(cells)) > 1:
        if protocol.combinations == "all":
            yield from (("mean_all", "fixed"), ("mean_incomplete", "fixed"))
        yield "worst", "fixed"
        if _has_all(job, protocol, cells):
            yield "cvar", "fixed"
    else:
        for series, scenarios in _curves(job, protocol):
            if len({one.used or one.level for one in scenarios}) > 1:
                yield "area", series or "all rates"


def _curves(job: Job, protocol: Protocol) -> list[tuple[str | None, list[Scenario]]]:
    """As scenarios.curves_of makes them."""
    if protocol.kind not in AXES:
        return []
    found = scenarios_of(protocol, facts_of(job.table))
    series = list(dict.fromkeys(one.series for one in found if one.series is not None))
    return [(name, [one for one in found if one.series in (None, name)]) for name in series or (None,)]


def _calibration(job: Job) -> Entry:
    """As confidence.calibration decides it."""
    fixed = next((one.id for one in job.protocols if one.kind == "fixed"), None)
    labels = _labels([cell for cell in job.cells if cell.protocol == fixed])
    reason = None
    if job.table.manifest.task is not Task.CLASSIFICATION:
        reason = "a model of values states no confidence"
    elif not labels:
        reason = "no fixed protocol is measured"
    elif len(labels) > MOST:
        reason = f"more than {MOST} combinations"
    measures = [
        {"model": job.selection.name, "measure": name, "stage": stage, "combination": label}
        for label in labels
        for name, (_, stages) in MEASURES.items()
        for stage in stages
    ]
    return {"reason": reason, "measures": [] if reason else measures}
