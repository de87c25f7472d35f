"""A trained model as a graph of plain tensor operations, for ONNX: raw features and presence in, logits out.

One graph serves every combination: the private pairs of all are in it, and each row's presence picks its own by a
look-up. B of the adapters and what reads it are one matrix (adapters folded into the classifier) where encoders are
frozen. What model/predictor.py computes is computed here in one form for a row alone and for whole dialogues.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from mcutune.domain.combination import combination_index
from mcutune.domain.task import Task
from mcutune.model.encoder import UtteranceEncoder
from mcutune.model.frozen import FrozenNetwork
from mcutune.model.predictor import Predictor

PRESENCE, LOGITS, PROBABILITIES, VALUE = "presence", "logits", "probabilities", "value"
_LEAST = 2  # rows of a group that have the modality, as in data/normalise.py


class Graph(nn.Module):
    """The seeds of one model (S of them) side by side.

    Where rows are alone: features[m] [N, D_m], presence [N, M] (bool). Where the encoder attends over dialogues:
    [B, T, D_m] and [B, T, M]; a padded utterance is one with nothing present.
    """

    def __init__(self, predictors: Sequence[Predictor]) -> None:
        super().__init__()
        first = predictors[0]
        self.classified = first.task is Task.CLASSIFICATION
        self.by_group = first.normalisation.mode == "group"
        for name in first.modalities.names:
            self.register_buffer(f"mean_{name}", torch.from_numpy(first.normalisation.mean[name]))
            self.register_buffer(f"std_{name}", torch.from_numpy(first.normalisation.std[name]))
        self.names = first.modalities.names
        self.lanes = nn.ModuleList([_lane(predictor) for predictor in predictors])

    def forward(self, features: list[Tensor], presence: Tensor) -> tuple[Tensor, Tensor]:
        """Logits [S, .., K], and the mean over seeds of probabilities [.., K] or of values [..].

        A row with nothing present gives NaN: there is nothing to predict from.
        """
        ready = [
            self._normalised(name, x, presence[..., m])
            for m, (name, x) in enumerate(zip(self.names, features, strict=True))
        ]
        logits = torch.stack([lane(ready, presence) for lane in self.lanes])
        logits = torch.where(presence.any(-1)[..., None], logits, torch.nan)
        if self.classified:
            return logits, torch.softmax(logits, -1).mean(0)
        return logits, logits[..., 0].mean(0)

    def _normalised(self, name: str, x: Tensor, present: Tensor) -> Tensor:
        """x [.., D] as data/normalise.py gives it; zero where absent, whatever stood there."""
        here = present[..., None]
        x = torch.where(here, x, 0.0)
        mean, std = getattr(self, f"mean_{name}"), getattr(self, f"std_{name}")
        if self.by_group:
            mean, std = _statistics(x.flatten(0, -2).double(), here.flatten(0, -2), mean, std)
        return torch.where(here, (x - mean) / std, 0.0)


def _statistics(x: Tensor, present: Tensor, mean: Tensor, std: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and deviation [D] of the present rows of x [N, D], or those given where they are too few."""
    count = present.sum()
    own = x.sum(0) / count.clamp_min(1)
    spread = torch.where(present, (x - own) ** 2, 0.0).sum(0) / count.clamp_min(1)
    deviation = spread.sqrt().float()
    constant = (deviation <= 1e-7 * own.abs()) | (deviation == 0)
    enough = count >= _LEAST
    return torch.where(enough, own.float(), mean), torch.where(enough, torch.where(constant, 1.0, deviation), std)


def _lane(predictor: Predictor) -> nn.Module:
    return _Frozen(predictor) if isinstance(predictor.network, FrozenNetwork) else _Trained(predictor)


def _bits(presence: Tensor) -> Tensor:
    """The bit mask [..] of presence [.., M]: bit m is modality m."""
    weights = torch.tensor([1 << m for m in range(presence.shape[-1])])
    return (presence.to(torch.int64) * weights).sum(-1)


def _index_of_bits(count: int) -> Tensor:
    """Canonical index [2^M] of every bit mask; 0 for the empty one, whose logits are never read."""
    masks = torch.arange(2**count)
    present = (masks[:, None] >> torch.arange(count)) & 1 == 1
    return torch.from_numpy(combination_index(present.numpy()).clip(0))


class _Frozen(nn.Module):
    """A lane over frozen encoders."""

    own: Tensor
    common_bias: Tensor
    characteristic_bias: Tensor
    weight_out: Tensor
    weight_bias: Tensor

    def __init__(self, predictor: Predictor) -> None:
        super().__init__()
        network: Any = predictor.network
        self.encoders = nn.ModuleList(predictor.encoders)
        self.classes, self.lanes, self.modalities = network.classes, predictor.lanes, len(network.dims)
        one = {name: tensor[0] for name, tensor in predictor.params.items()}
        scale = float(predictor.lanes.scale[0])
        for m in range(self.modalities):
            down = one[f"adapter.{m}.A"]  # [1 + J, R, D]
            shared = scale * one["shared.B"][m] @ one["common.adapter"][m]  # [R, K]
            private = scale * one["private.B"][m] @ one["characteristic"][m]  # [J, R, K + hidden]
            self.register_buffer(f"down_{m}", down.flatten(0, 1).t().contiguous())  # [D, (1 + J) R]
            self.register_buffer(f"shared_{m}", shared)
            self.register_buffer(f"private_{m}", private.flatten(0, 1))
            self.register_buffer(f"encoder_{m}", one["common.encoder"][m].t().contiguous())
        self.rank = network.rank
        for name in ("common.bias", "characteristic.bias", "weight.out", "weight.bias"):
            self.register_buffer(name.replace(".", "_"), one[name])
        index = _index_of_bits(self.modalities)
        slots = torch.stack([pairs.slot[index] for pairs in network.pairs], 1)  # [2^M, M]
        own = slots[..., None] == torch.arange(1, 1 + network.private)
        self.register_buffer("own", own.float())  # [2^M, M, J]: the private pair that a bit mask picks

    def forward(self, inputs: list[Tensor], presence: Tensor) -> Tensor:
        picked = self.own[_bits(presence)]  # [.., M, J]
        common, both = self.common_bias, self.characteristic_bias
        for m, x in enumerate(inputs):
            here = presence[..., m, None]
            inner = x @ getattr(self, f"down_{m}")
            own, private = inner[..., : self.rank], inner[..., self.rank :].unflatten(-1, (-1, self.rank))
            encoded = _encoded(self.encoders[m], x, presence[..., m]) @ getattr(self, f"encoder_{m}")
            common = common + torch.where(here, encoded + own @ getattr(self, f"shared_{m}"), 0.0)
            # A row without the modality has zeros for x, so that its private pair gives zeros.
            both = both + (private * picked[..., m, :, None]).flatten(-2) @ getattr(self, f"private_{m}")
        hidden = torch.relu(both[..., self.classes :])
        weight = torch.sigmoid(hidden @ self.weight_out + self.weight_bias)
        fused: Tensor = self.lanes.fuse(common[None], both[None, ..., : self.classes], weight[None])[0]
        return fused


def _encoded(encoder: nn.Module, x: Tensor, present: Tensor) -> Tensor:
    return encoder(x) if isinstance(encoder, UtteranceEncoder) else encoder(x, present)


class _Rows:
    """The rows of dialogues [B, T] with one modality, as model/trained.py reads model/sequences.py; all are kept."""

    def __init__(self, present: Tensor) -> None:
        self.present = present

    def taken(self, values: Tensor) -> Tensor:
        return values

    def spread(self, x: Tensor) -> Tensor:
        return torch.where(self.present.flatten()[None, :, None], x, 0.0)

    def attend(self, qkv: Tensor, heads: int) -> Tensor:
        """[1, B·T, 3·W] → [1, B·T, W]; every utterance attends to those of its dialogue that have the modality."""
        batch, length = self.present.shape
        parts = qkv.view(batch, length, 3, heads, -1).permute(2, 0, 3, 1, 4)  # [3, B, heads, T, W / heads]
        # A dialogue without the modality would softmax over nothing; its outputs are never read.
        keys = self.present | ~self.present.any(1, keepdim=True)
        mixed = functional.scaled_dot_product_attention(parts[0], parts[1], parts[2], attn_mask=keys[:, None, None])
        return mixed.transpose(1, 2).reshape(1, batch * length, -1)


class _Trained(nn.Module):
    """A lane with everything trained together."""

    index: Tensor

    def __init__(self, predictor: Predictor) -> None:
        super().__init__()
        network: Any = predictor.network
        self.network, self.lanes, self.classes = network, predictor.lanes, network.classes
        self.tensors = {name: name.replace(".", "_") for name in predictor.params}
        for name, buffer in self.tensors.items():
            self.register_buffer(buffer, predictor.params[name])
        self.register_buffer("index", _index_of_bits(len(network.dims)))

    def forward(self, inputs: list[Tensor], presence: Tensor) -> Tensor:
        params = {name: getattr(self, buffer) for name, buffer in self.tensors.items()}
        rows: Any = [_Rows(presence[..., m]) for m in range(len(inputs))]
        drawn = self.index[_bits(presence)].flatten()[None]
        flat = [x.flatten(0, 1)[None] for x in inputs]
        keep: Any = _keep
        logits: Tensor = self.network.forward(params, flat, rows, drawn, self.lanes, keep).logits
        return logits[0].unflatten(0, presence.shape[:2])


def _keep(x: Tensor, rate: Tensor, site: str) -> Tensor:
    """Dropout of a model that is not trained any more."""
    return x
