"""Gaussian noise on features: drawn once a protocol, fold and modality, the same for every model and every strength.

Axes: n rows under test in a fold, M modalities, D features.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.special import ndtri

from mcutune.robustness.kinds import Noise
from mcutune.robustness.masks import words
from mcutune.robustness.scenarios import Scenario

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class NoiseSource:
    """The noise of a protocol on a table with modalities of these dimensions, in its order."""

    protocol: Noise
    scenarios: tuple[Scenario, ...]
    dims: tuple[tuple[str, int], ...]

    def of(self, scenario: Scenario, number: int, fold: int, rows: int) -> dict[str, Array]:
        """What a scenario adds to the normalised features of a fold's test rows in its draw `number`: [n, D] each."""
        drawn = _standard(self.protocol.seed, number, fold, rows, self.dims)
        level = np.float32(scenario.level or 0)
        return {self.dims[m][0]: level * drawn[m] for m in scenario.touched or ()}

    def digests(self, rows: Mapping[int, int]) -> list[str]:
        """A hash of each draw over all folds; `rows`: test rows of each fold's code."""
        found = []
        for number in range(self.protocol.masks):
            digest = hashlib.sha256()
            for fold, count in sorted(rows.items()):
                for drawn in _standard(self.protocol.seed, number, fold, count, self.dims):
                    digest.update(drawn.astype("<f4").tobytes())
            found.append(digest.hexdigest())
        return found


@lru_cache(maxsize=8)
def _standard(seed: int, number: int, fold: int, rows: int, dims: Sequence[tuple[str, int]]) -> tuple[Array, ...]:
    """Standard normal numbers, float32 [n, D] of every modality, of the key (seed, number, 2 · fold, modality)."""
    keys = ((seed, number, 2 * fold, m) for m in range(len(dims)))
    return tuple(
        normal(words(*key, count=rows * dim)).reshape(rows, dim) for key, (_, dim) in zip(keys, dims, strict=True)
    )


def normal(word: Array) -> Array:
    """Standard normal numbers, float32, from raw 64-bit words by the inverse of the distribution function."""
    return ndtri(((word >> np.uint64(12)).astype(np.float64) + 0.5) * 2.0**-52).astype(np.float32)
