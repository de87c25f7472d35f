"""What a certification needs, checked whole before anything runs or any label is read."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
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
from mcutune.robustness.compared import COMPARATORS, EPOCHS, OWN_KIND, compared, takes_part
from mcutune.robustness.cross import LabelReading, read_labels
from mcutune.robustness.kinds import CrossDataset, LabelDependent, Masked, Noise, Protocol
from mcutune.robustness.masks import Masks, UnderTest, draw_masks
from mcutune.robustness.noise import NoiseSource
from mcutune.robustness.predict import Given
from mcutune.robustness.protocol import Cell, common_modalities, load_protocol, load_protocols, plan
from mcutune.robustness.scenarios import TableFacts, scenarios_of
from mcutune.robustness.selection import Selection, select
from mcutune.robustness.statistics import Resampling

ALL = "all"
# Shipped protocols in the order of a report that has all of them.
ORDER = (
    "fixed", "random", "random_dialogue", "random_batch", "imbalanced", "gaps", "noise", "label_dependent",
    "cross_dataset",
)  # fmt: skip
_ALL_UP_TO = 1023  # combinations that are all stored; above, those that are measured


@dataclass(frozen=True)
class Job:
    """Models (the subject first), protocols, tables, splits, the planned cells, what protocols do to the rows.

    `every`: the winners trained again with every epoch kept. `margin`: the loss against another model that is accepted.

    `skipped`: protocols that were not asked for by name and do not fit, with the reason and what would help.
    """

    selection: Selection
    models: tuple[Selection, ...]
    protocols: tuple[Protocol, ...]
    table: Table
    target: Table | None
    splits: dict[str, Split]
    cells: tuple[Cell, ...]
    given: Given
    reading: LabelReading | None
    how: Resampling
    home: Path
    every: Selection | None = None
    skipped: tuple[tuple[str, str, str], ...] = ()
    margin: float | None = None

    @property
    def cross(self) -> CrossDataset | None:
        return next((one for one in self.protocols if isinstance(one, CrossDataset)), None)

    def protocols_of(self, model: Selection) -> list[Protocol]:
        """Those under which a model is measured."""
        return [one for one in self.protocols if takes_part(model.comparator, one.kind)]

    def models_of(self, protocol: Protocol) -> list[Selection]:
        """Those that are measured under a protocol, the subject first."""
        return [one for one in self.models if takes_part(one.comparator, protocol.kind)]

    @property
    def common(self) -> tuple[str, ...]:
        assert self.target is not None
        return common_modalities(facts_of(self.table), facts_of(self.target))

    @property
    def reads_labels(self) -> bool:
        """Whether labels of test rows decide what is missing, so that they are opened before anything is predicted."""
        return any(isinstance(one, LabelDependent) for one in self.protocols)

    def with_labels(self) -> Job:
        """The job with the masks that depend on labels of test rows. Reads them: count the opening first."""
        tested, rows = tested_rows(self.table, self.given.fold)
        truth = self.table.labels(rows)
        asked = [one for one in self.protocols if isinstance(one, LabelDependent)]
        masks = _masks(asked, facts_of(self.table), dataclasses.replace(tested, truth=truth), rows, len(self.table))
        return dataclasses.replace(self, given=dataclasses.replace(self.given, masks=self.given.masks | masks))

    def evidence(self) -> str:
        """The name of the evidence folder: the same question has the same name."""
        read = (*self.models, *([self.every] if self.every is not None else ()))
        checkpoints = [[seed.sha256 for w in model.winners for seed in w.seeds] for model in read]
        tables = [table.manifest.hash for table in (self.table, self.target) if table is not None]
        question = [checkpoints, tables, [one.hash for one in self.protocols]]
        return f"evidence-{sha256(canonical_json(question))[:12]}"


def prepare(
    given: str, protocols: Sequence[str], home: Path, target: str | None, against: Sequence[str] | None
) -> Job:  # fmt: skip
    """Raises BadInput, NoResult or Damaged where the models, protocols and tables do not fit each other."""
    chosen = select(given, home)
    beside = _trained_beside(chosen, against, home)
    default = ["fixed", "random", *(word for word in beside if word in OWN_KIND)]
    default += ["cross_dataset"] if target else []
    table = open_table(chosen.table, home=home)
    if table.manifest.hash != chosen.table_hash:
        raise BadInput(
            f"dataset {chosen.table} is not the one that {chosen.name} was trained on",
            hint="import the same data again, or search anew",
        )
    other = open_table(target, home=home) if target else None
    loaded, skipped = _protocols(_with_all(protocols, beside), default, table, other)
    if ALL in protocols:
        lacking = [word for word in OWN_KIND if word not in beside]
        skipped += tuple((word, f"needs mcutune compare NAME --with {word}", "") for word in lacking)
    _check_trained(loaded, beside, chosen)
    if sum(isinstance(one, CrossDataset) for one in loaded) > 1:
        raise BadInput("one cross_dataset protocol at a time")
    crossing = any(isinstance(one, CrossDataset) for one in loaded)
    if target and not crossing:
        raise BadInput("a target is read by the protocol cross_dataset only", hint="add --protocol cross_dataset")
    if other is not None and other.manifest.hash == table.manifest.hash:
        raise BadInput(f"the target {other.manifest.name} is the table that {chosen.name} was trained on")
    facts = facts_of(table)
    cells = tuple(cell for one in loaded for cell in plan(one, facts, facts_of(other) if other else None))
    models = (chosen, *(_reference(one, chosen, home) for one in _references(chosen, against, home)))
    kinds = {COMPARATORS, *(one.kind for one in loaded)}
    models += tuple(one for word, of in beside.items() if word in kinds for one in of)
    every = next(iter(beside.get(EPOCHS, ())), None)
    splits = {winner.fold: split_of(table, winner.fold) for winner in chosen.winners}
    reading = _reading(loaded, table, other) if other is not None else None
    drawn = _given(loaded, table, facts, splits)
    return Job(chosen, models, loaded, table, other, splits, cells, drawn, reading, Resampling(), home, every, skipped)


def _protocols(
    given: Sequence[str], default: Sequence[str], table: Table, other: Table | None
) -> tuple[tuple[Protocol, ...], tuple[tuple[str, str, str], ...]]:
    """The protocols asked for, all of which must fit. Where nothing is, those of `default` that fit; `all` is every
    shipped one that fits. The others are named with the reason.
    """
    if given and ALL not in given:
        return load_protocols(given), ()
    # A target that was named is to be measured, so that its protocol must fit.
    own = [name for name in given or default if name != ALL and (given or name == "cross_dataset")]
    taken = {load_protocol(name).id for name in own}  # a file of the user's in place of the shipped one of its name
    facts, target = facts_of(table), facts_of(other) if other else None
    fitting, skipped, first = [], [], None
    for name in (one for one in (ORDER if given else default) if one not in taken):
        try:
            plan(load_protocol(name), facts, target)
            fitting.append(name)
        except BadInput as error:
            why = error.message.removeprefix(f"protocol {name}").lstrip(": ")
            skipped.append((name, why, error.hint or ""))
            first = first or error
    if not fitting and not own and first is not None:
        raise first
    return load_protocols([*fitting, *own]), tuple(skipped)


def _reading(protocols: Sequence[Protocol], table: Table, target: Table) -> LabelReading | None:
    """How the target's labels are read as classes; None for values. Only which of them occur is looked at here."""
    if table.manifest.task is not Task.CLASSIFICATION:
        return None
    protocol = next(one for one in protocols if isinstance(one, CrossDataset))
    names = target.manifest.label_names or []
    occurring = {names[label] for label in np.unique(target.labels(target.labelled))}
    return read_labels(protocol, table.manifest.label_names or [], names, occurring)


def facts_of(table: Table) -> TableFacts:
    """What a plan must know of a table."""
    manifest = table.manifest
    longest = int(np.bincount(table.dialogue).max())
    return TableFacts(manifest.name, manifest.modalities, manifest.task, tuple(manifest.label_names or ()), longest)


def _of_run(chosen: Selection) -> bool:
    """Whether the winners of a run are measured, not a trial or checkpoint of it."""
    return chosen.run is not None and chosen.given in ("best", chosen.run)


def _trained_beside(
    chosen: Selection, against: Sequence[str] | None, home: Path
) -> dict[str, tuple[Selection, ...]]:  # fmt: skip
    """What each word of `mcutune compare` trained beside the winners; nothing where something else was asked for."""
    if against is not None or not _of_run(chosen):
        return {}
    words = {word: compared(str(chosen.run), home, word) for word in (COMPARATORS, *OWN_KIND, EPOCHS)}
    return {word: of for word, of in words.items() if of}


def _with_all(given: Sequence[str], beside: Mapping[str, object]) -> list[str]:
    """`all` is what was trained beside, too."""
    more = [word for word in OWN_KIND if ALL in given and word in beside and word not in given]
    return [*given, *more]


def _check_trained(loaded: Sequence[Protocol], beside: Mapping[str, object], chosen: Selection) -> None:
    """Raises BadInput where a protocol measures models that were not trained."""
    for one in loaded:
        if one.kind in OWN_KIND and one.kind not in beside:
            raise BadInput(
                f"protocol {one.id} measures models that were not trained beside {chosen.name}",
                hint=f"mcutune compare {chosen.run or 'NAME'} --with {one.kind}",
            )


def _references(chosen: Selection, against: Sequence[str] | None, home: Path) -> list[str]:
    """What to compare with: as asked, else trial 0 of the run, unless it won everywhere or nothing was searched.

    What was trained beside the winners comes to these by itself.
    """
    if against is not None:
        return list(against)
    if not _of_run(chosen) or all(winner.trial == 0 for winner in chosen.winners):
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


def _given(protocols: Sequence[Protocol], table: Table, facts: TableFacts, splits: dict[str, Split]) -> Given:
    """Masks and noise of the protocols for the rows that are tested, without any label."""
    fold = np.full(len(table), -1)
    code = np.unique(table.fold, return_inverse=True)[1] if table.fold is not None else np.zeros_like(fold)
    for split in splits.values():
        fold[split.test] = code[split.test]
    tested, rows = tested_rows(table, fold)
    unseen = [one for one in protocols if isinstance(one, Masked) and not isinstance(one, LabelDependent)]
    dims = tuple(facts.dims.items())
    noise = {one.id: NoiseSource(one, scenarios_of(one, facts), dims) for one in protocols if isinstance(one, Noise)}
    return Given(_masks(unseen, facts, tested, rows, len(table)), noise, fold)


def tested_rows(table: Table, fold: Array) -> tuple[UnderTest, Array]:
    """The rows that are tested in some fold, and their numbers; `fold` [N]: codes, −1 for a row that is not."""
    rows = np.flatnonzero(fold >= 0)
    return UnderTest(fold[rows], table.dialogue[rows], table.order[rows], table.labelled[rows]), rows


def _masks(
    protocols: Sequence[Masked], facts: TableFacts, tested: UnderTest, rows: Array, count: int
) -> dict[str, tuple[Masks, ...]]:
    """Masks over all `count` rows of the table; rows that are not tested have nothing."""
    found = {}
    for protocol in protocols:
        every = []
        for one in draw_masks(protocol, facts, tested):
            presence = np.zeros((protocol.masks, count, len(facts.dims)), dtype=bool)
            presence[:, rows] = one.presence
            every.append(Masks(one.scenario, presence))
        found[protocol.id] = tuple(every)
    return found


def needed(job: Job) -> Array:
    """Canonical indices of the combinations whose predictions are stored."""
    names = job.table.modalities
    count = 2 ** len(names) - 1
    if count <= _ALL_UP_TO:
        return np.arange(count)
    planned = {cell.combination for cell in job.cells if cell.dataset == job.table.manifest.name and cell.combination}
    wanted = {i for i, label in enumerate(names.labels) if label in planned}
    for masks in job.given.masks.values():
        for one in masks:
            wanted |= set(np.unique(combination_index(one.presence)).tolist()) - {-1}
    return np.array(sorted(wanted), dtype=np.int64)
