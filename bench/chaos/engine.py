"""SIGKILLs of the engine at random instants, with simulated packs: nothing lost, nothing twice, the same ledger.

A child is forked that plays a search: the real coordinator, ledger, files and syncs; packs that are lost, that speak on
after they were lost, and that say things twice. What the coordinator acknowledges, the child's client writes to a file
of its own. The child is killed, and the run it leaves is checked against that file and continued, until it has ended.
"""

from __future__ import annotations

import hashlib
import os
import random
import shutil
import signal
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from bench.chaos.traced import CALLS, Ended, available, traced
from bench.rows import Row
from mcutune.domain.trial import LaneResult, State
from mcutune.errors import UserError
from mcutune.files import sha256_file
from mcutune.search.canonical import ledger_hash
from mcutune.search.coordinator import Coordinator
from mcutune.search.ledger import DATABASE, read_ledger
from mcutune.search.records import LaneRecord
from mcutune.search.run_folder import Plan
from tests.search.simulate import SMALL, SPACE, FakePack, Play, plan_of

FOLDS = ("1", "2")
TEXT = SPACE.replace("trials: 14", "trials: 40")
FEW = SMALL.replace("rungs: {first: 1, eta: 2}", "rungs: none")
KEEP = 3  # trials whose checkpoints stay
EARLY = 0.3  # share of the lives that end at any instant, most while the run is opened; the others get some work done
_LIVES = 500  # of one search


@dataclass
class EchoingPack(FakePack):
    """Says some words twice. `chance`: of that, a step."""

    chance: float = 0.1
    rng: random.Random = field(default_factory=random.Random)

    def step(self, client: Coordinator) -> bool:
        said = (self.epochs, self.failures, self.results)
        joined = self.joined
        found = super().step(client)
        if joined and self.rng.random() < self.chance:
            client.advance(self.name, *said, self.capacity)
        return found


@dataclass
class StormyPlay(Play):
    """A play whose lost packs speak on."""

    made: list[FakePack] = field(default_factory=list)

    def _fresh(self, number: int) -> FakePack:
        rng = random.Random(number)
        for ghost in self.made[-3:]:
            ghost.capacity = 1
        pack = GhostedPack(f"pack-{number}", self.capacity, self.acknowledged, rng=rng, ghosts=list(self.made[-2:]))
        self.made.append(pack)
        return pack


@dataclass
class GhostedPack(EchoingPack):
    """Now and then a pack that was lost before it speaks on, under its own name."""

    ghosts: list[FakePack] = field(default_factory=list)

    def step(self, client: Coordinator) -> bool:
        if self.ghosts and self.rng.random() < 0.1:
            self.rng.choice(self.ghosts).step(client)
        return super().step(client)


@dataclass
class Outcome:
    """What a campaign found. `problems`: in words, the first of each kind."""

    kills: int = 0
    searches: int = 0
    seconds: float = 0.0
    counts: Counter[str] = field(default_factory=Counter)
    problems: list[str] = field(default_factory=list)

    def blame(self, kind: str, text: str) -> None:
        self.counts[kind] += 1
        if self.counts[kind] == 1:
            self.problems.append(f"{kind}: {text}")


def campaign(folder: Path, seed: int, kills: int, least: int = 1, patience: float = 1e9) -> Outcome:
    """Kill until there were so many kills, in whole searches; stops early once anything is wrong for `patience` s."""
    rng, found, begun = random.Random(seed), Outcome(), time.monotonic()
    Play(plan_of(folder / "warm", TEXT, trials=6)).run()  # children need not import what this has imported
    expected = _undisturbed(folder / "reference")
    while found.kills < kills or found.searches < least:
        _search(folder / f"run{found.searches}", rng, found, expected)
        found.searches += 1
        found.seconds = time.monotonic() - begun
        if found.problems and found.seconds > patience:
            break
        if found.searches > 50 + kills:
            found.blame("stuck", "the searches end before they can be killed")
            break
    return found


def _undisturbed(folder: Path) -> str:
    """The ledger's hash of the search that nobody disturbs, one pack, one lane at a time; in a child, as all are."""
    plan, answer = plan_of(folder, TEXT, folds=FOLDS), folder.with_name("reference-hash")
    pid = forked(lambda: answer.write_text(Play(plan, capacity=1).run(100_000)))
    status = os.waitpid(pid, 0)[1]
    return answer.read_text() if status == 0 else "the reference failed"


def _search(folder: Path, rng: random.Random, found: Outcome, expected: str) -> None:
    plan, acks = plan_of(folder, TEXT, folds=FOLDS, keep=KEEP), folder.with_name(f"{folder.name}-acks")
    file = os.open(acks, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    packs, capacity = rng.randint(1, 3), rng.randint(1, 4)
    try:
        for life in range(_LIVES):
            seed = rng.randrange(10**6)
            pid = forked(lambda seed=seed: _play(plan, file, seed, packs, capacity))  # type: ignore[misc]
            more = 0 if rng.random() < EARLY else acks.stat().st_size + rng.choice([1, 1, 80])
            status = _killed(pid, acks, more, rng.uniform(0, 0.1 if more == 0 else 0.02))
            killed = os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL
            found.kills += killed
            _check(plan, acks, found, over=not killed)
            if not killed:
                if status != 0:
                    found.blame("failed", f"a life of {folder.name} ended with status {status}")
                break
            if life == _LIVES - 1:
                found.blame("stuck", f"{folder.name} was killed {_LIVES} times and has not ended")
    finally:
        os.close(file)
    try:
        if ledger_hash(read_ledger(folder)[0]) != expected:
            found.blame("unequal", f"the ledger of {folder.name} is another one")
    except UserError as error:
        found.blame("damaged", str(error))
    shutil.rmtree(folder, ignore_errors=True)


def _play(plan: Plan, file: int, seed: int, packs: int, capacity: int, quiet: bool = False) -> None:
    def acknowledged(result: LaneResult) -> None:
        weights = hashlib.sha256(result.files["model.safetensors"]).hexdigest()
        os.write(file, f"{result.lane.fold} {result.lane.trial} {result.lane.seed} {weights}\n".encode())

    play = Play if quiet else StormyPlay
    play(plan, packs, capacity, seed, lose=0.0 if quiet else 0.03, acknowledged=acknowledged).run(100_000)


def forked(work: Callable[[], object]) -> int:
    """The pid of a child that does the work and ends: 0 done, 1 failed."""
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            work()
            code = 0
        except BaseException as error:
            if os.environ.get("CHAOS_DEBUG"):
                print(f"{type(error).__name__}: {error}", flush=True)
        finally:
            os._exit(code)
    return pid


def _killed(pid: int, acks: Path, size: int, seconds: float) -> int:
    """Kill a child so long after the acknowledgements have grown to `size` bytes; its status, killed or ended."""
    end: float | None = None
    while True:
        ended, status = os.waitpid(pid, os.WNOHANG)
        if ended:
            return status
        if end is None and acks.stat().st_size >= size:
            end = time.monotonic() + seconds
        if end is not None and time.monotonic() >= end:
            os.kill(pid, signal.SIGKILL)
            return os.waitpid(pid, 0)[1]
        time.sleep(0.001)


def _check(plan: Plan, acks: Path, found: Outcome, over: bool) -> None:
    """The acknowledgements against the ledger. `over`: the search has ended, so nothing may run."""
    said = [line.split() for line in acks.read_text().splitlines()]
    lanes = Counter((fold, int(trial), int(seed)) for fold, trial, seed, _ in said)
    for lane, times in lanes.items():
        if times > 1:
            found.blame("twice", f"{lane} was acknowledged {times} times")
    if not (plan.folder / DATABASE).exists():
        if said:
            found.blame("lost", "there is no ledger")
        return
    try:
        studies = read_ledger(plan.folder, keep=True)[0].studies
    except UserError as error:
        found.blame("damaged", str(error))
        return
    ended: dict[tuple[str, int, int], LaneRecord] = {}
    for fold, study in studies.items():
        for trial in study.trials:
            ended |= {(fold, trial.number, lane.seed): lane for lane in trial.lanes if lane.state is State.FINISHED}
            if over and trial.state is State.RUNNING:
                found.blame("zombie", f"trial {trial.number} of fold {fold} runs for ever")
    for fold, number, lane_seed, weights in said:
        known = ended.get((fold, int(number), int(lane_seed)))
        if known is None or known.end is None or known.end.weights != weights:
            found.blame("lost", f"fold {fold}, trial {number}, seed {lane_seed} was acknowledged")
    for fold, study in studies.items():
        for trial_number in {0, study.best.number} if study.best is not None else ():
            _check_files(plan.folder, fold, trial_number, ended, found)


def _check_files(
    run: Path, fold: str, number: int, ended: dict[tuple[str, int, int], LaneRecord], found: Outcome
) -> None:
    """The checkpoints of a trial that stays are those that the ledger names."""
    for (of, trial, seed), lane in ended.items():
        if (of, trial) == (fold, number) and lane.end is not None:
            path = run / "checkpoints" / fold / str(number) / str(seed) / "model.safetensors"
            if not path.exists() or sha256_file(path) != lane.end.weights:
                found.blame("checkpoint", f"{path.relative_to(run)} is not what the ledger names")


def at_every_call(folder: Path, seed: int, most: int | None = None, calls: tuple[str, ...] = CALLS,
                  skip: float = 0.0) -> Outcome:  # fmt: skip
    """A small search, killed at every system call that writes; `most`: so many of them, drawn by seed.

    `skip`: this share of each kind of call is left out, at the beginning, where the run is made.
    """
    found, begun = Outcome(), time.monotonic()
    folder.mkdir(parents=True, exist_ok=True)
    Play(plan_of(folder / "warm", FEW)).run()
    expected = ledger_hash(read_ledger(folder / "warm")[0])
    points = [one for one in _traced_play(folder / "counted", folder / "counted-acks", "").points() if one[0] in calls]
    last = dict(points)
    points = [(call, n) for call, n in points if n > skip * last[call]]
    if most is not None and len(points) > most:
        points = random.Random(seed).sample(points, most)
    for number, (call, n) in enumerate(points):
        run, acks = folder / f"run{number}", folder / f"run{number}-acks"
        found.kills += _traced_play(run, acks, f"{call}:signal=SIGKILL:when={n}").code == -9
        plan = plan_of(run, FEW)
        _check(plan, acks, found, over=False)
        pid = forked(lambda plan=plan: Play(plan).run())  # type: ignore[misc]
        if os.waitpid(pid, 0)[1] != 0:
            found.blame("failed", f"killed at {call} {n}, it cannot go on")
            continue
        _check(plan, acks, found, over=True)
        if ledger_hash(read_ledger(run)[0]) != expected:
            found.blame("unequal", f"killed at {call} {n}, the ledger is another one")
        shutil.rmtree(run, ignore_errors=True)
    found.searches, found.seconds = len(points), time.monotonic() - begun
    return found


def _traced_play(run: Path, acks: Path, inject: str) -> Ended:
    plan = plan_of(run, FEW)
    file = os.open(acks, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    try:
        return traced(lambda: _play(plan, file, 0, 2, 2, quiet=True), run.with_name("log"), inject)
    finally:
        os.close(file)


def rows(folder: Path, seed: int, count: int | None, quick: bool) -> list[Row]:
    """The campaign's figures."""
    found = campaign(folder, seed, count or (30 if quick else 1_000))
    rows = [_row("SIGKILLs at random instants", found, f"of {found.searches} ledgers")]
    if available():
        found = at_every_call(folder / "calls", seed, 20 if quick else None)
        rows.append(_row("SIGKILLs at every system call of a small search", found, f"of {found.searches} ledgers"))
    return rows


def _row(name: str, found: Outcome, of: str) -> Row:
    counts, bad = found.counts, sum(found.counts.values())
    note = (
        f"{counts['lost']} lost, {counts['twice']} twice, {counts['zombie']} zombies, {counts['unequal']} {of} "
        f"unequal; packs lost, speaking on and saying things twice; {found.seconds:.0f} s"
    )
    return Row("chaos", f"engine: problems after {found.kills:,} {name}", bad, "", goal="0", met=bad == 0,
               note="; ".join([note, *found.problems]))  # fmt: skip
