"""A linear with adapters of which each row reads the shared pair and one private pair, for one lane: by hand.

Rows of the private path lie sorted by pair, so that each pair is multiplied with its own rows only. Products with few
columns are made as few rows, their transposes: a CPU's kernels reach five times the rate. What is added lies in place.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor


@dataclass(frozen=True)
class Drawn:
    """Which of n rows read which private pair.

    order [n]: the rows sorted by their pair; back [n]: where in this order each row is; runs: slot of each pair that is
    read, and its rows in this order.
    """

    order: Tensor
    back: Tensor
    runs: tuple[tuple[int, slice], ...]

    @classmethod
    def of(cls, slots: npt.NDArray[np.int64]) -> Drawn:
        """slots [n]: of the pair of each row."""
        order = np.argsort(slots, kind="stable")
        read, first = np.unique(slots[order], return_index=True)
        bounds = np.append(first, len(slots)).tolist()
        runs = tuple((slot, slice(*rows)) for slot, rows in zip(read.tolist(), pairwise(bounds), strict=True))
        return cls(torch.from_numpy(order), torch.from_numpy(np.argsort(order)), runs)


class Paired(torch.autograd.Function):
    """W x + s B^com A^com x°, and W x + s B^i A^i x' in the order of `drawn`; both [n, W].

    x, x° [n, D]: as it is and with dropout; x' [n, D]: in the order of `drawn`. a [D, 1 + J, R], b [1 + J, R, W].
    """

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, dropped: Tensor, own: Tensor, weight: Tensor, bias: Tensor, a: Tensor, b: Tensor,
        scale: float, drawn: Drawn,
    ) -> tuple[Tensor, Tensor]:  # fmt: skip
        shared = torch.addmm(bias, x, weight)
        private = shared.index_select(0, drawn.order)
        inner = torch.mm(a[:, 0].t(), dropped.t()).mul_(scale)  # [R, n]
        shared.addmm_(inner.t(), b[0])
        mine = torch.empty_like(inner)
        for slot, rows in drawn.runs:
            z = torch.mm(a[:, slot].t(), own[rows].t()).mul_(scale)
            mine[:, rows] = z
            private[rows].addmm_(z.t(), b[slot])
        ctx.scale, ctx.drawn = scale, drawn
        ctx.save_for_backward(x, dropped, own, weight, a, b, inner, mine)
        return shared, private

    @staticmethod
    def backward(ctx: Any, of_shared: Tensor, of_private: Tensor) -> tuple[Tensor | None, ...]:
        x, dropped, own, weight, a, b, inner, mine = ctx.saved_tensors
        drawn, (of_x, of_dropped, of_own) = ctx.drawn, ctx.needs_input_grad[:3]
        base = of_private.index_select(0, drawn.back).add_(of_shared)
        given_a, given_b = torch.zeros_like(a), torch.zeros_like(b)
        torch.mm(inner, of_shared, out=given_b[0])
        z = torch.mm(b[0], of_shared.t()).mul_(ctx.scale)  # [R, n]
        given_a[:, 0] = torch.mm(z, dropped).t()
        given_dropped = torch.mm(z.t(), a[:, 0].t()) if of_dropped else None
        given_own = torch.empty_like(own) if of_own else None
        for slot, rows in drawn.runs:
            given = of_private[rows]
            torch.mm(mine[:, rows], given, out=given_b[slot])
            z = torch.mm(b[slot], given.t()).mul_(ctx.scale)
            given_a[:, slot] = torch.mm(z, own[rows]).t()
            if given_own is not None:
                torch.mm(z.t(), a[:, slot].t(), out=given_own[rows])
        given_x = torch.mm(base, weight.t()) if of_x else None
        return given_x, given_dropped, given_own, torch.mm(x.t(), base), base.sum(0), given_a, given_b, None, None
