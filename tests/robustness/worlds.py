"""A small world for the tests: tables with known prototypes, a finished run, and a model that needs no training."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from mcutune.data.columns import Columns
from mcutune.data.splits import split_of
from mcutune.data.table import Table, write_table
from mcutune.domain.combination import Modalities, combination_index, membership
from mcutune.domain.task import Task
from mcutune.files import read_json, sha256_file, write_json

DIMS = {"audio": 5, "text": 7, "video": 4}
NAMES = ("happy(+excited)", "sad", "neutral", "angry")
STRENGTH = {"audio": 0.5, "text": 0.9, "video": 0.4}


def prototypes(modality: str, classes: int) -> np.ndarray:
    """Class centres [K, D] of a modality, the same in every corpus."""
    return np.random.default_rng([ord(modality[0]), classes]).standard_normal((classes, DIMS[modality]))


def make_columns(
    rows: int = 400,
    *,
    modalities: tuple[str, ...] = ("audio", "text", "video"),
    names: tuple[str, ...] = NAMES,
    task: Task = Task.CLASSIFICATION,
    folds: int = 4,
    groups: int = 12,
    gaps: float = 0.0,
    unlabelled: float = 0.1,
    shift: float = 0.0,
    seed: int = 0,
) -> Columns:
    """Rows in dialogues of 5, dialogues in groups, groups in folds."""
    random = np.random.default_rng(seed)
    classes = len(names)
    dialogue = np.arange(rows) // 5
    group = dialogue % groups
    labels = random.integers(classes, size=rows)
    skill = random.normal(1, 0.3, size=groups)[group]
    features = {}
    for name in modalities:
        centre = prototypes(name, classes)[labels] * STRENGTH[name] * skill[:, None]
        features[name] = (centre + random.standard_normal((rows, DIMS[name])) + shift).astype(np.float32)
    presence = random.random((rows, len(modalities))) >= gaps
    presence[~presence.any(axis=1), 0] = True
    known = random.random(rows) >= unlabelled
    truth: np.ndarray
    if task is Task.CLASSIFICATION:
        truth = np.where(known, labels, -1)
    else:
        noisy = (labels - 1.5 + random.normal(0, 0.3, rows)).astype(np.float32)
        truth = np.where(known, np.where(random.random(rows) < 0.05, 0, noisy), np.nan).astype(np.float32)
    return Columns(
        features=features,
        ids=np.array([f"r{i:05d}" for i in range(rows)]),
        labels=truth,
        dialogue=np.array([f"d{i:04d}" for i in dialogue]),
        order=np.arange(rows) % 5,
        group=np.array([f"s{i:02d}" for i in group]),
        presence=presence,
        task=task,
        label_names=names if task is Task.CLASSIFICATION else (),
        fold=np.array([f"{i % folds}" for i in group]),
        group_kind="speaker",
    )


@dataclass
class FakeModel:
    """Logits are how near a row's features lie to the class centres, summed over what is present.

    `attending`: the mean of the present features over the dialogue counts too. `leak`: absent content counts.
    """

    info: dict[str, Any]

    def __post_init__(self) -> None:
        self.configuration = self.info["configuration"]
        self.modalities = Modalities(tuple(self.info["modalities"]))
        self.dims = tuple(self.info["dims"])
        self.task = Task(self.info["task"])
        self.label_names = tuple(self.info["label_names"] or ())
        self.classes = len(self.label_names) or 1
        self.attends = bool(self.configuration.get("attends", False))

    def epochs(self) -> list[FakeModel]:
        """After each of its epochs a model that is less noisy, or more; the best of them is itself."""
        made = []
        for epoch, noise in enumerate(self.configuration["epochs"], 1):
            own = {**self.configuration, "noise": noise, "noise_seed": self.configuration["noise_seed"] + 1000 * epoch}
            made.append(FakeModel({**self.info, "configuration": own}))
        return made

    def gradient_norms(self, epochs, features, labels, dialogue, order, group, *, presence, rows, after):  # type: ignore[no-untyped-def]
        """Not of any loss: what is told, or numbers that differ in every model and epoch."""
        told = self.configuration.get("norms")
        if told is not None:
            return np.stack([np.asarray(told, dtype=float)] * len(after))
        return 0.1 + np.random.default_rng(self.configuration["noise_seed"]).random((len(after), len(self.modalities)))

    def _scores(
        self, features: dict[str, np.ndarray], modality: str, group: np.ndarray, mode: str | None
    ) -> np.ndarray:
        x = features[modality].astype(np.float64)
        if mode == "group":
            for one in np.unique(group):
                x[group == one] -= x[group == one].mean(axis=0)
        classes = 4 if self.task is Task.REGRESSION else self.classes
        noise = np.random.default_rng([self.configuration["noise_seed"], ord(modality[0])])
        centre = prototypes(modality, classes)
        centre = centre + noise.standard_normal(centre.shape) * self.configuration["noise"]
        return x @ centre.T * STRENGTH[modality] - 0.5 * (centre**2).sum(axis=1) * STRENGTH[modality] ** 2

    def with_presence(self, features, presence, dialogue, order, group, *, normalisation=None, noise=None):  # type: ignore[no-untyped-def]
        features = {name: values + (noise or {}).get(name, 0) for name, values in features.items()}
        total = 0.0
        for m, name in enumerate(self.modalities.names):
            scores = self._scores(features, name, np.asarray(group), normalisation)
            here = presence[:, m, None].astype(float)
            if self.attends:
                _, of = np.unique(dialogue, return_inverse=True)
                sums = np.stack([np.bincount(of, column) for column in (scores * here).T], axis=1)
                scores = scores + 0.3 * sums[of] / np.maximum(np.bincount(of, here[:, 0])[of], 1)[:, None]
            total = total + scores * (here + self.configuration.get("leak", 0.0) * (1 - here))
        if self.configuration.get("constant"):
            total = np.zeros_like(total)
        if self.task is Task.REGRESSION:
            weights = np.exp(total - total.max(axis=1, keepdims=True))
            total = (weights @ (np.arange(4) - 1.5) / weights.sum(axis=1))[:, None]
        return np.asarray(total).astype(np.float32)

    def all_combinations(self, features, dialogue, order, group, *, presence=None, normalisation=None):  # type: ignore[no-untyped-def]
        rows = len(dialogue)
        have = np.ones((rows, len(self.modalities)), bool) if presence is None else presence
        return np.stack(
            [
                self.with_presence(features, have & row, dialogue, order, group, normalisation=normalisation)
                for row in membership(len(self.modalities))
            ]
        )


def load_fake(folder: Path) -> FakeModel:
    return FakeModel(read_json(folder / "checkpoint.json"))


def make_run(
    home: Path, table: Table, name: str = "run", *, seeds: int = 2, finished: str = "2026-01-01T00:00:00Z",
    folds: tuple[str, ...] | None = None, zero_noise: float = 1.0, **settings: Any,
) -> Path:  # fmt: skip
    """A finished run whose winner is trial 3 in every fold; trial 0 has checkpoints too. `settings`: of the winner."""
    folder = home / "runs" / name
    best = []
    for fold in folds or tuple(table.manifest.folds):
        for trial, noise in ((0, zero_noise), (3, 0.3)):
            checkpoints = []
            for seed in range(seeds):
                place = folder / "checkpoints" / fold / str(trial) / str(seed)
                own = settings if trial == 3 else {k: v for k, v in settings.items() if k == "attends"}
                write_json(place / "checkpoint.json", checkpoint(table, fold, trial, seed, {"noise": noise, **own}))
                digest = sha256_file(place / "checkpoint.json")
                checkpoints.append({"seed": seed, "folder": str(place.relative_to(folder)), "sha256": digest})
        best.append(
            {"fold": fold, "trial": 3, "score": 0.6, "scores": {"audio": 0.5}, "configuration": {"rank": 4},
             "checkpoints": checkpoints}
        )  # fmt: skip
    data = {"table": table.manifest.name, "table_hash": table.manifest.hash}
    write_json(folder / "best.json", {"schema": 1, "run": name, "data": data, "finished": finished, "best": best})
    return folder


def checkpoint(table: Table, fold: str, trial: int, seed: int, settings: dict[str, Any]) -> dict[str, Any]:
    manifest = table.manifest
    split = split_of(table, fold)
    combinations = 2 ** len(manifest.modalities) - 1
    return {
        "schema": 1,
        "configuration": {"rank": 4, "noise_seed": 100 * trial + seed, **settings},
        "modalities": list(manifest.modalities),
        "dims": list(manifest.modalities.values()),
        "task": manifest.task.value,
        "label_names": manifest.label_names,
        "normalisation": {"mode": settings.get("mode", "train")},
        "data": {"table": manifest.name, "table_hash": manifest.hash, "fold": fold, "split_hash": split.hash},
        "lane": {"fold": fold, "trial": trial, "seed": seed},
        "best_epoch": 7,
        "scores": {"audio": 0.5, "text": 0.6},
        "dpft": {"probabilities": [[1 / combinations] * combinations] * 3, "divergences": [[0.1] * combinations] * 3},
    }


def make_table(home: Path, name: str = "toy", **options: Any) -> Table:
    return write_table(home / "datasets" / name, make_columns(**options))


def index_of(presence: np.ndarray) -> np.ndarray:
    return combination_index(presence)
