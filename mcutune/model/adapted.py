"""A X of the adapters that a batch draws, each over the rows that draw it: what makes the wide products of a step.

Lanes of a cohort read the same rows, and draw nearly the same combinations of them (their uniform numbers are common,
their probabilities differ a little). So for each pair the rows that any of them draws are gathered once, and its A of
all these lanes stand side by side in one product. What a lane did not draw itself is masked.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional

from mcutune.model.alignment import COLUMNS, ROWS, aligned, plain_product

# A CPU's product sums up to some hundred rows in one block; more it splits by their number, so that rows that only
# neighbours draw would change the bits of a sum. So a gradient is summed over parts of the batch of this many rows.
PART = 128


@dataclass(frozen=True)
class Reading:
    """One product: the rows [n] of a batch that some of `lanes` read by pairs, padded to a multiple of ROWS.

    slots: of the pairs. count: how many rows there are without padding. cohort: whose inputs.
    """

    cohort: int
    lanes: slice
    slots: slice
    rows: Tensor
    count: int


def readings(slots: npt.NDArray[np.int64], cohorts: Sequence[int], most: int, device: torch.device) -> list[Reading]:
    """All products of a modality. slots [P, B]: private pair of each row, 1 … most; 0 where it lacks the modality.

    The shared pair, slot 0, is read by every row that has the modality. Private pairs that few rows draw are taken
    together: one product each would be padding for the most part.
    """
    width = max(1, ROWS * most // slots.shape[1])
    groups = [slice(0, 1), *(slice(s, min(s + width, 1 + most)) for s in range(1, 1 + most, width))]
    found = []
    start = 0
    for u, size in enumerate(cohorts):
        lanes = slice(start, start + size)
        start += size
        read = np.zeros((1 + most, slots.shape[1]), dtype=bool)
        read[slots[lanes], np.arange(slots.shape[1])] = True
        read[0] = read[1:].any(0)
        for group in groups:
            for rows in _parts(np.flatnonzero(read[group].any(0))):
                padded = np.append(rows, np.zeros(-len(rows) % ROWS, dtype=np.int64))
                found.append(Reading(u, lanes, group, torch.from_numpy(padded).to(device), len(rows)))
    return found


def _parts(rows: npt.NDArray[np.int64]) -> Iterator[npt.NDArray[np.int64]]:
    for part in np.unique(rows // PART):
        yield rows[rows // PART == part]


class Adapted(torch.autograd.Function):
    """s A X of the shared pair and of the private pair that each row draws, both [P, B, R]; 0 where there is none."""

    @staticmethod
    def forward(ctx: Any, a: Tensor, x: Tensor, used: Tensor, plan: list[Reading], low: bool) -> tuple[Tensor, Tensor]:
        """a [P, 1 + J, R, D]; x [U, B, D]; used [P, B, 1 + J]: s where a row uses the pair, else 0."""
        lanes, _, rank, _ = a.shape
        results = x.new_zeros(2, lanes, x.shape[1], rank)
        saved = []
        for one in plan:
            rows, mask = x[one.cohort].index_select(0, one.rows), _mask(used, one)
            shape = len(mask), mask.shape[2], rank
            z = plain_product(rows, aligned(a[one.lanes, one.slots].flatten(0, 2)).t(), low_precision=low)
            z = z[: one.count, : math.prod(shape)].unflatten(1, shape).transpose(0, 1)
            result = results[min(one.slots.start, 1), one.lanes]
            result.index_add_(1, one.rows[: one.count], (z * mask).sum(2))
            saved += [rows, mask]
        ctx.plan, ctx.low, ctx.shape = plan, low, a.shape
        ctx.save_for_backward(*saved)
        return results[0], results[1]

    @staticmethod
    def backward(ctx: Any, own: Tensor, mine: Tensor) -> tuple[Tensor, None, None, None, None]:
        lanes, slots, rank, dim = ctx.shape
        # Slots first: what a product gives lies as it is, and nothing is set to zero that is written anyway.
        gradient = own.new_empty(slots, lanes, rank, dim)
        written = np.zeros((slots, lanes), dtype=bool)
        saved = iter(ctx.saved_tensors)
        for one, rows, mask in zip(ctx.plan, saved, saved, strict=True):
            given = (mine if one.slots.start else own)[one.lanes].index_select(1, one.rows[: one.count])
            columns = (given[:, :, None] * mask).permute(0, 2, 3, 1).flatten(0, 2)
            columns = aligned(functional.pad(columns, (0, len(rows) - one.count)))
            shape = len(mask), mask.shape[2], rank
            wide = functional.pad(rows, (0, max(0, COLUMNS - dim)))
            found = plain_product(columns, wide, low_precision=ctx.low)[: math.prod(shape), :dim]
            found = found.unflatten(0, shape).transpose(0, 1)
            place = gradient[one.slots, one.lanes]
            place.add_(found) if written[one.slots.start, one.lanes.start] else place.copy_(found)
            written[one.slots, one.lanes] = True
        for slot, lane in np.argwhere(~written).tolist():
            gradient[slot, lane].zero_()
        return gradient.transpose(0, 1), None, None, None, None


def _mask(used: Tensor, one: Reading) -> Tensor:
    """[lanes, n, slots, 1] of `used` [P, B, 1 + J]."""
    return used[one.lanes, :, one.slots].index_select(1, one.rows[: one.count])[..., None]
