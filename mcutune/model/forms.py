"""What a training step takes of representations R = z B without making one: linear and quadratic forms in z.

By hand rather than by autograd, because that multiplies once for each factor of a Gram matrix, which is symmetric, and
copies what it splits and joins. N counts modalities and lanes, M · P.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from mcutune.model.alignment import product


class Forms(torch.autograd.Function):
    """(R^com V_com [N, B, K], R^i V_i [N, B, L], R^com · R^i, |R^com|², |R^i|², each [N, B]).

    Of z^com [N, B, R] and z^i [N, B, J, R] (zero but for the pair of each row), B^com [N, R, W], B^i [N, J, R, W],
    V_com [N, W, K] and V_i [N, W, L].
    """

    @staticmethod
    def forward(
        ctx: Any, own: Tensor, private: Tensor, b_own: Tensor, b_private: Tensor, v_own: Tensor, v_private: Tensor,
        low: bool,
    ) -> tuple[Tensor, ...]:  # fmt: skip
        rank, pairs, last = own.shape[-1], b_private.flatten(0, 1), v_private.shape[-1]
        # V_i, the transposed B^com, V_com: of these, B^i is multiplied with the first two, B^com with the last two.
        readers = torch.cat([v_private, b_own.transpose(1, 2), v_own], -1)
        of_own = product(b_own, readers[..., last:], low_precision=low)
        among = product(pairs, pairs.transpose(1, 2), low_precision=low).view(len(own), -1, rank)
        read = product(b_private.flatten(1, 2), readers[..., : last + rank], low_precision=low)
        of_private = torch.cat([read, among], -1)
        mine = private.sum(2)  # of the one pair that is not zero
        from_own = product(own, of_own, low_precision=low)
        from_private = product(private.flatten(2), of_private, low_precision=low)
        to_own, common = from_own.split([rank, v_own.shape[-1]], -1)
        both, across, to_mine = from_private.split([last, rank, rank], -1)
        ctx.save_for_backward(own, private, mine, b_own, b_private, readers, of_own, of_private, to_own, across)
        ctx.low = low
        return common, both, (across * own).sum(-1), (to_own * own).sum(-1), (to_mine * mine).sum(-1)

    @staticmethod
    def backward(
        ctx: Any, common: Tensor, both: Tensor, dot: Tensor, squared_own: Tensor, squared_private: Tensor
    ) -> tuple[Tensor | None, ...]:
        own, private, mine, b_own, b_private, readers, of_own, of_private, to_own, across = ctx.saved_tensors
        rank, last, low, pairs = own.shape[-1], both.shape[-1], ctx.low, b_private.flatten(0, 1)
        dot, own_twice, mine_twice = dot[..., None], 2 * squared_own[..., None], 2 * squared_private[..., None]
        # A quadratic form z G z^T with a symmetric G has the gradient 2 z G in z, and 2 z^T z in G, which stands for
        # both factors of G = B B^T.
        to_read = torch.cat([own_twice * own, common], -1)
        to_private = torch.cat([both, dot * own, mine_twice * mine], -1)
        read_own = product(own.transpose(1, 2), to_read, low_precision=low)
        read_private = product(private.flatten(2).transpose(1, 2), to_private, low_precision=low)
        to_z = product(to_private, of_private.transpose(1, 2), low_precision=low).view(private.shape)
        to_own_z = product(to_read, of_own.transpose(1, 2), low_precision=low).addcmul_(dot, across)

        among = read_private[..., last + rank :].unflatten(1, (-1, rank)).flatten(0, 1)
        linear = read_private[..., : last + rank]
        to_b_private = product(linear, readers[..., : last + rank].transpose(1, 2), low_precision=low)
        _add_product(to_b_private.view(pairs.shape), among, pairs, low)
        to_readers = product(b_private.flatten(1, 2).transpose(1, 2), linear, low_precision=low)
        to_b_own = product(read_own, readers[..., last:].transpose(1, 2), low_precision=low)
        to_b_own += to_readers[..., last:].transpose(1, 2)
        to_v_own = product(b_own.transpose(1, 2), read_own[..., rank:], low_precision=low)
        return to_own_z, to_z, to_b_own, to_b_private.view(b_private.shape), to_v_own, to_readers[..., :last], None


def _add_product(place: Tensor, a: Tensor, b: Tensor, low: bool) -> None:
    if low:
        place += product(a, b, low_precision=True)
    else:
        place.baddbmm_(a, b)
