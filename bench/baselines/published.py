"""The published form: MCULoRA as its authors run it, written by us from published facts, to be measured against.

Structure of April 2025: three modalities; a projection each; `depth` blocks of self-attention over the dialogue and an
MLP of ratio 1; a fusion layer and a head. Projections, MLPs, fusion and head carry a shared adapter and one for each of
eight private paths, the seven combinations and "nothing": shared W x + B A drop(x), private W x + B^i A^i x^i, with x^i
what the layer before gave on that path. Private paths go past the attention. Every forward computes all eight; the head
reads one, the same for the whole batch. A training batch keeps each modality with probability 1/2; an epoch ends with
seven evaluation passes. The number of parameters that was logged follows from this to the last one: attention has
biases, no output projection and no norm before it; three heads and two weight layers exist that no output reads.

Ours differs in one place that cannot coincide: a LayerNorm before attention and MLP. `norm` puts it in, for the test
alone: then `out` equals our TrainedNetwork with `fusion: sum`. What only training has (dropout's numbers, one
combination a batch, L_ort) is not tested. Where a fact is missing the cheaper reading is taken (dropout after the
fusion layer alone, torch's own attention kernel), so as not to beat a straw man.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import cast

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

PATHS = ((1, 1, 1), (1, 1, 0), (1, 0, 1), (0, 1, 1), (1, 0, 0), (0, 1, 0), (0, 0, 1), (0, 0, 0))
"""Which modalities each private path stands for, in the authors' order."""

COMBINATIONS = PATHS[:-1]
RANK, MLP_RANK = 4, 8
HIDDEN, DEPTH, HEADS = 256, 4, 2
DROPOUT, ADAPTER_DROPOUT = 0.5, 0.1
BATCH = 16  # dialogues
LEARNING_RATE, WEIGHT_DECAY = 1e-4, 1e-5
KEEP = 0.5  # probability of a modality in a training batch

Norm = Callable[[int], nn.Module]


def no_norm(width: int) -> nn.Module:
    """What the published blocks have for a norm."""
    return nn.Identity()


class AdaptedLinear(nn.Module):
    """A linear layer with adapters: slot 0 is the shared one, slot 1 + i that of private path i.

    A starts as torch's linear layers do, B at zero.
    """

    def __init__(self, inputs: int, outputs: int, rank: int) -> None:
        super().__init__()
        slots = 1 + len(PATHS)
        self.base = nn.Linear(inputs, outputs)
        self.down = nn.ModuleList(nn.Linear(inputs, rank, bias=False) for _ in range(slots))
        self.up = nn.ModuleList(nn.Linear(rank, outputs, bias=False) for _ in range(slots))
        self.drop = nn.Dropout(ADAPTER_DROPOUT)
        for up in self.up:
            assert isinstance(up, nn.Linear)
            nn.init.zeros_(up.weight)

    def forward(self, paths: Sequence[Tensor], slots: Iterable[int] = range(1 + len(PATHS))) -> list[Tensor]:
        """The outputs [.., outputs] of some slots, the shared one first, from their inputs [.., inputs]."""
        base = self.base(paths[0])
        found = []
        for slot, x in zip(slots, paths, strict=True):
            inner = self.down[slot](x if slot else self.drop(x))
            found.append(base + self.up[slot](inner))
        return found


class Block(nn.Module):
    """Self-attention over the dialogue and an MLP, each with a residual; private paths pass the MLP alone."""

    def __init__(self, norm: Norm) -> None:
        super().__init__()
        self.before_attention, self.before_mlp = norm(HIDDEN), norm(HIDDEN)
        self.attention = nn.Linear(HIDDEN, 3 * HIDDEN)
        self.up = AdaptedLinear(HIDDEN, HIDDEN, MLP_RANK)
        self.down = AdaptedLinear(HIDDEN, HIDDEN, MLP_RANK)

    def forward(self, paths: list[Tensor], keys: Tensor) -> list[Tensor]:
        """The paths [B, T, hidden], the shared one first; keys [B, T]: what can be attended to."""
        paths = [self._attend(paths[0], keys), *paths[1:]]
        inner = self.up([self.before_mlp(x) for x in paths])
        outer = self.down([functional.gelu(x) for x in inner])
        return [x + y for x, y in zip(paths, outer, strict=True)]

    def _attend(self, x: Tensor, keys: Tensor) -> Tensor:
        """A dialogue without any key gives zeros."""
        q, k, v = self.attention(self.before_attention(x)).unflatten(-1, (3, HEADS, -1)).permute(2, 0, 3, 1, 4)
        mixed = functional.scaled_dot_product_attention(q, k, v, attn_mask=keys[:, None, None])
        return x + mixed.nan_to_num().transpose(1, 2).flatten(2)


class Published(nn.Module):
    """The model. dims: D of audio, text, video; outputs: classes, or 1 for a value."""

    def __init__(self, dims: tuple[int, ...], outputs: int, *, depth: int = DEPTH, norm: Norm = no_norm) -> None:
        super().__init__()
        fused = len(dims) * HIDDEN
        self.enter = nn.ModuleList(AdaptedLinear(dim, HIDDEN, RANK) for dim in dims)
        self.blocks = nn.ModuleList(nn.ModuleList(Block(norm) for _ in range(depth)) for _ in dims)
        self.fusion = AdaptedLinear(fused, fused, RANK)
        self.head = AdaptedLinear(fused, outputs, RANK)
        self.drop = nn.Dropout(DROPOUT)
        self.unread_heads = nn.ModuleList(nn.Linear(HIDDEN, outputs) for _ in dims)
        self.unread_weights = nn.ModuleList(nn.Linear(fused, 1) for _ in range(2))

    def forward(self, inputs: list[Tensor], present: Tensor, path: int) -> Tensor:
        """Logits [B, T, K] of inputs[m] [B, T, D_m]; present [B, T, 3]; path: the private path that the head reads."""
        encoded = [self._encode(m, x, present[..., m]) for m, x in enumerate(inputs)]
        joined = [torch.cat(parts, -1) for parts in zip(*encoded, strict=True)]
        fused = self.fusion(joined)
        slots = (0, 1 + path)
        hidden = [self.drop(functional.relu(fused[slot])) + joined[slot] for slot in slots]
        shared, private = self.head(hidden, slots)
        logits: Tensor = shared + private
        return logits

    def _encode(self, m: int, x: Tensor, here: Tensor) -> list[Tensor]:
        """The shared and the eight private representations [B, T, hidden] of a modality, zero where it is absent."""
        gate = here[..., None].to(x.dtype)
        paths: list[Tensor] = self.enter[m]([x * gate] * (1 + len(PATHS)))
        for block in cast(nn.ModuleList, self.blocks[m]):
            paths = block(paths, here)
        return [path * gate for path in paths]


@dataclass(frozen=True, eq=False)
class Dialogues:
    """Rows as dialogues. features[m] [N, D_m]; target [N] int64; members: row numbers of each dialogue in order."""

    features: list[Tensor]
    target: Tensor
    members: list[np.ndarray]

    def batches(self, order: np.ndarray) -> Iterator[tuple[list[Tensor], Tensor, Tensor]]:
        """inputs, target and `there` of BATCH dialogues at a time, [B, T, ..], padded to the longest of the batch."""
        for begin in range(0, len(order), BATCH):
            chosen = [torch.from_numpy(self.members[d]) for d in order[begin : begin + BATCH]]
            rows = nn.utils.rnn.pad_sequence(chosen, batch_first=True, padding_value=-1)
            there, rows = rows >= 0, rows.clamp_min(0)
            yield [x[rows] for x in self.features], self.target[rows], there


def optimizer_of(model: Published) -> torch.optim.Adam:
    """Adam with the published settings."""
    return torch.optim.Adam(model.parameters(), lr=LEARNING_RATE, weight_decay=WEIGHT_DECAY)


def train_epoch(model: Published, optimizer: torch.optim.Adam, data: Dialogues, random: np.random.Generator) -> None:
    """An epoch: every batch under the combination drawn for it."""
    model.train()
    for inputs, target, there in data.batches(random.permutation(len(data.members))):
        kept = tuple(int(one) for one in random.random(3) < KEEP)
        present = there[..., None] & torch.tensor(kept, dtype=torch.bool)
        logits = model(inputs, present, PATHS.index(kept))
        optimizer.zero_grad()
        functional.cross_entropy(logits[there], target[there]).backward()
        optimizer.step()


@torch.no_grad()
def evaluate(model: Published, data: Dialogues) -> list[float]:
    """Accuracy under each of the seven combinations, a pass each."""
    model.eval()
    found = []
    for path, kept in enumerate(COMBINATIONS):
        right = 0
        for inputs, target, there in data.batches(np.arange(len(data.members))):
            present = there[..., None] & torch.tensor(kept, dtype=torch.bool)
            predicted = model(inputs, present, path).argmax(-1)
            right += int((predicted == target)[there].sum())
        found.append(right / sum(map(len, data.members)))
    return found
