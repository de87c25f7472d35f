"""Snapshots become metric values; the Grafana dashboard asks for these names only."""

from __future__ import annotations

import json
import re
from typing import Any

from mcutune.cluster.metrics import COUNTERS, GAUGES, FoldSnapshot, Reporter, Snapshot
from mcutune.shipped import shipped_folder


class Recorder:
    """Instruments that keep what they were given: {(name, sorted tags): value}."""

    def __init__(self) -> None:
        self.values: dict[tuple[str, tuple[tuple[str, str], ...]], float] = {}

    def make(self, name: str) -> Any:
        recorder = self

        class Instrument:
            def set(self, value: float, tags: dict[str, str]) -> None:
                assert name in GAUGES and set(tags) == set(GAUGES[name][1])
                recorder.values[name, tuple(sorted(tags.items()))] = value

            def inc(self, value: float, tags: dict[str, str]) -> None:
                assert name in COUNTERS and set(tags) == set(COUNTERS[name][1])
                key = name, tuple(sorted(tags.items()))
                recorder.values[key] = recorder.values.get(key, 0) + value

        return Instrument()

    def __getitem__(self, wanted: tuple[str, str]) -> float:
        name, tags = wanted
        return self.values[name, tuple(sorted(tuple(part.split("=")) for part in tags.split(",")))]  # type: ignore[misc]


def snapshot(epochs: int) -> Snapshot:
    fold = FoldSnapshot(
        {"finished": 3, "failed": 1}, best=0.7, scores={"audio+text": 0.8}, probabilities={"audio": 0.2}
    )
    return Snapshot({"3": fold}, epochs=epochs, lanes_busy=5, packs=2)


def test_values_and_tags() -> None:
    recorder = Recorder()
    Reporter("ranks", recorder.make, clock=lambda: 0.0).report(snapshot(10))
    assert recorder["mcutune_trials", "fold=3,run=ranks,state=finished"] == 3
    assert recorder["mcutune_best_objective", "fold=3,run=ranks"] == 0.7
    assert recorder["mcutune_score", "combination=audio+text,fold=3,run=ranks"] == 0.8
    assert recorder["mcutune_dpft_probability", "combination=audio,fold=3,run=ranks"] == 0.2
    assert recorder["mcutune_lanes_busy", "run=ranks"] == 5
    assert recorder["mcutune_packs", "run=ranks"] == 2


def test_epochs_are_counted_from_the_start_of_this_process() -> None:
    recorder, now = Recorder(), [0.0]
    reporter = Reporter("r", recorder.make, clock=lambda: now[0])
    reporter.report(snapshot(1000))  # the ledger held these already
    now[0] = 10.0
    reporter.report(snapshot(1050))
    assert recorder["mcutune_epochs_total", "run=r"] == 50
    assert recorder["mcutune_epochs_per_second", "run=r"] == 5.0
    now[0] = 20.0
    reporter.report(snapshot(1040))  # lanes of a lost pack: fewer epochs count, the counter does not go back
    assert recorder["mcutune_epochs_total", "run=r"] == 50
    now[0] = 60.0
    reporter.report(snapshot(1040))
    assert recorder["mcutune_epochs_per_second", "run=r"] == 0.0


def test_nothing_is_known_yet() -> None:
    recorder = Recorder()
    Reporter("r", recorder.make).report(Snapshot({"3": FoldSnapshot({})}))
    assert {name for name, _ in recorder.values} == {"mcutune_lanes_busy", "mcutune_packs", "mcutune_epochs_per_second"}


def test_the_grafana_dashboard_asks_for_what_there_is() -> None:
    board = json.loads((shipped_folder("cluster") / "grafana.json").read_text(encoding="utf-8"))
    expressions = [target["expr"] for panel in board["panels"] for target in panel["targets"]]
    asked = re.findall(r"(?:by \(([a-z, ]+)\)).*?ray_(mcutune_[a-z_]+)\{([^}]*)\}", " ".join(expressions))
    assert {name for _, name, _ in asked} == {*GAUGES, *COUNTERS}
    assert len(asked) == len(expressions)
    for by, name, selected in asked:
        tags = {**GAUGES, **COUNTERS}[name][1]
        assert set(by.split(", ")) <= set(tags)
        assert set(re.findall(r"([a-z]+)=~", selected)) <= set(tags)
