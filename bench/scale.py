"""What a trial costs the coordinator and the ledger, and that it does not grow with the trials before it.

Packs are simulated: their lanes measure at once what they are asked for. Coordinator, ledger, files and syncs are the
real ones, in one process. Results carry no checkpoint: its cost is the same for every trial, and the disk's.
"""

from __future__ import annotations

import contextlib
import gc
import json
import math
import os
import subprocess
import sys
import tempfile
import time
from array import array
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from bench.rows import Row, median_seconds
from mcutune.domain.task import Task
from mcutune.domain.trial import LaneEpoch, LaneId, LaneOrder, LaneResult, Orders, Verdict
from mcutune.errors import BadInput
from mcutune.search.coordinator import Coordinator
from mcutune.search.ledger import DATABASE, open_ledger
from mcutune.search.proposals import BLOCK, WINDOW
from mcutune.search.run_folder import Plan
from mcutune.search.space_file import load_space
from mcutune.search.summary import status

MODALITIES = ("audio", "text", "video")
COMBINATIONS = 7
SPACE = """\
parameters:
  rank: {role: scientific, values: [1, 2, 4, 8, 16]}
  beta: {role: scientific, low: 1e-6, high: 1, log: true}
  dropout: {role: nuisance, low: 0, high: 0.5}
"""


@dataclass(frozen=True)
class Variant:
    """A search to be simulated: `at_once` of its `packs` live at a time.

    `warm`: trials before the first tenth. `readers`: processes that ask for the run's status ten times a second.
    """

    name: str
    keys: str
    trials: int
    packs: int
    at_once: int
    lanes: int
    warm: int = 0
    readers: int = 0


def variants(quick: bool) -> list[Variant]:
    """What is measured; every variant keeps its shape in the quick form."""
    much = 2_000 if quick else 100_000
    packs = 20 if quick else 1_000
    at_once = 2 if quick else 16
    plain, rungs = "fixed: {epochs: 2}\nrungs: none\n", "fixed: {epochs: 9}\nrungs: {first: 1, eta: 3}\n"
    warm = WINDOW + BLOCK
    return [
        Variant("random", f"{plain}sampler: random\n", much, packs, at_once, 64),
        Variant("random, all packs at once", f"{plain}sampler: random\n", much // 2, packs, packs, 8),
        Variant("random, 8 readers", f"{plain}sampler: random\n", much // 10, packs // 10, 2, 4, readers=8),
        Variant("random, eta 3", f"{rungs}sampler: random\n", much // 5, packs // 5, 2, 32),
        Variant("tpe", f"{plain}sampler: tpe\n", warm + (BLOCK if quick else 10 * BLOCK), packs // 10, 2, 8, warm),
    ]


@dataclass
class Pack:
    """One simulated pack: it takes `quota` lanes, and is over when they have ended."""

    name: str
    capacity: int
    quota: int
    taken: int = 0
    joined: bool = False
    lanes: dict[LaneId, LaneOrder] = field(default_factory=dict)
    at: dict[LaneId, int] = field(default_factory=dict)
    parked: set[LaneId] = field(default_factory=set)
    epochs: list[LaneEpoch] = field(default_factory=list)
    results: list[LaneResult] = field(default_factory=list)

    @property
    def over(self) -> bool:
        return self.taken >= self.quota and not self.lanes and not self.results

    def places(self) -> int:
        """How many lanes it can train at once, of those it has and those it may still take."""
        return min(self.capacity, len(self.lanes) - len(self.parked) + self.quota - self.taken)

    def obey(self, orders: Orders) -> int:
        """Do what was ordered, and have the next words ready; how many lanes ended."""
        self.epochs, self.results, ended = [], [], 0
        self.taken += len(orders.start)
        for lane in list(self.lanes):
            verdict = orders.verdicts.get(lane, Verdict.CONTINUE)
            self.parked.discard(lane)
            if verdict is Verdict.CONTINUE:
                self._train(lane)
            elif verdict is Verdict.PARK:
                self.parked.add(lane)
            else:
                order, epoch = self.lanes.pop(lane), self.at.pop(lane)
                ended += 1
                if verdict is Verdict.FINISH:
                    self.results.append(LaneResult(lane, order.attempt, epoch, {}))
        for order in orders.start:
            self.lanes[order.lane], self.at[order.lane] = order, 0
            self._train(order.lane)
        self.joined = self.joined and not orders.done
        return ended

    def _train(self, lane: LaneId) -> None:
        self.at[lane] += 1
        self.epochs.append(measured(self.lanes[lane], self.at[lane]))


def measured(order: LaneOrder, epoch: int) -> LaneEpoch:
    """What a lane measures in an epoch: its last one is its best, as its result says."""
    quality = 0.5 - 0.02 * abs(order.configuration["rank"] - 4) + 0.01 * order.configuration["dropout"] + 0.01 * epoch
    noise = (order.lane.trial * 2_654_435_761 % 1_000_003) / 1e7
    scores = tuple(quality + noise + 0.001 * c for c in range(COMBINATIONS))
    even = (1 / COMBINATIONS,) * COMBINATIONS
    return LaneEpoch(order.lane, order.attempt, epoch, scores, 1 / epoch, even, scores)


@dataclass
class Played:
    """What a simulated search took: seconds of every word, of its commit, and of a processor for it.

    `ended`: lanes that had ended after the word. `early`: MiB of memory when a tenth of the trials had ended.
    """

    words: array[float] = field(default_factory=lambda: array("d"))
    commits: array[float] = field(default_factory=lambda: array("d"))
    processor: array[float] = field(default_factory=lambda: array("d"))
    ended: array[int] = field(default_factory=lambda: array("q"))
    early: float = 0.0

    def per_trial(self, seconds: array[float], first: int, last: int) -> float:
        """Milliseconds for each of the trials from first to last."""
        inside = [one for one, ended in zip(seconds, self.ended, strict=True) if first < ended <= last]
        return 1e3 * math.fsum(inside) / (last - first)


def quantile(seconds: array[float], share: float) -> float:
    """Milliseconds that `share` of all did not exceed."""
    return 1e3 * sorted(seconds)[min(int(share * len(seconds)), len(seconds) - 1)]


def play(coordinator: Coordinator, variant: Variant) -> Played:
    """The whole search, packs taking turns."""
    found = Played()
    time_commits(coordinator, found)
    quota = -(-variant.trials // variant.packs)
    packs: list[Pack] = []
    begun = ended = 0
    while not coordinator.done:
        packs = [pack for pack in packs if not pack.over]
        while len(packs) < variant.at_once:
            packs.append(Pack(f"pack-{begun}", variant.lanes, quota))
            begun += 1
        for pack in packs:
            before, processor = time.perf_counter(), time.process_time()
            orders = said(coordinator, pack)
            found.words.append(time.perf_counter() - before)
            found.processor.append(time.process_time() - processor)
            ended += pack.obey(orders)
            found.ended.append(ended)
            if not found.early and ended >= variant.trials // 10:
                found.early = resident()
    return found


def time_commits(coordinator: Coordinator, found: Played) -> None:
    """Note how long each commit takes from now on."""
    commit = coordinator._ledger.commit

    def timed(elapsed: float, gpu: float = 0.0) -> None:
        before = time.perf_counter()
        commit(elapsed, gpu)
        found.commits.append(time.perf_counter() - before)

    coordinator._ledger.commit = timed  # type: ignore[method-assign]


def said(coordinator: Coordinator, pack: Pack) -> Orders:
    """The coordinator's answer to what a pack has to say."""
    if not pack.joined:
        pack.joined = coordinator.join(pack.name, pack.capacity, "node", "cpu") is not None
    if not pack.joined:
        return Orders({})
    orders = coordinator.advance(pack.name, pack.epochs, [], pack.results, pack.places())
    if pack.taken == pack.quota and not pack.lanes:
        coordinator.lost(pack.name, "its node was given back")
    return orders


def measure(quick: bool) -> list[Row]:
    """All rows of all variants."""
    return [row for variant in variants(quick) for row in measure_variant(variant)]


def measure_variant(variant: Variant) -> list[Row]:
    """One simulated search on a new run folder, and that folder read again."""
    with tempfile.TemporaryDirectory(prefix="mcutune-scale-") as parent:
        home, folder = os.environ.get("MCUTUNE_HOME"), Path(parent, "run")
        os.environ["MCUTUNE_HOME"] = parent
        try:
            sync = 1e3 * sync_seconds(Path(parent))
            coordinator = Coordinator(plan_of(folder, variant))
            memory = [resident()]
            with readers(folder, variant.readers) as polled:
                played = play(coordinator, variant)
            memory.append(resident())
            coordinator.close()
        finally:
            os.environ.pop("MCUTUNE_HOME")
            if home is not None:
                os.environ["MCUTUNE_HOME"] = home
        del coordinator
        gc.collect()
        if variant.readers:
            return rows_of_readers(variant, polled, played.early, memory[1])
        return rows_of(variant, folder, played, memory, sync)


def rows_of(variant: Variant, folder: Path, played: Played, memory: list[float], sync: float) -> list[Row]:
    """The figures of a variant."""
    trials, name = variant.trials, variant.name
    size = sum(path.stat().st_size for path in folder.glob(f"{DATABASE}*"))
    flying = variant.at_once * variant.lanes  # lanes: while they fill the packs and leave them, packs wait
    # Packs that began together also end their lanes together: only whole waves of them can be compared.
    waves = max(1, round((trials - variant.warm - 2 * flying) / 10 / flying))
    tenth = waves * flying
    begin, end = variant.warm + flying, trials - flying
    first, last = (begin, begin + tenth), (end - tenth, end)
    early, late = (played.per_trial(played.words, *span) for span in (first, last))
    processor = [played.per_trial(played.processor, *span) for span in (first, last)]
    opening = median_seconds(lambda: open_ledger(folder)[0].close(), repeats=3)
    looking = 1e3 * median_seconds(lambda: status(folder), repeats=3)
    word, commit = quantile(played.words, 0.99), quantile(played.commits, 0.99)
    shape = f"{trials:,} trials, {variant.packs:,} packs of {variant.lanes} lanes, {variant.at_once:,} at once"
    warm = f"; after {variant.warm:,} trials, which fill its window" if variant.warm else ""
    large = trials == 100_000
    return [
        Row("scale", f"{name}: a trial", played.per_trial(played.words, 0, trials), "ms", note=f"simulated: {shape}"),
        Row("scale", f"{name}: a word answered, median", quantile(played.words, 0.5), "ms",
            note="with what follows from it: proposals, commit, orders"),
        Row("scale", f"{name}: a word answered, p99", word, "ms", goal="< 50 ms", met=word < 50,
            note="up to a proposal a lane, each a look of Optuna at its whole window" if variant.warm else ""),
        Row("scale", f"{name}: its commit, p99", commit, "ms", goal="< 50 ms", met=commit < 50,
            note=f"median {quantile(played.commits, 0.5):.2f} ms, with two syncs of {sync:.2f} ms"),
        Row("scale", f"{name}: a trial of the last tenth", late, "ms", early / late, "of the first", early,
            goal="≥ 0.8 ×", met=early / late >= 0.8,
            note=f"of a processor: {processor[1]:.3f} ms and {processor[0]:.3f} ms{warm}"),
        Row("scale", f"{name}: ledger, a trial", size / trials, "bytes"),
        Row("scale", f"{name}: opening the ledger, verified", opening, "s", goal="< 1 s" if large else "",
            met=opening < 1 if large else None),
        Row("scale", f"{name}: mcutune status", looking, "ms", goal="" if large else "< 200 ms",
            met=None if large else looking < 200, note="of the closed run; the start of Python is not in it"),
        Row("scale", f"{name}: memory of the process", memory[1], "MiB", note=f"{memory[0]:.0f} MiB at its start"),
    ]  # fmt: skip


def rows_of_readers(variant: Variant, polled: list[float | str], early: float, late: float) -> list[Row]:
    """How long those waited who asked while the search went on, and they and it had the same cores."""
    waited = array("d", [one for one in polled if isinstance(one, float)])
    wrong = [one for one in polled if isinstance(one, str)]
    rows = [
        Row("scale", f"{variant.name}: memory at the end", late, "MiB", late / early, "of that at a tenth", early,
            goal="≤ 1.2 ×", met=late <= 1.2 * early, note=f"{variant.trials:,} trials, {variant.readers} readers"),
        Row("scale", f"{variant.name}: errors of readers", len(wrong), "", goal="0", met=not wrong,
            note="; ".join(sorted(set(wrong))[:3])),
    ]  # fmt: skip
    name = f"{variant.name}: their status, p99"
    if not waited:
        return [*rows, Row("scale", name, None, "ms", note="the search had ended before the first answer")]
    p99 = quantile(waited, 0.99)
    note = f"{len(waited)} answers, median {quantile(waited, 0.5):.1f} ms, until trial {variant.trials:,} had ended"
    return [*rows, Row("scale", name, p99, "ms", goal="< 200 ms", met=p99 < 200, note=note)]


@contextlib.contextmanager
def readers(folder: Path, count: int) -> Iterator[list[float | str]]:
    """So many processes that ask for the status until the end, and then the seconds that they waited, or the errors."""
    found: list[float | str] = []
    command = [sys.executable, "-c", f"from bench.scale import poll; poll({str(folder)!r})"]
    begun = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(count)]
    try:
        yield found
    finally:
        folder.with_name("over").touch()
        for process in begun:
            found.extend(json.loads(process.communicate()[0]))


def poll(folder: str) -> None:
    """Ask for the status ten times a second until the file `over` lies beside the run; print what came of each."""
    path, found = Path(folder), list[float | str]()
    while not path.with_name("over").exists():
        before = time.perf_counter()
        try:
            status(path)
            found.append(time.perf_counter() - before)
        except BadInput:  # the search has not begun
            pass
        except Exception as error:
            found.append(f"{type(error).__name__}: {error}")
        time.sleep(max(0.0, 0.1 - (time.perf_counter() - before)))
    print(json.dumps(found))


def plan_of(folder: Path, variant: Variant) -> Plan:
    """A run of the variant on data of which only the names matter."""
    path = folder.parent / "space.yaml"
    path.write_text(f"{SPACE}{variant.keys}trials: {variant.trials}\n")
    return Plan(folder, load_space(str(path)), ("1",), data_of, "simulated")


def data_of(fold: str) -> Any:
    """What the coordinator asks of a fold's data."""
    return SimpleNamespace(
        fold=fold, modalities=MODALITIES, task=Task.CLASSIFICATION, table_hash="none", split_hash="none"
    )


def sync_seconds(folder: Path) -> float:
    """Of a small write and its sync on this disk."""
    descriptor = os.open(folder / "sync", os.O_CREAT | os.O_WRONLY)

    def write_and_sync() -> None:
        os.pwrite(descriptor, b"x" * 128, 0)
        os.fdatasync(descriptor)

    try:
        return median_seconds(write_and_sync, repeats=50)
    finally:
        os.close(descriptor)


def resident() -> float:
    """MiB of memory that this process holds now."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20
