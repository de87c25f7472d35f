"""A measured figure beside its baseline, and where figures are kept: JSON lines under bench/results/.

Every ratio comes from one process or one minute: machines are shared, so a time alone says little.
"""

from __future__ import annotations

import json
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, field
from importlib.metadata import version
from pathlib import Path

RESULTS = Path(__file__).parent / "results"
_PACKAGES = ("torch", "ray", "optuna", "numpy")


@dataclass(frozen=True)
class Row:
    """One figure. `ratio`: how many times better than `baseline`, whose own value is `baseline_value` (same unit).

    goal: what the ratio (or the value, where there is no baseline) is to reach, as text: "≥ 10 ×". met: whether it did,
    None where nothing is promised. note: what a reader must know to believe the figure. group: the module it is from.
    """

    group: str
    name: str
    value: float | None
    unit: str
    ratio: float | None = None
    baseline: str = ""
    baseline_value: float | None = None
    goal: str = ""
    met: bool | None = None
    note: str = ""
    command: str = field(default_factory=lambda: command_line())


def median_seconds(work: Callable[[], object], repeats: int = 5, warm: int = 1) -> float:
    """Median wall time of `work` in seconds."""
    for _ in range(warm):
        work()
    times = []
    for _ in range(repeats):
        begun = time.perf_counter()
        work()
        times.append(time.perf_counter() - begun)
    return statistics.median(times)


def alternating_seconds(works: dict[str, Callable[[], object]], repeats: int = 5, warm: int = 1) -> dict[str, float]:
    """Median wall time of each work, taken in turns, so that a busy moment of the machine meets all of them."""
    times: dict[str, list[float]] = {name: [] for name in works}
    for turn in range(warm + repeats):
        for name, work in works.items():
            begun = time.perf_counter()
            work()
            if turn >= warm:
                times[name].append(time.perf_counter() - begun)
    return {name: statistics.median(values) for name, values in times.items()}


def command_line() -> str:
    """The command that runs, as it can be given again."""
    spec = getattr(sys.modules["__main__"], "__spec__", None)
    module = spec.name.removesuffix(".__main__") if spec is not None else "bench"
    return " ".join(["python", "-m", module, *sys.argv[1:]])


def surroundings(device: str = "cpu") -> dict[str, object]:
    """Where and with what a figure was measured."""
    commit = subprocess.run(
        ["git", "describe", "--always", "--dirty"], cwd=RESULTS.parent, capture_output=True, text=True, check=False
    ).stdout.strip()
    return {
        "versions": {"python": platform.python_version(), **{name: version(name) for name in _PACKAGES}},
        "cores": os.cpu_count(),
        "device": device if device != "cpu" else _processor(),
        "commit": commit,
        "date": time.strftime("%Y-%m-%d"),
    }


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.machine()
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), platform.machine())


def write(group: str, rows: Iterable[Row], device: str = "cpu", folder: Path = RESULTS) -> Path:
    """Keep a group's rows as folder/GROUP.jsonl, one JSON object a line."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{group}.jsonl"
    around = surroundings(device)
    path.write_text("".join(json.dumps({**asdict(row), **around}, ensure_ascii=False) + "\n" for row in rows))
    return path


def read(group: str, folder: Path = RESULTS) -> list[dict[str, object]]:
    """The rows of a group that were kept last; empty where it was never measured."""
    path = folder / f"{group}.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def table(rows: Iterable[Row]) -> str:
    """Rows as lines for a terminal of 80 columns."""
    lines = []
    for row in rows:
        value = "not measured" if row.value is None else f"{row.value:.4g} {row.unit}"
        ratio = "" if row.ratio is None else f"{row.ratio:.3g} × {row.baseline}"
        verdict = {True: "met", False: "NOT MET", None: ""}[row.met]
        lines.append(f"{row.name[:46]:46} {value:>20}")
        if ratio or row.goal:
            lines.append(f"    {ratio[:46]:46} {row.goal:>14} {verdict}")
        if row.note:
            lines.append(f"    {row.note}")
    return "\n".join(lines)
