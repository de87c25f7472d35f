"""report.json from stored files alone: the same files give the same report, byte for byte, without model or table."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np

from mcutune.domain.combination import Modalities, combination_index
from mcutune.domain.task import Task
from mcutune.robustness.answers import in_words
from mcutune.robustness.blocks import (
    Block,
    Dataset,
    Replicates,
    cross_block,
    drawn_block,
    drawn_stored,
    fixed_block,
    masked_lookup,
    source_predictions,
)
from mcutune.robustness.cautions import warnings
from mcutune.robustness.checks import Check
from mcutune.robustness.compared import CALIBRATION, comparator_of, takes_part
from mcutune.robustness.confidence import calibration
from mcutune.robustness.effective import effective
from mcutune.robustness.every_epoch import selection_gap
from mcutune.robustness.evidence import Array, read_manifest
from mcutune.robustness.fingerprint import Classes, fingerprint
from mcutune.robustness.kinds import KINDS, CrossDataset, Drawn, Fixed, LabelDependent, Masked, Noise, Protocol
from mcutune.robustness.learning import index as learning_index
from mcutune.robustness.learning import learning
from mcutune.robustness.masks import classes_of
from mcutune.robustness.mean_differences import families, mean_differences
from mcutune.robustness.measure import Entry, comparisons, curves, measured, metrics_of, transfers
from mcutune.robustness.overall import overall
from mcutune.robustness.protocol import Cell, common_modalities, complete, plan
from mcutune.robustness.published import matching
from mcutune.robustness.scenarios import Pattern, TableFacts, class_names, scenarios_of
from mcutune.robustness.statistics import Resampling
from mcutune.robustness.stored import Predicted, Store, answers, asked_of, nothing_file, predictions_file
from mcutune.robustness.summary import sentences

SCHEMA = 2
_EXAMPLES = 5  # names of excluded rows


@dataclass
class _Parts:
    """The lists of a report, filled protocol by protocol."""

    protocols: list[Entry] = field(default_factory=list)
    measurements: list[Entry] = field(default_factory=list)
    summaries: list[Entry] = field(default_factory=list)
    indices: list[Entry] = field(default_factory=list)
    contributions: list[Entry] = field(default_factory=list)
    comparisons: list[Entry] = field(default_factory=list)
    mean_differences: list[Entry] = field(default_factory=list)
    degradation: list[Entry] = field(default_factory=list)
    cross_dataset: list[Entry] = field(default_factory=list)
    excluded: dict[str, list[Entry]] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    logits: int = 0
    broken: list[str] = field(default_factory=list)
    still: list[str] = field(default_factory=list)


def rebuild(folder: Path) -> Entry:
    """The report of an evidence folder.

    Raises BadInput where there is none, Damaged where a file is not what was written, CheckFailed where a measurement
    is missing, undeclared, doubled or not finite.
    """
    manifest = read_manifest(folder)
    return _Rebuilding(Store(folder, manifest), folder.name).report()


@dataclass(frozen=True)
class Stored:
    """One protocol as it was measured: its entry in the report, its metrics, a block a model that takes part in it."""

    entry: Entry
    metrics: tuple[str, ...]
    blocks: tuple[Block, ...]


def stored(folder: Path, models: int | None = None) -> tuple[Entry, Dataset, tuple[Stored, ...]]:
    """The facts of an evidence folder, the measured rows, and every protocol's blocks; of the first `models` only.

    Raises as `rebuild` does.
    """
    manifest = read_manifest(folder)
    one = _Rebuilding(Store(folder, manifest), folder.name)
    return one.facts, one.data, tuple(one.stored(protocol, models) for protocol in one.protocols)


class _Rebuilding:
    """One pass from stored files to a report."""

    def __init__(self, store: Store, folder: str) -> None:
        self.store, self.folder, self.facts = store, folder, store.facts
        self.how = Resampling(**self.facts["resampling"])
        self.margin: float | None = self.facts.get("margin")
        self.models: list[Entry] = self.facts["models"]
        self.protocols: list[Protocol] = [KINDS[one["kind"]].model_validate(one) for one in self.facts["protocols"]]
        classes = tuple(self.facts["label_names"])
        self.source = _table_facts(self.facts["data"], classes)
        self.target = _table_facts(self.facts["targets"][0], classes) if self.facts["targets"] else None
        self.parts = _Parts()
        self._predictions: dict[int, tuple[Predicted, Replicates]] = {}
        self._masks_of: dict[str, Array] = {}

    @cached_property
    def data(self) -> Dataset:
        return self._dataset(self.facts["data"], "test", self.source.modalities)

    @cached_property
    def learned(self) -> Entry:
        return learning(self.store, self.source.name, self.facts["every_epoch"], self.source.modalities.names)

    @cached_property
    def target_data(self) -> Dataset:
        assert self.target is not None
        common = Modalities(common_modalities(self.source, self.target))
        return self._dataset(self.facts["targets"][0], "all", common)

    def _dataset(self, facts: Entry, split: str, names: Modalities) -> Dataset:
        rows = self.store.rows(facts["table"], names)
        classes = len(self.facts["label_names"])
        return Dataset(facts["table"], split, self.source.task, classes or 1, names, rows)

    def report(self) -> Entry:
        for protocol in self.protocols:
            self._protocol(protocol, plan(protocol, self.source, self.target))
        parts, facts = self.parts, self.facts
        report: Entry = {
            "schema": SCHEMA,
            "title": facts["title"],
            "provenance": {
                **{key: facts[key] for key in ("run", "selection", "created")},
                "evidence": {"folder": self.folder, "files": self.store.files},
                "statistics": {**facts["resampling"], "margin": self.margin},
                "versions": facts["versions"],
            },
            "models": self.models,
            "data": self._described(facts["data"], self.data),
            "targets": [self._described(one, self.target_data) for one in facts["targets"]],
            "protocols": parts.protocols,
            "measurements": parts.measurements,
            "summaries": parts.summaries,
            "indices": parts.indices,
            "contributions": parts.contributions,
            "comparisons": parts.comparisons,
            "mean_differences": parts.mean_differences,
            "degradation": parts.degradation,
            "cross_dataset": parts.cross_dataset,
            "checks": [*facts["checks"], *(check.to_json() for check in self._checks())],
            "openings": facts["openings"],
        }
        report["summary"] = sentences(report)
        report["answers"] = in_words(report)
        report["warnings"] = warnings(report, facts["warnings"] + parts.notes)
        report["calibration"] = self._calibration()
        report["learning"] = self.learned
        report["selection_gap"] = selection_gap(self.store, self.data, facts["every_epoch"], facts["combinations"])
        report |= {"search": facts["search"], "dpft": facts["dpft"], "published": self._published()}
        return report

    def _protocol(self, protocol: Protocol, cells: tuple[Cell, ...]) -> None:
        data = self._measured_on(protocol)
        patterns = self._patterns(protocol, data, cells)
        numbers = self._numbers(protocol)
        blocks = [self._block(protocol, number, cells, patterns) for number in numbers]
        metrics = metrics_of(blocks[0], cells)
        found = []
        for block in blocks:
            values, summaries = measured(block, metrics, self.how)
            complete(cells, [(_cell(one), np.nan if one["value"] is None else one["value"]) for one in values])
            found.append(values)
            self.parts.measurements += values
            tails, indices, contributions = overall(block, metrics, self.how)
            self.parts.summaries += summaries + tails
            self.parts.indices += indices + learning_index(block, self.learned, self.models[0]["name"])
            self.parts.contributions += contributions
            self.parts.degradation += curves(block, values, metrics)
            if isinstance(protocol, CrossDataset):
                within = self._within(block.model)
                self.parts.cross_dataset += transfers(block, values, self.source.name, within)
        self.parts.indices += effective(blocks, metrics, self.how)
        for reference in blocks[1:]:
            self.parts.comparisons += comparisons(blocks[0], reference, metrics, self.how, self.margin)
        for family in families([self.models[n] for n in numbers[1:]], blocks[1:]):
            self.parts.mean_differences += mean_differences(blocks[0], family, metrics, self.how, self.margin)
        self.parts.protocols.append(self._about(protocol, data, patterns, len(cells)))
        self.parts.excluded.setdefault(data.name, []).extend(_excluded(protocol, patterns, data.rows.ids))

    def stored(self, protocol: Protocol, models: int | None) -> Stored:
        data, cells = self._measured_on(protocol), plan(protocol, self.source, self.target)
        patterns = self._patterns(protocol, data, cells)
        blocks = tuple(self._block(protocol, n, cells, patterns) for n in self._numbers(protocol)[:models])
        return Stored(self._about(protocol, data, patterns, len(cells)), tuple(metrics_of(blocks[0], cells)), blocks)

    def _numbers(self, protocol: Protocol) -> list[int]:
        """The models that are measured under a protocol."""
        return [n for n, one in enumerate(self.models) if takes_part(comparator_of(one), protocol.kind)]

    def _measured_on(self, protocol: Protocol) -> Dataset:
        return self.target_data if isinstance(protocol, CrossDataset) else self.data

    def _within(self, model: str) -> dict[tuple[str, str], float]:
        """The subject's values on its own test rows under a fixed protocol measured before."""
        fixed = {protocol.id for protocol in self.protocols if isinstance(protocol, Fixed)}
        mine = [one for one in self.parts.measurements if one["protocol"] in fixed and one["model"] == model]
        return {(str(one["combination"]), one["metric"]): one["value"] for one in mine}

    def _about(self, protocol: Protocol, data: Dataset, patterns: list[Pattern], cells: int) -> Entry:
        hashed = self.facts["targets"][0] if isinstance(protocol, CrossDataset) else self.facts["data"]
        capped = [one.scenario for one in patterns if one.scenario.capped]
        notes = [*protocol.notes]
        notes += [f"{one.name} is above (M − 1)/M = {one.used:.4f}, which was used." for one in capped]
        noise, classes = self.facts["noise"].get(protocol.id, []), self._classes(protocol)
        return {
            **{key: getattr(protocol, key) for key in ("id", "version", "kind", "title", "hash", "citation")},
            "notes": notes,
            "cells": cells,
            "fingerprint": fingerprint(protocol, data.name, hashed["hash"], data.names, patterns, classes, noise),
        }

    def _classes(self, protocol: Protocol) -> Classes | None:
        """What the labels were cut into, fold by fold, where missing depends on them."""
        if not isinstance(protocol, LabelDependent):
            return None
        rows, codes = self.data.rows, np.zeros(len(self.data.rows), dtype=np.int64)
        for fold in range(len(rows.folds)):
            codes[rows.fold == fold] = classes_of(protocol, rows.truth[rows.fold == fold])
        return Classes(class_names(protocol, self.source), codes)

    def _patterns(self, protocol: Protocol, data: Dataset, cells: Sequence[Cell]) -> list[Pattern]:
        """What every scenario left of the measured rows."""
        presence = data.rows.presence
        scenarios = scenarios_of(protocol, self.source)
        if isinstance(protocol, Masked):
            masks = self._masks(protocol)
            return [Pattern(one, m & presence, ~m.any(axis=2)) for one, m in zip(scenarios, masks, strict=True)]
        if isinstance(protocol, Noise):
            return [Pattern(one, presence[None]) for one in scenarios]
        labels = data.names.labels
        if isinstance(protocol, Fixed):
            labels = tuple(dict.fromkeys(str(cell.combination) for cell in cells))
        return [Pattern(one, presence[None] & asked_of(data.names, labels)[:, None]) for one in scenarios]

    def _masks(self, protocol: Masked) -> Array:
        if protocol.id not in self._masks_of:
            scenarios = [one.name for one in scenarios_of(protocol, self.source)]
            read = self.store.masks(
                protocol.id, self.data.name, scenarios, protocol.masks, self.data.rows, self.data.names
            )
            self._masks_of[protocol.id] = read
        return self._masks_of[protocol.id]

    def _block(self, protocol: Protocol, number: int, cells: Sequence[Cell], patterns: list[Pattern]) -> Block:
        model, seeds = self.models[number]["name"], _seeds(self.models[number])
        if isinstance(protocol, CrossDataset):
            file = predictions_file(number, self.target_data.name)
            block, found = cross_block(protocol, self.store, file, model, self.target_data, seeds)
            self._inspect(found, model, self.target_data, [f"{label}, {mode}" for label, mode in block.places])
            return block
        found, replicates = self._source_predictions(number)
        if isinstance(protocol, Fixed):
            planned = list(dict.fromkeys(str(cell.combination) for cell in cells))
            return fixed_block(protocol, model, self.data, (found, replicates), self.facts["combinations"], planned)
        values, valid = self._drawn(protocol, number, found, [one.scenario.name for one in patterns])
        return drawn_block(protocol, model, self.data, replicates, values, valid, patterns)

    def _drawn(self, protocol: Drawn, number: int, found: Predicted, scenarios: list[str]) -> tuple[Array, Array]:
        """Predictions under what was drawn, and validity: looked up by combination where that decides them."""
        data, model, seeds = self.data, self.models[number]["name"], _seeds(self.models[number])
        if isinstance(protocol, Masked):
            masks = self._masks(protocol)
            if not self.facts["attends"][number]:
                logits = self.store.nothing(nothing_file(number, data.name), data.rows.folds, seeds)
                nothing = answers(logits, data.task)
                return masked_lookup(found, masks, self.facts["combinations"], data, nothing)
        else:
            masks = np.ones((len(scenarios), protocol.masks, len(data.rows), len(data.names)), dtype=bool)
        own = drawn_stored(self.store, predictions_file(number, data.name, protocol.id), data, seeds, scenarios, masks)
        self._inspect(own, model, data, scenarios)
        return own.values, own.valid

    def _source_predictions(self, number: int) -> tuple[Predicted, Replicates]:
        if number not in self._predictions:
            file, model = predictions_file(number, self.data.name), self.models[number]
            stored = self.facts["combinations"]
            found = source_predictions(self.store, file, self.data, _seeds(model), stored)
            self._inspect(found[0], model["name"], self.data, stored)
            self._note_one_class(found[0], model["name"], stored)
            self._predictions[number] = found
        return self._predictions[number]

    def _inspect(self, found: Predicted, model: str, data: Dataset, cells: Sequence[str]) -> None:
        """Keep for the checks: how many logits were finite, and what did not depend on its input."""
        parts = self.parts
        parts.logits += found.logits
        if not found.finite:
            parts.broken.append(f"{model} on {data.name}")
        folds = [f", fold {name}" if name else "" for name in data.rows.folds]
        parts.still += [f"{model}{folds[f]}, {cells[c]}" for _, c, f in found.still]

    def _note_one_class(self, found: Predicted, model: str, cells: Sequence[str]) -> None:
        """A cell in which one class is named for every row measures the share of that class, not the model."""
        if self.data.task is not Task.CLASSIFICATION:
            return
        for c, label in enumerate(cells):
            for s in range(len(found.values)):
                named = np.unique(found.values[s, c, found.valid[s, c]])
                if len(named) == 1:
                    name = self.facts["label_names"][int(named[0])]
                    self.parts.notes.append(f"{model} names no class but {name} where {label} is left.")

    def _checks(self) -> list[Check]:
        parts = self.parts
        finite = f"{parts.logits:,} logits" if not parts.broken else f"not finite: {', '.join(parts.broken)}"
        moving = "every model, fold, seed and combination depends on its input"
        if parts.still:
            moving = f"the same for every row: {'; '.join(parts.still[:_EXAMPLES])}"
        return [
            Check("predictions are finite", not parts.broken, finite),
            Check("predictions are not constant", not parts.still, moving),
        ]

    def _described(self, facts: Entry, data: Dataset) -> Entry:
        rows = data.rows
        classes = []
        if data.task is Task.CLASSIFICATION:
            counts = np.bincount(rows.truth, minlength=data.classes)
            names = self.facts["label_names"]
            classes = [{"name": name, "rows": int(n)} for name, n in zip(names, counts, strict=True)]
        return {
            **{key: facts[key] for key in ("table", "hash", "task", "rows")},
            "measured": len(rows),
            "groups": len(np.unique(rows.group)),
            "group": facts["group"],
            "classes": classes,
            **{key: facts[key] for key in ("modalities", "normalisation", "unlabelled")},
            "incomplete": int((~rows.presence.all(axis=1)).sum()),
            "excluded": self.parts.excluded.get(data.name, []),
            **{key: facts[key] for key in ("test_features_normalise", "labels")},
        }

    def _calibration(self) -> Entry:
        """Of all models but those trained beside, under the combinations of the first fixed protocol."""
        fixed = next((one["id"] for one in self.parts.protocols if one["kind"] == "fixed"), None)
        labels = [m["combination"] for m in self.parts.measurements if m["protocol"] == fixed]
        mine = [one for one in self.models if takes_part(comparator_of(one), CALIBRATION)]  # the first of all models
        models = [(one["name"], _seeds(one)) for one in mine]
        return calibration(self.store, self.data, models, list(dict.fromkeys(labels)), self.how)

    def _published(self) -> list[Entry]:
        kinds = {protocol.id: protocol.kind for protocol in self.protocols}
        parts = self.parts
        have = {(kinds[m["protocol"]], m["metric"], m["combination"] or m["scenario"]) for m in parts.measurements}
        have |= {(kinds[one["protocol"]], one["metric"], one["name"]) for one in parts.summaries}
        return matching(self.source.name, len(self.facts["label_names"]), list(self.source.dims), have)


def _table_facts(facts: Entry, classes: tuple[str, ...]) -> TableFacts:
    dims = {one["name"]: one["dim"] for one in facts["modalities"]}
    return TableFacts(facts["table"], dims, Task(facts["task"]), classes)


def _seeds(model: Entry) -> dict[str, tuple[int, ...]]:
    return {one["fold"]: tuple(c["seed"] for c in one["checkpoints"]) for one in model["winners"]}


def _cell(one: Entry) -> Cell:
    return Cell(*(one[key] for key in ("protocol", "dataset", "split", "combination", "scenario", "metric")))


def _excluded(protocol: Protocol, patterns: Sequence[Pattern], ids: Sequence[str]) -> list[Entry]:
    """Rows that a scenario leaves with nothing because they lack modalities by themselves."""
    found = []
    for pattern in patterns:
        nothing = combination_index(pattern.presence) < 0
        lost = np.flatnonzero((nothing if pattern.emptied is None else nothing & ~pattern.emptied).any(axis=0))
        if len(lost):
            found.append(
                {
                    "protocol": protocol.id,
                    "scenario": pattern.scenario.name,
                    "rows": len(lost),
                    "reason": "nothing is left of what the row has"
                    + (" in some combination" if isinstance(protocol, (Fixed, CrossDataset)) else ""),
                    "examples": [ids[row] for row in lost[:_EXAMPLES]],
                }
            )
    return found
