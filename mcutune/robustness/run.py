"""`certify`: predict with the winners, open the test labels, measure, and write a report that can be made again."""

from __future__ import annotations

import contextlib
import dataclasses
import platform
from collections.abc import Callable, Sequence
from importlib import metadata
from pathlib import Path

import numpy as np

import mcutune
from mcutune.data.splits import Split
from mcutune.data.table import Table
from mcutune.domain.combination import Modalities
from mcutune.errors import CheckFailed, UserError
from mcutune.files import hash_beside, read_json, write_hash, write_json
from mcutune.files import home as default_home
from mcutune.robustness import openings
from mcutune.robustness.checks import probe_checks, shared_groups, split_check
from mcutune.robustness.compared import notes
from mcutune.robustness.cross import reading_table
from mcutune.robustness.equivalence import checked_margin
from mcutune.robustness.evidence import locked, write_manifest, writing
from mcutune.robustness.fitting import refuse_unfit
from mcutune.robustness.gate import FILE as VERDICT
from mcutune.robustness.gate import Loaded
from mcutune.robustness.job import Job, needed, prepare
from mcutune.robustness.predict import (
    Facts,
    Load,
    load_predictor,
    predict_epochs,
    predict_source,
    predict_target,
    versions,
)
from mcutune.robustness.rebuild import Entry, rebuild
from mcutune.robustness.replaced import lost
from mcutune.robustness.scenarios import normalisation_scenario
from mcutune.robustness.selection import Selection
from mcutune.robustness.stored import Rows, write_presence, write_rows
from mcutune.robustness.validation import write_validation

REPORT = "report.json"
Progress = Callable[[int, int, str], None]
_LIBRARIES = ("numpy", "pyarrow", "scipy")


def certify(
    selection: str,
    protocols: Sequence[str] = (),
    *,
    home: Path | None = None,
    target: str | None = None,
    against: Sequence[str] | None = None,
    margin: float | None = None,
    gate: Loaded | None = None,
    search: Entry | None = None,
    progress: Progress | None = None,
    tell: Callable[[str], None] | None = None,
    load: Load = load_predictor,
) -> Entry:
    """Measure the models that `selection` names (see selection.select) and write FOLDER/report.json; the report.

    `protocols`: names or paths; by default fixed and random where they fit, and cross_dataset where `target` names a
    second table.
    `against`: selections to compare with; by default trial 0 of the same run, where that is another model. `margin`:
    also say where the model is not worse than each by this much or more, in the metric's own unit. `gate`: refused
    where it asks for what will not be measured. `search`: what was searched, for the report. `progress`: called with
    steps done, steps in all, and what comes next. `tell`: called with what a person should know before it begins.

    Raises BadInput, NoResult or Damaged before any test label is read, Busy where the same run is being measured
    elsewhere; CheckFailed after the report is written where a check of the evaluator failed, and without a report
    where a measurement is missing or not finite.
    """
    place = home or default_home()
    job = prepare(selection, protocols, place, target, against)
    job = dataclasses.replace(job, margin=checked_margin(margin))
    if gate is not None:
        refuse_unfit(gate, job)
    if tell is not None:
        for name, why, hint in job.skipped:
            tell(f"protocol {name} is left out: {why}" + (f" ({hint})" if hint else ""))
        if (replaced := lost(job)) is not None:
            tell(replaced)
    folder = job.selection.folder / job.evidence()
    tick = _Ticker(progress, job)
    with locked(job.selection.opened), writing(folder) as beside:
        log = _open_labels(job) if job.reads_labels else []
        job = job.with_labels() if job.reads_labels else job
        facts = _predict(job, beside, tick, load)
        every = None
        if job.every is not None:
            every = predict_epochs(beside, job.every, job.table, job.splits, needed(job), tick, load)
        tick("measuring")
        log = log or _open_labels(job)
        labels = _write_data(job, beside)
        write_manifest(beside, {**_manifest_facts(job, facts, log, labels, search), "every_epoch": every})
    return _report(folder, job.selection.folder / REPORT)


def _report(evidence: Path, path: Path) -> Entry:
    """Write the report of evidence. Raises CheckFailed as `certify` does."""
    try:
        report = rebuild(evidence)
    except CheckFailed:
        path.unlink(missing_ok=True)  # an older report must not pass for this one; its evidence stays
        raise
    for of_another in (hash_beside(path), path.with_name(VERDICT)):
        of_another.unlink(missing_ok=True)
    write_json(path, report)
    write_hash(path)
    failed = [f"{check['name']}: {check['detail']}" for check in report["checks"] if not check["passed"]]
    if failed:
        raise CheckFailed(
            f"the evaluator failed its check: {'; '.join(failed)}", hint="the report is written and says so"
        )
    return report


def _open_labels(job: Job) -> list[Entry]:
    """Record that labels of test rows are read from here on; all openings of the run."""
    tables = [table.manifest.name for table in (job.table, job.target) if table is not None]
    protocol_ids = [protocol.id for protocol in job.protocols]
    selection = job.selection
    told = _told(selection.folder / REPORT)
    return openings.record(selection.opened, selection.given, tables, protocol_ids, told)


def _told(report: Path) -> int:
    """The openings that the last report told of; 0 where there is none that can be read."""
    with contextlib.suppress(UserError, KeyError, TypeError, ValueError):
        return int(read_json(report)["openings"]["count"])
    return 0


class _Ticker:
    """Counts the steps of a job for the caller's progress."""

    def __init__(self, progress: Progress | None, job: Job) -> None:
        seeds = {model.name: sum(len(winner.seeds) for winner in model.winners) for model in job.models}
        crossing = sum(seeds[model.name] for model in job.models if job.cross and job.cross in job.protocols_of(model))
        self._progress, self._done = progress, 0
        epochs = sum(len(winner.seeds) for winner in job.every.winners) if job.every is not None else 0
        self._total = sum(seeds.values()) + crossing + epochs + 1

    def __call__(self, what: str) -> None:
        if self._progress is not None:
            self._progress(self._done, self._total, what)
        self._done += 1


def _predict(job: Job, folder: Path, tick: Callable[[str], None], load: Load) -> list[Facts]:
    kept, found = needed(job), []
    for number, model in enumerate(job.models):
        given = job.given.of(one.id for one in job.protocols_of(model))
        found.append(predict_source(folder, number, model, job.table, job.splits, kept, given, tick, load))
    if job.cross is not None and job.target is not None:
        scenarios = {normalisation_scenario(mode): mode for mode in job.cross.normalisation}
        for number, model in enumerate(job.models):
            if job.cross not in job.protocols_of(model):
                continue
            measured = job.target.labelled
            predict_target(folder, number, model, job.target, job.common, measured, scenarios, tick, load)
    return found


def _write_data(job: Job, folder: Path) -> Entry | None:
    """Write masks and measured rows with their labels; how the target's labels were read, for the report."""
    names, table = job.table.modalities, job.table
    tested = np.flatnonzero(job.given.fold >= 0)
    for protocol, masks in job.given.masks.items():
        drawn = [one.of_rows(tested) for one in masks]
        write_presence(folder, protocol, table.manifest.name, drawn, table.ids[tested], names)
    tests = [split.test[table.labelled[split.test]] for split in job.splits.values()]
    fold = np.repeat(np.arange(len(tests)), [len(rows) for rows in tests])
    rows = np.concatenate(tests)
    write_rows(folder, table.manifest.name, _rows(table, rows, fold, tuple(job.splits), table.labels(rows)), names)
    write_validation(folder, table, job.splits)
    return _write_target(job, folder, job.target) if job.target is not None else None


def _rows(table: Table, rows: np.ndarray, fold: np.ndarray, folds: tuple[str, ...], truth: np.ndarray) -> Rows:
    ids = tuple(table.ids[rows].tolist())
    return Rows(ids, fold, folds, table.group[rows], table.group_names, truth, table.presence[rows])


def _write_target(job: Job, folder: Path, target: Table) -> Entry:
    """Write the target's rows with their labels as the model's classes; how these were read."""
    rows = np.flatnonzero(target.labelled)
    truth, common = target.labels(rows), job.common
    told: Entry = {"map": {}, "dropped": {}, "coverage": 1.0}
    if job.reading is not None:
        names = target.manifest.label_names or []
        counts = dict(zip(names, np.bincount(truth, minlength=len(names)).tolist(), strict=True))
        truth = reading_table(job.reading, job.table.manifest.label_names or [], names)[truth]
        kept = truth >= 0
        dropped = {name: counts[name] for name in job.reading.dropped}
        told = {"map": dict(job.reading.map), "dropped": dropped, "coverage": float(kept.mean())}
        rows, truth = rows[kept], truth[kept]
    columns = [target.modalities.names.index(name) for name in common]
    one = _rows(target, rows, np.zeros(len(rows), dtype=np.int64), ("",), truth)
    write_rows(folder, target.manifest.name, one.with_presence(one.presence[:, columns]), Modalities(common))
    return told


def _manifest_facts(
    job: Job, facts: list[Facts], log: list[Entry], labels: Entry | None, search: Entry | None
) -> Entry:
    """Everything of the report that is not computed from the stored files."""
    chosen, names = job.selection, job.table.modalities
    splits = list(job.splits.values())
    checks = [
        *probe_checks([one for model in facts for one in model.probes]),
        split_check(job.table, splits),
    ]
    protocol_ids = ", ".join(protocol.id for protocol in job.protocols)
    on = job.table.manifest.name + (f" and {job.target.manifest.name}" if job.target is not None else "")
    return {
        "title": f"{chosen.name} on {on}: {protocol_ids}",
        "run": chosen.run,
        "selection": chosen.given,
        "created": log[-1]["time"],
        "resampling": dataclasses.asdict(job.how),
        "margin": job.margin,
        "versions": _versions(),
        "models": [_model(model, of, n == 0) for n, (model, of) in enumerate(zip(job.models, facts, strict=True))],
        "attends": [of.attends for of in facts],
        "combinations": [names.labels[index] for index in needed(job)],
        "label_names": list(job.table.manifest.label_names or []),
        "data": _data(job.table, facts[0].normalisation, "group" in facts[0].normalisation, None),
        "targets": [] if job.target is None else [_target(job, job.target, facts[0].normalisation, labels)],
        "protocols": [protocol.model_dump(mode="json") for protocol in job.protocols],
        "checks": [check.to_json() for check in checks],
        "noise": {key: source.digests(_tested_by_fold(job)) for key, source in job.given.noise.items()},
        "openings": {"count": len(log), "log": log},
        "search": search,
        "dpft": [one for of in facts[:1] for one in of.dpft],
        "warnings": _warnings(job, splits),
    }


def _tested_by_fold(job: Job) -> dict[int, int]:
    """Test rows of each measured fold, by the fold's code."""
    return {int(job.given.fold[split.test[0]]): len(split.test) for split in job.splits.values()}


def _model(model: Selection, facts: Facts, subject: bool) -> Entry:
    return {
        "name": model.name,
        "role": "subject" if subject else "reference",
        "comparator": dataclasses.asdict(model.comparator) if model.comparator is not None else None,
        "winners": [
            {
                **{key: getattr(winner, key) for key in ("fold", "trial", "score", "scores", "configuration")},
                "checkpoints": [
                    {"seed": s.seed, "sha256": s.sha256, "best_epoch": facts.epochs[winner.fold, s.seed]}
                    for s in winner.seeds
                ],
            }
            for winner in model.winners
        ],
    }


def _data(table: Table, modes: set[str], reads_test: bool, labels: Entry | None) -> Entry:
    manifest = table.manifest
    return {
        "table": manifest.name,
        "hash": manifest.hash,
        "task": manifest.task.value,
        "rows": manifest.rows,
        "group": manifest.group,
        "modalities": [{"name": name, "dim": dim} for name, dim in manifest.modalities.items()],
        "normalisation": " and ".join(sorted(modes)),
        "unlabelled": manifest.unlabelled,
        "test_features_normalise": reads_test,
        "labels": labels,
    }


def _target(job: Job, target: Table, modes: set[str], labels: Entry | None) -> Entry:
    assert job.cross is not None
    return _data(target, set(job.cross.normalisation), "corpus" in job.cross.normalisation or "group" in modes, labels)


def _warnings(job: Job, splits: list[Split]) -> list[str]:
    found = []
    shared = shared_groups(job.table, splits)
    if shared:
        found.append(f"{shared} {job.table.manifest.group}s have rows in training and in test of the same fold.")
    if job.selection.run is not None and job.selection.given not in ("best", job.selection.run):
        found.append(f"{job.selection.name} was asked for by name; it is not the winner that the search chose.")
    found += [f"Protocol {name} was not measured: {why}." for name, why, _ in job.skipped]
    return found + (notes(job.selection.run, job.home) if job.selection.run is not None else [])


def _versions() -> dict[str, str]:
    libraries = {name: metadata.version(name) for name in _LIBRARIES}
    return {"mcutune": mcutune.__version__, "python": platform.python_version(), **libraries, **versions()}
