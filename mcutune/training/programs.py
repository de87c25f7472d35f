"""The two programs a pack can run, behind one interface: a closed table, chosen by `encoder:` in the configuration."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import groupby
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from mcutune.model.alignment import ROWS, padded_indices, padded_length, up
from mcutune.model.divergence import divergence
from mcutune.model.frozen import FrozenNetwork
from mcutune.model.lanes import Lanes, Output
from mcutune.model.layout import Layout
from mcutune.model.noise import Dropout, Key
from mcutune.model.trained import TrainedNetwork
from mcutune.training.config import Configuration
from mcutune.training.plan import Batch
from mcutune.training.resident import Resident

_LEAST_RANK = 2  # a product with one column takes another path in a pack of one lane (model/alignment.py)
Encoded = Callable[[int], list[Tensor]]


class Program(Protocol):
    """What a pack needs of an architecture."""

    layout: Layout
    member: Tensor

    def forward(self, params: dict[str, Tensor], batch: Batch, lanes: Lanes, keys: Sequence[Key]) -> Output:
        """A training pass over a batch; keys: what each lane's dropout noise depends on."""

    def validation_logits(self, params: dict[str, Tensor], lanes: Lanes, seeds: Sequence[int]) -> Tensor:
        """[P, C, n, K] of the validation rows under every combination."""

    def divergences(self, params: dict[str, Tensor], lanes: Lanes, name: str) -> Tensor:
        """[P, C]: divergence of private from shared representations on the probe, mean over modalities and rows."""


class FrozenProgram:
    """FrozenNetwork over a fold whose encoder outputs are resident, those of every seed side by side."""

    def __init__(self, shape: Configuration, resident: Resident, max_rank: int, encoded: Encoded) -> None:
        self.resident, self._encoded = resident, encoded
        self.network = FrozenNetwork(
            resident.dims, resident.outputs, shape.encoder_width, max(_LEAST_RANK, max_rank),
            low_precision=shape.precision == "bfloat16", device=resident.target.device,
        )  # fmt: skip
        self.layout, self.member = self.network.layout, self.network.member
        self._seeds: dict[int, int] = {}
        self._outputs = torch.zeros(0)  # [S·N, M, W]
        device = resident.target.device
        self._validation = torch.from_numpy(resident.validation).to(device)

    def _slots(self, seeds: Sequence[int]) -> Tensor:
        """First row [P] of each lane's encoder outputs in the stacked tensors [S·N, W]."""
        for seed in dict.fromkeys(seeds):
            if seed not in self._seeds:
                outputs = torch.stack(self._encoded(seed), 1)
                self._outputs = torch.cat([self._outputs, outputs]) if len(self._seeds) else outputs
                self._seeds[seed] = len(self._seeds) * len(self.resident.own)
        return torch.tensor([self._seeds[seed] for seed in seeds], device=self.resident.target.device)

    def forward(self, params: dict[str, Tensor], batch: Batch, lanes: Lanes, keys: Sequence[Key]) -> Output:
        first = [sum(batch.cohorts[:u]) for u in range(len(batch.cohorts))]
        rows = batch.rows[first]
        encoded = self._outputs_of([batch.seeds[p] for p in first], rows)
        drop = Dropout([keys[p] for p in first], rows.device)
        inputs = [x[rows] for x in self.resident.inputs]
        return self.network.forward(params, inputs, encoded, batch.drawn, lanes, drop, batch.cohorts)

    def _outputs_of(self, seeds: Sequence[int], rows: Tensor) -> Tensor:
        """R^m [U, M, n, W] of rows [U, n] (or [n]) by the encoders of U seeds."""
        starts = self._slots(seeds)
        return self._outputs[rows + starts[:, None]].transpose(1, 2)

    def validation_logits(self, params: dict[str, Tensor], lanes: Lanes, seeds: Sequence[int]) -> Tensor:
        cohorts = [len(list(same)) for _, same in groupby(seeds)]
        encoded = self._outputs_of([seed for seed, _ in groupby(seeds)], self._validation)
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
            each = [(divergence(name, shared, private[:, j]) * weight).sum(1) for j in range(pairs.count)]
            total.index_add_(1, pairs.combinations, torch.stack(each, 1))
        return total / self.member.sum(1)


class TrainedProgram:
    """TrainedNetwork over whole dialogues."""

    def __init__(self, shape: Configuration, resident: Resident, max_rank: int, encoded: Encoded) -> None:
        self.resident = resident
        self.network = TrainedNetwork(
            resident.dims, resident.outputs, shape.width, shape.depth, shape.heads, max(_LEAST_RANK, max_rank),
            low_precision=shape.precision == "bfloat16", device=resident.target.device,
        )  # fmt: skip
        self.layout, self.member = self.network.layout, self.network.member

    def forward(self, params: dict[str, Tensor], batch: Batch, lanes: Lanes, keys: Sequence[Key]) -> Output:
        inputs = [x[batch.rows].unflatten(1, (-1, batch.length)) for x in self.resident.inputs]
        there = batch.there.unflatten(1, (-1, batch.length))
        present = self.member[batch.drawn].unflatten(1, (-1, batch.length)) & there[..., None]
        drop = Dropout(keys, batch.rows.device)
        return self.network.forward(params, inputs, present, lanes, drop).flat()

    def _dialogues(self, rows: np.ndarray) -> tuple[Tensor, Tensor]:
        """Dialogues [G, T] that hold these rows (−1: padding), and each row's place in the flattened table [n]."""
        held = np.unique(self.resident.dialogue_of[rows])
        block = self.resident.dialogues[held]
        longer = padded_length(block.shape[1])
        missing = (up(len(block), max(1, ROWS // longer)) - len(block), longer - block.shape[1])
        block = np.pad(block, ((0, missing[0]), (0, missing[1])), constant_values=-1)
        place = np.full(len(self.resident.own), -1)
        place[block[block >= 0]] = np.flatnonzero(block.ravel() >= 0)
        device = self.member.device
        return torch.from_numpy(block).to(device), torch.from_numpy(place[rows]).to(device)

    @torch.no_grad()
    def validation_logits(self, params: dict[str, Tensor], lanes: Lanes, seeds: Sequence[int]) -> Tensor:
        block, place = self._dialogues(self.resident.validation)
        has = self.resident.presence[block.clamp_min(0)] & (block >= 0)[..., None]
        inputs = [x[block.clamp_min(0)] for x in self.resident.inputs]
        logits = self.network.all_combinations(params, inputs, has, lanes)  # [P, C, G·T, K]
        return logits[:, :, place]

    @torch.no_grad()
    def divergences(self, params: dict[str, Tensor], lanes: Lanes, name: str) -> Tensor:
        block, place = self._dialogues(self.resident.probe)
        has = self.resident.presence[block.clamp_min(0)] & (block >= 0)[..., None]
        inputs = [x[block.clamp_min(0)] for x in self.resident.inputs]
        return self.network.divergences(params, inputs, has, place, lanes, name)


PROGRAMS: dict[str, Callable[[Configuration, Resident, int, Encoded], Program]] = {
    "frozen": FrozenProgram,
    "trained": TrainedProgram,
}


def program_of(shape: Configuration, resident: Resident, max_rank: int, encoded: Encoded) -> Program:
    """The program of a shape over a fold."""
    return PROGRAMS[shape.encoder](shape, resident, max_rank, encoded)
