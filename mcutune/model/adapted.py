"""A X of the adapters that a batch draws, each over the rows that draw it: what makes the wide products of a step.

Lanes of a cohort read the same rows, and draw nearly the same combinations of them (their uniform numbers are common,
their probabilities differ a little). So for each pair the rows that any of them draws are gathered once, and its A of
all these lanes stand side by side in one product. What a lane did not draw itself is masked.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional

from mcutune.model.alignment import COLUMNS, ROWS, plain_product, up

# A CPU's product sums up to some hundred rows in one block; more it splits by their number, so that rows that only
# neighbours draw would change the bits of a sum. So a gradient is summed over parts of the batch of this many rows.
PART = 128


@dataclass(frozen=True)
class Reading:
    """The products of a cohort's lanes with one modality of a batch, one after another.

    What a product gives for one row and pair, of all these lanes, is a piece. rows [N]: of the batch, those of each
    product padded to a multiple of ROWS; products: of each, which of these rows, which pairs, which pieces.
    place [B · (1 + J)]: the piece of every row and pair, any where no lane reads it.
    source [pieces]: the row and pair (row · (1 + J) + pair) of every piece, B · (1 + J) for padding.
    """

    cohort: int
    lanes: slice
    rows: Tensor
    products: tuple[tuple[slice, slice, slice], ...]
    place: Tensor
    source: Tensor


def readings(slots: npt.NDArray[np.int64], cohorts: Sequence[int], most: int, device: torch.device) -> list[Reading]:
    """What each cohort reads of a modality. slots [P, B]: private pair of each row, 1 … most; 0 where it lacks it.

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
        products = [(rows, group) for group in groups for rows in _parts(np.flatnonzero(read[group].any(0)))]
        found.append(_reading(u, lanes, products, read.T.shape, device))
    return found


def _parts(rows: npt.NDArray[np.int64]) -> list[npt.NDArray[np.int64]]:
    if not len(rows):
        return []
    ends = np.searchsorted(rows, np.arange(PART, rows[-1] + 1, PART))
    return [part for part in np.split(rows, ends) if len(part)]


def _reading(
    cohort: int, lanes: slice, each: list[tuple[npt.NDArray[np.int64], slice]], shape: tuple[int, ...],
    device: torch.device,
) -> Reading:  # fmt: skip
    """From the rows and pairs of each product; shape: B, 1 + J."""
    place, taken, source = np.zeros(shape, dtype=np.int64), [], []
    products, row, piece = [], 0, 0
    for rows, slots in each:
        count, width = up(len(rows), ROWS), slots.stop - slots.start
        pieces = (rows[:, None] * shape[1] + np.arange(slots.start, slots.stop)).ravel()
        place.flat[pieces] = np.arange(piece, piece + len(pieces))
        taken += [rows, np.zeros(count - len(rows), dtype=np.int64)]
        source += [pieces, np.full(count * width - len(pieces), place.size)]
        products.append((slice(row, row + count), slots, slice(piece, piece + count * width)))
        row, piece = row + count, piece + count * width

    def on(parts: list[npt.NDArray[np.int64]]) -> Tensor:
        return torch.from_numpy(np.concatenate(parts) if parts else np.zeros(0, dtype=np.int64)).to(device)

    return Reading(cohort, lanes, on(taken), tuple(products), on([place.ravel()]), on(source))


class Adapted(torch.autograd.Function):
    """s A X of the shared pair [M, P, B, R] and of private pairs [M, P, B, J, R]; 0 where a row does not use one."""

    @staticmethod
    def forward(
        ctx: Any, used: Tensor, inputs: list[Tensor], plans: list[list[Reading]], low: bool, *weights: Tensor
    ) -> tuple[Tensor, Tensor]:
        """used [M, P, B, 1 + J]: s where a row uses the pair, else 0; inputs[m] [U, B, D_m]; weights: A of each
        modality [P, 1 + J, R, D_m]."""
        rank = weights[0].shape[2]
        own = weights[0].new_empty(*used.shape[:3], rank)
        private = own.new_empty(*used.shape[:3], used.shape[3] - 1, rank)
        saved = []
        for m, (x, plan, a) in enumerate(zip(inputs, plans, weights, strict=True)):
            for one in plan:
                rows, lanes = x[one.cohort].index_select(0, one.rows), one.lanes
                saved.append(rows)
                pieces = _pieces(rows, a[lanes], one, low).index_select(0, one.place)
                given = pieces[:, : len(a[lanes]) * rank].unflatten(1, (-1, rank)).transpose(0, 1)
                given = given.unflatten(1, (-1, used.shape[3]))  # [lanes, B, 1 + J, R]
                mask = used[m, lanes][..., None]
                torch.mul(given[:, :, 0], mask[:, :, 0], out=own[m, lanes])
                torch.mul(given[:, :, 1:], mask[:, :, 1:], out=private[m, lanes])
        ctx.plans, ctx.low, ctx.shapes = plans, low, [a.shape for a in weights]
        ctx.save_for_backward(used, *saved)
        return own, private

    @staticmethod
    def backward(ctx: Any, own: Tensor, private: Tensor) -> tuple[Tensor | None, ...]:
        used, *saved = ctx.saved_tensors
        gradients = []
        for m, (plan, shape) in enumerate(zip(ctx.plans, ctx.shapes, strict=True)):
            # Slots first: what a product gives lies as it is, and nothing is set to zero that is written anyway.
            gradient = own.new_empty(shape[1], shape[0], *shape[2:])
            for one in plan:
                lanes = one.lanes
                given = _given(own[m, lanes], private[m, lanes], used[m, lanes]).index_select(0, one.source)
                _gradient(gradient[:, lanes], given, saved.pop(0), one, ctx.low)
            gradients.append(gradient.transpose(0, 1))
        return None, None, None, None, *gradients


def _pieces(rows: Tensor, a: Tensor, one: Reading, low: bool) -> Tensor:
    """A X [pieces, lanes · R] of a [lanes, 1 + J, R, D]; more columns where these are few."""
    columns = a.transpose(0, 1).flatten(1, 2)  # [1 + J, lanes · R, D]
    if columns.shape[1] < COLUMNS:
        columns = functional.pad(columns, (0, 0, 0, COLUMNS - columns.shape[1]))
    result = rows.new_empty(max(1, len(one.source)), columns.shape[1])
    if not one.products:
        result.zero_()  # what every place refers to
    for those, slots, pieces in one.products:
        place = result[pieces].view(those.stop - those.start, -1)
        _put(place, rows[those], columns[slots].flatten(0, 1).t(), low)
    return result


def _given(own: Tensor, private: Tensor, used: Tensor) -> Tensor:
    """The gradient of A X [B · (1 + J) + 1, lanes · R], rows and pairs first; the last is zero, for padding."""
    lanes, batch, slots = used.shape
    width = lanes * own.shape[-1]
    result = own.new_empty(batch * slots + 1, max(COLUMNS, width))
    result[-1].zero_()
    result[:, width:].zero_()
    given = result[:-1, :width].view(batch, slots, lanes, -1).permute(2, 0, 1, 3)
    torch.mul(own, used[:, :, :1], out=given[:, :, 0])
    torch.mul(private, used[:, :, 1:, None], out=given[:, :, 1:])
    return result


def _gradient(gradient: Tensor, given: Tensor, rows: Tensor, one: Reading, low: bool) -> None:
    """Write the gradient [1 + J, lanes, R, D] of A from that of its pieces."""
    slots, lanes, rank, dim = gradient.shape
    wide = functional.pad(rows, (0, COLUMNS - dim)) if dim < COLUMNS else rows
    written = np.zeros(slots, dtype=bool)
    for those, pairs, pieces in one.products:
        columns = given[pieces].view(those.stop - those.start, -1).t()
        place, first = gradient[pairs], not written[pairs.start]
        written[pairs] = True
        if first and place.is_contiguous() and lanes * rank == given.shape[1] and dim == wide.shape[1]:
            _put(place.view(-1, dim), columns, wide[those], low)
            continue
        found = plain_product(columns, wide[those], low_precision=low).unflatten(0, (-1, given.shape[1]))
        found = found[:, : lanes * rank, :dim].unflatten(1, (lanes, rank))
        place.copy_(found) if first else place.add_(found)
    for slot in np.flatnonzero(~written).tolist():
        gradient[slot].zero_()


def _put(place: Tensor, a: Tensor, b: Tensor, low: bool) -> None:
    """a × b into `place`, which lies in one piece."""
    if low:
        place.copy_(plain_product(a, b, low_precision=True))
    else:
        torch.mm(a, b, out=place)
