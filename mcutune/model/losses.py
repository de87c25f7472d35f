"""The loss L = L_task + β L_ort (method: equation E9), a value a lane."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional

from mcutune.domain.task import Task

_EPSILON = 1e-12  # a representation of zeros (adapters start there) has cosine 0, not 0/0


def task_loss(output: Tensor, target: Tensor, weight: Tensor) -> Tensor:
    """Loss [P] of output [P, B, K] against target [P, B], summed with weight [P, B] (1 in all over a batch).

    Cross-entropy (natural logarithm) for integer targets; squared error for float targets (K = 1).
    """
    if target.is_floating_point():
        each = (output[..., 0] - target) ** 2
    else:
        each = functional.cross_entropy(output.flatten(0, 1), target.flatten(), reduction="none").view(target.shape)
    return (each * weight).sum(1)


def balance(target: npt.NDArray[Any], classes: int, task: Task, kind: str) -> npt.NDArray[np.float32]:
    """Weight of every class [K]: 1, or inversely to its share of the training rows, 1 on average over rows."""
    if task is not Task.CLASSIFICATION or kind == "none":
        return np.ones(max(classes, 1), dtype=np.float32)
    counts = np.bincount(target, minlength=classes)
    return (len(target) / (classes * np.maximum(counts, 1))).astype(np.float32)


def squared_cosine(shared: Tensor, private: Tensor) -> Tensor:
    """cos² [..] of representations [.., W] (equation E3); 0 where either is zero."""
    return cosine_of((shared * private).sum(-1), (shared * shared).sum(-1), (private * private).sum(-1))


def cosine_of(dot: Tensor, shared: Tensor, private: Tensor) -> Tensor:
    """cos² [..] from the scalar product of two vectors and of each with itself."""
    # Where these come from a Gram matrix, rounding can leave the square of a tiny vector below zero.
    return dot * dot / ((shared * private).clamp_min(0) + _EPSILON)


def orthogonality(cos2: Tensor, weight: Tensor, absolute: Tensor) -> Tensor:
    """L_ort [P]: cos² [P, B, M] summed with weight [P, B, M] (1 in all over what a batch has present, else 0).

    |cos| instead in lanes where `absolute` [P].
    """
    # The square root's slope is infinite at 0; the small term keeps it finite where adapters start at zero.
    cosine = torch.where(absolute.view(-1, 1, 1), (cos2 + _EPSILON).sqrt(), cos2)
    return (cosine * weight).sum((1, 2))
