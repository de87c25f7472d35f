"""Which part of the machine's matrix-product rate a training step reaches, and where the rest of its time goes.

The rate is that of a 2048³ product. A step's operations are those of its matrix products and attention, forward and
backward, as torch.utils.flop_counter counts them: what a step does besides counts as loss. A step's time is what an
epoch takes longer for some steps more, so plan, evaluation and start are not in it.
"""

from __future__ import annotations

import statistics
import time
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile

from bench.engine import lanes_of, pack_of
from bench.likeness import likeness
from bench.operations import operations
from bench.rows import Row, median_seconds
from bench.throughput import FROZEN, TRAINED
from mcutune.data.views import FoldData
from mcutune.training.lane import Lane
from mcutune.training.pack import Pack

GROUP = "rate"
SIZE = 2048
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}
STEPS = {("frozen", 1): 32, ("frozen", 32): 4, ("trained", 2): 1}
"""Steps that are timed, for each architecture and number of lanes."""
_PRODUCTS = ("mm", "bmm", "addmm", "baddbmm")
_NAMED = 3  # operators


def product_rate(precision: str, threads: int, size: int) -> float:
    """Operations a second of a square product."""
    torch.set_num_threads(threads)
    a, b = (torch.randn(size, size).to(DTYPES[precision]) for _ in range(2))
    return float(2 * size**3 / median_seconds(lambda: a @ b, repeats=7, warm=2))


def step_of(pack: Pack, lanes: list[Lane], steps: int, repeats: int) -> tuple[float, float]:
    """Operations and seconds of one gradient step of these lanes."""
    pack.epoch(lanes, most_steps=1)
    spent = []
    for _ in range(repeats):
        begun = time.perf_counter()
        pack.epoch(lanes, most_steps=1)
        middle = time.perf_counter()
        pack.epoch(lanes, most_steps=1 + steps)
        spent.append((time.perf_counter() - middle) - (middle - begun))
    return (operations(pack, lanes, 2) - operations(pack, lanes, 1)), statistics.median(spent) / steps


def losses(pack: Pack, lanes: list[Lane], steps: int) -> str:
    """The share of matrix products in the time of a cut-short epoch, and the operators that take most of the rest."""
    with profile(activities=[ProfilerActivity.CPU]) as found:
        pack.epoch(lanes, most_steps=steps)
    each = {event.key.removeprefix("aten::"): event.self_cpu_time_total for event in found.key_averages()}
    total = sum(each.values())
    products = sum(each.pop(key, 0.0) for key in _PRODUCTS)
    first = sorted(each, key=lambda key: -each[key])[:_NAMED]
    return f"products {products / total:.0%} of the time, " + ", ".join(f"{k} {each[k] / total:.0%}" for k in first)


def step_row(fold: FoldData, encoder: str, count: int, precision: str, machine: float, quick: bool) -> Row:
    """A step's rate beside the machine's, one thread."""
    overrides: dict[str, Any] = {**(TRAINED if encoder == "trained" else FROZEN), "precision": precision}
    if quick:
        overrides["batch"] = 16  # the small data has few steps
    pack = pack_of(fold, {**overrides, "encoder_epochs": 1})
    lanes = lanes_of(pack, count, {**overrides, "encoder_epochs": 1})
    steps = 1 if quick else STEPS[encoder, count]
    operations, seconds = step_of(pack, lanes, steps, 1 if quick else 2)
    rate = operations / max(seconds, 1e-9)
    return Row(
        GROUP, f"{encoder}, {precision}, pack of {count}", rate / 1e9, "GFLOP/s", rate / machine,
        f"{SIZE}³ product, 1 thread", machine / 1e9,
        note=f"{seconds * 1e3 / count:.3g} ms a lane's step; {losses(pack, lanes, 1 + steps)}",
    )  # fmt: skip


def measure(quick: bool) -> list[Row]:
    """The group's rows."""
    size = SIZE // 8 if quick else SIZE
    rates = {(p, threads): product_rate(p, threads, size) for p in DTYPES for threads in (1, 2)}
    found = [
        Row(GROUP, f"{size}³ product, {p}, {threads} thread{'s' * (threads > 1)}", rate / 1e9, "GFLOP/s")
        for (p, threads), rate in rates.items()
    ]
    fold = likeness(quick=quick, steps_only=True).fold
    return found + [step_row(fold, *kind, p, rates[p, 1], quick) for kind in STEPS for p in DTYPES]
