"""Protocols: versioned YAML that says under which missing patterns a model is measured, and the plan that follows.

A protocol expands into a frozen tuple of cells before anything runs; what is then measured must be exactly these.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from mcutune.domain.combination import Modalities, combinations
from mcutune.domain.missing import highest_rate
from mcutune.domain.task import METRICS, Task, metrics_for
from mcutune.errors import BadInput, CheckFailed
from mcutune.robustness.kinds import KINDS, CrossDataset, Fixed, LabelDependent, Protocol, RandomBatch, Step
from mcutune.robustness.scenarios import SCHEDULED, TableFacts, scenarios_of
from mcutune.shipped import find_shipped
from mcutune.strict_yaml import Document, Findings, load, validated

_MOST_COMBINATIONS = 1023  # of 10 modalities; above, a protocol names the combinations it wants
_OFF = 1e-6  # of a schedule's rate


def load_protocol(given: str) -> Protocol:
    """The protocol of a path, or of a name among those shipped in eval_protocols/.

    Raises BadInput where there is none, Problems for everything in it that is not valid.
    """
    document = load(find_shipped(given, "eval_protocols", "protocol"))
    return from_document(document)


def from_document(document: Document) -> Protocol:
    """The protocol that a document describes. Raises Problems."""
    findings = Findings(document)
    kind = document.value.get("kind") if isinstance(document.value, dict) else None
    if kind not in KINDS:
        findings.add(("kind",), f"no kind of protocol is {kind!r}", KINDS)
        findings.close()
    protocol: Protocol = validated(document, KINDS[str(kind)])
    _check_names(protocol, findings)
    findings.close()
    return protocol


def _check_names(protocol: Protocol, findings: Findings) -> None:
    for key, values in protocol:
        plain = [one for one in values if isinstance(one, (str, float))] if isinstance(values, list) else []
        for value, times in Counter(plain).items():
            if times > 1 and key != "notes":
                findings.add((key,), f"{value!r} is given {times} times")
    _check_values(protocol, findings)
    for name in protocol.metrics if isinstance(protocol.metrics, list) else ():
        if name not in METRICS:
            findings.add(("metrics",), f"no metric is {name!r}", METRICS)


def _check_values(protocol: Protocol, findings: Findings) -> None:
    """What a schedule and a rule must be by their own definition."""
    if isinstance(protocol, RandomBatch):
        _check_schedule(protocol, findings)
    if isinstance(protocol, LabelDependent):
        if bool(protocol.overall) != bool(protocol.strengths):
            findings.add((), "`overall` and `strengths` need each other")
        if not protocol.overall and not protocol.settings:
            findings.add((), "nothing is asked for: give `overall` and `strengths`, or `settings`")


def _check_schedule(protocol: RandomBatch, findings: Findings) -> None:
    before: Step | None = None
    for number, step in enumerate(protocol.schedule):
        where = ("schedule", number)
        if step.one + step.two > 1:
            findings.add(where, f"the shares add up to {step.one + step.two:g}")
        meant, given = min(step.rate, highest_rate(SCHEDULED)), (step.one + 2 * step.two) / SCHEDULED
        if abs(meant - given) > _OFF:
            findings.add(where, f"(one + 2 · two) / {SCHEDULED} is {given:.3f}, not {meant:.3f}")
        if before and not (before.rate < step.rate and before.two <= step.two):
            findings.add(where, "rates must rise, and the share of two with them")
        before = step


def load_protocols(given: Iterable[str]) -> tuple[Protocol, ...]:
    """Several protocols, each id once. Raises BadInput where two have the same id."""
    protocols = tuple(load_protocol(name) for name in given)
    for name, times in Counter(protocol.id for protocol in protocols).items():
        if times > 1:
            raise BadInput(f"protocol {name} is asked for {times} times", hint="each protocol once")
    if not protocols:
        raise BadInput("no protocol is asked for")
    return protocols


@dataclass(frozen=True, order=True)
class Cell:
    """One number to measure. `combination`: None where rows differ; `split`: `test`, or `all` rows of a target."""

    protocol: str
    dataset: str
    split: str
    combination: str | None
    scenario: str
    metric: str

    def __str__(self) -> str:
        where = f"{self.combination}, " if self.combination else ""
        return f"{self.protocol}/{self.dataset}/{self.split}: {where}{self.scenario}, {self.metric}"


def plan(protocol: Protocol, source: TableFacts, target: TableFacts | None = None) -> tuple[Cell, ...]:
    """Every cell of a protocol for one model, in the order in which they are reported.

    Raises BadInput where the protocol does not fit the tables: no target, nothing in common, a metric of another task,
    an unknown combination, too many combinations.
    """
    metrics = _metrics(protocol, source.task)
    scenarios = [scenario.name for scenario in scenarios_of(protocol, source)]
    dataset, split = source.name, "test"
    labels: list[str | None] = [None]
    if isinstance(protocol, Fixed):
        labels = list(_fixed_labels(protocol, source.modalities))
    elif isinstance(protocol, CrossDataset):
        if target is None:
            raise BadInput(f"protocol {protocol.id} needs a second table", hint="name it with --target")
        dataset, split = target.name, "all"
        labels = list(_every_label(protocol, Modalities(common_modalities(source, target))))
    places = [(label, scenario) for scenario in scenarios for label in labels]
    cells = tuple(Cell(protocol.id, dataset, split, *place, metric) for place in places for metric in metrics)
    twice = [cell for cell, times in Counter(cells).items() if times > 1]
    if twice:
        raise BadInput(f"protocol {protocol.id} plans a measurement twice: {twice[0]}")
    return cells


def _metrics(protocol: Protocol, task: Task) -> list[str]:
    names = [metric.name for metric in metrics_for(task)]
    if protocol.metrics == "all":
        return names
    wrong = [name for name in protocol.metrics if name not in names]
    if wrong:
        raise BadInput(
            f"protocol {protocol.id}: metric {wrong[0]} does not fit a {task.value} task",
            hint=f"valid: {', '.join(names)}",
        )
    return list(protocol.metrics)


def _fixed_labels(protocol: Fixed, modalities: Modalities) -> list[str]:
    if protocol.combinations == "all":
        return _every_label(protocol, modalities)
    chosen = [modalities.parse(text) for text in protocol.combinations]
    return [modalities.label(c) for c in sorted(chosen, key=combinations(len(modalities)).index)]


def _every_label(protocol: Protocol, modalities: Modalities) -> list[str]:
    if 2 ** len(modalities) - 1 > _MOST_COMBINATIONS:
        raise BadInput(
            f"protocol {protocol.id}: {len(modalities)} modalities have {2 ** len(modalities) - 1:,} combinations, "
            f"more than {_MOST_COMBINATIONS:,}",
            hint="name those to measure under `combinations`",
        )
    return list(modalities.labels)


def common_modalities(source: TableFacts, target: TableFacts) -> tuple[str, ...]:
    """Names that both tables have with equal dimensions, in the source's order. Raises BadInput where there is none."""
    common = tuple(name for name, dim in source.dims.items() if target.dims.get(name) == dim)
    if source.task is not target.task:
        raise BadInput(f"{source.name} is a {source.task.value} task, {target.name} a {target.task.value} task")
    if not common:

        def shown(table: TableFacts) -> str:
            return ", ".join(f"{name} ({dim})" for name, dim in table.dims.items())

        raise BadInput(
            f"{source.name} has {shown(source)}; {target.name} has {shown(target)}: no modality in common",
            hint="modalities are matched by name and dimensions",
        )
    return common


def complete(planned: Iterable[Cell], measured: Mapping[Cell, float] | Iterable[tuple[Cell, float]]) -> None:
    """Check that exactly the planned cells were measured, each once and finite. Raises CheckFailed for what is not."""
    found = list(measured.items()) if isinstance(measured, Mapping) else list(measured)
    want, have = set(planned), Counter(cell for cell, _ in found)
    problems: list[tuple[str, list[Any]]] = [
        ("was not planned", [cell for cell in have if cell not in want]),
        ("was measured more than once", [cell for cell, times in have.items() if times > 1]),
        ("was not measured", [cell for cell in want if cell not in have]),
        ("is not finite", [cell for cell, value in found if not math.isfinite(value)]),
    ]
    for what, cells in problems:
        if cells:
            more = f" (and {len(cells) - 1:,} more)" if len(cells) > 1 else ""
            raise CheckFailed(f"{min(cells, key=str)} {what}{more}", hint="no report was made")
