"""Packs on a GPU: what lanes side by side give on one card, whether they equal lanes alone, and how far the floor is.

    python -m bench gpu

The floor is the longer of two times: a step's operations (torch.utils.flop_counter) at the rate of a product measured
on this card, and the bytes that a step cannot avoid at the bandwidth of a copy measured on it: each lane's parameters,
gradients and Adam's moments once in and once out, and its rows once. Where there is no GPU nothing is measured; with
--quick the same runs on the CPU with small data, only to see that it does.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

from bench.engine import lanes_of, pack_of
from bench.likeness import likeness
from bench.rate import operations
from bench.rows import Row, median_seconds
from bench.throughput import FROZEN, TRAINED
from mcutune.data.views import FoldData
from mcutune.training.pack import Pack

GROUP = "gpu"
SIZES: dict[str, tuple[int, ...]] = {"frozen": (1, 8, 32, 128, 256), "trained": (1, 8, 32)}
GOAL = 30  # times the throughput of one lane at a time, of the largest pack of `frozen`
BOUND = 1e-2
"""How far a packed lane may end from the same lane alone, as a part of the way that it has moved (float32)."""
_MEMORY_PASSES = 8  # parameters, gradient and two moments, once in and once out
_COMPARED, _EPOCHS = 8, 2  # lanes and epochs of the equality test


@dataclass(frozen=True)
class Card:
    """What a device reaches: operations a second of a float32 product, bytes a second of a copy (read and written)."""

    product: float
    copy: float


def card_of(device: torch.device, quick: bool) -> Card:
    """Measure a device."""
    size = 512 if quick else 8192
    a, b = (torch.randn(size, size, device=device) for _ in range(2))

    def product() -> None:
        torch.mm(a, b)
        _wait(device)

    def copy() -> None:
        a.copy_(b)
        _wait(device)

    return Card(2 * size**3 / median_seconds(product), 2 * a.numel() * a.element_size() / median_seconds(copy))


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def floor(pack: Pack, count: int, overrides: dict[str, Any], card: Card) -> float:
    """Seconds that an epoch's steps of a pack of so many lanes need at least."""
    lanes = lanes_of(pack, count, overrides)
    steps = pack.steps(lanes)
    each = operations(pack, lanes, 2) - operations(pack, lanes, 1)
    parameters = count * pack.program_of(pack.start.max_rank).layout.size * _MEMORY_PASSES
    rows = len(pack.resident.training) / steps * sum(pack.resident.dims)  # lanes of one seed share them
    return float(steps * max(each / card.product, 4 * (parameters + rows) / card.copy))


def apart(fold: FoldData, overrides: dict[str, Any], device: str) -> float:
    """The greatest distance between a packed lane and the same alone, as a part of the way that the lane has moved."""
    pack = pack_of(fold, overrides, device)
    together = lanes_of(pack, _COMPARED, overrides)
    starts = [lane.vectors.parameters.clone() for lane in together]
    for _ in range(_EPOCHS):
        pack.epoch(together)
    found = []
    for place in (0, _COMPARED // 2, _COMPARED - 1):
        alone = lanes_of(pack, _COMPARED, overrides)[place]
        for _ in range(_EPOCHS):
            pack.epoch([alone])
        end = alone.vectors.parameters
        away = (together[place].vectors.parameters - end).norm() / (end - starts[place]).norm()
        found.append(float(away))
    return max(found)


def packs(encoder: str, fold: FoldData, device: str, card: Card, quick: bool) -> list[Row]:
    """A row for each size of pack, and that of the equality test."""
    overrides: dict[str, Any] = FROZEN if encoder == "frozen" else TRAINED
    sizes = (1, 4) if quick else SIZES[encoder]
    pack = pack_of(fold, overrides, device)
    found: list[Row] = []
    alone = 0.0
    for count in sizes:
        name = f"{encoder}, pack of {count}"
        try:
            lanes = lanes_of(pack, count, overrides)
            seconds = median_seconds(lambda held=lanes: pack.epoch(held), 1 if quick else 3)  # type: ignore[misc]
            least = floor(pack, count, overrides, card)
        except torch.OutOfMemoryError as error:
            pack.forget()
            found.append(Row(GROUP, name, None, "trial-epochs/s", note=f"not measured: {str(error)[:60]}"))
            continue
        rate = count / seconds
        alone = alone or rate
        goal = encoder == "frozen" and count == max(sizes)
        found.append(
            Row(
                GROUP, name, rate, "trial-epochs/s", rate / alone, "one lane at a time", alone,
                f"≥ {GOAL} ×" if goal else "", rate / alone >= GOAL if goal else None,
                f"an epoch {1e3 * seconds:.1f} ms with evaluation, floor of its steps {1e3 * least:.2f} ms",
            )
        )  # fmt: skip
    away = apart(fold, overrides, device)
    note = f"{_COMPARED} lanes, {_EPOCHS} epochs: distance from the lane alone, as a part of the way it has moved"
    name = f"{encoder}, packed equals alone"
    return [*found, Row(GROUP, name, away, "of the way", goal=f"≤ {BOUND:g}", met=away <= BOUND, note=note)]


def measure(quick: bool) -> list[Row]:
    """The group's rows."""
    if not (torch.cuda.is_available() or quick):
        names = [f"{encoder}, pack of {count}" for encoder, sizes in SIZES.items() for count in sizes]
        return [Row(GROUP, name, None, "trial-epochs/s", note="not measured: no GPU") for name in names]
    device = "cuda" if torch.cuda.is_available() else "cpu"
    card, fold = card_of(torch.device(device), quick), likeness(quick=quick).fold
    name = torch.cuda.get_device_name() if device == "cuda" else "the CPU, to see that it runs"
    return [
        Row(GROUP, "product, float32", card.product / 1e9, "GFLOP/s", note=name),
        Row(GROUP, "copy, read and written", card.copy / 1e9, "GB/s", note=name),
        *(row for encoder in SIZES for row in packs(encoder, fold, device, card, quick)),
    ]
