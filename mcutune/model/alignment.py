"""Sizes that keep a lane's bits the same wherever it lies in a tensor.

Vectorised kernels treat the last elements of a tensor apart from the others (other instructions for exp and the like),
and matrix products may choose by the alignment of a lane's memory. Where every lane holds a multiple of ROWS rows, no
lane ever lies in such a tail and all are aligned alike, so packed equals alone in every bit (tested, also by watching
each operation of a pack of equal lanes).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional

from mcutune.model.precision import bmm, mm

ROWS = 32
COLUMNS = 16


def up(count: int, unit: int = ROWS) -> int:
    """The next multiple of `unit`."""
    return -(-count // unit) * unit


def padded_rows(x: Tensor, dim: int) -> Tensor:
    """x with zeros at the end of dimension `dim`, to a multiple of ROWS."""
    lacking = up(x.shape[dim]) - x.shape[dim]
    return functional.pad(x, (0, 0) * (x.dim() - 1 - dim) + (0, lacking)) if lacking else x


def product(a: Tensor, b: Tensor, *, low_precision: bool) -> Tensor:
    """Batched matrix product [P, n, k] × [P, k, l]; in bfloat16 with a float32 result where `low_precision`.

    A single column is summed instead: as a product of one lane it would take a matrix-vector path with other bits.
    """
    if low_precision:
        a, b = a.bfloat16(), b.bfloat16()
    result = (a * b.transpose(1, 2)).sum(-1, keepdim=True) if b.shape[-1] == 1 else bmm(a, b)
    return result.float() if low_precision else result


def cohort_product(x: Tensor, b: Tensor, cohorts: Sequence[int], *, low_precision: bool) -> Tensor:
    """b_p × x_uᵀ [P, l, n] for every lane p of cohort u; x [U, n, k], b [P, l, k], U cohort sizes.

    The lanes of a cohort stand one below the other in one product: one as narrow as a lane's reaches a fraction of the
    machine's rate. So each lane's result lies in one piece. Fewer than COLUMNS rows in all are padded: they would take
    a path of other bits.
    """
    # Not split where there is one cohort: the gradient of a split is a copy.
    lanes = b.split(list(cohorts)) if len(cohorts) > 1 else [b]
    parts = [_one_below_the_other(each, those, low_precision) for each, those in zip(x, lanes, strict=True)]
    return torch.cat(parts) if len(parts) > 1 else parts[0]


def _one_below_the_other(x: Tensor, b: Tensor, low_precision: bool) -> Tensor:
    """b [P, l, k] × x [n, k] transposed, as [P, l, n]."""
    rows = b.flatten(0, 1)
    result = plain_product(aligned(rows), x.t(), low_precision=low_precision)
    return result[: len(rows)].unflatten(0, (len(b), -1))


def aligned(x: Tensor) -> Tensor:
    """x [l, k] with zeros to at least COLUMNS rows: fewer would take a path of other bits."""
    return functional.pad(x, (0, 0, 0, COLUMNS - len(x))) if len(x) < COLUMNS else x


def plain_product(a: Tensor, b: Tensor, *, low_precision: bool) -> Tensor:
    """Matrix product [n, k] × [k, l]; in bfloat16 with a float32 result where `low_precision`."""
    return mm(a.bfloat16(), b.bfloat16()).float() if low_precision else mm(a, b)


def padded_indices(rows: npt.NDArray[Any], device: torch.device) -> tuple[Tensor, Tensor]:
    """Row numbers repeated to a multiple of ROWS, and weights that sum to 1 over the given ones, both [n]."""
    lacking = up(len(rows)) - len(rows)
    weight = np.concatenate([np.full(len(rows), 1 / len(rows), dtype=np.float32), np.zeros(lacking, dtype=np.float32)])
    chosen = np.concatenate([rows, np.resize(rows, lacking)])
    return torch.from_numpy(chosen).to(device), torch.from_numpy(weight).to(device)
