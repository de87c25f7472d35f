"""Training throughput, evaluation of all seven combinations included, against the published form.

The published form trains one model on both cores; ours runs as the product does: a pack of one thread on each core.
`trained` has the published form's architecture and rank, and is timed in its steady epochs; what its matrix products
alone would take at the machine's rate bounds what any mending of the rest can reach. `frozen` is timed whole: stage 1,
the start of its lanes, every epoch and the checkpoints. All read the same rows (bench/likeness.py).
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from bench.baselines.published import BATCH, RANK, Published, evaluate, optimizer_of, train_epoch
from bench.engine import Office, OwnData, lanes_of, orders, pack_of, rate_of_two, start_of
from bench.likeness import LENGTH, as_dialogues, likeness
from bench.operations import operations
from bench.rows import Row, median_seconds
from mcutune.training.config import configuration
from mcutune.training.loop import run_pack
from mcutune.training.resident import resident

GROUP = "throughput"
BASELINE = "published form"
TRIALS, EPOCHS = 64, 20  # of the frozen row
PACK_SIZES = (8, 32)
KINDS = (("float32", 1), ("float32", 4), ("bfloat16", 1), ("bfloat16", 4))  # of `trained`: precision, lanes of a pack
QUICK_KINDS = (("float32", 1), ("bfloat16", 2))
_PRODUCTS = 16  # of 2048³: some seconds
TRAINED = {"encoder": "trained", "batch": BATCH * LENGTH}  # rows of as many dialogues as the published form takes
FROZEN = {"batch": 128, "class_weight": "balanced"}  # as search_spaces/ranks.yaml


def published_rate(quick: bool) -> tuple[float, float]:
    """Trial-epochs a second of the published form, and the utterances a second of its training part.

    With one thread and with one a core, in turns; the faster of the two counts, for a busy machine punishes the second.
    """
    fold = likeness(quick=quick).fold
    held = resident(fold, configuration({"encoder": "trained"}), torch.device("cpu"))
    training, validation = as_dialogues(held, np.flatnonzero(~fold.validation)), as_dialogues(held, held.validation)
    torch.manual_seed(0)
    model = Published(held.dims, held.outputs)
    optimizer, random = optimizer_of(model), np.random.default_rng(0)
    spent: dict[int, list[tuple[float, float]]] = {}
    for _ in range(1 if quick else 2):
        for threads in {1, os.cpu_count() or 1}:
            torch.set_num_threads(threads)
            begun = time.perf_counter()
            train_epoch(model, optimizer, training, random)
            middle = time.perf_counter()
            evaluate(model, validation)
            spent.setdefault(threads, []).append((time.perf_counter() - begun, middle - begun))
    whole, part = min(tuple(np.median(one, axis=0)) for one in spent.values())
    return 1 / float(whole), int((~fold.validation).sum()) / float(part)


def steady_epochs(lanes: int, precision: str, epochs: int, quick: bool) -> Callable[[], int]:
    """A pack of `trained` after its first steps; timed: some epochs of it."""
    overrides = {**TRAINED, "precision": precision}
    pack = pack_of(likeness(quick=quick).fold, overrides, ranks=(RANK,))
    held = lanes_of(pack, lanes, overrides, ranks=(RANK,))
    pack.epoch(held, most_steps=2)

    def timed() -> int:
        for _ in range(epochs):
            pack.epoch(held)
        return epochs * lanes

    return timed


def whole_search(coordinator: Any, trials: int, epochs: int, number: int, quick: bool) -> Callable[[], int]:
    """One of two packs of `frozen` that train all trials between them; timed: all of it."""
    client = OwnData(coordinator, likeness(quick=quick).fold)

    def timed() -> int:
        run_pack(client, pack=f"p{number}", capacity=trials // 2, node="here", device="cpu")
        return trials // 2 * epochs

    return timed


def frozen_rate(quick: bool) -> float:
    """Trial-epochs a second of two packs, stage 1 and checkpoints included."""
    trials, epochs = (4, 2) if quick else (TRIALS, EPOCHS)
    fold = likeness(quick=quick).fold
    with Office() as office:
        work = office.FixedWork(start_of(fold, FROZEN), orders(fold, trials, epochs, FROZEN))  # type: ignore[attr-defined]
        return rate_of_two(whole_search, [(work, trials, epochs, number, quick) for number in range(2)])


def products(size: int) -> Callable[[], int]:
    """Square float32 products; timed: their operations, in millions."""
    a, b = torch.randn(size, size), torch.randn(size, size)
    a @ b

    def timed() -> int:
        for _ in range(_PRODUCTS):
            a @ b
        return int(_PRODUCTS * 2 * size**3 / 1e6)

    return timed


def bound_row(base: float, quick: bool) -> Row:
    """What the products of `trained` alone would take, at the rate of large ones on two cores side by side."""
    fold = likeness(quick=quick).fold
    pack = pack_of(fold, TRAINED, ranks=(RANK,))
    held = lanes_of(pack, 1, TRAINED, ranks=(RANK,))
    count = operations(pack, held, pack.steps(held))
    rate = 1e6 * rate_of_two(products, [(256 if quick else 2048,)] * 2)
    note = f"{count / 1e9:.0f} GFLOP a trial-epoch, evaluation included; {rate / 1e9:.0f} GFLOP/s on two cores"
    return _against(base, "trained, float32, its matrix products alone", rate / count, "", None, note)


def trained_rows(base: float, quick: bool) -> list[Row]:
    """`trained` against the published form, in both precisions, alone and packed."""
    found = [bound_row(base, quick)]
    for precision, lanes in QUICK_KINDS if quick else KINDS:
        rate = rate_of_two(steady_epochs, [(lanes, precision, 1 if lanes > 1 else 2, quick)] * 2)
        name = f"trained, {precision}, 2 packs of {lanes}"
        found.append(_against(base, name, rate, "≥ 10 ×" if lanes > 1 else "", 10 if lanes > 1 else None))
    return found


def packing_rows(quick: bool) -> list[Row]:
    """What packing gives `frozen`: a lane's epoch in packs of some sizes, one process of one thread."""
    pack = pack_of(likeness(quick=quick).fold, FROZEN)
    spent = {}
    for count in (1, *((2,) if quick else PACK_SIZES)):
        held = lanes_of(pack, count, FROZEN)
        repeats = 1 if quick else 3 if count < max(PACK_SIZES) else 2
        spent[count] = median_seconds(lambda held=held: pack.epoch(held), repeats) / count  # type: ignore[misc]
    alone = 1 / spent[1]
    return [
        Row(
            GROUP, f"frozen, 1 pack of {count}", 1 / each, "trial-epochs/s", spent[1] / each, "a pack of 1", alone,
            note="steady epochs of one process, encoders resident",
        )
        for count, each in spent.items()
    ]  # fmt: skip


def _against(base: float, name: str, rate: float, goal: str, least: float | None, note: str = "") -> Row:
    met = None if least is None else rate / base >= least
    return Row(GROUP, name, rate, "trial-epochs/s", rate / base, BASELINE, base, goal, met, note)


def measure(quick: bool) -> list[Row]:
    """The group's rows."""
    base, speed = published_rate(quick)
    frozen = frozen_rate(quick)
    trials, epochs = (4, 2) if quick else (TRIALS, EPOCHS)
    whole = f"{trials} trials × {epochs} epochs, stage 1 and checkpoints included, two packs of {trials // 2}"
    return [
        Row(
            GROUP, "published form", base, "trial-epochs/s",
note=f"{speed:.0f} utterances/s in training; the faster of 1 and {os.cpu_count()} threads",
        ),
        *trained_rows(base, quick),
        _against(base, "frozen, float32, whole search", frozen, "≥ 100 ×", 100, whole),
        *packing_rows(quick),
    ]  # fmt: skip
