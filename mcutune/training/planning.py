"""How many lanes a pack takes at once: judged on its device by a few steps of throw-away lanes of several sizes.

It decides speed, never numbers: a lane's do not depend on its neighbours, and randomness is counter-based, so nothing
is used up. What was found out is kept by the coordinator, and a later pack of the same facts measures nothing.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from functools import lru_cache, partial
from itertools import accumulate
from pathlib import Path
from typing import Any

import torch

from mcutune.domain.pack import Client, Timing
from mcutune.domain.trial import LaneId, LaneOrder
from mcutune.errors import NoResources
from mcutune.files import sha256
from mcutune.training.config import SHAPE_KEYS, Configuration
from mcutune.training.lane import Lane
from mcutune.training.memory import Peak, free_memory, out_of_memory
from mcutune.training.pack import Pack

SHARE_OF_FREE = 0.7  # of the memory that is free; the rest is for what a few steps do not show
LEAST_GAIN = 1.1  # in lane-epochs a second by two doublings; where it is less, larger packs are not tried
MOST_SECONDS = {"cpu": 0.4, "cuda": 3.0}  # to try one size, so twice that for all smaller ones together
# A pack on a CPU computes in one thread. What that thread was given of it says more than the time that has passed while
# other packs were starting beside it.
_CLOCKS: dict[str, Callable[[], float]] = {"cpu": time.thread_time, "cuda": time.perf_counter}
_STEPS = 3
_REPEATS = 2
_COPIES = 6  # of a lane's parameters: themselves, the gradient, two moments, the best epoch's, one in passing
_REMEDIES = {
    "frozen": "search smaller values of batch, encoder_width or rank, or use a larger device",
    "trained": "search smaller values of batch, width, depth or rank, or use a larger device",
}


def size_of(pack: Pack, client: Client, most: int) -> tuple[int, str]:
    """Lanes, at most `most`, and how that was decided. Raises NoResources where not even one fits."""
    facts = facts_of(pack)
    known = timings = client.timings(facts)
    free, least = free_memory(pack.device), lane_memory(pack)
    room, budget = int(free * SHARE_OF_FREE), MOST_SECONDS[pack.device.type]
    if memory_of(known, 1, least) > free:
        raise unfit(pack.shape, pack.device)
    tries = next_size(timings, most, room, least, budget) is not None
    if tries and _attempt(pack, lambda: pack.epoch([_throw_away(pack, 0)], 1)) is None:  # also a first warming up
        raise unfit(pack.shape, pack.device)
    while (lanes := next_size(timings, most, room, least, budget)) is not None:
        timing = _attempt(pack, partial(_timing, pack, lanes, budget))
        if timing is None:
            most = timings[-1].lanes if timings else 1
            break
        timings = (*timings, timing)
    if timings != known:
        client.put_timings(facts, timings)
    return chosen(timings, most, room, least), "measured" if timings != known else "measured before"


def unfit(shape: Configuration, device: torch.device) -> NoResources:
    """The error of a device into which not even one lane fits."""
    keys = ("batch", "encoder_width") if shape.encoder == "frozen" else ("batch", "width", "depth")
    settings = ", ".join(f"{key} {getattr(shape, key)}" for key in keys)
    free = free_memory(device) / 2**30
    return NoResources(
        f"one lane (encoder {shape.encoder}, {settings}) does not fit into the {free:.2f} GiB free on {device}",
        hint=_REMEDIES[shape.encoder],
    )


def next_size(timings: Sequence[Timing], most: int, room: int, least: int, budget: float) -> int | None:
    """The size to try next: doubled while that has paid, fits `room` bytes and takes at most about `budget` seconds."""
    if not timings:
        return 1
    lanes = 2 * timings[-1].lanes
    if lanes > most or saturated(timings) or memory_of(timings, lanes, least) > room:
        return None
    return None if 2 * timings[-1].spent > budget else lanes


def saturated(timings: Sequence[Timing]) -> bool:
    """Whether the two largest sizes gained too little over smaller ones; one alone may have been disturbed."""
    rates = _rates(timings)
    return len(rates) > 2 and max(rates[-2:]) < LEAST_GAIN * max(rates[:-2])


def _rates(timings: Sequence[Timing]) -> list[float]:
    """Lane-epochs a second of every size. More lanes never take less time: where they seem to, that is noise."""
    seconds = accumulate((timing.seconds for timing in timings), max)
    return [timing.lanes / longest for timing, longest in zip(timings, seconds, strict=True)]


def memory_of(timings: Sequence[Timing], lanes: int, least: int) -> int:
    """Bytes that so many lanes take, on the line through the two largest sizes; `least`: bytes of a lane at least."""
    below, last = ([Timing(0, 0.0, 0, 0.0)] * 2 + [*timings])[-2:]
    slope = max(least, (last.memory - below.memory) / max(1, last.lanes - below.lanes))
    return max(least * lanes, int(last.memory + slope * (lanes - last.lanes)))


def chosen(timings: Sequence[Timing], most: int, room: int, least: int) -> int:
    """Lanes, no more than fit into `room` bytes: `most` as long as more were seen to be faster.

    Else the largest size that is about as fast as the fastest: too few places cost much, some too many hardly anything.
    """
    lanes = most
    if saturated(timings):
        rates = _rates(timings)
        fast = [t.lanes for t, rate in zip(timings, rates, strict=True) if rate * LEAST_GAIN >= max(rates)]
        lanes = min(most, fast[-1])
    while lanes > 1 and memory_of(timings, lanes, least) > room:
        lanes -= 1
    return lanes


def lane_memory(pack: Pack) -> int:
    """Bytes that a lane takes at least: its vectors."""
    return _COPIES * 4 * pack.program_of(pack.start.max_rank).layout.size


def facts_of(pack: Pack) -> dict[str, Any]:
    """All that speed and memory depend on. Numbers of rows to two digits: folds of a data set are alike."""
    resident = pack.resident
    rows = [len(resident.own), len(resident.training), len(resident.validation), *resident.dialogues.shape]
    return {
        "device": _device(pack.device), "shape": dict(zip(SHAPE_KEYS, pack.start.shape, strict=True)),
        "dims": list(resident.dims), "outputs": resident.outputs, "rows": [float(f"{n:.1e}") for n in rows],
        "combinations": len(pack.measured), "rank": pack.start.max_rank, "torch": torch.__version__, "code": _code(),
    }  # fmt: skip


def _device(device: torch.device) -> list[Any]:
    """Name, how much of it there is, and this process's share of a GPU."""
    if device.type == "cuda":
        properties = torch.cuda.get_device_properties(device)
        return [properties.name, properties.total_memory, torch.cuda.get_per_process_memory_fraction(device)]
    lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    name = next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), "cpu")
    return [name, os.cpu_count(), torch.get_num_threads()]


@lru_cache(maxsize=1)
def _code() -> str:
    """Changes with every line of the engine."""
    package = Path(__file__).parents[1]
    sources = sorted(path for room in ("model", "training") for path in (package / room).glob("*.py"))
    return sha256(b"".join(path.read_bytes() for path in sources))


def _attempt(pack: Pack, work: Callable[[], Any]) -> Any:
    """What the work returns; None where memory ran out. The pack is as it was before."""
    try:
        return work()
    except (MemoryError, RuntimeError) as error:
        if not out_of_memory(error):
            raise
        return None
    finally:
        pack.forget()


def _timing(pack: Pack, count: int, budget: float) -> Timing:
    now = _CLOCKS[pack.device.type]
    began = now()
    peak = Peak(pack.device)
    lanes = [_throw_away(pack, number) for number in range(count)]
    pack.epoch(lanes, 1)  # the first of a size warms up
    total = pack.steps(lanes)
    steps = min(_STEPS, total) if now() - began < budget / 4 else 1
    bare: list[float] = []
    stepped: list[float] = []
    while len(bare) < _REPEATS and (not bare or now() - began < budget / 2):
        bare.append(_clocked(pack, lanes, 0))
        stepped.append(_clocked(pack, lanes, steps))
    step = max(0.0, min(stepped) - min(bare)) / steps
    return Timing(count, min(bare) + step * total, peak.taken(), now() - began)


def _clocked(pack: Pack, lanes: Sequence[Lane], steps: int) -> float:
    """Seconds of an epoch with so many steps."""
    now = _CLOCKS[pack.device.type]
    before = now()
    pack.epoch(lanes, steps)
    if pack.device.type == "cuda":
        torch.cuda.synchronize(pack.device)
    return now() - before


def _throw_away(pack: Pack, number: int) -> Lane:
    """A lane of the pack's shape and its largest rank, else the paper's defaults; its trial is none of the search's."""
    settings = {**dict(zip(SHAPE_KEYS, pack.start.shape, strict=True)), "rank": pack.start.max_rank}
    return pack.lane(LaneOrder(LaneId(pack.start.fold, -1 - number, 0), 0, settings, 1))
