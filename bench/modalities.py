"""How time and memory grow with the number of combinations: 2 to 6 modalities, the same rows, planted data.

Each is measured in a process of its own with one thread: an epoch with all its evaluation, the parameters of a lane,
and the peak of the process's memory above what it held with the data alone.
"""

from __future__ import annotations

import multiprocessing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from bench.engine import lanes_of, pack_of
from bench.likeness import fold_of
from bench.rows import Row, median_seconds
from mcutune.data.planted import columns, options

GROUP = "modalities"
ROWS, DIM = 4000, 64
RANKS = (4,)
KINDS: dict[str, tuple[int, dict[str, Any]]] = {
    "frozen": (8, {"encoder_epochs": 1, "batch": 128}),
    "trained": (1, {"encoder": "trained", "width": 64, "depth": 2, "batch": 240}),
}
"""Lanes of the pack, and its configuration, for each architecture."""


@dataclass(frozen=True)
class Cost:
    """Of one lane: `seconds` an epoch, `parameters` (floats), `memory` (bytes at the peak, its share of the pack's)."""

    seconds: float
    parameters: int
    memory: float


def cost(encoder: str, count: int, rows: int, repeats: int) -> Cost:
    """Measure one architecture with M = `count`, in this process."""
    torch.set_num_threads(1)
    made = columns(options(rows=rows, modalities=count, dims=(DIM,) * count))
    fold = fold_of(made, np.arange(rows), np.asarray(made.fold) == "1")
    many, overrides = KINDS[encoder]
    Path("/proc/self/clear_refs").write_text("5")  # the peak so far is that of making the data
    before = _kibibytes("VmRSS")
    pack = pack_of(fold, overrides, ranks=RANKS)
    lanes = lanes_of(pack, many, overrides, RANKS)
    seconds = median_seconds(lambda: pack.epoch(lanes), repeats)
    return Cost(
        seconds / many, pack.program_of(pack.start.max_rank).layout.size, 1024 * (_kibibytes("VmHWM") - before) / many
    )


def _kibibytes(name: str) -> int:
    """A line of this process's status in Linux: VmRSS is what it holds, VmHWM the peak of that."""
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return int(next(line for line in lines if line.startswith(name)).split()[1])


def growth(combinations: list[int], values: list[float]) -> float:
    """The exponent e of values ∝ C^e, by least squares of logarithms."""
    return float(np.polyfit(np.log(combinations), np.log(values), 1)[0])


def rows_of(encoder: str, most: int, rows: int, repeats: int) -> list[Row]:
    """A row for each M, and the growth."""
    lanes = KINDS[encoder][0]
    counts, costs = list(range(2, most + 1)), []
    for count in counts:
        with multiprocessing.get_context("spawn").Pool(1) as pool:
            costs.append(pool.apply(cost, (encoder, count, rows, repeats)))
    every = [2**count - 1 for count in counts]
    found = [
        Row(
            GROUP, f"{encoder}, M = {count}, C = {c}", 1e3 * one.seconds, "ms", costs[0].seconds / one.seconds,
            f"M = {counts[0]}", 1e3 * costs[0].seconds,
            note=f"a lane's epoch, {rows} rows; {one.parameters:,} parameters, {one.memory / 2**20:.0f} MB at the peak",
        )
        for count, c, one in zip(counts, every, costs, strict=True)
    ]  # fmt: skip
    parameters = growth(every, [float(one.parameters) for one in costs])
    note = f"time of a lane's epoch in a pack of {lanes} grows as C to this power; parameters as C^{parameters:.2f}"
    return [*found, Row(GROUP, f"{encoder}: growth", growth(every, [c.seconds for c in costs]), "of C", note=note)]


def measure(quick: bool) -> list[Row]:
    """The group's rows."""
    most, rows, repeats = (3, 400, 1) if quick else (6, ROWS, 3)
    return [row for encoder in KINDS for row in rows_of(encoder, most, rows, repeats)]
