"""The folder of a run: what it was made from, and whether the same command may continue it."""

from __future__ import annotations

import json
import platform
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cache
from hashlib import sha256
from importlib import metadata
from pathlib import Path
from typing import Any

import mcutune
from mcutune.data.views import FoldData
from mcutune.domain.combination import Modalities
from mcutune.domain.objective import scalar
from mcutune.domain.task import default_metric, metric_named
from mcutune.errors import BadInput, Problems, Stopped
from mcutune.files import checked_name, read_sealed, refuse_links, sealed, write_bytes, write_json
from mcutune.search.lock import COMMAND, RunLock
from mcutune.search.records import StudyRow
from mcutune.search.space import Space, difference

MANIFEST, SPACE, STOP, BEST = "manifest.json", "space.yaml", "stop", "best.json"
_LIBRARIES = ("torch", "numpy", "optuna", "scipy", "ray")
_PLACES = (MANIFEST, SPACE, STOP, BEST, "checkpoints", "logs")
_SOURCES = (".py", ".yaml")
_DECIDES = ("domain", "data", "model", "training", "search")  # rooms of the package on which a result may depend
_MOST_MODALITIES = 6  # 63 combinations an epoch; beyond that the space names which


@dataclass(frozen=True)
class Plan:
    """What a search is to do. `folder`: home()/runs/NAME. `data`: the data set's name. `fold_data`: a fold's view.

    label: its name where that is not the folder's. packs: how many are started, which decides speed only.

    `driver`: pid of the process that a person started, where the coordinator runs in another one. `keep`: the
    checkpoints of how many ended trials stay, a fold (keeping.py); None for all that finished.
    """

    folder: Path
    space: Space
    folds: tuple[str, ...]
    fold_data: Callable[[str], FoldData]
    data: str
    threads: int = 1
    accept_change: bool = False
    driver: int | None = None
    keep: int | None = None
    facts: dict[str, Any] = field(default_factory=dict)
    label: str = ""
    packs: int = 1

    @property
    def name(self) -> str:
        return self.label or self.folder.name


def make_folder(plan: Plan) -> None:
    """The run's folder. Raises BadInput for a name or place that cannot be."""
    checked_name(plan.folder.name, "run")
    for fold in plan.folds:
        checked_name(fold, "fold")
    try:
        plan.folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise BadInput(f"{plan.folder} cannot be made: {error.strerror}", hint="set MCUTUNE_HOME") from None
    refuse_links(plan.folder, *_PLACES, *(f"checkpoints/{fold}" for fold in plan.folds))


def study_row(plan: Plan, data: FoldData) -> StudyRow:
    """The facts of a fold's study. Raises BadInput where the space does not fit the data."""
    space, modalities = plan.space.of(data.fold), Modalities(tuple(data.modalities))
    metric = metric_named(space.metric, data.task) if space.metric else default_metric(data.task)
    if not space.combinations and len(modalities) > _MOST_MODALITIES:
        raise BadInput(
            f"{len(modalities)} modalities have {len(modalities.labels)} combinations",
            hint="list those to measure under `combinations:` in the space",
        )
    chosen = {modalities.label(modalities.parse(label)) for label in space.combinations} or set(modalities.labels)
    measured = [index for index, label in enumerate(modalities.labels) if label in chosen]
    _check_static(space, modalities)
    for objective in (space.objective.to_json(), *_objectives(space, modalities)):
        scalar([0.0] * len(measured), measured, modalities.names, objective, metric.name)
    return StudyRow(
        fold=data.fold,
        task=data.task.value,
        table_hash=data.table_hash,
        split_hash=data.split_hash,
        modalities=json.dumps(modalities.names),
        combinations=json.dumps([modalities.labels[index] for index in measured]),
        metric=metric.name,
        objective=json.dumps(space.objective.to_json()),
        settings=json.dumps(space.default.model_dump(mode="json")),
        space_hash=plan.space.hash,
    )


def _check_static(space: Space, modalities: Modalities) -> None:
    """Raises BadInput where fixed probabilities are not one a combination of these modalities."""
    given = [space.default.static, *(v for p in space.parameters if p.name == "static" for v in p.values or ())]
    given += [values["static"] for values in space.explicit if "static" in values]
    wrong = next((static for static in given if static is not None and len(static) != len(modalities.labels)), None)
    if wrong is not None:
        order = ", ".join(modalities.labels)
        raise BadInput(
            f"static has {len(wrong)} numbers for {len(modalities.labels)} combinations", hint=f"order: {order}"
        )


def _objectives(space: Space, modalities: Modalities) -> list[Any]:
    """What listed configurations choose their best epoch by."""
    listed = [space.default, *(space.configuration(values) for values in space.explicit)]
    return [one.objective("mean", modalities.labels) for one in listed]


def agree(plan: Plan, rows: Sequence[StudyRow]) -> list[str]:
    """Write the manifest of a new run, or check an old one against the plan; returns the changes that were accepted.

    Raises BadInput for another space or other folds, Problems for changed data or versions unless they are accepted.
    """
    path = plan.folder / MANIFEST
    if not path.exists():
        write_bytes(plan.folder / SPACE, plan.space.text.encode())
        write_json(path, sealed(_manifest(plan, rows)))
        return []
    before, now = read_sealed(path), _manifest(plan, rows)
    changed = difference(before["space"], now["space"])
    if before["folds"] != now["folds"]:
        changed.append(f"folds: {', '.join(before['folds'])} -> {', '.join(now['folds'])}")
    if changed:
        hint = f"start another run with --fork NEW, or restore {plan.folder / SPACE}"
        raise BadInput(f"run {plan.name} has another search space: {'; '.join(changed)}", hint=hint)
    other = [line for key in ("data", "versions", "machine") for line in difference(before[key], now[key], key)]
    if other and not plan.accept_change:
        problems = (*other, "go on with --accept-change; the report will say so")
        raise Problems(f"run {plan.name} was made with other data or versions", problems=tuple(problems))
    if other or before["trials"] != now["trials"] or before["budget"] != now["budget"]:
        accepted = [*before["accepted"], *({"at": now["made"], "change": line} for line in other)]
        write_json(path, sealed({**now, "made": before["made"], "accepted": accepted}))
    return other


@cache
def code_hash(package: Path = Path(mcutune.__file__).parent) -> str:
    """SHA-256 over the program's own files that may decide a result: a change without a new version is seen, too."""
    digest = sha256()
    for path in sorted(path for room in _DECIDES for path in (package / room).rglob("*") if path.suffix in _SOURCES):
        digest.update(f"{path.relative_to(package).as_posix()}\n{path.stat().st_size}\n".encode())
        digest.update(path.read_bytes())
    return digest.hexdigest()


def _manifest(plan: Plan, rows: Sequence[StudyRow]) -> dict[str, Any]:
    space = plan.space
    versions = {"python": platform.python_version(), "mcutune": mcutune.__version__, "code": code_hash()}
    versions |= {name: metadata.version(name) for name in _LIBRARIES}
    return {
        "schema": 2,
        "run": plan.name,
        "made": datetime.now(UTC).isoformat(timespec="seconds"),
        "question": space.question,
        "space_name": space.name,
        "space_hash": space.hash,
        "space": space.canonical(),
        "search_seed": space.search_seed,
        "lag": space.lag,
        "trials": space.trials,
        "budget": None if space.budget is None else {"seconds": space.budget.seconds, "gpu": space.budget.gpu},
        "folds": list(plan.folds),
        "data": {
            "table": plan.data,
            "table_hash": rows[0].table_hash,
            "splits": {row.fold: row.split_hash for row in rows},
        },
        "versions": versions,
        "machine": {"architecture": platform.machine(), "threads": plan.threads},
        "accepted": [],
        **plan.facts,
    }


def request_stop(folder: Path) -> None:
    """Ask a running search, from any process, to stop; it does so at its packs' next word."""
    write_bytes(folder / STOP, b"")


@contextmanager
def command_at_work(plan: Plan) -> Iterator[None]:
    """One command a run, from before its place is opened: from then on it can be stopped, and a second one is refused.

    A stop that was asked of an earlier one is forgotten. Raises Busy, BadInput for a name or place that cannot be.
    """
    make_folder(plan)
    lock = RunLock(plan.folder, name=COMMAND, driver=plan.driver, patience=0.0)
    try:
        (plan.folder / STOP).unlink(missing_ok=True)
        yield
    finally:
        (plan.folder / STOP).unlink(missing_ok=True)
        lock.release()


def refuse_if_stopped(folder: Path) -> None:
    """Raises Stopped where the search has been asked to stop."""
    if (folder / STOP).exists():
        raise Stopped("the search is stopped", hint="the same command continues")
