"""Rows of dialogues as lists without padding: which rows of a step have a modality, and attention within dialogues."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional

from mcutune.model.alignment import up

Rows = npt.NDArray[np.int64]
Flags = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Sequences:
    """The n of B rows that have a modality, in order, so that rows of a dialogue are neighbours.

    place [P, n]: position of each among the B rows (B where padding), or [1, n] where all lanes have the same.
    lengths: rows of each dialogue, where all lanes have the same and nothing is padded. Otherwise blocks [P, G, T]:
    position among the n of every row of a dialogue (n where it is shorter), back [P, n]: where in the flattened blocks
    each row lies.
    """

    place: Tensor
    count: int
    lengths: tuple[int, ...] = ()
    blocks: Tensor | None = None
    back: Tensor | None = None

    def taken(self, values: Tensor) -> Tensor:
        """values [P, B] of these rows, [P, n]; 0 where padding."""
        return _gather(values, self.place.expand(len(values), -1))

    def spread(self, x: Tensor) -> Tensor:
        """x [P, n, W] among all rows [P, B, W]; zeros for rows without the modality."""
        if self.blocks is None and self.place.shape[1] == self.count:
            return x  # every row has it, and nothing is padding
        width = self.count + 1  # the last takes what is padding
        start = torch.arange(len(x), device=x.device)[:, None] * width
        result = x.new_zeros(len(x) * width, x.shape[-1])
        result = result.index_copy(0, (self.place + start).flatten(), x.flatten(0, 1))
        return result.view(len(x), width, -1)[:, : self.count]

    def attend(self, qkv: Tensor, heads: int) -> Tensor:
        """Self-attention within each dialogue: queries, keys and values side by side [P, n, 3·W] → [P, n, W]."""
        if qkv.device.type == "cpu":
            # float32 also where products are not: the gradient of a CPU's attention is four times slower in bfloat16.
            qkv = qkv.to(torch.promote_types(qkv.dtype, torch.float32))
        if self.blocks is None or self.back is None:
            if not self.lengths:
                return qkv[..., : qkv.shape[-1] // 3]
            q, k, v = _by_head(qkv, heads)
            each = zip(*(part.split(self.lengths, 2) for part in (q, k, v)), strict=True)
            mixed = torch.cat([functional.scaled_dot_product_attention(a, b, c) for a, b, c in each], 2)
            return mixed.transpose(1, 2).flatten(2)
        lanes, groups, length = self.blocks.shape
        padded = _gather(qkv, self.blocks.flatten(1)).view(lanes * groups, length, -1)
        keys = (self.blocks < qkv.shape[1]).view(lanes * groups, 1, 1, length)
        q, k, v = _by_head(padded, heads)
        mixed = functional.scaled_dot_product_attention(q, k, v, attn_mask=keys)
        return _gather(mixed.transpose(1, 2).reshape(lanes, groups * length, -1), self.back)


def sequences(present: Flags, dialogue: Rows, device: torch.device) -> Sequences:
    """The rows that are present [P, B] (or [1, B] for all lanes).

    dialogue [P, B] or [1, B]: number of the dialogue; its rows are neighbours.
    """
    count = present.shape[1]
    if len(present) == 1 and device.type == "cpu":
        # A dialogue after the other: no padding to compute, and a lane's bits do not depend on its neighbours' lengths.
        place = np.flatnonzero(present[0])
        return Sequences(torch.from_numpy(place[None]), count, tuple(_runs(dialogue[0, place]).tolist()))
    found = [np.flatnonzero(row) for row in present]
    most = up(max(1, *map(len, found)))
    place = np.full((len(found), most), count)
    each = []
    for p, rows in enumerate(found):
        place[p, : len(rows)] = rows
        each.append(_runs(dialogue[p, rows]))
    longest = up(max(1, *(int(lengths.max(initial=0)) for lengths in each)), 8)
    blocks = np.full((len(found), max(1, *map(len, each)), longest), most)
    back = np.zeros((len(found), most), dtype=np.int64)
    for p, lengths in enumerate(each):
        group = np.repeat(np.arange(len(lengths)), lengths)
        step = np.arange(len(group)) - np.repeat(np.cumsum(lengths) - lengths, lengths)
        blocks[p, group, step] = np.arange(len(group))
        back[p, : len(group)] = group * longest + step
    return Sequences(
        torch.from_numpy(place).to(device), count, (), torch.from_numpy(blocks).to(device),
        torch.from_numpy(back).to(device),
    )  # fmt: skip


def of_rows(inputs: list[Tensor], rows: Rows, presence: Flags, dialogue: Rows) -> tuple[list[Tensor], list[Sequences]]:
    """inputs[m] [n_m, D_m] of those of `rows` [B] that have modality m, and their lists, the same for all lanes.

    inputs[m] [N, D_m], presence [N, M], dialogue [N]: of all rows.
    """
    device = inputs[0].device
    lists = [sequences(has[None], dialogue[rows][None], device) for has in presence[rows].T]
    chosen = torch.from_numpy(rows).to(device)[None]
    return [x[one.taken(chosen)[0]] for one, x in zip(lists, inputs, strict=True)], lists


def _runs(values: Rows) -> Rows:
    """How often each value comes in a row."""
    ends = np.append(np.flatnonzero(np.diff(values)) + 1, len(values)) if len(values) else np.zeros(0, dtype=np.int64)
    return np.diff(ends, prepend=0)


def _gather(x: Tensor, index: Tensor) -> Tensor:
    """x [P, n, ..] at index [P, k] or [1, k] → [P, k, ..]; zero where the index is n."""
    padded = functional.pad(x, (0, 0) * (x.dim() - 2) + (0, 1))
    index = index.expand(len(x), -1)
    start = torch.arange(len(x), device=x.device)[:, None] * padded.shape[1]
    return padded.flatten(0, 1).index_select(0, (index + start).flatten()).unflatten(0, index.shape)


def _by_head(qkv: Tensor, heads: int) -> tuple[Tensor, ...]:
    """Queries, keys and values [P, heads, T, W / heads] from [P, T, 3·W]."""
    return qkv.unflatten(-1, (3, heads, -1)).permute(2, 0, 3, 1, 4).unbind(0)
