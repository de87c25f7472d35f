"""Where the parameters of a lane lie: one flat vector a lane, so that a lane can be moved, parked and stepped alone.

Ranks below the layout's are zero-padded. A padded rank slot has a zero column in A and a zero row in B; each
kills the other's gradient, so the padding stays exactly zero under Adam, AdamW and SGD (tested).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from mcutune.model.noise import Place, name_key, stream

_ALIGNMENT = 64  # floats; lanes start at the same alignment, so that vectorised kernels treat each alike


@dataclass(frozen=True)
class Parameter:
    """A tensor of a lane. `shape` without P; `rank_axis` is padded to the layout's rank times `rank_factor`.

    `start`: "uniform" in ±1/sqrt(fan_in) (Kaiming uniform with a = sqrt 5, as torch.nn.Linear and LoRA's A), "zeros"
    (LoRA's B), or "ones".
    """

    name: str
    shape: tuple[int, ...]
    start: Literal["uniform", "zeros", "ones"]
    fan_in: int = 1
    rank_axis: int | None = None
    rank_factor: int = 1

    @property
    def size(self) -> int:
        return math.prod(self.shape)


@dataclass(frozen=True)
class Layout:
    """The parameters of an architecture, in the order in which they lie in the vector."""

    parameters: tuple[Parameter, ...]

    @property
    def size(self) -> int:
        """Floats a lane, padded to the alignment."""
        total = sum(p.size for p in self.parameters)
        return -(-total // _ALIGNMENT) * _ALIGNMENT

    def views(self, flat: Tensor) -> dict[str, Tensor]:
        """Views of flat [P, size], each [P, *shape]."""
        views, offset = {}, 0
        for p in self.parameters:
            views[p.name] = flat[:, offset : offset + p.size].view(len(flat), *p.shape)
            offset += p.size
        return views

    def initial(self, search_seed: int, seed: int, rank: int) -> npt.NDArray[np.float32]:
        """The start of a lane [size]: a function of the seeds; the first ranks are the same whatever the padding."""
        vector, offset = np.zeros(self.size, dtype=np.float32), 0
        for p in self.parameters:
            vector[offset : offset + p.size] = _start(p, search_seed, seed, rank).ravel()
            offset += p.size
        return vector

    def unpadded(self, vector: Tensor, rank: int) -> dict[str, Tensor]:
        """Named tensors of one lane's vector [size], cut to its true rank (for a checkpoint)."""
        return {
            p.name: _cut(view[0], p, rank).contiguous().clone()
            for p, view in zip(self.parameters, self.views(vector[None]).values(), strict=True)
        }

    def padded(self, tensors: dict[str, Tensor]) -> Tensor:
        """The vector [size] of named tensors, zero-padded to this layout's ranks. Inverse of `unpadded`."""
        vector = torch.zeros(self.size)
        for p, view in zip(self.parameters, self.views(vector[None]).values(), strict=True):
            tensor = tensors[p.name]
            view[0][tuple(slice(0, n) for n in tensor.shape)] = tensor
        return vector


def _start(p: Parameter, search_seed: int, seed: int, rank: int) -> npt.NDArray[np.float32]:
    if p.start != "uniform":
        return np.full(p.shape, 1.0 if p.start == "ones" else 0.0, dtype=np.float32)
    axis = 0 if p.rank_axis is None else p.rank_axis
    moved = (p.shape[axis], *p.shape[:axis], *p.shape[axis + 1 :])
    # The rank axis is drawn outermost: a shorter one is a prefix of the same stream.
    values = stream(search_seed, seed, Place.INITIAL, name_key(p.name)).random(moved, dtype=np.float32)
    values = (2 * values - 1) / np.float32(math.sqrt(p.fan_in))
    if p.rank_axis is not None:
        values[rank * p.rank_factor :] = 0
    return np.moveaxis(values, 0, axis)


def _cut(tensor: Tensor, p: Parameter, rank: int) -> Tensor:
    return tensor if p.rank_axis is None else tensor.narrow(p.rank_axis, 0, rank * p.rank_factor)
