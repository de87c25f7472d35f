"""Modalities, and the combinations of them that can be present."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache, cached_property

import numpy as np
import numpy.typing as npt

from mcutune.errors import BadInput

_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_]{0,31}")
_MOST = 16  # 65,535 combinations; more modalities than that need another way of measuring


@dataclass(frozen=True, order=True)
class Combination:
    """A non-empty set of present modalities, as a bit mask: bit m is modality m."""

    mask: int

    def __post_init__(self) -> None:
        if self.mask < 1:
            raise ValueError("a combination has at least one modality")

    def __contains__(self, modality: int) -> bool:
        return bool(self.mask >> modality & 1)

    @property
    def size(self) -> int:
        return self.mask.bit_count()

    def modalities(self) -> tuple[int, ...]:
        """The indices of the present modalities, ascending."""
        return tuple(m for m in range(self.mask.bit_length()) if m in self)


@cache
def combinations(count: int) -> tuple[Combination, ...]:
    """All C = 2^M − 1 combinations of M modalities in canonical order: by size, then by first modalities.

    For M = 3: a, t, v, at, av, tv, atv.
    """
    every = (Combination(mask) for mask in range(1, 2**count))
    return tuple(sorted(every, key=lambda c: (c.size, c.modalities())))


@cache
def _membership(count: int) -> npt.NDArray[np.bool_]:
    table = np.array([[m in c for m in range(count)] for c in combinations(count)], dtype=bool)
    table.setflags(write=False)
    return table


def membership(count: int) -> npt.NDArray[np.bool_]:
    """Presence of every modality in every combination, [C, M], in canonical order (read-only)."""
    return _membership(count)


def combination_index(presence: npt.NDArray[np.bool_]) -> npt.NDArray[np.int64]:
    """Canonical index of the combination of each row, [..], from presence [.., M]; −1 where nothing is present."""
    count = presence.shape[-1]
    lookup = np.full(2**count, -1, dtype=np.int64)
    for index, combination in enumerate(combinations(count)):
        lookup[combination.mask] = index
    weights = 1 << np.arange(count, dtype=np.int64)
    return lookup[(presence.astype(np.int64) * weights).sum(axis=-1)]


@dataclass(frozen=True)
class Modalities:
    """The named modalities of a dataset, in its order; M of them.

    Raises BadInput for an empty list, a repeated name, or a name that is not letters, digits and `_`.
    """

    names: tuple[str, ...]

    def __post_init__(self) -> None:
        bad = [name for name in self.names if not _NAME.fullmatch(name)]
        if bad:
            raise BadInput(
                f"modality name {bad[0]!r} is not valid", hint="letters, digits and _; at most 32; a letter first"
            )
        if not self.names:
            raise BadInput("no modality is named", hint="name at least one")
        if len(set(self.names)) != len(self.names):
            raise BadInput(f"a modality is named twice in {', '.join(self.names)}")
        if len(self.names) > _MOST:
            raise BadInput(f"{len(self.names)} modalities are more than the {_MOST} that can be handled")

    def __len__(self) -> int:
        return len(self.names)

    def label(self, combination: Combination) -> str:
        """`audio+text`."""
        return "+".join(self.names[m] for m in combination.modalities())

    @cached_property
    def labels(self) -> tuple[str, ...]:
        """The labels of all combinations in canonical order, C of them."""
        return tuple(self.label(c) for c in combinations(len(self)))

    def parse(self, text: str) -> Combination:
        """The combination written `audio+text` (any order), or raise BadInput naming the valid modalities."""
        return self.combination(part.strip() for part in text.split("+"))

    def combination(self, names: Iterable[str]) -> Combination:
        """The combination of the named modalities. Raises BadInput for an unknown or repeated name."""
        mask = 0
        for name in names:
            if name not in self.names:
                raise BadInput(f"{name!r} is not a modality here", hint=f"valid: {', '.join(self.names)}")
            bit = 1 << self.names.index(name)
            if mask & bit:
                raise BadInput(f"{name!r} is named twice in a combination")
            mask |= bit
        if not mask:
            raise BadInput("a combination needs at least one modality", hint=f"valid: {', '.join(self.names)}")
        return Combination(mask)
