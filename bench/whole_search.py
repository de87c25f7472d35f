"""A whole search, Ray included, of 64 named configurations, against one trial at a time under plain Ray Tune.

Both train the same configurations with the same engine to the same scores; the encoder cache is empty at the start.
"""

from __future__ import annotations

import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from bench.apart import apart
from bench.baselines.tune_trials import AT_ONCE
from bench.rows import Row
from mcutune.files import home
from mcutune.search.ledger import DATABASE, connect, read_ledger

GROUP = "whole_search"
SPACE = "bench/spaces/whole.yaml"
TRIALS = 64
DATA = "iemocap"
BASELINE = "one trial at a time"


def measure(quick: bool) -> list[Row]:
    """Ours and the baseline, one after the other; of the baseline only the first 6 trials where `quick`."""
    with tempfile.TemporaryDirectory(prefix="mcutune-whole-") as folder:
        data, note = _dataset(Path(folder))
        ours = _ours(Path(folder), data)
        base = _baseline(Path(folder), data, 6 if quick else TRIALS)
    differ = [key for key, score in base.scores.items() if ours.scores[key] != score]
    same = f"{len(base.scores) - len(differ)} of {len(base.scores)} scores are the same in every bit"
    ratio = base.seconds / ours.seconds
    rows = [
        Row(
            GROUP,
            f"whole search of {TRIALS} configurations",
            ours.seconds,
            "s",
            ratio,
            BASELINE,
            base.seconds,
            goal="≥ 20 ×",
            met=ratio >= 20 and not differ,
            note=f"{note}; {same}; {base.note}",
        )  # fmt: skip
    ]
    return rows + [Row(GROUP, f"of it: {name}", value, "s") for name, value in ours.parts.items()]


@dataclass(frozen=True)
class Ours:
    """The command `mcutune search`. `scores` by configuration; `parts`: what took which of the `seconds`."""

    seconds: float
    scores: dict[str, float]
    parts: dict[str, float]


@dataclass(frozen=True)
class Baseline:
    """`seconds` of all trials; `note`: what a reader must know of them."""

    seconds: float
    scores: dict[str, float]
    note: str


def _dataset(folder: Path) -> tuple[str, str]:
    """A data set in a home of its own, whose encoder cache is empty; its name, and what it is."""
    there = home() / "datasets" / DATA
    if there.is_dir():
        shutil.copytree(there, folder / "datasets" / DATA)
        return DATA, f"{DATA}, fold 1"
    from mcutune.data.planted import make

    make("planted", folder, rows=10_039, modalities=3, dims=(47, 384, 384), dialogue_rows=66)
    return "planted", f"planted data of the size of {DATA}, which is not there; fold 1"


def _ours(folder: Path, data: str) -> Ours:
    begun = time.time()
    command = [sys.executable, "-m", "mcutune", "search", "--space", SPACE, "--data", data, "--name", "whole"]
    done = subprocess.run(
        [*command, "--place", "local", "--plain"], env={**os.environ, "MCUTUNE_HOME": str(folder)},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    ended = time.time()
    if done.returncode:
        raise RuntimeError(f"mcutune search ended with {done.returncode}: {(done.stdout + done.stderr)[-2000:]}")
    run = folder / "runs" / "whole"
    (study,) = read_ledger(run)[0].studies.values()
    keys = study.trials[1].settings
    scores = {_key(study.configuration(t), keys): t.score for t in study.trials if t.score is not None}
    encoded = max(path.stat().st_mtime for path in (folder / "encoders").glob("*/*"))
    last = _last_commit(run)
    parts = {
        "until the encoders are trained, Ray's start included": encoded - begun,
        "all epochs and checkpoints": last - encoded,
        "the end": ended - last,
    }
    return Ours(ended - begun, scores, parts)


def _last_commit(run: Path) -> float:
    connection = connect(run / DATABASE, read_only=True)
    try:
        (at,) = connection.execute("SELECT max(at) FROM commits").fetchone()
    finally:
        connection.close()
    return datetime.fromisoformat(at).timestamp()


def _baseline(folder: Path, data: str, trials: int) -> Baseline:
    found = apart("bench.baselines.tune_trials", folder, data, SPACE, trials, seconds=7200)
    seconds = time.time() - found["begun"]
    said: list[dict[str, Any]] = sorted(found["trials"], key=lambda trial: float(trial["ended"]))
    note = f"{AT_ONCE} trials at once, the first {AT_ONCE} train the encoders and all others find them"
    if trials < TRIALS:
        later = _extrapolated([trial["ended"] for trial in said]) - said[-1]["ended"]
        seconds += later
        note += f"; extrapolated from {trials} trials"
    # Where every trial trained its own encoders, each of the others would take as long for them as those that did.
    each = statistics.median([trial["encoders"] for trial in said if trial["encoders"]])
    alone = seconds + (TRIALS - AT_ONCE) * each / AT_ONCE
    scores = {_key(trial["settings"], trial["settings"]): trial["score"] for trial in said}
    return Baseline(seconds, scores, f"{note}; with its own encoders in every trial it would take {alone:.0f} s")


def _extrapolated(ended: Sequence[float]) -> float:
    """When the last of all trials would end: the first ones train encoders and say nothing of the pace."""
    pace = (ended[-1] - ended[AT_ONCE - 1]) / (len(ended) - AT_ONCE)
    return ended[-1] + pace * (TRIALS - len(ended))


def _key(settings: dict[str, Any], names: dict[str, Any]) -> str:
    """A configuration as text: the settings of these names."""
    return json.dumps({name: settings[name] for name in sorted(names)})
