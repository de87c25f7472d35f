"""Matrix products in the precision of their operands, also in bfloat16 on a CPU that has no such products.

Without them torch multiplies number by number, hundreds of times slower than in float32. There, the operands are
multiplied as float32, and what comes out is rounded: a product of two bfloat16 numbers is exact in float32, so this is
what a bfloat16 kernel that sums in float32 gives, up to the order of the sum. So is every gradient.
"""

from __future__ import annotations

from functools import cache

import torch
from torch import Tensor


@cache
def multiplies_bfloat16() -> bool:
    """Whether this CPU has products in bfloat16: the condition by which torch itself chooses them (torch 2.13)."""
    return torch.backends.mkldnn.is_available() and bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())


def mm(a: Tensor, b: Tensor) -> Tensor:
    """a [n, k] × b [k, l]."""
    return torch.mm(_multiplied(a), _multiplied(b)).to(a.dtype)


def bmm(a: Tensor, b: Tensor) -> Tensor:
    """a [P, n, k] × b [P, k, l]."""
    return torch.bmm(_multiplied(a), _multiplied(b)).to(a.dtype)


def baddbmm(start: Tensor, a: Tensor, b: Tensor) -> Tensor:
    """start + a [P, n, k] × b [P, k, l], rounded once; start broadcasts."""
    return torch.baddbmm(_multiplied(start), _multiplied(a), _multiplied(b)).to(a.dtype)


def _multiplied(x: Tensor) -> Tensor:
    """x as the device multiplies it."""
    wide = x.dtype == torch.bfloat16 and x.device.type == "cpu" and not multiplies_bfloat16()
    return x.float() if wide else x
