"""What differs between the lanes of a pack, as tensors, and the fusion that depends on it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any

import torch
from torch import Tensor

FUSIONS = ("adaptive", "sum", "common", "characteristic")


@dataclass(frozen=True)
class Lanes:
    """Settings of P lanes: float tensors [P] but for `absolute` (bool) and `fusion` (index into FUSIONS)."""

    scale: Tensor
    beta: Tensor
    dropout: Tensor
    adapter_dropout: Tensor
    absolute: Tensor
    fusion: Tensor

    @classmethod
    def of(cls, configurations: Sequence[Any], device: torch.device) -> Lanes:
        def floats(name: str) -> Tensor:
            return torch.tensor([float(getattr(c, name)) for c in configurations], device=device)

        return cls(
            scale=floats("scale"),
            beta=floats("beta"),
            dropout=floats("dropout"),
            adapter_dropout=floats("adapter_dropout"),
            absolute=torch.tensor([c.orthogonality == "abs_cos" for c in configurations], device=device),
            fusion=torch.tensor([FUSIONS.index(c.fusion) for c in configurations], device=device),
        )

    def part(self, which: slice) -> Lanes:
        """The settings of some of the lanes."""
        return Lanes(**{f.name: getattr(self, f.name)[which] for f in fields(self)})

    def along(self, name: str, dimensions: int) -> Tensor:
        """The setting [P] shaped [P, 1, …] to broadcast over a tensor of that many dimensions."""
        value: Tensor = getattr(self, name)
        return value.view(-1, *(1,) * (dimensions - 1))

    def fuse(self, common: Tensor, characteristic: Tensor, weight: Tensor) -> Tensor:
        """y [P, .., K] from y_com and y_char [P, .., K] and w [P, .., 1] (equation E8, and its ablations)."""
        kind = self.along("fusion", weight.dim())
        one, zero = torch.ones_like(weight), torch.zeros_like(weight)
        of_common = torch.where(kind == 0, 1 - weight, torch.where(kind == 3, zero, one))
        of_characteristic = torch.where(kind == 0, weight, torch.where(kind == 2, zero, one))
        return of_common * common + of_characteristic * characteristic


@dataclass(frozen=True)
class Output:
    """What a training pass returns. logits [P, .., K]; cos2 [P, B, M] between shared and private; present [P, B, M]."""

    logits: Tensor
    cos2: Tensor
    present: Tensor


@dataclass(frozen=True)
class Pairs:
    """The adapters of one modality: slot 0 is the shared pair, slot j the private pair of the j-th combination with it.

    combinations: canonical indices of the combinations that contain the modality, ascending.
    slot [C]: slot of every combination's private pair, 0 where the combination lacks the modality.
    """

    combinations: Tensor
    slot: Tensor

    @property
    def count(self) -> int:
        """Private pairs."""
        return len(self.combinations)


def pairs_of(membership: Tensor) -> list[Pairs]:
    """The pairs of every modality, from membership [C, M] (bool)."""
    result = []
    for column in membership.T:
        inside = torch.nonzero(column)[:, 0]
        slot = torch.zeros(len(column), dtype=torch.long, device=column.device)
        slot[inside] = torch.arange(1, len(inside) + 1, device=column.device)
        result.append(Pairs(inside, slot))
    return result
