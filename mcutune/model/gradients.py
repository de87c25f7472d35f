"""How hard the task loss pulls at each modality's own modules: the norm of its gradient there.

The loss is the one that training follows on average, but for dropout and L_ort: each row under the combinations that
DPFT draws for it, as often as it draws them. Plain autograd through the program that predicts. The norm of a modality
is Euclidean, over all parameters that read it alone (`modules` of a network).

Axes: C combinations, N rows, M modalities, K classes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from mcutune.domain.combination import combination_index, membership
from mcutune.model.frozen import FrozenNetwork
from mcutune.model.losses import task_loss
from mcutune.model.trained import TrainedNetwork

Array = npt.NDArray[Any]
Params = dict[str, Tensor]
Piece = tuple[Any, Callable[[Params], Tensor]]
"""Some of the rows, and their logits [C, n, K] as a function of the parameters."""


def drawn_shares(q: Array, has: Array, presence: Array) -> Array:
    """How often a row is trained under each combination, float64 [C, N]; 0 in all where nothing of it is ever drawn.

    q [C]: probabilities. has [N, M]: what decides among which combinations is drawn, the row's own presence or what
    any row of its dialogue has. presence [N, M]: the row's own; what is drawn beyond it is taken off.
    """
    member = membership(presence.shape[1])
    mass = np.where((~member[:, None] | has[None]).all(2), q[:, None], 0.0)
    mass = mass / np.maximum(mass.sum(0), np.finfo(float).tiny)
    left = combination_index(member[:, None] & presence[None])
    shares = np.zeros_like(mass)
    c, row = np.nonzero((left >= 0) & (mass > 0))
    np.add.at(shares, (left[c, row], row), mass[c, row])
    return shares


def of_dialogues(presence: Array, dialogue: Array) -> Array:
    """What any row of each row's dialogue has, bool [N, M], from the rows' own presence and dialogue [N]."""
    _, of_row = np.unique(dialogue, return_inverse=True)
    has = np.zeros((int(of_row.max()) + 1, presence.shape[1]), dtype=bool)
    np.logical_or.at(has, of_row, presence)
    return has[of_row]


def gradient_norms(
    network: FrozenNetwork | TrainedNetwork, params: Params, pieces: Iterator[Piece] | list[Piece], target: Tensor,
    weight: Array,
) -> Array:  # fmt: skip
    """Norm of the gradient of the task loss for each modality's modules, float64 [M].

    params: of one lane, [1, ..]. target [N]; weight [C, N]: of each row under each combination, 1 in all.
    """
    leaves = {name: value.detach().clone().requires_grad_() for name, value in params.items()}
    total = {name: torch.zeros_like(value) for name, value in params.items()}
    shares = torch.from_numpy(weight.astype(np.float32))
    for rows, logits_of in pieces:
        logits = logits_of(leaves)
        loss = task_loss(logits, target[rows].expand(len(logits), -1), shares[:, rows]).sum()
        found = torch.autograd.grad(loss, list(leaves.values()), allow_unused=True)
        for place, gradient in zip(total.values(), found, strict=True):
            if gradient is not None:
                place += gradient
    squares = [
        sum(float(part.double().square().sum()) for part in network.modules(total, m)) for m in range(len(network.dims))
    ]
    return np.sqrt(np.array(squares))
