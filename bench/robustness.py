"""How long a certification takes: every shipped protocol on winners of five folds, and the resampling alone.

The data are planted in the shape of IEMOCAP: 10,039 utterances, of which 5,531 have a label, in 151 dialogues of five
sessions and ten speakers; dimensions 47, 384 and 384. Two models of three seeds a fold, with an utterance encoder, are
measured; they have made a few steps only, which costs the same to predict with.
"""

from __future__ import annotations

import dataclasses
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from bench.engine import checkpoint
from bench.likeness import SESSIONS
from bench.rows import Row, median_seconds
from mcutune.data.columns import Columns
from mcutune.data.planted import columns, options
from mcutune.data.table import Table, write_table
from mcutune.data.views import fold_data
from mcutune.domain.task import Task
from mcutune.files import read_json, sealed, sha256_file, write_json
from mcutune.robustness.html import write
from mcutune.robustness.paired import mean_over_replicates
from mcutune.robustness.run import certify
from mcutune.robustness.statistics import Resampling, Statistic, intervals
from mcutune.robustness.sums import unit_sums

GROUP = "robustness"
NAMES, DIMS = ("audio", "text", "video"), (47, 384, 384)
LENGTH, LABELLED = 66, 0.551
SEEDS = 3
MOST_SECONDS, MOST_RESAMPLING = 180.0, 5.0
RESAMPLES, ROWS, COMBINATIONS, METRICS = 2000, 5531, 7, ("wa", "ua", "f1")
GROUPS = 151  # dialogues: enough for the bootstrap


def likeness(quick: bool) -> Columns:
    """Planted dialogues in sessions, two speakers a session."""
    sessions = tuple(max(2, count // 12) for count in SESSIONS) if quick else SESSIONS
    made = columns(options(rows=(sum(sessions) + 2) * LENGTH, modalities=3, dims=DIMS, dialogue_rows=LENGTH))
    number = np.unique(made.dialogue, return_inverse=True)[1]
    session = np.repeat(np.arange(len(sessions)), sessions)
    kept = np.flatnonzero(number < len(session))
    fold, unlabelled = session[number[kept]], np.random.default_rng(0).random(len(kept)) > LABELLED
    return dataclasses.replace(
        made,
        features={name: x[kept] for name, x in zip(NAMES, made.features.values(), strict=True)},
        ids=made.ids[kept],
        labels=np.where(unlabelled, -1, made.labels[kept]),
        dialogue=made.dialogue[kept],
        order=made.order[kept],
        group=np.array([f"speaker{2 * f + n % 2:02d}" for f, n in zip(fold, number[kept], strict=True)]),
        presence=made.presence[kept],
        fold=np.array([str(f + 1) for f in fold]),
        split=None,
        group_kind="speaker",
        extra={},
    )


def make_run(home: Path, table: Table) -> None:
    """A finished run whose winner is trial 1 in every fold; trial 0 is there to compare with."""
    folder, best = home / "runs" / "bench", []
    for fold in table.manifest.folds:
        data = fold_data(table, fold)
        for trial, rank in enumerate((4, 8)):
            found = []
            for seed in range(SEEDS):
                place = folder / "checkpoints" / fold / str(trial) / str(seed)
                place.mkdir(parents=True)
                if seed == 0:
                    checkpoint(data, {"rank": rank, "encoder_kind": "utterance"}, place)
                else:
                    _copy(place.parent / "0", place, seed)
                digest = sha256_file(place / "checkpoint.json")
                found.append({"seed": seed, "folder": str(place.relative_to(folder)), "sha256": digest})
        best.append({"fold": fold, "trial": 1, "score": 0.5, "scores": {}, "configuration": {}, "checkpoints": found})
    facts = {"table": table.manifest.name, "table_hash": table.manifest.hash}
    document = {"schema": 1, "run": "bench", "data": facts, "finished": "2026-01-01T00:00:00Z", "best": best}
    write_json(folder / "best.json", sealed(document))


def _copy(one: Path, other: Path, seed: int) -> None:
    """The same checkpoint as that of another seed."""
    for path in one.iterdir():
        (other / path.name).write_bytes(path.read_bytes())
    facts = read_json(one / "checkpoint.json")
    write_json(other / "checkpoint.json", sealed({**facts, "lane": {**facts["lane"], "seed": seed}}))


def certification(quick: bool) -> Row:
    """Seconds of all protocols, report and page included."""
    with tempfile.TemporaryDirectory() as name:
        home = Path(name)
        table = write_table(home / "datasets" / "likeness", likeness(quick))
        make_run(home, table)
        begun = time.perf_counter()
        report: dict[str, Any] = certify("bench", ("all",), home=home)
        write(home / "runs" / "bench" / "robustness" / "report.json")
        spent = time.perf_counter() - begun
    protocols, numbers = len(report["protocols"]), len(report["measurements"])
    note = (
        f"{protocols} protocols, {report['data']['measured']:,} rows, {len(table.manifest.folds)} folds, "
        f"{SEEDS} seeds, 2 models, {numbers:,} measurements; planted data of IEMOCAP's shape"
    )
    return Row(
        GROUP, "every protocol on five folds", spent, "s", goal=f"≤ {MOST_SECONDS:g} s", met=spent <= MOST_SECONDS,
        note=note,
    )  # fmt: skip


def resampling(quick: bool) -> Row:
    """Seconds from predictions to intervals of every combination and metric."""
    random = np.random.default_rng(0)
    rows = ROWS // 8 if quick else ROWS
    truth, group = random.integers(4, size=rows), random.integers(GROUPS, size=rows)
    right = random.random((SEEDS, COMBINATIONS, rows)) < 0.7
    predicted = np.where(right, truth, random.integers(4, size=right.shape))
    statistics = [Statistic(mean_over_replicates(metric), "fraction") for metric in METRICS]

    def work() -> object:
        sums = unit_sums(predicted, truth, group, GROUPS, Task.CLASSIFICATION, 4)
        return intervals(sums, np.bincount(group), statistics, Resampling(resamples=RESAMPLES))

    spent = median_seconds(work, repeats=3)
    note = f"{rows:,} rows, {COMBINATIONS} combinations, {len(METRICS)} metrics, {SEEDS} seeds, {GROUPS} groups"
    return Row(
        GROUP, f"{RESAMPLES:,} resamples", spent, "s", goal=f"≤ {MOST_RESAMPLING:g} s", met=spent <= MOST_RESAMPLING,
        note=note,
    )  # fmt: skip


def measure(quick: bool) -> list[Row]:
    """The group's rows."""
    return [resampling(quick), certification(quick)]
