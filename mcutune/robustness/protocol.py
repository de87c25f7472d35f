"""Protocols: versioned YAML that says under which missing patterns a model is measured, and the plan that follows.

A protocol expands into a frozen tuple of cells before anything runs; what is then measured must be exactly these.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from mcutune.domain.combination import Modalities, combinations
from mcutune.domain.task import METRICS, Task, metrics_for
from mcutune.errors import BadInput, CheckFailed
from mcutune.files import canonical_json, sha256
from mcutune.shipped import find_shipped
from mcutune.strict_yaml import Document, Findings, load, validated

_MOST_COMBINATIONS = 1023  # of 10 modalities; above, a protocol names the combinations it wants
_FRAMING = {"title", "citation", "notes"}  # may change without changing the meaning

Rate = Annotated[float, Field(ge=0, le=1)]


class _Common(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)

    id: str = Field(pattern=r"^[a-z][a-z0-9_]{0,31}$")
    version: int = Field(ge=1)
    title: str = Field(min_length=1)
    citation: str = Field(min_length=1)
    notes: list[str] = []
    metrics: Literal["all"] | list[str] = "all"

    @property
    def hash(self) -> str:
        """SHA-256 of the meaning: everything but title, citation and notes."""
        return sha256(canonical_json(self.model_dump(mode="json", exclude=_FRAMING)))


class Fixed(_Common):
    """The same combination in every row."""

    kind: Literal["fixed"]
    combinations: Literal["all"] | list[str] = "all"


class Random(_Common):
    """Modalities missing at random, row by row, at exact rates; `masks` draws a rate."""

    kind: Literal["random"]
    rates: list[Rate] = Field(min_length=1)
    masks: int = Field(ge=1, le=100)
    seed: int = Field(ge=0, lt=2**63)


class CrossDataset(_Common):
    """Trained on one table, measured on all labelled rows of another, under every combination that both have.

    `label_map`: name of a label to what it means; names not listed mean themselves. `drop`: labels of the target
    whose rows are left out.
    """

    kind: Literal["cross_dataset"]
    normalisation: list[Literal["source", "corpus"]] = Field(min_length=1)
    label_map: dict[str, str] = {}
    drop: list[str] = []


Protocol = Fixed | Random | CrossDataset
KINDS: dict[str, type[Fixed] | type[Random] | type[CrossDataset]] = {
    "fixed": Fixed,
    "random": Random,
    "cross_dataset": CrossDataset,
}


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
    for key in ("rates", "combinations", "metrics", "normalisation", "drop"):
        values = getattr(protocol, key, None)
        for value, times in Counter(values if isinstance(values, list) else ()).items():
            if times > 1:
                findings.add((key,), f"{value!r} is given {times} times")
    for name in protocol.metrics if isinstance(protocol.metrics, list) else ():
        if name not in METRICS:
            findings.add(("metrics",), f"no metric is {name!r}", METRICS)


def load_protocols(given: Iterable[str]) -> tuple[Protocol, ...]:
    """Several protocols, each id once. Raises BadInput where two have the same id."""
    protocols = tuple(load_protocol(name) for name in given)
    for name, times in Counter(protocol.id for protocol in protocols).items():
        if times > 1:
            raise BadInput(f"protocol {name} is asked for {times} times", hint="each protocol once")
    if not protocols:
        raise BadInput("no protocol is asked for")
    return protocols


@dataclass(frozen=True)
class TableFacts:
    """What a plan must know of a table: its name, its modalities with their dimensions in order, its task."""

    name: str
    dims: Mapping[str, int]
    task: Task

    @property
    def modalities(self) -> Modalities:
        return Modalities(tuple(self.dims))


@dataclass(frozen=True, order=True)
class Cell:
    """One number to measure. `combination` is None under random; `split`: `test`, or `all` rows of a target."""

    protocol: str
    dataset: str
    split: str
    combination: str | None
    scenario: str
    metric: str

    def __str__(self) -> str:
        where = f"{self.combination}, " if self.combination else ""
        return f"{self.protocol}/{self.dataset}/{self.split}: {where}{self.scenario}, {self.metric}"


def rate_scenario(rate: float) -> str:
    """`rate=0.3`."""
    return f"rate={rate:g}"


def normalisation_scenario(mode: str) -> str:
    """`normalisation=source`."""
    return f"normalisation={mode}"


def plan(protocol: Protocol, source: TableFacts, target: TableFacts | None = None) -> tuple[Cell, ...]:
    """Every cell of a protocol for one model, in the order in which they are reported.

    Raises BadInput where the protocol does not fit the tables: no target, nothing in common, a metric of another task,
    an unknown combination, too many combinations.
    """
    metrics = _metrics(protocol, source.task)
    places: list[tuple[str | None, str]]
    if isinstance(protocol, Fixed):
        dataset, split = source.name, "test"
        places = [(label, "fixed") for label in _fixed_labels(protocol, source.modalities)]
    elif isinstance(protocol, Random):
        dataset, split = source.name, "test"
        places = [(None, rate_scenario(rate)) for rate in protocol.rates]
    else:
        if target is None:
            raise BadInput(f"protocol {protocol.id} needs a second table", hint="name it with --target")
        dataset, split = target.name, "all"
        common = Modalities(common_modalities(source, target))
        modes = [normalisation_scenario(mode) for mode in protocol.normalisation]
        places = [(label, mode) for mode in modes for label in _every_label(protocol, common)]
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
