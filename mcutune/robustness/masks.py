"""Masks of the protocols that take modalities away: drawn once a protocol and table, the same for every model.

Every draw is a plain function of raw 64-bit words of a counter-based generator, which numpy keeps the same between
versions; the definitions are in the comments of eval_protocols/*.yaml, and again, slowly, in
tests/reference/masks_twin.py.

Axes: R scenarios, n rows under test, U units (rows, dialogues, batches), M modalities.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from mcutune.domain.combination import Modalities
from mcutune.domain.missing import highest_rate
from mcutune.errors import CheckFailed
from mcutune.robustness.kinds import Gaps, Imbalanced, LabelDependent, Masked, Random, RandomBatch
from mcutune.robustness.scenarios import Scenario, TableFacts, class_names, scenarios_of

Array = npt.NDArray[Any]

TOLERANCE = 0.005  # of the realised rate, as in CPM-Net's and GCNet's generators


@dataclass(frozen=True, eq=False)
class Masks:
    """The masks of one scenario, bool [masks, N, M], 1 = present."""

    scenario: str
    presence: Array

    def of_rows(self, rows: Array) -> Masks:
        """The masks of some of the rows."""
        return Masks(self.scenario, self.presence[:, rows])


@dataclass(frozen=True, eq=False)
class UnderTest:
    """The rows that are tested in some fold, [n] each: codes of fold and dialogue, position in it, whether labelled.

    `truth`: labels, only where a protocol asks for them.
    """

    fold: Array
    dialogue: Array
    order: Array
    labelled: Array
    truth: Array | None = None

    def __len__(self) -> int:
        return len(self.fold)

    def alike(self) -> Iterator[tuple[int, Array]]:
        """Strata within which rates are exact, with a number for their key: labelled and other rows of each fold.

        So a fold measured alone has the masks, and the rates, that it has among all.
        """
        code = 2 * self.fold + ~self.labelled
        yield from ((int(one), np.flatnonzero(code == one)) for one in np.unique(code))

    def folds(self) -> Iterator[tuple[int, Array]]:
        """Rows of each fold, in the order of the table, with a number for their key."""
        yield from ((2 * int(one), np.flatnonzero(self.fold == one)) for one in np.unique(self.fold))


def draw_masks(protocol: Masked, table: TableFacts, tested: UnderTest) -> tuple[Masks, ...]:
    """Masks of every scenario over the rows under test.

    Raises CheckFailed where a mask leaves a row with nothing, unless the protocol is to do so.
    """
    scenarios = scenarios_of(protocol, table)
    presence = _OF_KIND[protocol.kind](protocol, scenarios, tested, table)
    for scenario, drawn in zip(scenarios, presence, strict=True):
        if not isinstance(protocol, Gaps) and not drawn.any(axis=2).all():
            raise CheckFailed(f"{protocol.id}, {scenario.name}: a mask leaves a row with nothing")
    return tuple(Masks(scenario.name, drawn) for scenario, drawn in zip(scenarios, presence, strict=True))


def words(*key: int, count: int) -> Array:
    """`count` raw words, uint64, of a key (seed, mask number, stratum)."""
    return np.random.Philox(np.random.SeedSequence(key)).random_raw(count)


def _shuffled(word: Array) -> Array:
    """Numbers of the items in the order of their words; equal words (never seen) in their own order."""
    return np.argsort(word, kind="stable")


def _every(protocol: Masked, scenarios: Sequence[Scenario], tested: UnderTest, table: TableFacts) -> Array:
    return np.ones((len(scenarios), protocol.masks, len(tested), len(table.dims)), dtype=bool)


def _random(protocol: Random, scenarios: Sequence[Scenario], tested: UnderTest, table: TableFacts) -> Array:
    presence = _every(protocol, scenarios, tested, table)
    modalities, by_row = len(table.dims), protocol.per == "utterance"
    for stratum, rows in tested.alike() if by_row else tested.folds():
        unit = np.arange(len(rows)) if by_row else np.unique(tested.dialogue[rows], return_inverse=True)[1]
        weights = np.bincount(unit, None if by_row or not tested.labelled[rows].any() else tested.labelled[rows])
        for number in range(protocol.masks):
            order = _places(words(protocol.seed, number, stratum, count=len(weights) * (modalities + 1)), modalities)
            for r, scenario in enumerate(scenarios):
                filled = np.zeros(len(weights) * modalities, dtype=bool)
                filled[order[: _filled(order, weights.astype(np.int64), _used(scenario), modalities)]] = True
                presence[r, number, rows] = filled.reshape(-1, modalities)[unit]
    if by_row:
        _check_rates(protocol, scenarios, presence, tested)
    return presence


def _used(scenario: Scenario) -> float:
    assert scenario.used is not None
    return scenario.used


def _places(word: Array, modalities: int) -> Array:
    """The order [U·M] in which places (unit, modality) are filled: first one of every unit, then the others, at random.

    Filling the first k places gives the mask of a rate, so masks of one seed are nested. `word` [U · (M + 1)].
    """
    units = len(word) // (modalities + 1)
    kept = (word[:units] % np.uint64(modalities)).astype(np.int64)
    order = word[units:] >> np.uint64(1)
    order[np.arange(units) * modalities + kept] = 0  # before all others
    return _shuffled(order)


def _filled(order: Array, weights: Array, rate: float, modalities: int) -> int:
    """How many places are filled at a rate: as many as come nearest to it in rows, at least one a unit.

    `weights` [U]: rows of each unit. Where each is one row, the rate is exact to rounding.
    """
    rows, units = int(weights.sum()), len(weights)
    wanted = max(rows, round((1 - rate) * rows * modalities))
    filled = np.cumsum(weights[order // modalities])[units - 1 :]
    return units + int(np.abs(filled - wanted).argmin())


def _check_rates(protocol: Random, scenarios: Sequence[Scenario], presence: Array, tested: UnderTest) -> None:
    """Raises CheckFailed where a realised rate is off by more than the tolerance though rows are enough to meet it."""
    for _, rows in tested.alike():
        for scenario, drawn in zip(scenarios, presence[:, :, rows], strict=True):
            off = np.abs(1 - drawn.mean(axis=(1, 2)) - _used(scenario)).max()
            if off > max(TOLERANCE, 1 / drawn[0].size):
                raise CheckFailed(f"{protocol.id}, {scenario.name}: a mask misses its rate by {off:.4f}")


def _random_batch(protocol: RandomBatch, scenarios: Sequence[Scenario], tested: UnderTest, table: TableFacts) -> Array:
    presence = _every(protocol, scenarios, tested, table)
    for stratum, rows in tested.alike():
        ends = np.append(np.arange(0, len(rows), protocol.batch), len(rows))
        for number in range(protocol.masks):
            batches = len(ends) - 1
            word = words(protocol.seed, number, stratum, count=len(rows) + batches * len(table.dims))
            shuffled = rows[_shuffled(word[: len(rows)])]
            lost = np.argsort(word[len(rows) :].reshape(batches, len(table.dims)), axis=1, kind="stable")
            of_row = np.repeat(lost, np.diff(ends), axis=0)  # [n, M]: which is lost first, which second
            for r, step in enumerate(protocol.schedule):
                two = _nearest(ends, step.two * len(rows))
                some = _nearest(ends, (step.two + step.one) * len(rows))
                presence[r, number, shuffled[:some], of_row[:some, 0]] = False
                presence[r, number, shuffled[:two], of_row[:two, 1]] = False
    return presence


def _nearest(ends: Array, wanted: float) -> int:
    return int(ends[np.abs(ends - wanted).argmin()])


def _imbalanced(protocol: Imbalanced, scenarios: Sequence[Scenario], tested: UnderTest, table: TableFacts) -> Array:
    presence = _every(protocol, scenarios, tested, table)
    for stratum, rows in tested.alike():
        for number in range(protocol.masks):
            word = words(protocol.seed, number, stratum, count=len(rows) * (len(table.dims) + 1))
            for r, setting in enumerate(protocol.settings):
                rates = np.array([setting[name] for name in table.dims])
                presence[r, number, rows] = at_rates(word, rates)
    return presence


def at_rates(word: Array, rates: Array) -> Array:
    """Presence [n, M] with each modality missing in its share `rates` [M] of the rows, to rounding, and no row empty.

    Each row keeps one modality: modality m in a share (1 − r_m) / Σ (1 − r_j) of the rows, chosen at random. Of the
    rows that do not keep it, as many lose m as its rate asks for, chosen at random. `word` [n · (M + 1)]. The rates
    may add up to M − 1 at most.
    """
    modalities = len(rates)
    rows = len(word) // (modalities + 1)
    lost = np.array([round(rate * rows) for rate in rates])
    while lost.sum() > rows * (modalities - 1):  # rounding asked for more than leaves each row one
        lost[lost.argmax()] -= 1
    kept = np.empty(rows, dtype=np.int64)
    kept[_shuffled(word[:rows])] = np.repeat(np.arange(modalities), apportioned(rows - lost, rows))
    presence = np.ones((rows, modalities), dtype=bool)
    for m in range(modalities):
        free = np.flatnonzero(kept != m)
        presence[free[_shuffled(word[rows * (m + 1) : rows * (m + 2)][free])[: lost[m]]], m] = False
    return presence


def apportioned(shares: Array, total: int) -> Array:
    """Whole numbers [n] in proportion to shares [n] that add up to `total`, by the largest remainder (ties: first)."""
    numerator = shares.astype(np.int64) * total
    whole, rest = numerator // shares.sum(), numerator % shares.sum()
    whole[np.argsort(-rest, kind="stable")[: total - whole.sum()]] += 1
    return whole


def _gaps(protocol: Gaps, scenarios: Sequence[Scenario], tested: UnderTest, table: TableFacts) -> Array:
    presence = _every(protocol, scenarios, tested, table)
    for stratum, rows in tested.folds():
        dialogue = np.unique(tested.dialogue[rows], return_inverse=True)[1]
        length = np.bincount(dialogue)
        position = _positions(dialogue, tested.order[rows])
        inner = np.maximum(length - 2, 0)  # the first and the last row stay
        for number in range(protocol.masks):
            where = (words(protocol.seed, number, stratum, count=len(length)) >> np.uint64(32)).astype(np.int64)
            for r, scenario in enumerate(scenarios):
                block = np.array([round(n * float(scenario.level or 0)) for n in inner])
                start = 1 + (where * (inner - block + 1) >> 32)
                inside = (position >= start[dialogue]) & (position < (start + block)[dialogue])
                for m in scenario.touched or ():
                    presence[r, number, rows[inside], m] = False
    return presence


def _positions(dialogue: Array, order: Array) -> Array:
    """Place of each row in its dialogue, from 0."""
    by = np.lexsort((order, dialogue))
    first = np.searchsorted(dialogue[by], dialogue[by])
    positions = np.empty(len(dialogue), dtype=np.int64)
    positions[by] = np.arange(len(dialogue)) - first
    return positions


def _label_dependent(
    protocol: LabelDependent, scenarios: Sequence[Scenario], tested: UnderTest, table: TableFacts
) -> Array:
    presence = _every(protocol, scenarios, tested, table)
    assert tested.truth is not None, "the masks depend on labels"
    names, classes = table.modalities, class_names(protocol, table)
    for stratum, rows in tested.folds():
        labelled = tested.labelled[rows]
        codes = np.full(len(rows), -1, dtype=np.int64)
        codes[labelled] = classes_of(protocol, tested.truth[rows[labelled]])
        counts = np.bincount(codes[labelled], minlength=len(classes))
        tables = _rates_of_classes(protocol, counts, names, classes)
        for number in range(protocol.masks):
            for k in np.unique(codes):
                mine = rows[codes == k]
                word = words(protocol.seed, number, stratum, int(k) + 1, count=len(mine) * (len(names) + 1))
                for r, rates in enumerate(tables):
                    of_class = rates[k] if k >= 0 else counts @ rates / max(counts.sum(), 1)
                    presence[r, number, mine] = at_rates(word, of_class)
    return presence


def classes_of(protocol: LabelDependent, truth: Array) -> Array:
    """Codes of the classes of labels [n]; values are cut at their own quantiles."""
    if truth.dtype.kind == "i":
        return truth.astype(np.int64)
    if not len(truth):
        return np.zeros(0, dtype=np.int64)
    edges = np.quantile(truth, np.arange(1, protocol.quantiles) / protocol.quantiles)
    return np.searchsorted(edges, truth, side="right").astype(np.int64)


def _rates_of_classes(
    protocol: LabelDependent, counts: Array, names: Modalities, classes: Sequence[str]
) -> list[Array]:
    """Missing rates [K, M] of every scenario in a fold whose classes have `counts` [K] rows."""
    tables = [
        np.repeat(rates_by_strength(counts, overall, strength, highest_rate(len(names)))[:, None], len(names), axis=1)
        for overall in protocol.overall
        for strength in protocol.strengths
    ]
    for setting in protocol.settings.values():
        tables.append(np.array([[setting.get(k, {}).get(name, 0.0) for name in names.names] for k in classes]))
    return tables


def rates_by_strength(counts: Array, overall: float, strength: float, most: float) -> Array:
    """Rates [K] that rise evenly on a log scale to `strength` times the first, and make `overall` over all rows.

    None is above `most`: what that takes from a class, the others carry. `counts` [K]: rows of each class.
    """
    weight = strength ** np.linspace(0, 1, len(counts))
    rates, full = np.zeros(len(counts)), np.zeros(len(counts), dtype=bool)
    for _ in counts:
        left = overall * counts.sum() - most * counts[full].sum()
        carried = (counts * weight)[~full].sum()
        rates = np.where(full, most, weight * (left / carried if carried > 0 else 0.0))
        if not (rates > most).any():
            break
        full |= rates > most
    return rates.clip(0, most)


_OF_KIND: dict[str, Callable[[Any, Sequence[Scenario], UnderTest, TableFacts], Array]] = {
    "random": _random,
    "rate_shift": _random,
    "random_batch": _random_batch,
    "imbalanced": _imbalanced,
    "gaps": _gaps,
    "label_dependent": _label_dependent,
}
