"""The two programs a pack can run, behind one interface: a closed table, chosen by `encoder:` in the configuration."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import groupby
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from mcutune.model.alignment import padded_indices
from mcutune.model.divergence import divergences
from mcutune.model.frozen import FrozenNetwork
from mcutune.model.lanes import Lanes, Output
from mcutune.model.layout import Layout
from mcutune.model.noise import Dropout, Key, Noise
from mcutune.model.sequences import Sequences, of_rows, sequences
from mcutune.model.trained import TrainedNetwork
from mcutune.training.config import Configuration
from mcutune.training.plan import Batch
from mcutune.training.resident import Resident

_LEAST_RANK = 2  # a product with one column takes another path in a pack of one lane (model/alignment.py)
_DIALOGUES_AT_ONCE = 4


class Outputs:
    """Encoder outputs of all seeds asked for so far, side by side: kept once for all programs of a pack."""

    def __init__(self, encoded: Callable[[int], list[Tensor]]) -> None:
        """encoded: R^m [N, W] of every modality, for a seed."""
        self._encoded = encoded
        self._first: dict[int, int] = {}
        self._stacked = torch.zeros(0)  # [S·N, M, W]

    def of(self, seeds: Sequence[int], rows: Tensor) -> Tensor:
        """R^m [U, M, n, W] of rows [U, n] (or [n]) by the encoders of U seeds."""
        for seed in seeds:
            if seed not in self._first:
                outputs = torch.stack(self._encoded(seed), 1)
                self._first[seed] = len(self._first) * len(outputs)
                self._stacked = torch.cat([self._stacked, outputs]) if len(self._first) > 1 else outputs
        first = torch.tensor([self._first[seed] for seed in seeds], device=rows.device)
        return self._stacked[rows + first[:, None]].transpose(1, 2)


class Program(Protocol):
    """What a pack needs of an architecture."""

    layout: Layout
    member: Tensor
    lanes_at_once: int | None  # that go through `forward` together; None for all

    def forward(self, params: dict[str, Tensor], batch: Batch, lanes: Lanes, keys: Sequence[Key]) -> Output:
        """A training pass over a batch; keys: what each lane's dropout noise depends on."""

    def validation_logits(self, params: dict[str, Tensor], lanes: Lanes, seeds: Sequence[int]) -> Tensor:
        """[P, C, n, K] of the validation rows under every combination."""

    def divergences(self, params: dict[str, Tensor], lanes: Lanes, name: str) -> Tensor:
        """[P, C]: divergence of private from shared representations on the probe, mean over modalities and rows."""


class FrozenProgram:
    """FrozenNetwork over a fold whose encoder outputs are resident, those of every seed side by side."""

    def __init__(self, shape: Configuration, resident: Resident, rank: int, outputs: Outputs) -> None:
        self.resident, self._outputs = resident, outputs
        self.network = FrozenNetwork(
            resident.dims, resident.outputs, shape.encoder_width, max(_LEAST_RANK, rank),
            low_precision=shape.precision == "bfloat16", device=resident.target.device,
        )  # fmt: skip
        self.layout, self.member = self.network.layout, self.network.member
        self.lanes_at_once: int | None = None
        device = resident.target.device
        self._validation = torch.from_numpy(resident.validation).to(device)

    def forward(self, params: dict[str, Tensor], batch: Batch, lanes: Lanes, keys: Sequence[Key]) -> Output:
        first = [sum(batch.cohorts[:u]) for u in range(len(batch.cohorts))]
        rows = batch.rows[first]
        encoded = self._outputs.of([batch.seeds[p] for p in first], rows)
        drop = Dropout([keys[p] for p in first], rows.device)
        inputs = [x[rows] for x in self.resident.inputs]
        return self.network.forward(params, inputs, encoded, batch.combination, lanes, drop, batch.cohorts)

    def validation_logits(self, params: dict[str, Tensor], lanes: Lanes, seeds: Sequence[int]) -> Tensor:
        cohorts = [len(list(same)) for _, same in groupby(seeds)]
        encoded = self._outputs.of([seed for seed, _ in groupby(seeds)], self._validation)
        inputs = [x[self._validation] for x in self.resident.inputs]
        return self.network.all_combinations(params, inputs, encoded, lanes, cohorts)

    @torch.no_grad()
    def divergences(self, params: dict[str, Tensor], lanes: Lanes, name: str) -> Tensor:
        total = torch.zeros(len(lanes.scale), len(self.member), device=self.member.device)
        for m, pairs in enumerate(self.network.pairs):
            here = self.resident.data.presence[self.resident.probe, m]
            probe = self.resident.probe[here] if here.any() else self.resident.probe
            rows, weight = padded_indices(probe, self.member.device)
            shared, private = self.network.representations(params, m, self.resident.inputs[m][rows], lanes)
            each = (divergences(name, shared, private) * weight).sum(2)
            total.index_add_(1, pairs.combinations, each)
        return total / self.member.sum(1)


class TrainedProgram:
    """TrainedNetwork over whole dialogues."""

    def __init__(self, shape: Configuration, resident: Resident, rank: int, outputs: Outputs) -> None:
        self.resident = resident
        device = resident.target.device
        self.network = TrainedNetwork(
            resident.dims, resident.outputs, shape.width, shape.depth, shape.heads, max(_LEAST_RANK, rank),
            low_precision=shape.precision == "bfloat16", device=device,
        )  # fmt: skip
        self.layout, self.member = self.network.layout, self.network.member
        self._noise = Noise()
        # Its products are wide enough to fill a CPU alone. There, one lane after the other needs no padding to the
        # longest neighbour, which would cost time and change the bits of sums over rows.
        self.lanes_at_once: int | None = 1 if device.type == "cpu" else None

    def forward(self, params: dict[str, Tensor], batch: Batch, lanes: Lanes, keys: Sequence[Key]) -> Output:
        device = batch.rows.device
        rows = [sequences(batch.present[..., m], batch.dialogue, device) for m in range(len(self.resident.inputs))]
        inputs = [x[r.taken(batch.rows)] for r, x in zip(rows, self.resident.inputs, strict=True)]
        drop = Dropout(keys, device, self._noise)
        return self.network.forward(params, inputs, rows, batch.drawn, lanes, drop)

    def _dialogues(self, wanted: np.ndarray) -> np.ndarray:
        """The dialogues that hold the wanted rows, [G, T] as Resident has them."""
        return self.resident.dialogues[np.unique(self.resident.dialogue_of[wanted])]

    def _inputs(self, dialogues: np.ndarray) -> tuple[np.ndarray, list[Tensor], list[Sequences]]:
        """All rows [B] of dialogues, in order; inputs and lists of each modality."""
        rows = dialogues[dialogues >= 0]
        return rows, *of_rows(self.resident.inputs, rows, self.resident.data.presence, self.resident.dialogue_of)

    @torch.no_grad()
    def validation_logits(self, params: dict[str, Tensor], lanes: Lanes, seeds: Sequence[int]) -> Tensor:
        dialogues = self._dialogues(self.resident.validation)
        # A CPU's caches hold what some dialogues make, and not what all do; a GPU is filled by all.
        size = _DIALOGUES_AT_ONCE if self.member.device.type == "cpu" else len(dialogues)
        order, found = [], []
        for first in range(0, len(dialogues), size):
            rows, inputs, lists = self._inputs(dialogues[first : first + size])
            found.append(self.network.all_combinations(params, inputs, lists, lanes))  # [P, C, B, K]
            order.append(rows)
        place = np.full(len(self.resident.own), -1)
        place[np.concatenate(order)] = np.arange(sum(map(len, order)))
        return torch.cat(found, 2)[:, :, torch.from_numpy(place[self.resident.validation]).to(self.member.device)]

    @torch.no_grad()
    def divergences(self, params: dict[str, Tensor], lanes: Lanes, name: str) -> Tensor:
        rows, inputs, lists = self._inputs(self._dialogues(self.resident.probe))
        wanted = torch.from_numpy(np.isin(rows, self.resident.probe)).to(self.member.device)
        return self.network.divergences(params, inputs, lists, wanted, lanes, name)


PROGRAMS: dict[str, Callable[[Configuration, Resident, int, Outputs], Program]] = {
    "frozen": FrozenProgram,
    "trained": TrainedProgram,
}


def program_of(shape: Configuration, resident: Resident, rank: int, outputs: Outputs) -> Program:
    """The program of a shape over a fold, for lanes padded to this rank."""
    return PROGRAMS[shape.encoder](shape, resident, rank, outputs)
