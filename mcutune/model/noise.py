"""Counter-based randomness: every number is a function of (search seed, seed, place), never of what was drawn before.

So a lane draws the same numbers alone, in a pack, after a refill or a restart, and seed s is the same number in every
trial (common random numbers). The generator is NumPy's Philox4x64 (Salmon et al., SC 2011).
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from enum import IntEnum
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor


class Place(IntEnum):
    """What the numbers are for. A value is added, never changed: it is part of every result."""

    INITIAL = 0
    ORDER = 1
    DRAW = 2
    DROPOUT = 3
    PROBE = 4
    ENCODER = 5
    HIDDEN = 6


Key = tuple[int, ...]


def name_key(name: str) -> int:
    """A stable number for a name (CRC-32), for keys."""
    return zlib.crc32(name.encode())


def stream(*key: int) -> np.random.Generator:
    """The generator of a key: (search seed, seed, place, ...), each a non-negative integer."""
    return np.random.Generator(np.random.Philox(np.random.SeedSequence(list(key))))


def words(key: Key, count: int) -> npt.NDArray[np.int16]:
    """`count` uniform 16-bit words of a key, as int16 (−32768 … 32767)."""
    raw = np.random.Philox(np.random.SeedSequence(list(key))).random_raw((count + 3) // 4)
    return raw.view(np.int16)[:count]


class Noise:
    """Words of keys, kept while one key is asked for again: lanes of a seed that run one after the other share them."""

    def __init__(self) -> None:
        self._key: Key = ()
        self._kept: dict[str, npt.NDArray[np.int16]] = {}

    def words(self, key: Key, site: str, count: int) -> npt.NDArray[np.int16]:
        """The words of a key at a site; fewer are a prefix of more."""
        if key != self._key:
            self._key, self._kept = key, {}
        kept = self._kept.get(site)
        if kept is None or len(kept) < count:
            kept = self._kept[site] = words((*key, name_key(site)), count)
        return kept[:count]


class Dropout:
    """Dropout whose noise depends on a key a lane: lanes with equal keys share it, whatever their rates.

    keys: one a lane, P of them. The rate is exact to 2^-16. Sites are told apart by name, so that a rate of zero at one
    site (skipped) does not shift the noise of another.
    """

    def __init__(self, keys: Sequence[Key], device: torch.device, noise: Noise | None = None) -> None:
        self._noise = noise or Noise()
        self._distinct = list(dict.fromkeys(keys))  # in the order of lanes: where all differ, as they come
        place = {key: i for i, key in enumerate(self._distinct)}
        self._lane = torch.tensor([place[key] for key in keys], device=device)
        self._device = device

    def __call__(self, x: Tensor, rate: Tensor, site: str) -> Tensor:
        """x [P, ..] with elements dropped at rate [P], the kept ones divided by 1 − rate."""
        rates = np.array(rate.tolist(), dtype=np.float32)
        if not rates.any():
            return x
        count = x[0].numel()
        noise = [torch.from_numpy(self._noise.words(key, site, count)) for key in self._distinct]
        lanes = (torch.stack(noise) if len(noise) > 1 else noise[0][None]).to(self._device)
        if len(self._distinct) != len(self._lane):
            lanes = lanes.index_select(0, self._lane)

        def beside(values: npt.NDArray[Any]) -> Tensor:
            return torch.from_numpy(values).to(self._device).view(-1, *(1,) * (x.dim() - 1))

        # Made on the host: each is a few numbers, which a dozen calls of torch would take longer for than for the rest.
        threshold = beside(np.round(rates.astype(np.float64) * 65536 - 32768).astype(np.int16))
        kept = (lanes.view(x.shape) >= threshold).to(x.dtype).mul_(beside(1 / (1 - rates)))
        return x * kept
