"""How far private representations are from shared ones: DPFT's signal (equations D1, D2) and its alternatives."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

_TINY = 1e-30
_BELOW_ONE = 1 - 2**-24


def _kl(p: Tensor, q: Tensor) -> Tensor:
    return (p * ((p + _TINY).log() - (q + _TINY).log())).sum(-1)


def jensen_shannon(p: Tensor, q: Tensor) -> Tensor:
    """JSD [..] of distributions [.., W], natural logarithm; between 0 and ln 2.

    With d = (p − q) / (p + q), p over the middle of both is 1 + d and q over it 1 − d. So it keeps its digits where the
    two are close, where a difference of logarithms would lose them: DPFT lives on how such values change.
    """
    d = (p - q).div_((p + q).add_(_TINY)).clamp_(-_BELOW_ONE, _BELOW_ONE)  # so that 0 log 0 is 0
    of_p = torch.log1p(d).mul_(p).sum(-1)
    return (of_p + torch.log1p(d.neg_()).mul_(q).sum(-1)).clamp_min(0) / 2


def kl_symmetric(p: Tensor, q: Tensor) -> Tensor:
    """(KL(p‖q) + KL(q‖p)) / 2, [..]."""
    return (_kl(p, q) + _kl(q, p)) / 2


def hellinger(p: Tensor, q: Tensor) -> Tensor:
    """Hellinger distance [..], between 0 and 1."""
    return (((p.sqrt() - q.sqrt()) ** 2).sum(-1) / 2).clamp_min(0).sqrt()


def wasserstein(p: Tensor, q: Tensor) -> Tensor:
    """1-Wasserstein distance [..] over the index of the feature, in units of the width."""
    return (p.cumsum(-1) - q.cumsum(-1)).abs().mean(-1)


def mmd(p: Tensor, q: Tensor) -> Tensor:
    """Squared maximum mean discrepancy [..] with a linear kernel over the features: ‖p − q‖²."""
    return ((p - q) ** 2).sum(-1)


DIVERGENCES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "js": jensen_shannon,
    "kl_symmetric": kl_symmetric,
    "hellinger": hellinger,
    "wasserstein": wasserstein,
    "mmd": mmd,
}


def divergence(name: str, shared: Tensor, private: Tensor) -> Tensor:
    """The named divergence [..] between softmax(shared) and softmax(private), both [.., W]."""
    return DIVERGENCES[name](torch.softmax(shared, -1), torch.softmax(private, -1))


def divergences(name: str, shared: Tensor, private: Tensor) -> Tensor:
    """The same [P, J, N] between shared [P, N, W] and each of J private representations [P, J, N, W]."""
    # Pair by pair: what is between fits a CPU's cache.
    p = torch.softmax(shared, -1)
    return torch.stack([DIVERGENCES[name](p, torch.softmax(q, -1)) for q in private.unbind(1)], 1)
