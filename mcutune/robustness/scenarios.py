"""Which modalities are missing where: masks made once a protocol and table, shared by every model, with a fingerprint.

Axes: N rows of the table, M modalities. A mask is bool [N, M], 1 = present.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from mcutune.domain.combination import Modalities, combination_index
from mcutune.domain.missing import highest_rate
from mcutune.errors import CheckFailed
from mcutune.files import canonical_json, sha256
from mcutune.robustness.protocol import Protocol, Random, rate_scenario

Array = npt.NDArray[Any]

TOLERANCE = 0.005  # of the realised rate, as in CPM-Net's and GCNet's generators


@dataclass(frozen=True, eq=False)
class Masks:
    """The masks of one scenario, [masks, N, M]. `rate` as asked for, `used` after the cap at (M − 1) / M."""

    scenario: str
    rate: float
    used: float
    presence: Array

    def of_rows(self, rows: Array) -> Masks:
        """The masks of some of the rows."""
        return dataclasses.replace(self, presence=self.presence[:, rows])


def random_masks(protocol: Random, modalities: int, strata: Array) -> tuple[Masks, ...]:
    """Masks of every rate of the protocol.

    `strata`: codes [N] >= 0. The rate is exact within every stratum (a fold's labelled test rows, its other test
    rows), so a fold measured alone has the masks, and the rate, that it has among all. Raises CheckFailed where a
    realised rate is off by more than the tolerance though rows are enough to meet it.
    """
    used = [min(rate, highest_rate(modalities)) for rate in protocol.rates]
    presence = np.zeros((len(used), protocol.masks, len(strata), modalities), dtype=bool)
    for stratum in np.unique(strata):
        part = np.flatnonzero(strata == stratum)
        for number in range(protocol.masks):
            ranks = _ranks((protocol.seed, number, int(stratum)), len(part), modalities)
            for r, rate in enumerate(used):
                presence[r, number, part] = ranks < _present(rate, len(part), modalities)
    named = zip(protocol.rates, used, presence, strict=True)
    masks = tuple(Masks(rate_scenario(rate), rate, cap, drawn) for rate, cap, drawn in named)
    for one in masks:
        _check_rate(one, strata)
    return masks


def _present(rate: float, rows: int, modalities: int) -> int:
    """How many of the N·M places are filled at a missing rate: at least one a row."""
    return max(rows, round((1 - rate) * rows * modalities))


def _ranks(seed: tuple[int, int, int], rows: int, modalities: int) -> Array:
    """The order, int64 [N, M], in which places are filled: first one of every row, then the others, all at random.

    Filling the first k places gives the mask of a rate, so masks of one seed are nested. Raw bits of a counter-based
    generator are used, which numpy keeps the same between versions.
    """
    bits = np.random.Philox(np.random.SeedSequence(seed)).random_raw(rows * (modalities + 1))
    kept = (bits[:rows] % np.uint64(modalities)).astype(np.int64)
    order = bits[rows:] >> np.uint64(1)
    order[np.arange(rows) * modalities + kept] = 0  # before all others
    first = np.lexsort((np.arange(len(order)), order))
    ranks = np.empty(len(order), dtype=np.int64)
    ranks[first] = np.arange(len(order))
    return ranks.reshape(rows, modalities)


def _check_rate(masks: Masks, strata: Array) -> None:
    for stratum in np.unique(strata):
        chosen = masks.presence[:, strata == stratum]
        off = np.abs(1 - chosen.mean(axis=(1, 2)) - masks.used).max()
        if off > max(TOLERANCE, 1 / chosen[0].size):
            raise CheckFailed(f"{masks.scenario}: a mask misses its rate by {off:.4f}")
    if not masks.presence.any(axis=2).all():
        raise CheckFailed(f"{masks.scenario}: a mask leaves a row with nothing")


def bits_of(presence: Array) -> Array:
    """Presence [.., M] as bit masks [..], int32: bit m is modality m."""
    return (presence.astype(np.int32) << np.arange(presence.shape[-1], dtype=np.int32)).sum(axis=-1, dtype=np.int32)


@dataclass(frozen=True, eq=False)
class Pattern:
    """What one scenario left of the measured rows: presence [masks, N, M] after the rows' own gaps; may be empty."""

    scenario: str
    rate: float | None
    capped: bool
    presence: Array


def fingerprint(protocol: Protocol, dataset: str, table_hash: str, names: Modalities, patterns: list[Pattern]) -> Any:
    """The `fingerprint` of a report's protocol: seed, realised rates, histograms over combinations, and their hash."""
    scenarios, digests = [], []
    for pattern in patterns:
        index = combination_index(pattern.presence)
        counts = np.bincount(index[index >= 0].ravel(), minlength=len(names.labels))
        scenarios.append(
            {
                "scenario": pattern.scenario,
                "rate": pattern.rate,
                "realised": round(float(1 - pattern.presence.mean()), 6),
                "capped": pattern.capped,
                "histogram": {label: int(n) for label, n in zip(names.labels, counts, strict=True) if n},
            }
        )
        digests.append([pattern.scenario, sha256(bits_of(pattern.presence).astype("<i4").tobytes())])
    rows = patterns[0].presence.shape[1]
    entry = {"dataset": dataset, "table_hash": table_hash, "rows": rows, "scenarios": scenarios}
    seed = protocol.seed if isinstance(protocol, Random) else None
    masks = protocol.masks if isinstance(protocol, Random) else 1
    meaning = [protocol.hash, names.names, entry, digests]
    return {"hash": sha256(canonical_json(meaning)), "seed": seed, "masks": masks, "datasets": [entry]}
