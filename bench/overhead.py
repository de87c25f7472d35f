"""What a search costs beside its training: a trial of nothing through the whole stack, and the start of a pack.

Every search and every bare start has an interpreter and a Ray of its own, one after another in turns.
"""

from __future__ import annotations

import statistics
from typing import Any

from bench.apart import apart
from bench.baselines.plain_optuna import milliseconds_a_trial
from bench.rows import Row

GROUP = "overhead"
SPACE = "bench/spaces/nothing.yaml"
_LONGEST = 25.0  # seconds until a pack's first word
_SLOWER = 1.3  # times a bare start
_READY = "ours has a token, a closed folder, the coordinator and a ledger by then"
_AGAIN = "driver, Ray and pack are killed, the same command follows at once; its first epoch is in it"


def measure(quick: bool) -> list[Row]:
    """Searches of 1,000 trials with `random` and `tpe`, between bare starts."""
    trials = 100 if quick else 1000
    samplers = ("random", "tpe") if quick else ("random", "tpe", "random")
    searches: dict[str, list[dict[str, Any]]] = {sampler: [] for sampler in samplers}
    bare, again = [], []
    for sampler in samplers:
        begun = apart("bench.baselines.bare_start")
        bare.append(begun["loop"] - begun["begun"])
        searches[sampler].append(apart("bench.nothing", SPACE, trials, sampler))
        restarted = apart("bench.restarted")
        again.append(restarted["trained"] - restarted["again"])
    rows = [_trial(sampler, trials, found) for sampler, found in searches.items()]
    every = [found for several in searches.values() for found in several]
    return [
        *rows,
        _start("start, until a pack's first word", [found["first"] - found["begun"] for found in every], bare, _READY),
        _start("start again after a kill, until a lane has trained", again, bare, _AGAIN),
        _end(every),
    ]


def _trial(sampler: str, trials: int, searches: list[dict[str, Any]]) -> Row:
    if any(found["finished"] != trials for found in searches):
        raise RuntimeError(f"{sampler}: not all of {trials} trials finished: {searches}")
    value = statistics.median(1000 * (found["last"] - found["first"]) / trials for found in searches)
    plain = milliseconds_a_trial(sampler, trials)
    promised = sampler == "random"
    return Row(
        GROUP, f"a trial of nothing, {sampler}", value, "ms", plain / value, "plain Optuna in one process", plain,
        goal="≤ 10 ms" if promised else "", met=value <= 10 if promised else None,
        note=f"{trials} trials through Tune, Train workers ({searches[0]['packs']} packs), the coordinator's actor, "
        "checkpoint files and a ledger that survives a power cut; plain Optuna keeps all in memory",
    )  # fmt: skip


def _start(name: str, ours: list[float], bare: list[float], note: str) -> Row:
    value, baseline = statistics.median(ours), statistics.median(bare)
    return Row(
        GROUP, name, value, "s", baseline / value, "a bare Tune + TorchTrainer", baseline,
        goal=f"≤ {_LONGEST:g} s, ≥ {1 / _SLOWER:.2f} ×", met=value <= _LONGEST and value <= _SLOWER * baseline,
        note=f"from the start of the interpreter; medians of {len(ours)}, in turns; {note}",
    )  # fmt: skip


def _end(searches: list[dict[str, Any]]) -> Row:
    value = statistics.median(found["returned"] - found["last"] for found in searches)
    return Row(GROUP, "end, from the last trial to the result", value, "s")
