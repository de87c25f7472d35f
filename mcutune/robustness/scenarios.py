"""Which scenarios a protocol has on a table, what each left of the rows, and the curves that they make.

Axes: N rows, M modalities.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt

from mcutune.domain.combination import Modalities
from mcutune.domain.missing import highest_rate
from mcutune.domain.task import Task
from mcutune.errors import BadInput
from mcutune.robustness.kinds import (
    CrossDataset,
    Fixed,
    Gaps,
    Imbalanced,
    LabelDependent,
    Noise,
    Protocol,
    Random,
    RandomBatch,
    Rates,
)
from mcutune.shipped import shipped_folder

Array = npt.NDArray[Any]

SCHEDULED = 3  # modalities that the published schedule is defined for
_ROUNDING = 1e-9
_INNER = 3  # rows of the shortest dialogue that can have a gap: the first and the last row stay
AXES = {  # kinds whose scenarios lie on an axis, and what it is: they have curves
    "random": "missing rate",
    "rate_shift": "missing rate",
    "random_batch": "missing rate",
    "gaps": "share of rows lost",
    "noise": "noise, in standard deviations",
}


@dataclass(frozen=True)
class TableFacts:
    """What a plan must know of a table: its name, its modalities with their dimensions in order, its task.

    `classes`: names of its labels. `longest_dialogue`: rows of it; None where that is not known, and not asked.
    """

    name: str
    dims: Mapping[str, int]
    task: Task
    classes: tuple[str, ...] = ()
    longest_dialogue: int | None = None

    @property
    def modalities(self) -> Modalities:
        return Modalities(tuple(self.dims))


@dataclass(frozen=True)
class Scenario:
    """A column of a protocol. `level`: where it lies on the axis, `used`: after the cap at (M − 1) / M.

    `series`: the curve that it belongs to; None: to every curve of the protocol. `touched`: modalities that it may
    change; None: all.
    """

    name: str
    level: float | None = None
    used: float | None = None
    series: str | None = None
    touched: tuple[int, ...] | None = None

    @property
    def capped(self) -> bool:
        return self.used is not None and self.level is not None and self.level > self.used


def rate_scenario(rate: float) -> str:
    """`rate=0.3`."""
    return f"rate={rate:g}"


def normalisation_scenario(mode: str) -> str:
    """`normalisation=source`."""
    return f"normalisation={mode}"


def scenarios_of(protocol: Protocol, table: TableFacts) -> tuple[Scenario, ...]:
    """The scenarios of a protocol on a table, in order. Raises BadInput where the protocol does not fit the table."""
    return _OF_KIND[protocol.kind](protocol, table)


def _fixed(protocol: Fixed, table: TableFacts) -> tuple[Scenario, ...]:
    return (Scenario("fixed"),)


def _cross_dataset(protocol: CrossDataset, table: TableFacts) -> tuple[Scenario, ...]:
    return tuple(Scenario(normalisation_scenario(mode)) for mode in protocol.normalisation)


def _random(protocol: Random, table: TableFacts) -> tuple[Scenario, ...]:
    if protocol.per == "dialogue" and table.longest_dialogue == 1:
        _unfit(protocol, f"every dialogue of {table.name} is one row: a mask a dialogue is a mask a row", "use random")
    return _at_rates(protocol.rates, len(table.dims))


def _random_batch(protocol: RandomBatch, table: TableFacts) -> tuple[Scenario, ...]:
    if len(table.dims) != SCHEDULED:
        why = f"its published schedule is of {SCHEDULED} modalities, and {table.name} has {len(table.dims)}"
        _unfit(protocol, why, "use random, which is defined for any number")
    return _at_rates([step.rate for step in protocol.schedule], SCHEDULED)


def _at_rates(rates: Sequence[float], modalities: int) -> tuple[Scenario, ...]:
    return tuple(Scenario(rate_scenario(rate), rate, min(rate, highest_rate(modalities))) for rate in rates)


def _imbalanced(protocol: Imbalanced, table: TableFacts) -> tuple[Scenario, ...]:
    found = []
    for rates in protocol.settings:
        if set(rates) != set(table.dims):
            own = ", ".join(table.dims)
            why = f"a setting has rates for {', '.join(rates)}; {table.name} has {own}"
            copy = shipped_folder("eval_protocols") / "imbalanced.yaml"
            _unfit(protocol, why, f"copy {copy}, give each of {own} a rate in it, and name the copy with --protocol")
        _check_rates(protocol, rates, table, "a setting")
        found.append(Scenario(" ".join(f"{name}={rates[name]:g}" for name in table.dims)))
    return tuple(found)


def _gaps(protocol: Gaps, table: TableFacts) -> tuple[Scenario, ...]:
    if table.longest_dialogue is not None and table.longest_dialogue < _INNER:
        why = f"no dialogue of {table.name} has {_INNER} rows: there is nothing between the first and the last"
        _unfit(protocol, why, "use random")
    return _on_modalities("share", protocol.shares, protocol.modalities, table.modalities)


def _noise(protocol: Noise, table: TableFacts) -> tuple[Scenario, ...]:
    return _on_modalities("sigma", protocol.sigmas, protocol.modalities, table.modalities)


def _on_modalities(word: str, levels: Sequence[float], which: Sequence[str], names: Modalities) -> tuple[Scenario, ...]:
    """Every level for one modality after the other, and for all at once; level 0 changes nothing and is there once."""
    series: list[tuple[str, tuple[int, ...]]] = []
    if "one" in which:
        series = [(name, (m,)) for m, name in enumerate(names.names)]
    if "all" in which and (len(names) > 1 or not series):
        series.append(("all", tuple(range(len(names)))))
    untouched = (Scenario(f"{word}=0", 0.0),) if 0 in levels else ()
    return untouched + tuple(
        Scenario(f"{word}={level:g}, {name}", level, series=name, touched=touched)
        for name, touched in series
        for level in levels
        if level > 0
    )


def _label_dependent(protocol: LabelDependent, table: TableFacts) -> tuple[Scenario, ...]:
    most = highest_rate(len(table.dims))
    for rate in protocol.overall:
        if rate > most + _ROUNDING:
            why = f"an overall rate of {rate:g} is above (M − 1)/M = {most:.4f} of {table.name}"
            _unfit(protocol, why, "every row keeps a modality: ask for less")
    names = class_names(protocol, table)
    for setting, rates_of in protocol.settings.items():
        for name, rates in rates_of.items():
            if name not in names:
                _unfit(protocol, f"{table.name} has no class {name!r}", f"valid: {', '.join(names)}")
            _check_rates(protocol, rates, table, f"setting {setting}, class {name},")
    rules = [(rate, strength) for rate in protocol.overall for strength in protocol.strengths]
    ruled = (Scenario(f"rate={rate:g}, strength={strength:g}") for rate, strength in rules)
    return (*ruled, *(Scenario(f"setting={setting}") for setting in protocol.settings))


def class_names(protocol: LabelDependent, table: TableFacts) -> tuple[str, ...]:
    """What labels are cut into: the classes, or quantiles q1 … of values."""
    if table.task is Task.CLASSIFICATION:
        return table.classes
    return tuple(f"q{q + 1}" for q in range(protocol.quantiles))


def _check_rates(protocol: Protocol, rates: Rates, table: TableFacts, where: str) -> None:
    """Raises BadInput for a modality that the table lacks, or rates that would leave a row with nothing."""
    unknown = [name for name in rates if name not in table.dims]
    if unknown:
        _unfit(protocol, f"{table.name} has no modality {unknown[0]!r}", f"it has {', '.join(table.dims)}")
    if sum(rates.values()) > len(table.dims) - 1 + _ROUNDING:
        why = f"the rates of {where} add up to {sum(rates.values()):g}, more than M − 1 = {len(table.dims) - 1}"
        _unfit(protocol, why, "every row keeps a modality: ask for less")


def _unfit(protocol: Protocol, why: str, hint: str) -> None:
    raise BadInput(f"protocol {protocol.id}: {why}", hint=hint)


_OF_KIND: dict[str, Callable[[Any, TableFacts], tuple[Scenario, ...]]] = {
    "fixed": _fixed,
    "incomplete_training": _fixed,
    "random": _random,
    "rate_shift": _random,
    "random_batch": _random_batch,
    "imbalanced": _imbalanced,
    "gaps": _gaps,
    "noise": _noise,
    "label_dependent": _label_dependent,
    "cross_dataset": _cross_dataset,
}


@dataclass(frozen=True, eq=False)
class Pattern:
    """What one scenario left of the measured rows: presence [masks, N, M] after the rows' own gaps; may be empty.

    `emptied` [masks, N]: where everything was taken away, so that the model answers to nothing; None: nowhere.
    """

    scenario: Scenario
    presence: Array
    emptied: Array | None = None

    def realised(self, touched: tuple[int, ...] | None) -> float:
        """Share of (row, modality) pairs that are missing, of the modalities named."""
        return float(1 - self.presence[..., slice(None) if touched is None else list(touched)].mean())


@dataclass(frozen=True)
class Curve:
    """Cells of a block along an axis: their numbers, where they were asked to lie, and where they lie."""

    series: str | None
    cells: tuple[int, ...]
    asked: tuple[float, ...]
    realised: tuple[float, ...]
    capped: tuple[bool, ...]

    def weights(self, count: int) -> Array:
        """Weights [count] of all cells whose sum is the mean along the axis, by the trapezoid rule; 0 where it is a
        point."""
        weights = np.zeros(count)
        order = np.argsort(self.realised, kind="stable")
        for one, other in pairwise(order):
            step = (self.realised[other] - self.realised[one]) / 2
            weights[self.cells[one]] += step
            weights[self.cells[other]] += step
        return weights / total if (total := weights.sum()) > 0 else weights


def curves_of(protocol: Protocol, patterns: Sequence[Pattern]) -> tuple[Curve, ...]:
    """The curves of a protocol: one a series; none where its scenarios do not lie on an axis."""
    if protocol.kind not in AXES:
        return ()
    series = dict.fromkeys(one.scenario.series for one in patterns if one.scenario.series is not None)
    return tuple(_curve(protocol, patterns, name) for name in series or (None,))


def _curve(protocol: Protocol, patterns: Sequence[Pattern], series: str | None) -> Curve:
    mine = [(c, one) for c, one in enumerate(patterns) if one.scenario.series in (None, series)]
    touched = next((one.scenario.touched for _, one in mine if one.scenario.touched is not None), None)
    asked = tuple(float(one.scenario.level or 0) for _, one in mine)
    realised = asked if isinstance(protocol, Noise) else tuple(one.realised(touched) for _, one in mine)
    capped = tuple(one.scenario.capped for _, one in mine)
    return Curve(series, tuple(c for c, _ in mine), asked, realised, capped)
