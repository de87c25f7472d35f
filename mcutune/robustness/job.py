"""What a certification needs, checked whole before anything runs or any label is read."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from mcutune.data.splits import Split, split_of
from mcutune.data.table import Table, open_table
from mcutune.domain.combination import combination_index
from mcutune.domain.task import Task
from mcutune.errors import BadInput
from mcutune.files import canonical_json, sha256
from mcutune.robustness.batches import Array
from mcutune.robustness.cross import LabelReading, read_labels
from mcutune.robustness.protocol import (
    Cell,
    CrossDataset,
    Protocol,
    Random,
    TableFacts,
    common_modalities,
    load_protocols,
    plan,
)
from mcutune.robustness.scenarios import Masks, random_masks
from mcutune.robustness.selection import Selection, select
from mcutune.robustness.statistics import Resampling

_ALL_UP_TO = 1023  # combinations that are all stored; above, those that are measured


@dataclass(frozen=True)
class Job:
    """Models (the subject first), protocols, tables, splits, the planned cells, masks over all rows of the table."""

    selection: Selection
    models: tuple[Selection, ...]
    protocols: tuple[Protocol, ...]
    table: Table
    target: Table | None
    splits: dict[str, Split]
    cells: tuple[Cell, ...]
    masks: dict[str, tuple[Masks, ...]]
    reading: LabelReading | None
    how: Resampling

    @property
    def cross(self) -> CrossDataset | None:
        return next((one for one in self.protocols if isinstance(one, CrossDataset)), None)

    @property
    def common(self) -> tuple[str, ...]:
        assert self.target is not None
        return common_modalities(_facts(self.table), _facts(self.target))

    def evidence(self) -> str:
        """The name of the evidence folder: the same question has the same name."""
        checkpoints = [[seed.sha256 for w in model.winners for seed in w.seeds] for model in self.models]
        tables = [table.manifest.hash for table in (self.table, self.target) if table is not None]
        question = [checkpoints, tables, [one.hash for one in self.protocols]]
        return f"evidence-{sha256(canonical_json(question))[:12]}"


def prepare(
    given: str, protocols: Sequence[str], home: Path, target: str | None, against: Sequence[str] | None
) -> Job:  # fmt: skip
    """Raises BadInput, NoResult or Damaged where the models, protocols and tables do not fit each other."""
    chosen = select(given, home)
    default = ["fixed", "random", *(["cross_dataset"] if target else [])]
    loaded = load_protocols(protocols or default)
    if sum(isinstance(one, CrossDataset) for one in loaded) > 1:
        raise BadInput("one cross_dataset protocol at a time")
    table = open_table(chosen.table, home=home)
    if table.manifest.hash != chosen.table_hash:
        raise BadInput(
            f"dataset {chosen.table} is not the one that {chosen.name} was trained on",
            hint="import the same data again, or search anew",
        )
    crossing = any(isinstance(one, CrossDataset) for one in loaded)
    if target and not crossing:
        raise BadInput("a target is read by the protocol cross_dataset only", hint="add --protocol cross_dataset")
    other = open_table(target, home=home) if target else None
    if other is not None and other.manifest.hash == table.manifest.hash:
        raise BadInput(f"the target {other.manifest.name} is the table that {chosen.name} was trained on")
    facts = _facts(table)
    cells = tuple(cell for one in loaded for cell in plan(one, facts, _facts(other) if other else None))
    models = (chosen, *(_reference(one, chosen, home) for one in _references(chosen, against, home)))
    splits = {winner.fold: split_of(table, winner.fold) for winner in chosen.winners}
    masks = {one.id: _masks(one, table, splits) for one in loaded if isinstance(one, Random)}
    reading = _reading(loaded, table, other) if other is not None else None
    return Job(chosen, models, loaded, table, other, splits, cells, masks, reading, Resampling())


def _reading(protocols: Sequence[Protocol], table: Table, target: Table) -> LabelReading | None:
    """How the target's labels are read as classes; None for values. Only which of them occur is looked at here."""
    if table.manifest.task is not Task.CLASSIFICATION:
        return None
    protocol = next(one for one in protocols if isinstance(one, CrossDataset))
    names = target.manifest.label_names or []
    occurring = {names[label] for label in np.unique(target.labels(target.labelled))}
    return read_labels(protocol, table.manifest.label_names or [], names, occurring)


def _facts(table: Table) -> TableFacts:
    return TableFacts(table.manifest.name, table.manifest.modalities, table.manifest.task)


def _references(chosen: Selection, against: Sequence[str] | None, home: Path) -> list[str]:
    """What to compare with: as asked, else trial 0 of the run, unless it won everywhere or nothing was searched."""
    if against is not None:
        return list(against)
    of_run = chosen.run is not None and chosen.given in ("best", chosen.run)
    if not of_run or all(winner.trial == 0 for winner in chosen.winners):
        return []
    zero = home / "runs" / str(chosen.run) / "checkpoints"
    return [f"{chosen.run}:0"] if all((zero / w.fold / "0").is_dir() for w in chosen.winners) else []


def _reference(given: str, chosen: Selection, home: Path) -> Selection:
    """A model to compare with: of the same table and folds. Raises BadInput."""
    other = select(given, home)
    if (other.table_hash, [w.fold for w in other.winners]) != (chosen.table_hash, [w.fold for w in chosen.winners]):
        raise BadInput(f"{given} has another table or other folds than {chosen.name}: they cannot be compared")
    if other.name == chosen.name:
        raise BadInput(f"{given} is the model itself", hint="name another to compare with")
    return other


def _masks(protocol: Random, table: Table, splits: dict[str, Split]) -> tuple[Masks, ...]:
    """Masks over all rows of the table, drawn for the rows that are tested in some fold; others have nothing."""
    names = table.modalities
    if table.fold is not None:
        part = np.unique(table.fold, return_inverse=True)[1]
    else:
        part = np.full(len(table), -1)
        part[next(iter(splits.values())).test] = 0
    rows = np.flatnonzero(part >= 0)
    drawn = random_masks(protocol, len(names), 2 * part[rows] + ~table.labelled[rows])
    every = []
    for one in drawn:
        presence = np.zeros((protocol.masks, len(table), len(names)), dtype=bool)
        presence[:, rows] = one.presence
        every.append(Masks(one.scenario, one.rate, one.used, presence))
    return tuple(every)


def needed(job: Job) -> Array:
    """Canonical indices of the combinations whose predictions are stored."""
    names = job.table.modalities
    count = 2 ** len(names) - 1
    if count <= _ALL_UP_TO:
        return np.arange(count)
    planned = {cell.combination for cell in job.cells if cell.dataset == job.table.manifest.name and cell.combination}
    wanted = {i for i, label in enumerate(names.labels) if label in planned}
    for masks in job.masks.values():
        for one in masks:
            wanted |= set(np.unique(combination_index(one.presence)).tolist()) - {-1}
    return np.array(sorted(wanted), dtype=np.int64)
