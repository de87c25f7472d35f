"""Predictions of every winner, written to files; the one file here that touches torch, through the predictor."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch

from mcutune.data.splits import Split
from mcutune.data.table import Table
from mcutune.domain.combination import membership
from mcutune.domain.task import Task
from mcutune.errors import BadInput, Damaged
from mcutune.model.predictor import load_predictor
from mcutune.robustness.batches import Array, Batch, Mode, Model, batch_of, foreign_batch, own_combinations
from mcutune.robustness.checks import Probe, probe
from mcutune.robustness.compared import CALIBRATION, takes_part
from mcutune.robustness.composed import Composed
from mcutune.robustness.every_epoch import Entry, epochs_file, write_epoch
from mcutune.robustness.evidence import ParquetFile
from mcutune.robustness.learning import (
    Training,
    gradients_file,
    looked_at,
    not_repeatable,
    without_probabilities,
    write_norms,
)
from mcutune.robustness.masks import Masks
from mcutune.robustness.noise import NoiseSource
from mcutune.robustness.selection import Seed, Selection, Winner
from mcutune.robustness.stored import AS_TRAINED, nothing_file, predictions_file
from mcutune.robustness.validation import predictions_file as validation_file
from mcutune.robustness.validation import validation_batch

Load = Callable[[Path], Model]
Step = Callable[[str], None]
_BY_GROUP: Mode = "group"


@dataclass(frozen=True, eq=False)
class Condition:
    """What rows are predicted under: no more present than [n, M], and noise on that."""

    scenario: str
    mask: int
    presence: Array
    noise: dict[str, Array] | None = None


@dataclass(frozen=True, eq=False)
class Given:
    """What protocols do to rows, by protocol: masks over all rows of the table, and noise.

    Under masks, rows are predicted only by a model that attends over dialogues. `fold`: code [N] of each row.
    """

    masks: dict[str, tuple[Masks, ...]]
    noise: dict[str, NoiseSource]
    fold: Array

    def of(self, protocols: Iterable[str]) -> Given:
        """What some of the protocols do."""
        kept = set(protocols)
        masks = {key: of for key, of in self.masks.items() if key in kept}
        return Given(masks, {key: of for key, of in self.noise.items() if key in kept}, self.fold)

    def under(self, protocol: str, rows: Array) -> Iterator[Condition]:
        """The conditions of a fold's test rows, one after the other."""
        for masks in self.masks.get(protocol, ()):
            for number, mask in enumerate(masks.presence[:, rows]):
                yield Condition(masks.scenario, number, mask)
        if protocol in self.noise:
            source = self.noise[protocol]
            all_present = np.ones((len(rows), len(source.dims)), dtype=bool)
            for scenario in source.scenarios:
                for number in range(source.protocol.masks):
                    noise = source.of(scenario, number, int(self.fold[rows[0]]), len(rows))
                    yield Condition(scenario.name, number, all_present, noise)


@dataclass
class Facts:
    """What the checkpoints say besides predictions, gathered while they are loaded.

    `epochs`: best epoch by (fold, seed). `attends`: whether rows depend on the presence of other rows.
    """

    epochs: dict[tuple[str, int], int | None] = field(default_factory=dict)
    dpft: list[dict[str, Any]] = field(default_factory=list)
    probes: list[Probe] = field(default_factory=list)
    normalisation: set[str] = field(default_factory=set)
    attends: bool = False


def versions() -> dict[str, str]:
    """Of the libraries that predictions depend on."""
    return {"torch": torch.__version__}


def predict_source(
    folder: Path, number: int, selection: Selection, table: Table, splits: dict[str, Split], needed: Array,
    given: Given, step: Step, load: Load = load_predictor,
) -> Facts:  # fmt: skip
    """Predict each fold's test rows by its winner, with all its seeds.

    `needed`: canonical indices of the combinations to keep. Raises BadInput or Damaged where a checkpoint does not
    belong to this table and fold.
    """
    facts, name = Facts(), table.manifest.name
    with ExitStack() as stack:
        file = stack.enter_context(ParquetFile(folder / predictions_file(number, name)))
        nothing = stack.enter_context(ParquetFile(folder / nothing_file(number, name)))
        own = {
            key: stack.enter_context(ParquetFile(folder / predictions_file(number, name, key)))
            for key in (*given.masks, *given.noise)
        }
        validation = stack.enter_context(ParquetFile(folder / validation_file(number, name)))
        for winner in selection.winners:
            split = splits[winner.fold]
            batch = batch_of(table, split.test, table.labelled[split.test])
            for seed in winner.seeds:
                step(f"{selection.name}, fold {winner.fold}, seed {seed.seed}")
                model = _loaded(load, seed, winner, selection, facts)
                _belongs(model, seed, table, split)
                of = (winner.fold, seed.seed, AS_TRAINED)
                _write(file, batch, model, needed, of, None)
                if takes_part(selection.comparator, CALIBRATION):
                    _write(validation, validation_batch(table, split, _mode(model)), model, needed, of, None)
                if seed is winner.seeds[0]:
                    facts.probes.append(probe(model, batch, f"{selection.name}, fold {winner.fold}"))
                _write_nothing(nothing, batch, model, winner.fold, seed.seed)
                for key in (*(given.masks if model.attends else ()), *given.noise):
                    _write_under(own[key], batch, model, given.under(key, split.test), winner.fold, seed.seed)
    return facts


def predict_epochs(
    folder: Path, selection: Selection, table: Table, splits: dict[str, Split], needed: Array, step: Step, load: Load
) -> Entry:  # fmt: skip
    """Answers for each fold's test rows after every epoch of its winner; which epoch validation chose.

    Beside them the norms of the gradients over training rows.
    """
    chosen: list[Entry] = []
    name, reason, taken, available = table.manifest.name, None, 0, 0
    with ParquetFile(folder / epochs_file(name)) as file, ParquetFile(folder / gradients_file(name)) as norms:
        for winner in selection.winners:
            split = splits[winner.fold]
            batch = batch_of(table, split.test, table.labelled[split.test])
            training: Training | None = None
            for seed in winner.seeds:
                step(f"every epoch, fold {winner.fold}, seed {seed.seed}")
                model: Any = load(seed.folder)
                _belongs(model, seed, table, split)
                epochs = model.epochs()
                for number, one in enumerate(epochs, 1):
                    write_epoch(file, batch, one, needed, winner.fold, seed.seed, number)
                chosen.append({"fold": winner.fold, "seed": seed.seed, "epoch": model.info["best_epoch"]})
                reason = reason or not_repeatable(model.configuration)
                if reason is None:
                    training = training or Training(table, winner.fold, model)
                    chosen[-1]["thinned"] = training.thinned  # of this model alone: `encoder` may be searched
                    after = looked_at(len(epochs), training.thinned)
                    try:
                        found = training.norms(model, epochs, after)
                    except Damaged:  # costs the index, not the report
                        reason = without_probabilities(winner.fold, seed.seed)
                        continue
                    write_norms(norms, found, after, winner.fold, seed.seed, model.modalities.names)
            if training is not None:
                taken, available = taken + len(training.rows), available + training.available
    gradients = {"reason": reason, "rows": taken, "available": available}
    return {"model": selection.name, "chosen": chosen, "gradients": gradients}


def predict_target(
    folder: Path, number: int, selection: Selection, target: Table, common: Sequence[str], measured: Array,
    scenarios: dict[str, Literal["source", "corpus"]], step: Step, load: Load = load_predictor,
) -> None:  # fmt: skip
    """Predict the measured rows of another table by every winner and seed, under the combinations of `common`.

    `measured`: bool [N]. `scenarios`: name to normalisation, `source` (as the model was trained) or `corpus`.
    """
    with ParquetFile(folder / predictions_file(number, target.manifest.name)) as file:
        for winner in selection.winners:
            for seed in winner.seeds:
                step(f"{selection.name}, fold {winner.fold}, seed {seed.seed} on {target.manifest.name}")
                model = _loaded(load, seed, winner, selection, Facts())
                batch = foreign_batch(target, model, common, measured)
                outside = [m for m, name in enumerate(model.modalities.names) if name not in common]
                needed = np.flatnonzero(~membership(len(model.modalities))[:, outside].any(axis=1))
                for scenario, how in scenarios.items():
                    read, mode = (batch, None) if how == "source" else (batch.as_one_group(), _BY_GROUP)
                    _write(file, read, model, needed, (winner.fold, seed.seed, scenario), mode)


def _mode(model: Model) -> Mode:
    mode: Mode = model.info["normalisation"]["mode"]
    return mode


def _loaded(load: Load, seed: Seed, winner: Winner, selection: Selection, facts: Facts) -> Model:
    """The model of a seed, its facts noted."""
    model: Model = load(seed.folder)
    if seed.parts:
        model = Composed(seed.how, {label: load(place) for label, place in seed.parts})
    info = model.info
    facts.attends |= model.attends
    facts.normalisation.add(str(info["normalisation"]["mode"]))
    epoch = info.get("best_epoch")
    facts.epochs[winner.fold, seed.seed] = epoch if isinstance(epoch, int) else None
    dpft = info.get("dpft")
    if isinstance(dpft, dict) and dpft.get("probabilities"):
        facts.dpft.append(
            {
                "model": selection.name,
                "fold": winner.fold,
                "seed": seed.seed,
                "combinations": list(model.modalities.labels),
                **{key: np.round(np.asarray(dpft[key], float), 6).tolist() for key in ("probabilities", "divergences")},
            }
        )
    return model


def _belongs(model: Model, seed: Seed, table: Table, split: Split) -> None:
    """Raises BadInput where the table is another one than the model was trained on, Damaged where the split is."""
    manifest, data = table.manifest, model.info["data"]
    dims = list(zip(model.modalities.names, model.dims, strict=True))
    names = tuple(manifest.label_names or ()) if model.task is Task.CLASSIFICATION else ()
    same = model.task is manifest.task and tuple(model.label_names) == names
    if data["table_hash"] != manifest.hash or dims != list(manifest.modalities.items()) or not same:
        raise BadInput(
            f"{seed.folder} was trained on another table {data['table']} than the one here",
            hint="import the same data again, or search anew",
        )
    if data["fold"] != split.fold or data["split_hash"] != split.hash:
        raise Damaged(f"{seed.folder} was trained on other rows than fold {split.fold} has now")


def _write(
    file: ParquetFile, batch: Batch, model: Model, needed: Array, of: tuple[str, int, str], mode: Mode | None
) -> None:  # fmt: skip
    """Append the measured rows under every needed combination; a row that has nothing of one is left out of it."""
    measured = np.flatnonzero(batch.measured)
    every = batch.every(model, mode)[:, measured]
    logits, valid = own_combinations(every, batch.presence[measured], membership(len(model.modalities))[needed])
    labels = [model.modalities.labels[index] for index in needed]
    which, row = np.nonzero(valid)
    fold, seed, scenario = of
    file.append(
        {
            "id": (row, batch.ids[measured].tolist()),
            **_constants(len(row), fold, seed, scenario),
            "combination": (which, labels),
            **_logits(logits[which, row]),
        }
    )


def _write_under(
    file: ParquetFile, batch: Batch, model: Model, conditions: Iterable[Condition], fold: str, seed: int
) -> None:  # fmt: skip
    """Append the measured rows under every condition, each row and its dialogue as masked and disturbed.

    A row that has nothing because the table lacks it is left out; one that has nothing because all was taken away is
    given the model's answer to nothing.
    """
    names: dict[str, int] = {}
    parts: list[tuple[Array, Array, Array, Array]] = []
    for one in conditions:
        left = (one.presence & batch.presence).any(axis=1) | ~one.presence.any(axis=1)
        kept = np.flatnonzero(batch.measured & left)
        scenario = np.full(len(kept), names.setdefault(one.scenario, len(names)))
        mask = np.full(len(kept), one.mask, dtype=np.int16)
        parts.append((kept, scenario, mask, batch.under(model, one.presence, one.noise)[kept]))
    row, scenario, mask, logits = (np.concatenate(part) for part in zip(*parts, strict=True))
    columns = {
        "id": (row, batch.ids.tolist()),
        **_constants(len(row), fold, seed, ""),
        "scenario": (scenario, list(names)),
    }
    file.append({**columns, "mask": mask, **_logits(logits)})


def _write_nothing(file: ParquetFile, batch: Batch, model: Model, fold: str, seed: int) -> None:
    """Append the model's answer to a row of which nothing is present; it is the same for every row."""
    first = batch.take(np.arange(1))
    logits = first.under(model, np.zeros_like(first.presence))
    zero = np.zeros(1, dtype=np.int64)
    file.append({"fold": (zero, [fold]), "seed": np.array([seed], dtype=np.int32), **_logits(logits)})


def _constants(rows: int, fold: str, seed: int, scenario: str) -> dict[str, Any]:
    zero = np.zeros(rows, dtype=np.int64)
    return {"fold": (zero, [fold]), "seed": np.full(rows, seed, dtype=np.int32), "scenario": (zero, [scenario])}


def _logits(values: Array) -> dict[str, npt.NDArray[np.float32]]:
    """Columns logit_0 … of logits [n, K]."""
    return {f"logit_{k}": np.ascontiguousarray(values[:, k], dtype=np.float32) for k in range(values.shape[1])}
