"""Do rungs pay? The same searches with and without, in turns: what the winner loses, and what its search costs.

`random` looks at no results and a lane at no neighbour, so the search without rungs holds the whole of every trial that
the search with rungs ends early: what a rung foretells is measured over all trials, and that common epochs are equal
bit for bit is checked.
"""

from __future__ import annotations

import math
import multiprocessing
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from itertools import accumulate
from pathlib import Path
from typing import Any

from bench.rows import Row

GROUP = "rungs"
SPACE = str(Path(__file__).parent / "spaces" / "spread.yaml")
SEEDS = 10
PLACES = 32
REAL = "iemocap"
REAL_TRIALS = 32
_WORSE, _FORETOLD, _SHARE = -0.5, 0.6, 0.3  # the goals: points, rank correlation, of full budgets


@dataclass(frozen=True)
class Task:
    """A search: of the table in a folder, with a search seed, with rungs or without. `given`: keys over the space's."""

    table: Path
    fold: str
    seed: int
    rungs: bool
    given: dict[str, Any]


@dataclass(frozen=True)
class Played:
    """What a search did. curves: the objective after every epoch, by trial; ends: scores of the trials trained in full.

    rungs: epochs of the rungs. scouted: the rank correlation that the search itself measured at each. busy: mean of
    its places at which a lane was trained.
    """

    seconds: float
    curves: dict[int, tuple[float, ...]]
    ends: dict[int, float]
    rungs: tuple[int, ...]
    scouted: tuple[float | None, ...]
    busy: float

    @property
    def trained(self) -> int:
        return sum(map(len, self.curves.values()))

    @property
    def winner(self) -> float:
        return max(self.ends.values())


def play(task: Task) -> Played:
    """Run a search in this process, with a home and encoders of its own."""
    from mcutune.cli.searching import fold_of
    from mcutune.data.table import open_table
    from mcutune.search.coordinator import Coordinator
    from mcutune.search.ledger import read_ledger
    from mcutune.search.run_folder import Plan
    from mcutune.search.runner import Job, run_in_process
    from mcutune.search.space_file import load_space
    from mcutune.search.summary import summarise

    given = task.given if task.rungs else {**task.given, "rungs": "none"}
    normalisation = open_table(task.table, verify=False).manifest.normalisation
    with tempfile.TemporaryDirectory(prefix="mcutune-rungs-") as home:
        os.environ["MCUTUNE_HOME"] = home
        space = load_space(SPACE, search_seed=task.seed, **given)
        folder = Path(home) / "runs" / "spread"
        plan = Plan(folder, space, (task.fold,), partial(fold_of, str(task.table), normalisation), "spread")
        job = Job(plan.name, partial(Coordinator, plan), Path(home), PLACES, folder / "logs")
        lanes: list[int] = []
        begun = time.perf_counter()
        run_in_process(job, run=partial(_counted, lanes))
        seconds = time.perf_counter() - begun
        trials = read_ledger(folder, keep=True)[0].studies[task.fold].trials
        views = summarise(folder).rungs
    return Played(
        seconds,
        {trial.number: tuple(row.value for row in trial.lanes[0].epochs) for trial in trials},
        {trial.number: trial.score for trial in trials if trial.score is not None},
        tuple(view.epoch for view in views),
        tuple(view.correlation for view in views),
        statistics.mean(lanes) / PLACES,
    )


def _counted(lanes: list[int], client: Any, *, heartbeat: Callable[[dict[str, Any]], None], **given: Any) -> None:
    """As training.loop.run_pack; `lanes` gets the number of lanes at work of every turn."""
    from mcutune.training.loop import run_pack

    def beat(facts: dict[str, Any]) -> None:
        if facts["lanes"]:
            lanes.append(facts["lanes"])
        heartbeat(facts)

    run_pack(client, heartbeat=beat, **given)


def pairs(table: Path, fold: str, seeds: int, given: dict[str, Any]) -> list[tuple[Played, Played]]:
    """(without, with) of every search seed, a process a core."""
    tasks = [Task(table, fold, seed, rungs, given) for seed in range(seeds) for rungs in (False, True)]
    workers = min(len(tasks), os.cpu_count() or 1)
    with ProcessPoolExecutor(workers, mp_context=multiprocessing.get_context("spawn")) as pool:
        played = list(pool.map(play, tasks))
    return list(zip(played[::2], played[1::2], strict=True))


def loss(found: Sequence[tuple[Played, Played]]) -> tuple[float, float | None]:
    """What the winner with rungs has over that without, in points: mean, and lower bound of one-sided 95 % (t)."""
    from scipy.stats import t

    points = [100 * (ours.winner - full.winner) for full, ours in found]
    mean = statistics.mean(points)
    if len(points) < 2:
        return mean, None
    return mean, mean - float(t.ppf(0.95, len(points) - 1)) * statistics.stdev(points) / math.sqrt(len(points))


def foretold(full: Played, rung: int) -> float:
    """Rank correlation of a rung with the end, over all trials of a search without rungs."""
    from scipy.stats import spearmanr

    best = [list(accumulate(full.curves[number], max)) for number in full.ends]
    return float(spearmanr([curve[rung - 1] for curve in best], [curve[-1] for curve in best]).statistic)


def differing(found: Sequence[tuple[Played, Played]]) -> int:
    """Epochs that are not the same with rungs and without."""
    return sum(
        ours.curves[number][: len(curve)] != curve[: len(ours.curves[number])]
        for full, ours in found
        for number, curve in full.curves.items()
    )


def rows(found: Sequence[tuple[Played, Played]], name: str, goals: bool) -> list[Row]:
    """The figures of one dataset; `goals`: whether they are promised there."""
    mean, bound = loss(found)
    value = mean if bound is None else bound
    spread = statistics.mean(statistics.stdev(full.ends.values()) for full, _ in found)
    trials = len(found[0][0].curves)
    made = [
        Row(
            GROUP, f"{name}: winner, with rungs less without", value, "points",
            goal=f"≥ {_WORSE:g}" if goals else "", met=value >= _WORSE if goals else None,
            note=f"{'one-sided 95 % bound; ' if bound is not None else ''}mean {mean:+.2f}; {len(found)} search seeds "
            f"of {trials} trials, whose ends spread by {100 * spread:.1f} points (standard deviation)",
        )
    ]  # fmt: skip
    for place, rung in enumerate(found[0][1].rungs):
        each = [foretold(full, rung) for full, _ in found]
        scouts = [ours.scouted[place] for _, ours in found]
        known = [f"{one:.2f}" for one in scouts if one is not None]
        made.append(
            Row(
                GROUP, f"{name}: rank correlation, epoch {rung} and end", statistics.mean(each), "rho",
                goal=f"≥ {_FORETOLD:g}" if goals else "", met=statistics.mean(each) >= _FORETOLD if goals else None,
                note=f"mean over seeds, lowest {min(each):.2f}; what the scouts said: {', '.join(known) or 'too few'}",
            )
        )  # fmt: skip
    shares = [ours.trained / full.trained for full, ours in found]
    seconds = [statistics.fsum(one.seconds for one in side) for side in zip(*found, strict=True)]
    return [
        *made,
        Row(
            GROUP, f"{name}: epochs trained, of full budgets", 100 * statistics.mean(shares), "%",
            goal=f"≤ {100 * _SHARE:g} %" if goals else "", met=statistics.mean(shares) <= _SHARE if goals else None,
            note=f"most {100 * max(shares):.0f} %; an epoch has the same rows for every lane",
        ),
        Row(
            GROUP, f"{name}: time of a search", seconds[1] / len(found), "s",
            ratio=seconds[0] / seconds[1], baseline="the same without rungs", baseline_value=seconds[0] / len(found),
            note=f"places of {PLACES} at work: {100 * statistics.mean(ours.busy for _, ours in found):.0f} % with "
            f"rungs, {100 * statistics.mean(full.busy for full, _ in found):.0f} % without; encoders included",
        ),
        Row(
            GROUP, f"{name}: trials that differ in a common epoch", differing(found), "trials",
            goal="0" if goals else "", met=differing(found) == 0 if goals else None,
        ),
    ]  # fmt: skip


def measure(quick: bool) -> list[Row]:
    """Planted data, for which the goals are; a real dataset where this home has it."""
    from mcutune.data import planted
    from mcutune.data.splits import folds_of
    from mcutune.data.table import datasets_folder, open_table

    small: dict[str, Any] = {
        "trials": 12,
        "lag": 2,
        "rungs": {"first": 1, "eta": 2, "scouts": 4},
        "fixed": {"epochs": 4},
    }
    given = small if quick else {}
    with tempfile.TemporaryDirectory(prefix="mcutune-rungs-") as folder:
        table = planted.make("spread", Path(folder), rows=400 if quick else 3000, dialogue_rows=12)
        made = rows(pairs(table.folder, "1", 2 if quick else SEEDS, given), "planted", goals=not quick)
    if quick:
        return made
    real = datasets_folder() / REAL
    if not real.exists():
        missing = f"this home has no dataset {REAL}"
        return [*made, Row(GROUP, f"{REAL}: winner, with rungs less without", None, "points", note=missing)]
    fold = folds_of(open_table(real))[0]
    return [*made, *rows(pairs(real, fold, 1, {"trials": REAL_TRIALS}), REAL, goals=False)]
